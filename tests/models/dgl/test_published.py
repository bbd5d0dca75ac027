"""Files of knightyxp/DGL and ours, both ways; the published names and counts."""

import json

import pytest
import torch

from models.base import Mismatch
from models.clip.sizes import BACKBONES
from models.clip.towers import CLIP
from models.dgl import published
from models.dgl.model import Dgl, build
from models.dgl.options import Options
from tests.models.dgl.small_dgl import batch, small_dgl

PUBLISHED = {
    "msrvtt_vitb32_transformer": {},
    "msrvtt_vitb16_transformer": {"backbone": "ViT-B/16"},
    "vatex_lsmdc_vitb32_linear": {"space": "linear"},
    "activitynet_vitb32_transformer": {"frames": 64, "words": 64},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_counts_are_the_published_ones(shared, name: str) -> None:
    wanted = json.loads((shared / "golden/dgl/keys" / f"{name}.json").read_text())
    options = Options(**PUBLISHED[name])
    with torch.device("meta"):
        model = Dgl(options, CLIP(BACKBONES[options.backbone]))

    ours = published.export_checkpoint(options, model.state_dict())

    assert {key: list(value.shape) for key, value in ours.items()} == wanted["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == wanted["parameters_total"]
    assert sum(p.numel() for p in model.prompts.parameters()) == wanted["parameters_trainable"]


@pytest.mark.parametrize("options", [{}, {"space": "linear"}, {"patches": "3d"}], ids=str)
def test_what_is_written_is_read_again(options: dict) -> None:
    model = small_dgl(**options)

    value = published.export_file(
        model.options, model.state_dict(), {"epoch": 2, "scores": {"t2v_r1": 0.125}}
    )
    found, assets = published.import_checkpoint(value)

    assert published.recognises(value)
    assert (value["epoch"], value["best_acc1"], value["arch"]) == (2, 12.5, "CLIp4Clip")
    again = build(model.options, assets).state_dict()
    assert all(torch.equal(again[n], v) for n, v in model.state_dict().items())
    assert (found.space, found.layers, found.patches) == (
        model.options.space,
        3,
        model.options.patches,
    )


def test_a_file_of_64_frames_is_one_of_activitynet() -> None:
    model = small_dgl(frames=64)

    found, _ = published.import_checkpoint(
        published.export_file(model.options, model.state_dict(), {})
    )

    assert (found.frames, found.words) == (64, 16)  # this text tower reads no more than 16


@pytest.mark.parametrize(("frame_prompts", "text_prompts"), [(4, 8), (2, 8), (1, 2)])
def test_linear_files_do_not_say_where_the_text_prompts_are_cut(
    frame_prompts: int, text_prompts: int
) -> None:
    model = small_dgl(
        space="linear", text_prompts=2, frame_prompts=frame_prompts, global_prompts=frame_prompts
    )

    found, _ = published.import_checkpoint(
        published.export_file(model.options, model.state_dict(), {})
    )

    assert found.text_prompts == text_prompts  # the published default, if there are so many rows


def test_rows_that_cannot_be_shared_out_are_refused() -> None:
    model = small_dgl(text_prompts=5)

    with pytest.raises(
        Mismatch, match="17 rows of prompts cannot be 8 of texts and 4 of each frame"
    ):
        published.import_checkpoint(
            {"state_dict": published.export_checkpoint(model.options, model.state_dict())}
        )


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"global_prompts": 2}, "numbers must be equal"),
        ({"layers": 2}, "2 layers"),
    ],
    ids=str,
)
def test_what_the_published_program_cannot_run_is_not_written(options: dict, what: str) -> None:
    model = small_dgl(**options)

    with pytest.raises(Mismatch, match=what):
        published.export_file(model.options, model.state_dict(), {})


def test_settings_beside_a_file_say_how_many_text_prompts_it_has() -> None:
    model = small_dgl(text_prompts=4)
    value = published.export_file(model.options, model.state_dict(), {})

    found, _ = published.import_checkpoint(value, published.settings(model.options, value))

    assert (found.text_prompts, found.frames) == (4, model.options.frames)


def test_unknown_entries_are_named() -> None:
    model = small_dgl()
    state = published.export_checkpoint(model.options, model.state_dict()) | {
        "clip.visual.prompt_stuff": torch.ones(1)
    }

    with pytest.raises(Mismatch, match="clip.visual.prompt_stuff"):
        published.import_checkpoint({"state_dict": state})


def test_files_of_others_are_not_recognised() -> None:
    assert not published.recognises({"state_dict": {"clip.logit_scale": torch.ones(())}})
    assert not published.recognises([1])


def test_optimizer_states_are_found_by_their_number_over_four_groups(shared) -> None:
    path = shared / "golden/dgl/linear_p4_two_heads/ckpt.best.pth.tar"
    file = torch.load(path, weights_only=True)
    _, assets = published.import_checkpoint(file)

    found = published.optimizer_state(file)

    assert set(found) == {name for name in assets.init if name.startswith("prompts.")}
    assert all(values["exp_avg"].shape == assets.init[name].shape for name, values in found.items())


def test_text_tower_deeper_than_its_prompts_runs_as_published_where_it_was_imported() -> None:
    deep = {"vision_layers": 2}
    ours = small_dgl(sizes=deep, layers=2)  # three text blocks, prompts for two
    published_run = small_dgl(sizes=deep, layers=2, text_blocks="prompted")
    cut = small_dgl(sizes=deep | {"text_layers": 2}, layers=2)
    rest = {n: v for n, v in ours.state_dict().items() if n in cut.state_dict()}
    cut.load_state_dict(rest)
    file = published.export_file(ours.options, ours.state_dict(), {})

    options, assets = published.import_checkpoint(file, published.settings(ours.options, file))
    again = build(options, assets).eval()

    assert options.text_blocks == "prompted"
    expected = cut.encode_text(batch())["feature"]  # as if the last block were not there
    for model in (again, published_run):
        torch.testing.assert_close(model.encode_text(batch())["feature"], expected)
    assert (ours.encode_text(batch())["feature"] - expected).abs().max() > 1e-3
    assert published.implied(ours.options, ours.state_dict())["text_blocks"] == "prompted"
    assert "text_blocks" not in published.implied(cut.options, cut.state_dict())


def test_rows_of_a_table_without_settings_are_said_to_be_a_guess() -> None:
    model = small_dgl(text_prompts=4, frames=5)  # 24 rows: also 8 of texts and 4 frames
    value = published.export_file(model.options, model.state_dict(), {})

    options, _ = published.import_checkpoint(value)

    assert (options.text_prompts, options.frames) == (8, 4)
    text, frames = published.guessed(options)
    assert text.startswith("text_prompts 8:") and frames.startswith("frames 4:")
    assert published.guessed(Options(space="linear")) == []
