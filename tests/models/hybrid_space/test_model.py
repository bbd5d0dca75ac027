import json
from pathlib import Path

import pytest
import torch

from models.base import Mismatch
from models.hybrid_space.model import build, with_boundaries
from models.hybrid_space.options import Options
from models.hybrid_space.published import as_published, export_model, import_checkpoint
from pipeline.checkpoints.archive import read_archive
from pipeline.config import load
from pipeline.parity.case import Case
from pipeline.parity.run import run_case
from reference import hybrid_space
from tests.models.hybrid_space.small_hybrid import SMALL, batch, small


@pytest.mark.parametrize("name", ["hybrid-space-eval", "hybrid-space-latent"])
def test_recorded_cases(name: str, golden: Path) -> None:
    folder = golden / "dual-encoding" / name
    if not folder.exists():
        pytest.skip("only beside the project")

    report = run_case(Case(folder))

    assert [row for row in report.rows if not row.ok] == []
    assert report.faults == []


@pytest.mark.parametrize(
    "changed", [{}, {"space": "latent"}, {"measure": "euclidean", "loss": {"cost": "mean"}}]
)
def test_every_parameter_that_is_read_learns(changed: dict[str, object]) -> None:
    model = small(**changed).train()

    losses = model(batch())
    losses["loss"].backward()

    assert ("tags_text" in losses) == (model.options.space == "hybrid") == model.inputs.tags
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("changed", [
    {}, {"gru_pool": "max"}, {"levels": "reduced"}, {"space": "latent", "measure": "euclidean"},
    {"measure": "order", "text_norm": False, "video_norm": False},
    {"video": SMALL["video"] | {"max_frames": 4}, "gru_pool": "max"},
])  # fmt: skip
@torch.no_grad()
def test_padded_pooling_equals_plain_loops_under_every_option(changed: dict[str, object]) -> None:
    model, given = small(pooling="padded", **changed).eval(), batch()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)

    found = model.score(model.encode_text(given), model.encode_video(given))

    for space, expected in hybrid_space.scores(model, given).items():
        torch.testing.assert_close(
            found[space], expected, atol=2e-6, rtol=0
        )  # float32 rounding of sums


@torch.no_grad()
def test_every_measure_compares_as_its_name_says() -> None:
    plain = small(measure="euclidean", concept_measure="cosine", text_norm=False).eval()

    text, video = plain.encode_text(batch()), plain.encode_video(batch())

    scores = plain.score(text, video)
    a, b = (torch.nn.functional.normalize(side["concept"], dim=1) for side in (text, video))
    torch.testing.assert_close(scores["concept"], a @ b.T)
    torch.testing.assert_close(
        scores["latent"], -(torch.cdist(text["latent"], video["latent"]) ** 2)
    )
    assert (text["latent"].norm(dim=1) - 1).abs().min() > 1e-3
    torch.testing.assert_close(video["latent"].norm(dim=1), torch.ones(4))


AS_PUBLISHED = {
    "normalise": "always",
    "distance": "plain",
    "concept_training": "dot",
    "loss": {"cost": "mean", "tag_cost": "sum"},
}


@torch.no_grad()
def test_published_program_normalises_whatever_the_flags_say() -> None:
    flags = {"measure": "euclidean", "text_norm": False, "video_norm": False}
    told, published = small(**flags).eval(), small(**flags, **AS_PUBLISHED).eval()

    for encode in ("encode_text", "encode_video"):
        plain, unit = (getattr(model, encode)(batch())["latent"] for model in (told, published))
        torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))
        assert (plain - unit).abs().max() > 0.05


def test_published_program_ranks_by_plain_distance_and_trains_on_its_square() -> None:
    model = small(measure="euclidean", space="latent", **AS_PUBLISHED).eval()
    text, video = model.encode_text(batch()), model.encode_video(batch())

    pairs = [[(s - v).norm() for v in video["latent"]] for s in text["latent"]]
    distances = torch.stack([torch.stack(row) for row in pairs])

    torch.testing.assert_close(model.score(text, video)["latent"], -distances)
    torch.testing.assert_close(model.training_scores(text, video)["latent"], -(distances**2))


def test_published_program_trains_cosine_concepts_on_raw_products() -> None:
    model = small(concept_measure="cosine", **AS_PUBLISHED).eval()
    text, video = model.encode_text(batch()), model.encode_video(batch())
    p, q = text["concept"], video["concept"]

    cosines = (p / p.norm(dim=1, keepdim=True)) @ (q / q.norm(dim=1, keepdim=True)).T

    torch.testing.assert_close(model.training_scores(text, video)["concept"], p @ q.T)
    torch.testing.assert_close(model.score(text, video)["concept"], cosines)
    assert small(**AS_PUBLISHED).training_scores(text, video)["concept"].max() <= 1  # Jaccard stays


def test_published_mean_still_multiplies_the_tag_terms_by_the_batch() -> None:
    ours, published = (small(loss={"cost": "mean"}), small(**AS_PUBLISHED))
    ours, published = (model.train()(batch()) for model in (ours, published))

    tags = ours["tags_text"] + ours["tags_video"]
    triplets = ours["loss"] - tags

    torch.testing.assert_close(published["loss"], triplets + 4 * tags)


def test_imported_file_and_published_recipe_do_as_the_program_does(shared: Path) -> None:
    source = shared / "golden/dual-encoding/hybrid-space-eval/model_best.pth.tar"
    file = read_archive(source, published=True)
    changed = {"measure": "euclidean", "text_norm": False, "cost_style": "mean"}

    options, _ = import_checkpoint(file | {"opt": file["opt"] | changed})

    recipe = load(Path("pipelines.yaml")).recipe("hybrid_space_published")["options"]
    for told in (options, Options.model_validate(recipe)):
        assert (told.normalise, told.distance, told.concept_training, told.loss.tag_cost) == (
            "always",
            "plain",
            "dot",
            "sum",
        )
    assert not options.text_norm  # goes back into the file as it was


def test_cosine_without_normalised_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match="measure cosine needs text_norm and video_norm"):
        Options(video_norm=False)


def test_level_1_reads_all_frames_and_the_others_the_first_ones() -> None:
    model = small(video=SMALL["video"] | {"max_frames": 2}).eval()
    given = batch()
    changed = given["features"].clone()
    changed[:, 3:] *= 2

    levels, others = (
        model.video_levels(f, given["video_mask"]) for f in (given["features"], changed)
    )

    assert (levels[:, :9] - others[:, :9]).abs().max() > 0.1
    assert torch.equal(levels[:, 9:], others[:, 9:])


def test_losses_are_sums_also_where_another_part_of_the_loss_is_set() -> None:
    assert Options(loss={"margin": 0.1}).loss.cost == "sum"


def test_texts_get_their_boundaries() -> None:
    text, mask = with_boundaries(
        torch.tensor([[7, 8, 0], [9, 5, 6]]), torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    )

    assert text.tolist() == [[1, 7, 8, 2, 0], [1, 9, 5, 6, 2]]
    assert mask.sum(1).tolist() == [4, 5]


def test_special_words_are_in_no_bag_and_a_bag_of_its_own_vocabulary_is_taken_as_given() -> None:
    text, mask = torch.tensor([[3, 4, 29, 4]]), torch.ones(1, 4, dtype=torch.bool)
    own = small(text=SMALL["text"] | {"bag_words": 5})

    bag, _ = small().text_levels(text, mask)
    given, _ = own.text_levels(text, mask, torch.tensor([[0, 2, 0, 0, 1]]))

    assert bag.dense().nonzero().tolist() == [[0, 0], [0, 25]]
    assert bag.dense()[0, [0, 25]].tolist() == [2, 1]
    assert given.dense().tolist() == [[0, 2, 0, 0, 1]]
    with pytest.raises(Mismatch, match="bags of 5 words"):
        own.text_levels(text, mask)


@pytest.mark.parametrize("name", ["latent", "msrvtt-official"])
def test_names_and_shapes_at_full_size(name: str, shared: Path) -> None:
    case = json.loads(
        (shared / f"golden/dual-encoding/full-size/hybrid-space_{name}/keys.json").read_text()
    )
    with torch.device("meta"):
        parts = [
            {key: torch.empty(shape) for key, shape in part.items()}
            for part in case["state_dict"].values()
        ]
        options, assets = import_checkpoint(
            {"opt": {"dropout": 0.2} | case["options"], "model": parts}
        )
        model = build(options, assets)

    exported = export_model(options, model.state_dict())

    shapes = [{key: list(value.shape) for key, value in part.items()} for part in exported]
    assert shapes == list(case["state_dict"].values())
    assert sum(p.numel() for p in model.parameters()) == case["total_parameters"]


def test_weights_come_back_from_both_published_layouts(golden: Path) -> None:
    model = small(space="latent")
    opt = {
        "vocab_size": 30,
        "bow_vocab_size": 26,
        "visual_feat_dim": 9,
        "dropout": 0.2,
        "measure": "cosine",
        "margin": 0.2,
    }
    opt |= {
        "direction": "all",
        "max_violation": True,
        "cost_style": "sum",
        "word_dim": 6,
        "space": "latent",
    }
    opt |= {
        "visual_rnn_size": 4,
        "visual_kernel_sizes": [2, 3],
        "visual_kernel_num": 5,
        "visual_mapping_layers": [0, 8],
    }
    opt |= {
        "text_rnn_size": 3,
        "text_kernel_sizes": [2, 4],
        "text_kernel_num": 4,
        "tag_vocab_size": 7,
    }
    video, text, *mappings = export_model(model.options, model.state_dict())
    inside = [
        part
        | {key.replace("mapping.", f"{side}_mapping.", 1): value for key, value in mapping.items()}
        for side, part, mapping in zip(("visual", "text"), (video, text), mappings, strict=True)
    ]

    for layout in ([video, text, *mappings], inside):
        again = build(*import_checkpoint({"opt": opt, "model": layout})).state_dict()
        assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_file_inside_another_dictionary_is_found(shared: Path) -> None:
    source = shared / "golden/dual-encoding/hybrid-space-latent/model_best.pth.tar"
    file = read_archive(source, published=True)

    for key in ("state_dict", "model", "checkpoint"):
        assert as_published({"epoch": 1, key: file}).keys() == file.keys()


@pytest.mark.parametrize(
    ("broken", "told"),
    [({"opt": {}}, "opt lacks"), ({"model": []}, "list `model`"), ({"opt": None}, "opt")],
)
def test_what_is_no_such_checkpoint_is_refused(broken: dict, told: str) -> None:
    with pytest.raises(Mismatch, match=told) as error:
        import_checkpoint({"opt": {}, "model": [{}, {}, {}, {}]} | broken)

    assert error.value.fix
