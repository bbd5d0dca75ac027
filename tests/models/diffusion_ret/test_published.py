import json
from pathlib import Path

import pytest
import torch

from models.base import Mismatch
from models.clip.sizes import BACKBONES
from models.clip.towers import CLIP, half_parameters
from models.diffusion_ret import published
from models.diffusion_ret.model import DiffusionRet, build
from models.diffusion_ret.options import Options
from models.drl import published as drl
from pipeline.checkpoints.archive import read_archive
from tests.models.diffusion_ret.small_diffusion import small_diffusion
from tests.models.drl.small_drl import small_drl

TABLE = "diffusion_model.sequence_pos_encoder.pe"
BACKBONE_FILES = ("vit-b-32", "vit-b-16", "vit-l-14")
KINDS = [("generation", "seqTransf"), ("generation", "none"), ("discrimination", "seqLSTM")]


def exported(model: DiffusionRet) -> dict[str, torch.Tensor]:
    return published.export_checkpoint(model.options, model.state_dict())


@pytest.mark.parametrize(("stage", "aggregation"), KINDS)
def test_a_model_comes_back_from_its_published_form(stage: str, aggregation: str) -> None:
    model = small_diffusion(stage, aggregation=aggregation)

    found, assets = published.import_checkpoint(exported(model))
    back = build(found.model_copy(update={"words": 8, "frames": 4}), assets).eval()

    assert published.recognises(exported(model))
    assert (found.stage, found.aggregation) == (stage, aggregation)
    assert all(
        torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items()
    )


def test_a_file_tells_which_stage_trained_it() -> None:
    names = [
        published.recipe_of(exported(small_diffusion(stage)))
        for stage in ("discrimination", "generation")
    ]

    assert names == ["diffusionret_msrvtt_1", "diffusionret_msrvtt_2"]


def test_both_names_of_a_table_are_one_tensor() -> None:
    file = exported(small_diffusion())

    assert file[TABLE].shape == (5000, 1, 64)
    tables = [value for name, value in file.items() if name.endswith(".pe")]
    assert len(tables) == 4 and len({value.data_ptr() for value in tables}) == 1


@pytest.mark.parametrize("rows", [1, 128, 7000])
def test_a_table_of_any_length_is_read(rows: int) -> None:
    from models.diffusion_ret.denoiser import sinusoids

    file = exported(small_diffusion())
    file |= {
        name: sinusoids(torch.arange(rows), 64)[:, None] for name in file if name.endswith(".pe")
    }

    assert published.recognises(file)
    assert published.import_checkpoint(file)[0].stage == "generation"


@pytest.mark.parametrize("change", [lambda t: t + 0.1, lambda t: t[:, 0], lambda t: t.roll(1, 0)])
def test_a_table_of_something_else_is_refused_by_name(change) -> None:
    file = exported(small_diffusion())
    file[TABLE] = change(file[TABLE])

    with pytest.raises(
        Mismatch, match=r"diffusion_model\.sequence_pos_encoder\.pe is not the table"
    ):
        published.import_checkpoint(file)


def test_half_of_a_gpu_file_becomes_float32_without_loss() -> None:
    model = small_diffusion(half_weights=True)

    _, assets = published.import_checkpoint(exported(model))

    name = "clip.visual.conv1.weight"
    assert assets.init[name].dtype == torch.float32
    assert torch.equal(assets.init[name].half(), model.state_dict()[name])


def test_unknown_names_are_listed() -> None:
    file = exported(small_diffusion()) | {"diffusion_model_w.proj.bias": torch.zeros(1)}

    assert not published.recognises(file)
    with pytest.raises(Mismatch, match=r"diffusion_model_w\.proj\.bias"):
        published.import_checkpoint(file)


def test_a_missing_weight_is_named() -> None:
    file = exported(small_diffusion())
    del file["diffusion_model_v.decoder.2.bias"]

    with pytest.raises(Mismatch, match=r"missing: denoise_v2t\.decoder\.2\.bias"):
        build(*published.import_checkpoint(file))


def test_files_of_drl_and_ours_are_told_apart() -> None:
    ours, theirs = small_diffusion("discrimination"), small_drl()
    files = exported(ours), drl.export_checkpoint(theirs.options, theirs.state_dict())

    assert [published.recognises(file) for file in files] == [True, False]
    assert [drl.recognises(file) for file in files] == [False, True]


@pytest.mark.parametrize(
    "name",
    [
        "vit-b-32.generation",
        "vit-b-32.discrimination",
        "vit-b-16.generation",
        "vit-l-14.generation",
    ],
)
def test_full_size_models_have_the_names_shapes_and_counts_of_the_published_files(
    golden: Path, name: str
) -> None:
    file = golden / f"diffusionret/keys.{name}.json"
    if not file.exists():
        pytest.skip("only beside the project")
    recorded = json.loads(file.read_text())
    options = Options(
        backbone=recorded["options"]["base_encoder"], stage=recorded["options"]["stage"]
    )
    with torch.device("meta"):
        model = DiffusionRet(options, CLIP(BACKBONES[options.backbone]))
        found = exported(model)

    assert {key: list(value.shape) for key, value in found.items()} == recorded["keys"]
    assert [key for key in sorted(found) if key.endswith(".pe")] == sorted(recorded["buffers"])
    assert sum(p.numel() for p in model.parameters()) == recorded["total_parameters"]
    half = {id(p) for p in half_parameters(model.clip)}
    ours = {key: p for key, p in model.named_parameters() if id(p) in half}
    assert sorted(published.published_names(ours)) == sorted(recorded["gpu_float16"])


def test_the_freezing_of_the_recipes_leaves_what_is_published_to_train(golden: Path) -> None:
    from pipeline import config
    from pipeline.recipes.freeze import count_parameters
    from pipeline.recipes.recipe import parse

    recorded = json.loads((golden / "diffusionret/keys.vit-b-32.generation.json").read_text())
    trained = {}
    for stage in (1, 2):
        recipe = parse(config.load(config.SHIPPED).recipe(f"diffusionret_msrvtt_{stage}"))
        with torch.device("meta"):
            trained[stage] = count_parameters(
                DiffusionRet(recipe.options, CLIP(BACKBONES["ViT-B/32"])), recipe.train
            )["trained"]

    assert trained == {1: 162_619_651, 2: recorded["trainable_parameters"]}


def test_recorded_files_tell_their_configuration(shared: Path) -> None:
    folder = shared / "golden/diffusionret"
    names = ("disc_wti_seqtransf", "disc_wti_no_temporal", "gen_train_cosine50")

    files = {name: read_archive(folder / name / "checkpoint.pth") for name in names}

    assert all(published.recognises(file) for file in files.values())
    found = {name: published.import_checkpoint(file)[0] for name, file in files.items()}
    assert {name: (o.stage, o.aggregation, o.backbone) for name, o in found.items()} == {
        "disc_wti_seqtransf": ("discrimination", "seqTransf", "given"),
        "disc_wti_no_temporal": ("discrimination", "none", "given"),
        "gen_train_cosine50": ("generation", "seqTransf", "given"),
    }


def test_the_averaged_weights_of_a_run_are_read_as_the_weights() -> None:
    model = small_diffusion()
    average = {name: 0.9 * value for name, value in model.state_dict().items()}

    _, assets = published.import_checkpoint(published.export_checkpoint(model.options, average))

    assert torch.equal(
        build(model.options, assets).denoise_t2v.proj.bias, average["denoise_t2v.proj.bias"]
    )
