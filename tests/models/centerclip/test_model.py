import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.base import Assets, Mismatch
from models.centerclip.kmedoids import kmedoids
from models.centerclip.model import build
from models.centerclip.options import Options
from models.centerclip.tokens import segment_tokens
from models.clip.towers import half_parameters
from pipeline import config
from pipeline.parity.case import Case
from pipeline.parity.run import run_case
from pipeline.recipes.recipe import parse
from pipeline.training.optimizer import BertAdam
from tests.models.centerclip.small_centerclip import SIZES, batch, scores, small
from tests.models.clip.small_clip import small_clip

MEDOIDS = {"frames": 2, "tokens": 9}
EVERY_REDUCTION = [
    {2: MEDOIDS},
    {1: MEDOIDS, 3: {"frames": 1, "tokens": 4, "p": 1.0}},
    {2: MEDOIDS | {"metric": "cosine", "keep": "mean", "embedding": True}},
    {2: MEDOIDS | {"pre_norm": True}},
    {3: MEDOIDS | {"method": "spectral", "sigma": 8.0}},
    {3: MEDOIDS | {"method": "spectral", "sigma": 8.0, "graph": "knn", "space_time": True}},
    {2: MEDOIDS | {"method": "deep"}},
    {2: MEDOIDS | {"method": "sparse"}},
    {2: {"method": "pooling", "frames": 2}},
    {1: {"method": "token_shift"}, 2: {"method": "token_shift"}, 3: {"method": "token_shift"}},
    {2: {"method": "temporal_shift"}, 3: MEDOIDS},
]
TEMPORAL = ["mean", "sequence", "lstm", "tight"]


@pytest.mark.parametrize("reduce", EVERY_REDUCTION, ids=str)
def test_a_video_alone_is_encoded_as_in_a_batch(reduce: dict) -> None:
    model, given = small(reduce=reduce), batch()

    whole = model.encode_video(given)["feature"]

    alone = [
        model.encode_video({k: v[i : i + 1] for k, v in given.items()})["feature"] for i in range(3)
    ]
    assert torch.allclose(torch.cat(alone), whole, atol=1e-5)  # float32 products of another shape


@pytest.mark.parametrize("reduce", EVERY_REDUCTION, ids=str)
def test_every_parameter_that_is_read_gets_a_gradient(reduce: dict) -> None:
    model = small(reduce=reduce).train()

    model(batch())["loss"].backward()

    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("temporal", TEMPORAL)
@pytest.mark.parametrize("patches", ["2d", "3d"])
def test_weights_of_a_model_give_the_same_model(temporal: str, patches: str) -> None:
    model = small(
        temporal=temporal,
        temporal_layers=1,
        patches=patches,
        reduce={2: MEDOIDS | {"embedding": True}},
    )

    again = build(model.options, Assets(init=model.state_dict())).eval()

    assert torch.equal(scores(again, batch()), scores(model, batch()))


def test_without_reduction_a_video_is_the_mean_of_its_frames() -> None:
    model, given = small(), batch()

    frames = model.clip.encode_image(given["frames"].flatten(0, 1)).unflatten(0, (3, 4))

    directions = torch.nn.functional.normalize(frames, dim=-1)
    mean = torch.stack(
        [rows[mask].mean(0) for rows, mask in zip(directions, given["video_mask"], strict=True)]
    )
    ours = model.encode_video(given)["feature"]
    assert torch.allclose(ours, torch.nn.functional.normalize(mean, dim=-1), atol=1e-5)


def test_the_block_reads_the_mean_class_token_and_the_medoids_in_their_order() -> None:
    reduce, tokens = small(reduce={2: MEDOIDS}).reduce[1], torch.randn(8, 17, 64)

    made = reduce(tokens)

    patches = segment_tokens(tokens, 2)
    medoids = kmedoids(patches, 9).medoids
    assert torch.equal(
        made[:, 1:], torch.stack([row[ids] for row, ids in zip(patches, medoids, strict=True)])
    )
    assert torch.allclose(made[1, 0], tokens[2:4, 0].mean(0))


def test_after_reduction_the_mask_is_that_of_each_segments_last_frame() -> None:
    model, given = small(reduce={2: MEDOIDS}), batch()
    given["video_mask"][2] = torch.tensor([True, True, True, False])

    frames = model.encode_frames(given["frames"], given["video_mask"])

    first = torch.nn.functional.normalize(frames[2, 0], dim=-1)
    assert torch.allclose(model.encode_video(given)["feature"][2], first, atol=1e-6)


def test_sparse_sampling_draws_anew_in_training_and_never_in_evaluation() -> None:
    model, given = small(reduce={2: {"frames": 2, "tokens": 4, "method": "sparse"}}), batch()

    assert torch.equal(model.encode_video(given)["feature"], model.encode_video(given)["feature"])
    model.train()
    model.reduce[1].rng = np.random.RandomState(0)
    assert not torch.equal(
        model.encode_video(given)["feature"], model.encode_video(given)["feature"]
    )


@pytest.mark.parametrize("temporal", ["sequence", "lstm"])
def test_temporal_models_tell_a_video_from_its_reversal_and_the_mean_does_not(
    temporal: str,
) -> None:
    given = batch() | {"video_mask": torch.ones(3, 4, dtype=torch.bool)}
    reversed_ = given | {"frames": given["frames"].flip(1)}

    different, same = small(temporal=temporal, temporal_layers=1), small()

    assert not torch.allclose(scores(different, given), scores(different, reversed_), atol=1e-4)
    assert torch.allclose(scores(same, given), scores(same, reversed_), atol=1e-5)


def test_missing_frames_of_zeros_are_zero_after_normalisation() -> None:
    model, given = small(padding="zero", temporal="sequence", temporal_layers=1), batch()
    other = given | {
        "frames": torch.where(given["video_mask"][..., None, None, None], given["frames"], 77)
    }

    assert model.inputs.padding == "zero"
    assert torch.equal(model.encode_frames(given["frames"], given["video_mask"]),
                       model.encode_frames(other["frames"], given["video_mask"]))  # fmt: skip


def test_patches_of_three_frames_start_as_those_of_one() -> None:
    given = batch()

    assert torch.allclose(scores(small(patches="3d"), given), scores(small(), given), atol=1e-5)


def test_recomputing_blocks_changes_no_gradient() -> None:
    models = [small(recompute=on, reduce={2: MEDOIDS}).train() for on in (False, True)]

    for model in models:
        model(batch())["loss"].backward()

    weights = [model.clip.visual.blocks[0].mlp.c_fc.weight.grad for model in models]
    assert torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize("reduce", EVERY_REDUCTION, ids=str)
def test_half_precision_training_gives_finite_losses_in_float32(reduce: dict) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = small(reduce=reduce).train()(batch())

    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in terms.values())


def test_weights_of_open_clip_may_want_another_activation() -> None:
    quick, plain = small(), small(activation="gelu")

    assert {block.mlp.activation for block in plain.clip.visual.blocks} == {"gelu"}
    assert {block.mlp.activation for block in plain.clip.text_blocks} == {"gelu"}
    assert not torch.equal(scores(quick, batch()), scores(plain, batch()))
    again = build(plain.options, Assets(init=plain.state_dict())).eval()
    assert torch.equal(scores(again, batch()), scores(plain, batch()))


def test_a_given_temperature_is_the_first_one() -> None:
    assert small(logit_scale=2.0).scale == pytest.approx(math.exp(2.0))


def test_the_vision_tower_is_compiled_without_a_break_outside_clustering() -> None:
    tokens, block = torch.randn(2, 17, 64), small().clip.visual.blocks[0]

    explained = torch._dynamo.explain(block)(tokens)

    assert explained.graph_break_count == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"reduce": {7: {"frames": 5}}}, "12 frames do not make 5 equal segments"),
        ({"frames": 4, "reduce": {7: {"frames": 6}}}, "4 frames are fewer than 6 segments"),
        ({"reduce": {3: {"frames": 4}, 7: {"frames": 3}}}, "4 frames do not make 3"),
        ({"reduce": {7: {"tokens": 49}}}, "reduce.7.frames: required"),
        ({"reduce": {0: {"frames": 4}}}, "blocks count from 1"),
        (
            {"reduce": {7: {"frames": 4, "method": "sparse", "embedding": True}}},
            "only for kmedoids and spectral",
        ),
        (
            {"reduce": {7: {"frames": 4, "method": "deep", "keep": "mean"}}},
            "7.keep: only for kmedoids and spectral",
        ),
        ({"backbone": "RN50"}, "use a ViT"),
        ({"backbone": "ViT-B-32"}, "choose one of ViT-B/32"),
        ({"words": 2}, "greater than or equal to 3"),
    ],
)
def test_options_that_cannot_be_are_refused_before_torch_is_needed(
    options: dict, told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        Options(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"reduce": {4: MEDOIDS}}, "block 4 of a vision tower of 3"),
        (
            {"reduce": {2: {"frames": 2, "tokens": 33}}},
            "33 tokens are to be left of segments of 32",
        ),
        (
            {"reduce": {2: {"frames": 2, "tokens": 32, "embedding": True}}},
            "32 embeddings cannot start from 16",
        ),
        ({"words": 13}, "texts of 13 tokens, the text tower reads 12"),
        ({"backbone": "ViT-B/32"}, "not the weights of ViT-B/32: embed 64, not 512"),
    ],
)
def test_options_that_do_not_fit_the_weights_are_refused_with_both_numbers(
    options: dict, told: str
) -> None:
    with pytest.raises(Mismatch, match=told):
        small(**options)


def test_weights_of_another_size_are_refused() -> None:
    weights = small(reduce={2: MEDOIDS | {"embedding": True}}).state_dict()

    with pytest.raises(Mismatch, match=r"reduce.1.embedding is \(9, 64\), the model has \(8, 64\)"):
        build(
            Options(
                backbone="given",
                frames=4,
                words=12,
                reduce={2: MEDOIDS | {"tokens": 8, "embedding": True}},
            ),
            Assets(init=weights),
        )


def test_a_backbone_as_given_needs_weights() -> None:
    with pytest.raises(Mismatch, match="there are no weights"):
        build(Options(backbone="given"), Assets())


def test_videos_of_another_length_are_refused() -> None:
    with pytest.raises(Mismatch, match="videos of 6 frames, the model reads 4"):
        small().encode_video(batch(frames=6))


def test_published_weights_are_rounded_and_the_copies_are_not() -> None:
    clip = small_clip(SIZES).state_dict()

    model = small(temporal="sequence", temporal_layers=1)

    own, copy = (
        b.resblocks[0].mlp.c_fc.weight for b in (model.clip.transformer, model.temporal.transformer)
    )
    published = clip["transformer.resblocks.0.mlp.c_fc.weight"]
    assert torch.equal(own, published.half().float())
    assert torch.equal(copy, published)


@pytest.mark.parametrize("name", ["cluster-ops", "metrics-and-sampling"])
def test_recorded_operators_agree(golden: Path, name: str) -> None:
    report = run_case(Case(golden / "centerclip" / name))

    assert (report.faults, [row for row in report.rows if not row.ok]) == ([], [])


@pytest.mark.parametrize("name", [
    "checkpoint-adamw-full", "deep-cluster", "init-3d-seqtransf", "kmedoids-euclid", "kmedoids-multistage-p1",
    "meanp-plain", "seqtransf", "spectral-heatkernel", "token-shift", "train-5steps",
])  # fmt: skip
def test_recorded_models_agree(shared: Path, name: str) -> None:
    report = run_case(Case(shared / "golden/centerclip" / name))

    assert (report.faults, [row for row in report.rows if not row.ok]) == ([], [])


@pytest.mark.parametrize("options", [
    {}, {"temporal": "sequence"}, {"temporal": "tight"}, {"patches": "3d"},
    {"reduce": {2: {"frames": 2, "tokens": 9, "embedding": True}}},
])  # fmt: skip
def test_half_weights_are_stored_in_float16_and_score_nearly_the_same(options: dict) -> None:
    full, half = small(**options), small(**options, half_weights=True)

    stored = {p.dtype for p in half_parameters(half.clip)}
    stored |= {p.dtype for p in half_parameters(half.patches3d)}

    assert stored == {torch.float16}
    assert half.clip.logit_scale.dtype == half.clip.ln_final.weight.dtype == torch.float32
    torch.testing.assert_close(scores(half, batch()), scores(full, batch()), atol=3e-2, rtol=0)
    half.train()(batch())["loss"].backward()
    assert half.clip.text_projection.grad.dtype == torch.float16


def test_published_rate_moves_half_weights_and_leaves_float32_ones() -> None:
    # docs/specs/drl.md, section 9: at 1e-7 the second moment is 0 in float16, the step m / 1e-6
    recipe = parse(config.load().recipe("clip4clip_published"))
    rate = recipe.train.optimizer.lr * recipe.train.params[1].lr_scale
    moved = {}
    for is_half in (True, False):
        model = small(half_weights=is_half).train()
        weight = model.clip.text_projection
        before = weight.detach().clone()
        bert_adam = BertAdam([weight], lr=rate)
        for _ in range(8):
            model.zero_grad()
            (1e-2 * model(batch())["loss"]).backward()
            bert_adam.step()
        moved[is_half] = float((weight.detach() - before).float().abs().max())

    assert recipe.options.half_weights and recipe.train.precision == "float32"
    assert rate == pytest.approx(1e-7)
    assert moved[True] > 20 * moved[False]
    assert moved[False] < 1e-5
