import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from models.base import Assets, Mismatch
from models.clip.towers import CLIP
from models.diffusion_ret.model import DRAWS, build, candidates
from models.diffusion_ret.options import Options
from tests.models.diffusion_ret.small_diffusion import batch, small_diffusion
from tests.models.drl.small_drl import SIZES

AGGREGATIONS = ["none", "seqLSTM", "seqTransf"]


def encoded(model, data):
    with torch.inference_mode():
        return model.encode_text(data), model.encode_video(data)


def scores(model, data):
    return model.score(*encoded(model, data))["similarity"]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("stage", ["discrimination", "generation"])
def test_every_parameter_has_a_part_in_the_loss(stage: str, aggregation: str) -> None:
    model = small_diffusion(stage, aggregation=aggregation).train()

    losses = model(batch())
    losses["loss"].backward()

    assert torch.isfinite(losses["loss"])
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, p in trained if p.grad is None] == []


def test_the_loss_is_the_sum_of_its_terms() -> None:
    terms = small_diffusion().train()(batch())

    expected = (terms["t2v"] + terms["v2t"]) / 2 + terms["denoise_t2v"] + terms["denoise_v2t"]

    torch.testing.assert_close(terms["loss"], expected)


def test_both_stages_compare_alike() -> None:
    model = small_diffusion("generation")
    state = {
        name: value for name, value in model.state_dict().items() if not name.startswith("denoise_")
    }
    first = build(
        model.options.model_copy(update={"stage": "discrimination"}), Assets(init=state)
    ).eval()

    torch.testing.assert_close(scores(first, batch()), scores(model, batch()), atol=1e-6, rtol=0)


def test_what_lies_behind_the_real_words_and_frames_does_not_matter() -> None:
    model, data = small_diffusion(), batch()
    other = {k: v.clone() for k, v in data.items()}
    other["text"][~data["text_mask"]] = 7
    other["frames"][~data["video_mask"]] = 0

    for ours, theirs in zip(encoded(model, data), encoded(model, other), strict=True):
        for name in ours.keys() - {"tokens"}:
            torch.testing.assert_close(theirs[name], ours[name], atol=1e-6, rtol=0)


def test_padded_frames_are_those_of_an_empty_picture() -> None:
    model, data = small_diffusion(), batch()
    raw = model.clip.visual.pixels(data["frames"].flatten(0, 1)).unflatten(
        0, data["video_mask"].shape
    )
    frames = raw * data["video_mask"][..., None, None, None]

    with torch.inference_mode():
        found = model.encode_video(data)["features"]
        every = model.clip.visual(frames.flatten(0, 1)).unflatten(0, data["video_mask"].shape)
        expected = model.temporal(every, data["video_mask"])

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_candidates_are_the_own_video_and_then_the_most_similar_others() -> None:
    similarity = torch.tensor(
        [[0.1, 0.9, 0.5, 0.8], [0.3, 0.2, 0.1, 0.4], [0.0, 0.1, 0.2, 0.3], [0.4, 0.3, 0.2, 0.1]]
    )

    found = candidates(similarity, torch.tensor([7, 8, 9, 7]), 0, 2)

    assert found.tolist() == [
        [0, 1, 2],
        [1, 3, 0],
        [2, 3, 1],
        [3, 1, 2],
    ]  # rows 0 and 3 are of one video


def test_without_others_the_own_video_is_taken_as_negative() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.4], [0.0, 0.1, 0.2]])

    found = candidates(similarity, torch.tensor([7, 7, 9]), 0, 2)

    assert found.tolist() == [[0, 2, 0], [1, 2, 0], [2, 1, 0]]


@pytest.mark.parametrize("clean_negative", [0, -1])
def test_denoising_losses_are_those_of_plain_loops(clean_negative: int) -> None:
    model, data = (
        small_diffusion(clean_negative=clean_negative, negatives=2, logit_factor=7.0),
        batch(),
    )
    text, video = encoded(model, data)
    similarity = model.score(text, video)["similarity"]
    draws = model.draw(4, torch.device("cpu"))

    with torch.inference_mode():
        found = model.denoise(text, video, similarity, data | draws, slice(0, 4))
        total = 0.0
        for i in range(4):
            order = [i, *sorted(set(range(4)) - {i}, key=lambda j: -float(similarity[i, j]))[:2]]
            t, noise = draws["diffusion_t"][i : i + 1], draws["noise_t2v"][i : i + 1]
            clean = torch.tensor([[1.0, clean_negative, clean_negative]])
            x = model.diffusion.add_noise(clean, t, noise)
            frames, real = video["features"][order][None], video["real"][order][None]
            guess = model.denoise_t2v.text_to_video(x, t, text["sentence"][i : i + 1], frames, real)
            total += F.cross_entropy(7.0 * guess, torch.zeros(1, dtype=torch.int64)) / 4

    torch.testing.assert_close(found["denoise_t2v"], total, atol=1e-4, rtol=1e-4)


def test_a_query_of_a_video_sees_itself_through_every_text() -> None:
    model, data = small_diffusion(negatives=2), batch()
    text, video = encoded(model, data)
    similarity = model.score(text, video)["similarity"]
    draws = model.draw(4, torch.device("cpu"))
    chosen = candidates(similarity.T, data["video_index"], 0, 2)

    with torch.inference_mode():
        found = model.denoise(text, video, similarity, data | draws, slice(0, 4))["denoise_v2t"]
        x = model.diffusion.add_noise(
            model.clean_answer(chosen), draws["diffusion_t"], draws["noise_v2t"]
        )
        sentences = text["sentence"][chosen]
        guess = model.denoise_v2t.video_to_text(
            x, draws["diffusion_t"], sentences, video["features"], video["real"]
        )

    torch.testing.assert_close(
        found, F.cross_entropy(100 * guess, torch.zeros(4, dtype=torch.int64)), atol=1e-4, rtol=1e-4
    )


def test_what_a_step_draws_comes_with_the_seed() -> None:
    model = small_diffusion().train()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(batch(6))["denoise_t2v"].item())

    assert found[0] == found[1] != found[2]


def test_a_batch_may_bring_its_draws() -> None:
    model = small_diffusion().train()
    draws = model.draw(6, torch.device("cpu"))

    first, again = (model(batch(6) | draws)["loss"] for _ in range(2))

    assert set(draws) == set(DRAWS)
    assert torch.equal(first, again)


def test_a_batch_smaller_than_the_negatives_is_refused_with_both_numbers() -> None:
    with pytest.raises(Mismatch, match="3 pairs for 3 negatives") as error:
        small_diffusion().train()(batch(3))
    assert "negatives to 2 or less" in error.value.fix and "batches of 4" in error.value.fix


def test_a_second_stage_without_a_first_is_refused() -> None:
    with pytest.raises(Mismatch, match="without a trained first stage") as error:
        build(Options(backbone="given"), Assets(clip=CLIP(SIZES).state_dict()))
    assert "init:" in error.value.fix


def test_a_second_stage_takes_all_of_the_first_and_adds_only_denoisers() -> None:
    first = small_diffusion("discrimination")
    options = first.options.model_copy(update={"stage": "generation"})

    second = build(options, Assets(init=first.state_dict(), is_start=True)).state_dict()

    assert all(torch.equal(second[name], value) for name, value in first.state_dict().items())
    assert {name.partition(".")[0] for name in second.keys() - first.state_dict()} == {
        "denoise_t2v",
        "denoise_v2t",
    }


def test_a_first_stage_that_lacks_anything_else_is_refused_by_name() -> None:
    first = small_diffusion("discrimination")
    state = {
        name: value for name, value in first.state_dict().items() if name != "word_weight.0.bias"
    }

    with pytest.raises(Mismatch, match=r"missing: word_weight\.0\.bias") as error:
        build(
            first.options.model_copy(update={"stage": "generation"}),
            Assets(init=state, is_start=True),
        )
    assert "denoise_" not in error.value.what


def test_half_a_denoiser_is_refused_also_at_a_start() -> None:
    second = small_diffusion()
    state = {
        name: value
        for name, value in second.state_dict().items()
        if name != "denoise_v2t.proj.bias"
    }

    with pytest.raises(Mismatch, match=r"missing: denoise_v2t\.proj\.bias"):
        build(second.options, Assets(init=state, is_start=True))


def test_a_finished_second_stage_must_have_its_denoisers() -> None:
    first = small_diffusion("discrimination")

    with pytest.raises(Mismatch, match=r"missing: denoise_t2v\."):
        build(
            first.options.model_copy(update={"stage": "generation"}),
            Assets(init=first.state_dict()),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear", "diffusion_steps": 20}, "at least 21"),
        ({"sampling_steps": 51}, "the schedule has 50 diffusion_steps"),
        ({"diffusion_steps": 0}, "greater than or equal to 1"),
        ({"clean_negative": 1}, "0 or -1"),
        ({"negatives": 0}, "greater than or equal to 1"),
        ({"interaction": "xti"}, "wti"),
        ({"stage": "both"}, "'discrimination' or 'generation'"),
        ({"backbone": "RN50"}, "ViT-B/32"),
        ({"words": 78}, "reads at most 77"),
    ],
)
def test_options_out_of_range_say_what_is_in_it(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Options.model_validate(options)


def test_explain_adds_up_to_the_score() -> None:
    model, data = small_diffusion(), batch()
    text, video = encoded(model, data)

    match = model.explain(text, video)

    assert (match.t2v + match.v2t) / 2 == pytest.approx(
        float(model.score(text, video)["similarity"][0, 0]), abs=1e-6
    )


def test_half_weights_score_nearly_the_same() -> None:
    full, half = small_diffusion(), small_diffusion(half_weights=True)

    assert half.clip.visual.conv1.weight.dtype == torch.float16
    assert half.denoise_t2v.q_proj.weight.dtype == half.word_weight[0].weight.dtype == torch.float32
    torch.testing.assert_close(scores(half, batch()), scores(full, batch()), atol=2e-2, rtol=0)
