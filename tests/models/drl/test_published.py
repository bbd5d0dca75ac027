from pathlib import Path

import pytest
import torch

from models.base import Mismatch
from models.drl import published
from models.drl.model import build
from models.drl.options import Options
from pipeline.checkpoints.archive import read_archive
from tests.models.drl.small_drl import small_drl

KINDS = [
    {"interaction": "dp", "aggregation": "none"},
    {"interaction": "xti", "cross_layers": 2},
    {"wti_arch": 1, "aggregation": "seqLSTM"},
    {"wti_arch": 2, "temporal_layers": 2},
    {"wti_arch": 3, "aggregation": "none"},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_file_tells_the_options_of_its_model(options: dict) -> None:
    model = small_drl(**options)
    file = published.export_checkpoint(model.options, model.state_dict())

    found, _ = published.import_checkpoint(file)

    assert {name: getattr(found, name) for name in options} == options


def test_half_of_a_gpu_file_becomes_float32_without_loss() -> None:
    model = small_drl(half_weights=True)

    _, assets = published.import_checkpoint(
        published.export_checkpoint(model.options, model.state_dict())
    )

    name = "clip.visual.conv1.weight"
    assert assets.init[name].dtype == torch.float32
    assert torch.equal(assets.init[name].half(), model.state_dict()[name])


def test_unknown_names_are_listed() -> None:
    model = small_drl()
    file = published.export_checkpoint(model.options, model.state_dict()) | {
        "clip2.x": torch.zeros(1)
    }

    assert not published.recognises(file)
    with pytest.raises(Mismatch, match=r"clip2\.x"):
        published.import_checkpoint(file)


def test_a_missing_weight_is_named() -> None:
    model = small_drl()
    file = published.export_checkpoint(model.options, model.state_dict())
    del file["transformerClip.resblocks.0.ln_1.weight"]

    with pytest.raises(Mismatch, match=r"temporal\.transformer\.resblocks\.0\.ln_1\.weight"):
        build(*published.import_checkpoint(file))


def test_the_weights_of_diffusion_ret_are_not_taken_for_ours() -> None:
    model = small_drl()
    file = published.export_checkpoint(model.options, model.state_dict())
    file["text_weight_fc.0.weight"] = torch.zeros(128, 64)

    assert not published.recognises(file)


def test_recorded_files_tell_their_configuration(shared: Path) -> None:
    folder = shared / "golden/drl"
    found = {
        name: published.import_checkpoint(read_archive(folder / name / "checkpoint.bin"))[0]
        for name in (
            "full_wti2_seqtransf_cdcr3",
            "full_dp_none_cdcr1",
            "full_xti_seqtransf",
            "eval_single",
        )
    }

    kinds = {name: (o.aggregation, o.interaction, o.backbone) for name, o in found.items()}
    assert kinds == {
        "full_wti2_seqtransf_cdcr3": ("seqTransf", "wti", "given"),
        "full_dp_none_cdcr1": ("none", "dp", "given"),
        "full_xti_seqtransf": ("seqTransf", "xti", "given"),
        "eval_single": ("none", "wti", "given"),
    }
    assert found["eval_single"].wti_arch == 1
    assert (
        found["full_xti_seqtransf"].cross_layers,
        found["full_xti_seqtransf"].temporal_layers,
    ) == (2, 2)
    assert isinstance(found["eval_single"], Options)
