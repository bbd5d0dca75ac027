"""What the published programs check when they load a file, for files that `export` writes.

The checks are those of docs/specs/*.md: keys of the file, names of the state dict, groups of the
optimizer and the shapes of its moments.
"""

import json
from pathlib import Path

import pytest
import torch

import cli
from models.hybrid_space import published as hybrid_space
from pipeline.checkpoints.archive import read_archive

CENTERCLIP = ["checkpoint-adamw-full", "checkpoint-bertadam-full"]
DGL = ["linear_p4_two_heads", "transformer_p4", "transformer_p2_3d_bertadam"]


def there_and_back(source: Path, folder: Path, name: str) -> dict:
    assert cli.main(["import-checkpoint", str(source), "--out", str(folder / "ours")]) == 0
    out = folder / "back" / name
    assert cli.main(["export-checkpoint", str(folder / "ours"), "--out", str(out)]) == 0
    return torch.load(out, weights_only=True)


def check_optimizer(optimizer: dict, theirs: dict) -> None:
    """As `load_state_dict` of an optimizer does: groups, their lengths, then moments."""
    assert [len(g["params"]) for g in optimizer["param_groups"]] == [
        len(g["params"]) for g in theirs["param_groups"]
    ]
    for ours, other in zip(optimizer["param_groups"], theirs["param_groups"], strict=True):
        assert ours == other
    assert optimizer["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        own = optimizer["state"][number]
        assert own.keys() == state.keys()
        for key, value in state.items():
            assert type(own[key]) is type(value)
            assert torch.equal(torch.as_tensor(own[key]), torch.as_tensor(value))


@pytest.mark.parametrize(
    "case", [f"centerclip/{name}" for name in CENTERCLIP] + [f"dgl/{name}" for name in DGL]
)
def test_file_with_an_optimizer_goes_back_whole(case: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / case
    source = next(folder.glob("*.pth.tar"))
    theirs = torch.load(source, weights_only=True)
    local = tmp_path / "ckpt.best.pth.tar"
    local.write_bytes(source.read_bytes())
    options = json.loads((folder / "case.json").read_text())["options"]
    (tmp_path / "hparams_train.json").write_text(json.dumps(options))

    ours = there_and_back(local, tmp_path, "again.pth.tar")

    assert ours.keys() == theirs.keys()
    bare = {name.removeprefix("module."): value for name, value in theirs["state_dict"].items()}
    again = {name.removeprefix("module."): value for name, value in ours["state_dict"].items()}
    assert again.keys() == bare.keys()
    assert all(torch.equal(again[name], value) for name, value in bare.items())
    check_optimizer(ours["optimizer"], theirs["optimizer"])
    for key in theirs.keys() - {"state_dict", "optimizer"}:
        assert ours[key] == theirs[key]


def test_recurrent_file_of_drl_keeps_what_nothing_reads(shared: Path, tmp_path: Path) -> None:
    source = shared / "golden/drl/full_wti1_seqlstm_cdcr1/checkpoint.bin"
    theirs = torch.load(source, weights_only=True)

    ours = there_and_back(source, tmp_path, "pytorch_model.bin.4")

    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value.float()) for name, value in theirs.items())


def test_every_option_of_hybrid_space_goes_back(shared: Path) -> None:
    source = shared / "golden/dual-encoding/hybrid-space-latent/model_best.pth.tar"
    file = read_archive(source, published=True)
    options, assets = hybrid_space.import_checkpoint(file)

    value = hybrid_space.export_file(options, assets.init, hybrid_space.training_facts(file, {}))

    assert vars(value["opt"]) == file["opt"]


def test_hybrid_space_that_was_trained_here_has_every_option(shared: Path) -> None:
    source = shared / "golden/dual-encoding/hybrid-space-latent/model_best.pth.tar"
    file = read_archive(source, published=True)
    options, assets = hybrid_space.import_checkpoint(file)

    value = hybrid_space.export_file(options, assets.init, {})

    assert vars(value["opt"]).keys() == file["opt"].keys()
    for name, wanted in file["opt"].items():
        if wanted is not None:
            assert type(vars(value["opt"])[name]) is type(wanted), name
