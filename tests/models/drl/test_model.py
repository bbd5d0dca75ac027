import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from models.base import Assets, Mismatch
from models.clip.sizes import BACKBONES
from models.clip.towers import CLIP, half_parameters
from models.drl.model import build
from models.drl.options import Options
from pipeline.explain.word_match import WordMatch
from tests.models.drl.small_drl import FRAMES, SIZES, WORDS, batch, small_drl

INTERACTIONS = [
    {"interaction": "dp"},
    {"interaction": "ti"},
    {"interaction": "xti", "cross_layers": 1},
]
INTERACTIONS += [{"interaction": "wti", "wti_arch": arch} for arch in (1, 2, 3)]
AGGREGATIONS = ["none", "seqLSTM", "seqTransf"]


def encoded(model, data):
    with torch.inference_mode():
        return model.encode_text(data), model.encode_video(data)


def scores(model, data):
    with torch.inference_mode():
        return model.score(*encoded(model, data))["similarity"]


@pytest.mark.parametrize("options", INTERACTIONS, ids=str)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_interaction_trains_every_parameter(options: dict, aggregation: str) -> None:
    model = small_drl(aggregation=aggregation, **options).train()

    losses = model(batch())
    losses["loss"].backward()

    assert torch.isfinite(losses["loss"])
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    unused = [name for name, p in trained if p.grad is None]
    assert unused == []


def test_texts_may_come_without_their_padding() -> None:
    model, data = small_drl(), batch(n=1)
    length = int(data["text_mask"].sum())

    short = model.encode_text({k: v[:, :length] for k, v in data.items() if k.startswith("text")})

    for name, value in model.encode_text(data).items():
        torch.testing.assert_close(short[name][:, :length], value[:, :length], atol=1e-6, rtol=0)
        assert short[name].shape == value.shape


@pytest.mark.parametrize("cdcr", [2, 3])
def test_sharing_one_encoding_of_padding_gives_the_loss_of_encoding_all_of_it(cdcr: int) -> None:
    model, data = small_drl(cdcr=cdcr, cdcr_lambda=0.1).train(), batch(6)
    raw = model.clip.visual.pixels(data["frames"].flatten(0, 1)).unflatten(
        0, data["video_mask"].shape
    )
    padded = raw * data["video_mask"][..., None, None, None]
    features = model.clip.visual(padded.flatten(0, 1)).unflatten(0, data["video_mask"].shape)
    video = {"features": model.temporal(features, data["video_mask"]), "real": data["video_mask"]}
    text = {"features": model.clip.encode_words(data["text"]), "real": data["text_mask"]}

    expected = model.loss(model.text_encoding(text), model.video_encoding(video), {})

    for name, value in model(data).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)


def test_the_draws_of_cdcr_1_come_with_the_seed() -> None:
    model = small_drl(cdcr=1, cdcr_lambda=1.0).train()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(batch(6))["cdcr"].item())

    assert found[0] == found[1] != found[2]


def test_float16_weights_move_where_float32_ones_stay() -> None:
    # docs/specs/drl.md, section 9: gradients of about 1e-4, rate 1e-7: the second moment is 0 in
    # float16, the step m / 1e-6
    from pipeline.training.optimizer import BertAdam

    random = torch.Generator().manual_seed(0)
    gradient = 1e-4 * torch.randn(64, 64, generator=random)
    moved = {}
    for dtype in (torch.float16, torch.float32):
        weight = torch.nn.Parameter((0.02 * torch.randn(64, 64, generator=random)).to(dtype))
        before, optimizer = weight.detach().clone(), BertAdam([weight], lr=1e-7)
        for _ in range(100):
            weight.grad = gradient.to(dtype)
            optimizer.step()
        moved[dtype] = float((weight.detach() - before).float().square().mean().sqrt())

    assert moved[torch.float16] > 20 * moved[torch.float32]


def test_half_weights_are_stored_in_float16_and_score_nearly_the_same() -> None:
    full, half = small_drl(), small_drl(half_weights=True)

    assert {p.dtype for p in half_parameters(half.clip)} == {torch.float16}
    assert half.clip.ln_final.weight.dtype == half.word_weight[0].weight.dtype == torch.float32
    torch.testing.assert_close(scores(half, batch()), scores(full, batch()), atol=2e-2, rtol=0)
    half.train()(batch())["loss"].backward()
    assert half.clip.visual.conv1.weight.grad.dtype == torch.float16


def test_explain_adds_up_to_the_score() -> None:
    model, data = small_drl(), batch()
    text, video = encoded(model, data)

    match = model.explain(text, video)

    assert match.similarity.shape == (
        int(data["text_mask"][0].sum()),
        int(data["video_mask"][0].sum()),
    )
    assert (
        float(match.word_weight.sum())
        == pytest.approx(1)
        == pytest.approx(float(match.frame_weight.sum()))
    )
    assert (match.t2v + match.v2t) / 2 == pytest.approx(
        float(model.score(text, video)["similarity"][0, 0]), abs=1e-6
    )


def test_padding_that_is_left_out_wins_nothing_and_else_is_no_match() -> None:
    data = batch(2)  # one real frame in the first video
    found = {}
    for padding in ("zero", "left_out"):
        model = small_drl(padding=padding)
        text, video = encoded(model, data)
        video = {name: value.clone() for name, value in video.items()}
        video["tokens"][0, 0] = -text["tokens"][0, 0]  # unlike the first word

        match = model.explain(text, video)

        arrays = {name: value.numpy() for name, value in vars(match).items()}
        words = [str(n) for n in range(len(match.word_weight))]
        row = WordMatch(words, **arrays).rows()["words"][0]
        found[padding] = (row["similarity"], row["frame"])
        score = model.score(text, video)["similarity"][0, 0]
        assert score.item() == pytest.approx((match.t2v + match.v2t) / 2, abs=1e-6)

    assert found == {"zero": (0.0, None), "left_out": (-1.0, 0)}


def test_a_model_that_compares_no_words_explains_nothing() -> None:
    model = small_drl(interaction="dp")

    with pytest.raises(Mismatch, match="nothing to show"):
        model.explain(*encoded(model, batch()))


@pytest.mark.parametrize(("side", "unit"), [("text", "word"), ("video", "frame")])
def test_an_item_of_padding_only_is_refused_by_its_row(side: str, unit: str) -> None:
    data = batch()
    data[f"{side}_mask"][2] = False

    with pytest.raises(Mismatch, match=f"{side} 2 of the batch is all padding") as error:
        small_drl()(data)
    assert unit in error.value.fix


def test_more_words_than_the_model_reads_are_refused() -> None:
    with pytest.raises(Mismatch, match="8 words, the model reads 6"):
        small_drl(words=6)(batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interaction": "mlp"}, "dp"),
        ({"wti_arch": 4}, "1, 2 or 3"),
        ({"cdcr": 3, "interaction": "ti"}, "use cdcr 2"),
        ({"backbone": "ViT-B/64"}, "ViT-B/32"),
        ({"words": 78}, "reads at most 77"),
    ],
)
def test_options_out_of_range_say_what_is_in_it(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Options.model_validate(options)


def test_weights_of_another_architecture_are_refused_by_name() -> None:
    wti2, wti3 = (small_drl(wti_arch=arch) for arch in (2, 3))

    with pytest.raises(Mismatch, match=r"missing: word_weight\.4\.weight"):
        build(wti3.options, Assets(init=wti2.state_dict()))


def test_weights_of_another_backbone_are_refused_with_what_differs() -> None:
    with pytest.raises(Mismatch, match="patch 8, not 32"):
        build(Options(), Assets(init=small_drl().state_dict()))


@pytest.mark.parametrize(
    "options", [{"frames": 21}, {"frames": 20, "interaction": "xti"}, {"words": 21}]
)
def test_more_positions_than_the_backbone_has_are_refused(options: dict) -> None:
    with pytest.raises(Mismatch, match="20 positions"):
        small_drl(**options)


def test_a_space_of_another_width_than_the_text_tower_is_refused() -> None:
    from dataclasses import replace

    clip = CLIP(replace(SIZES, embed=32)).state_dict()

    with pytest.raises(Mismatch, match="width 64 in a space of 32"):
        build(Options(backbone="given"), Assets(clip=clip))


def test_full_size_models_have_the_names_shapes_and_counts_of_the_published_files(
    golden: Path,
) -> None:
    from models.drl.model import Drl
    from models.drl.published import export_checkpoint

    recorded = json.loads((golden / "drl/keys.json").read_text())
    for name, case in recorded["configurations"].items():
        chosen = dict(case["options"])
        chosen["aggregation"] = {"None": "none"}.get(
            chosen.pop("agg_module"), case["options"]["agg_module"]
        )
        options = Options.model_validate({"backbone": chosen.pop("base_encoder")} | chosen)
        with torch.device("meta"):
            model = Drl(options, CLIP(BACKBONES[options.backbone]))
        found = {
            key: list(value.shape)
            for key, value in export_checkpoint(options, model.state_dict()).items()
        }
        assert found == recorded["clip"][options.backbone] | case["keys"], name
        assert (
            sum(torch.Size(shape).numel() for shape in found.values()) == case["total_parameters"]
        )


def test_saved_evaluations_hold_texts_of_one_width() -> None:
    model, data = small_drl(), batch()

    text, video = encoded(model, {k: v[:1] for k, v in data.items()})

    assert text["tokens"].shape == (1, WORDS, 64) and video["tokens"].shape == (1, FRAMES, 64)
