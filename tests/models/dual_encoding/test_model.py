from pathlib import Path

import pytest
import torch
from torch import nn

from models.base import Assets, Mismatch
from models.dual_encoding.model import DualEncoding, build, mix
from models.dual_encoding.options import Options
from pipeline.parity.case import Case
from pipeline.parity.run import run_case
from tests.models.dual_encoding.small_dual import SMALL, batch, small


@torch.no_grad()
def encode(model: DualEncoding, given: dict[str, torch.Tensor]) -> tuple[dict, dict]:
    model.eval()
    return model.encode_text(given), model.encode_video(given)


@pytest.mark.parametrize("name", ["eval-bigru", "eval-unigru-pretrained", "train-bigru"])
def test_recorded_cases(name: str, golden: Path) -> None:
    folder = golden / "dual-encoding" / name
    if not folder.exists():
        pytest.skip("only beside the project")

    report = run_case(Case(folder))

    assert [row for row in report.rows if not row.ok] == []
    assert report.faults == []


def test_under_padded_pooling_padding_does_change_encodings() -> None:
    model = small(pooling="padded")

    (text, _), (padded, _) = encode(model, batch()), encode(model, batch(extra=4))

    assert (text["latent"] - padded["latent"]).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", ["masked", "padded"])
def test_everything_is_finite_for_zero_features_and_empty_sentences(pooling: str) -> None:
    model, empty = small(pooling=pooling).train(), batch()
    empty |= {
        "features": empty["features"] * 0,
        "text": empty["text"] * 0,
        "text_mask": empty["text_mask"] & False,
    }

    losses = model(empty)
    losses["loss"].backward()

    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_training_step_gives_the_same_bits_twice() -> None:
    grads = []
    for _ in range(2):
        model = small().train()
        model(batch())["loss"].backward()
        grads.append([p.grad for p in model.parameters()])

    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_autocast_trains_every_parameter_to_about_the_same_loss() -> None:
    exact, model = small().train()(batch())["loss"], small().train()

    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch())["loss"]
    loss.backward()

    assert loss.item() == pytest.approx(exact.item(), rel=0.03)
    assert all(p.grad is not None for p in model.parameters())


def test_the_total_loss_is_the_sum_of_its_terms_and_sum_scales_all_of_them_by_the_batch() -> None:
    mean, total = (small(loss={"cost": cost}).train()(batch()) for cost in ("mean", "sum"))
    names = {f"{s}_{d}" for s in ("latent", "concept") for d in ("t2v", "v2t")} | {
        "tags_text",
        "tags_video",
    }

    assert mean.keys() == names | {"loss"}
    assert mean["loss"].item() == pytest.approx(sum(mean[name].item() for name in names), rel=1e-6)
    for name in names:
        assert total[name].item() == pytest.approx(4 * mean[name].item(), rel=1e-5)


def test_captions_of_the_same_video_can_be_left_out_of_the_negatives() -> None:
    model, given = small(loss={"mask_same_video": True, "max_violation": False}).train(), batch()
    text, video = model.encode_text(given), model.encode_video(given)
    scores = (text["latent"] @ video["latent"].T).detach()

    same = given["video_index"][:, None] == given["video_index"]
    costs = (0.2 + scores - scores.diagonal()[:, None]).clamp(min=0).masked_fill(same, 0)

    assert model.loss(text, video, given)["latent_t2v"].item() == pytest.approx(
        costs.mean().item(), rel=1e-5
    )


def test_the_double_pass_updates_only_the_concept_norms_twice() -> None:
    counts = {}
    for double in (True, False):
        model = small(concept_double_pass=double).train()
        model(batch())
        counts[double] = {
            n: int(b) for n, b in model.named_buffers() if n.endswith("num_batches_tracked")
        }

    assert {n for n in counts[True] if counts[True][n] == 2} == {
        "concept.video.norm.num_batches_tracked",
        "concept.text.norm.num_batches_tracked",
    }
    assert set(counts[False].values()) == {1}


def test_encodings_for_retrieval_hold_no_logits() -> None:
    text, video = encode(small(), batch())

    assert text.keys() == video.keys() == {"latent", "concept"}


def test_minmax_mixes_unit_ranges_and_shifted_max_divides_by_the_maximum() -> None:
    latent, concept = (
        torch.tensor([[-0.5, 0.5], [0.0, 0.25]]),
        torch.tensor([[0.2, 0.4], [0.8, 0.6]]),
    )

    torch.testing.assert_close(
        mix(latent, concept, 0.6, "minmax")[0], torch.tensor([0.0, 0.6 + 0.4 / 3])
    )
    torch.testing.assert_close(
        mix(latent, concept, 0.6, "shifted_max"),
        0.6 * (latent + 0.5) / 0.5 + 0.4 * (concept - 0.2) / 0.8,
    )


@pytest.mark.parametrize("scaling", ["minmax", "shifted_max"])
def test_constant_scores_mix_to_finite_numbers(scaling: str) -> None:
    assert mix(torch.zeros(2, 2), torch.full((2, 2), 0.3), 0.5, scaling).isfinite().all()


@pytest.mark.parametrize(
    ("video", "text", "total"),
    [(True, True, 69_176_796), (False, True, 57_377_244), (False, False, 52_411_868)],
)
def test_parameter_counts_at_published_size(video: bool, text: bool, total: int) -> None:
    options = Options(video={"bidirectional": video}, text={"bidirectional": text})

    with torch.device("meta"):
        model = build(options, Assets(n_words=7811, n_tags=512, feature_dim=4096))

    assert sum(p.numel() for p in model.parameters()) == total


def test_a_seed_gives_the_weights_of_the_published_order_of_creation() -> None:
    model = small()
    torch.manual_seed(3)
    modules = [nn.GRU(9, 4, bidirectional=True), nn.Conv1d(8, 5, 2), nn.Conv1d(8, 5, 3)]
    words = nn.Embedding(30, 6, padding_idx=0)
    nn.init.uniform_(words.weight, -0.1, 0.1)
    modules += [words, nn.GRU(6, 3, bidirectional=True), nn.Conv1d(6, 4, 2), nn.Conv1d(6, 6, 4)]
    for out, width in ((8, 27), (8, 46), (7, 27), (7, 46)):
        modules.append(nn.Linear(width, out))
        nn.init.xavier_uniform_(modules[-1].weight)

    weights = [
        p
        for m in model.modules()
        if isinstance(m, (nn.GRU, nn.Conv1d, nn.Embedding, nn.Linear))
        for p in m.parameters()
    ]

    assert all(
        torch.equal(a, b)
        for a, b in zip(weights, [p for m in modules for p in m.parameters()], strict=True)
    )


def test_word_vectors_are_copied_and_must_fit_the_vocabulary() -> None:
    vectors = torch.arange(60.0).view(30, 2).numpy()

    model = build(Options(**SMALL), Assets(30, 7, 9, word_vectors=vectors))

    assert model.words.weight.shape == (30, 2)
    assert model.words.weight.data_ptr() != vectors.ctypes.data
    with pytest.raises(Mismatch, match="29 words"):
        build(Options(**SMALL), Assets(29, 7, 9, word_vectors=vectors))


def test_missing_assets_are_named() -> None:
    with pytest.raises(Mismatch, match="tag vocabulary, frame features"):
        build(Options(), Assets(n_words=10))


def test_one_number_of_channels_per_kernel_or_one_for_all() -> None:
    assert Options(text={"channels": 3}).text.filters == [3, 3, 3]
    with pytest.raises(ValueError, match="2 channels for 3 kernels"):
        Options(text={"channels": [3, 4]})


def test_scores_are_rows_of_texts_in_known_ranges() -> None:
    model = small()
    text, video = encode(model, batch())

    scores = model.score({k: v[:3] for k, v in text.items()}, video)

    assert {name: tuple(s.shape) for name, s in scores.items()} == {
        "latent": (3, 4),
        "concept": (3, 4),
    }
    assert scores["latent"].abs().max() <= 1 + 1e-6
    assert 0 <= scores["concept"].min() <= scores["concept"].max() <= 1
