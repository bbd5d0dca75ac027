"""Each of the seven programs: a file of it goes in and out again, and passes what its program
checks when it loads one.

Small files are made here; the recorded ones are tried where they lie beside the project. The checks
are those of docs/specs/*.md: keys of the file, names and shapes of the state dict, arguments of the
constructor, groups of the optimizer.
"""

import json
import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cli
from models.centerclip import published as centerclip
from models.centerclip.published_training import parameter_order
from models.dgl import published as dgl
from models.diffusion_ret import published as diffusion_ret
from models.drl import published as drl
from models.dual_encoding import published as dual_encoding
from models.hybrid_space import published as hybrid_space
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.model_file import ModelInfo, write_model
from pipeline.recipes.recipe import parse
from tests.models.centerclip.small_centerclip import small as small_centerclip
from tests.models.dgl.small_dgl import small_dgl
from tests.models.diffusion_ret.small_diffusion import small_diffusion
from tests.models.drl.small_drl import small_drl
from tests.models.dual_encoding.small_dual import small as small_dual
from tests.models.hybrid_space.small_hybrid import small as small_hybrid

CLIP4CLIP = {"padding": "zero", "temporal_eps": 1e-12}
RATES = [(1e-7, 0.2), (1e-4, 0.2), (1e-7, 0.0), (1e-4, 0.0)]  # of CLIP4Clip's groups, in order
ARGUMENTS = {  # of the constructor of Dual Encoding++, docs/specs/dual-encoding.md, section 2.9
    "embed_dim_lat", "tag_vocab_size", "alpha", "frame_feature_dim", "vid_rnn_hidden_size",
    "vid_rnn_bidirectional", "vid_cnn_out_channels_list", "vid_cnn_filter_size_list",
    "vid_dp_rate_lat", "vid_dp_rate_con", "vocab_size", "text_rnn_hidden_size",
    "text_rnn_bidirectional", "text_cnn_out_channels_list", "text_cnn_filter_size_list",
    "text_dp_rate_lat", "text_dp_rate_con", "pretrained_weight",
}  # fmt: skip
HS_READS = {  # docs/specs/dual-encoding.md, section 11.1: what its loader and tester read of `opt`
    "grad_clip", "learning_rate", "optimizer", "vocab", "visual_feature", "collections_pathname",
    "trainCollection", "cv_name", "text_mapping_layers", "visual_mapping_layers", "visual_feat_dim",
    "bow_vocab_size", "vocab_size", "margin", "measure", "cost_style", "direction", "loss_fun",
}  # fmt: skip


def in_and_out(source: Path, folder: Path, *more: object, out: str = "") -> dict:
    """Import `source`, export it, and read what was written as its program does."""
    arguments = ["import-checkpoint", source, "--out", folder / "ours", *more]
    assert cli.main([str(a) for a in arguments]) == 0
    target = folder / "back" / (out or source.name)
    assert cli.main(["export-checkpoint", str(folder / "ours"), "--out", str(target)]) == 0
    if source.name.startswith("model_best"):
        return read_archive(target, published=True)
    return torch.load(target, weights_only=True)


def file_of(name: str, model: nn.Module, form: object, folder: Path) -> tuple[Path, object]:
    value = form.export_file(model.options, model.state_dict(), {"epoch": 3, "step": 40})
    write_archive(folder / name, value)
    return folder / name, value


def check_state(again: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """As a strict `load_state_dict`: names and shapes; and the values are the same."""
    assert again.keys() == state.keys()
    assert {n: v.shape for n, v in again.items()} == {n: v.shape for n, v in state.items()}
    assert all(torch.equal(again[name].float(), value.float()) for name, value in state.items())


def pattern(names: Mapping) -> set[str]:
    """Names with `#` for every number: equal for models of any depth."""
    return {re.sub(r"\d+", "#", name) for name in names}


@pytest.mark.parametrize("stage", ["discrimination", "generation"])
def test_diffusionret(stage: str, golden: Path, tmp_path: Path) -> None:
    keys = json.loads((golden / "diffusionret/keys.vit-b-32.generation.json").read_text())
    expected = keys["state_dict"] if "state_dict" in keys else keys["keys"]
    source, value = file_of("best.pth", small_diffusion(stage), diffusion_ret, tmp_path)

    again = in_and_out(source, tmp_path)

    check_state(again, value)
    assert all(isinstance(tensor, Tensor) for tensor in again.values())  # a bare state dict
    missing = pattern(expected) - pattern(again)  # what `init_model` would leave at its first value
    assert {name.partition(".")[0] for name in missing} == (
        set() if stage == "generation" else {"diffusion_model", "diffusion_model_v"}
    )
    assert pattern(again) <= pattern(expected)  # it would ignore others without a word
    for name in (name for name in again if name.endswith(".pe")):
        assert again[name].shape[:2] == (5000, 1)


def test_dual_encoding(tmp_path: Path) -> None:
    model = small_dual(video={"rnn": 4, "bidirectional": False, "kernels": [2], "channels": 5})
    source, value = file_of("model.bin", model, dual_encoding, tmp_path)
    words = {f"w{n}": n for n in range(30)}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "tag_vocab.json").write_text(json.dumps({f"t{n}": n for n in range(7)}))
    state = {f"{n}": torch.zeros_like(p) for n, p in enumerate(model.parameters())}
    moments = {
        int(n): {"step": torch.tensor(40.0), "exp_avg": p + 1, "exp_avg_sq": p + 2}
        for n, p in state.items()
    }
    group = {"lr": 5e-5, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(moments)}
    side = {"epoch": 3, "best_total_sum_r": 212.7, "patience": 1}
    side |= {"optim_state_dict": {"state": moments, "param_groups": [group]}}
    write_archive(tmp_path / "model.bin.ckpt", side)

    again = in_and_out(source, tmp_path)

    assert again.keys() == {"args", "state_dict"} and again["args"].keys() == ARGUMENTS
    vectors = again["args"].pop("pretrained_weight")  # its constructor takes their size from it
    assert torch.equal(vectors, value["args"].pop("pretrained_weight"))
    assert again["args"] == value["args"]
    check_state(again["state_dict"], value["state_dict"])
    beside = torch.load(tmp_path / "back/model.bin.ckpt", weights_only=True)
    assert beside.keys() == side.keys()
    assert (beside["epoch"], beside["patience"], beside["best_total_sum_r"]) == (3, 1, 212.7)
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(beside["optim_state_dict"])  # raises for other groups
    assert optimizer.param_groups[0]["lr"] == 5e-5
    for number, parameter in enumerate(model.parameters()):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[number]["exp_avg"])


@pytest.mark.parametrize("temporal", ["sequence", "lstm"])
def test_clip4clip(temporal: str, tmp_path: Path) -> None:
    model = small_centerclip(temporal=temporal, **CLIP4CLIP)
    source, state = file_of("pytorch_model.bin.2", model, centerclip, tmp_path)
    order = parameter_order(state, clip4clip=True)
    names = [name for group in order for name in group]
    groups, first = [], 0
    for (rate, decay), group in zip(RATES, order, strict=True):
        numbers = list(range(first, first + len(group)))
        groups.append({"lr": rate, "weight_decay": decay, "t_total": 80, "params": numbers})
        first += len(group)
    moments = {
        n: {"step": 40, "next_m": state[name] + 1, "next_v": state[name].square()}
        for n, name in enumerate(names)
    }
    optimizer = {"state": moments, "param_groups": groups}
    side = {"epoch": 2, "loss": 1.75, "optimizer_state_dict": optimizer}
    write_archive(tmp_path / "pytorch_opt.bin.2", side)

    again = in_and_out(source, tmp_path, "--set", "options.frames=4", "--set", "options.words=12")

    check_state(again, state)
    beside = torch.load(tmp_path / "back/pytorch_opt.bin.2", weights_only=True)
    assert (beside["epoch"], beside["loss"]) == (2, 1.75)
    assert beside["optimizer_state_dict"]["param_groups"] == groups
    for n, name in enumerate(names):
        found = beside["optimizer_state_dict"]["state"][n]
        assert found["step"] == 40 and torch.equal(found["next_m"], state[name] + 1)


@pytest.mark.parametrize(
    ("name", "made", "form"),
    [
        ("ckpt.best.pth.tar", small_centerclip, centerclip),
        ("ckpt.best.pth.tar", small_dgl, dgl),
        ("pytorch_model.bin.4", small_drl, drl),
    ],
    ids=["centerclip", "dgl", "drl"],
)
def test_programs_on_clip(name: str, made: Callable, form: object, tmp_path: Path) -> None:
    model = made()
    source, value = file_of(name, model, form, tmp_path)
    if hasattr(form, "SETTINGS_FILE"):
        settings = form.settings(model.options, value)
        (tmp_path / form.SETTINGS_FILE).write_text(json.dumps(settings))

    again = in_and_out(source, tmp_path)

    assert again.keys() == value.keys()
    check_state(again.get("state_dict", again), value.get("state_dict", value))
    for key in value.keys() & {"epoch", "global_step", "arch", "best_acc1"}:
        assert again[key] == value[key]
    assert "optimizer" not in again  # its program loads that wherever it is


@pytest.mark.parametrize("is_imported", [True, False])
def test_what_a_trained_model_loses_on_the_way_out_is_named(
    is_imported: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = small_drl()
    options = model.options.model_dump(mode="json")
    train = {"optimizer": {"lr": 1}}
    recipe = parse({"name": "r", "model": "drl", "options": options, "train": train})
    known = {"imported": "x.bin"} if is_imported else {"epoch": 2, "step": 40}
    write_model(tmp_path / "best.pt", ModelInfo(recipe, {}, known), model.state_dict())

    out = str(tmp_path / "out.bin")
    assert cli.main(["export-checkpoint", str(tmp_path / "best.pt"), "--out", out, "--json"]) == 0

    lost = json.loads(capsys.readouterr().out)["not_kept"]
    assert [line.partition(":")[0] for line in lost] == (
        [] if is_imported else ["epoch, step and optimizer"]
    )


@pytest.mark.parametrize("space", ["hybrid", "latent"])
def test_hybrid_space(space: str, tmp_path: Path) -> None:
    model = small_hybrid(space=space)
    source, value = file_of("model_best.pth.tar", model, hybrid_space, tmp_path)
    words = {f"w{n}": n for n in range(30)}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "tags.json").write_text(json.dumps([f"t{n}" for n in range(7)]))
    tags = ["--tags", tmp_path / "tags.json"] if space == "hybrid" else []

    again = in_and_out(source, tmp_path, "--vocab", tmp_path / "vocab.json", *tags)

    assert again.keys() == value.keys() == {"epoch", "model", "best_rsum", "opt", "Eiters"}
    assert isinstance(value["opt"], Namespace) and again["opt"] == vars(value["opt"])
    assert again["opt"].keys() >= HS_READS
    for found, part in zip(again["model"], value["model"], strict=True):
        check_state(found, part)


RECORDED = [
    "centerclip/kmedoids-multistage-p1/checkpoint.pth.tar",
    "centerclip/deep-cluster/checkpoint.pth.tar",
    "dgl/linear_full_tuning/ckpt.best.pth.tar",
    "drl/full_wti2_seqtransf_cdcr3/checkpoint.bin",
    "diffusionret/eval_12x12_cosine10/checkpoint.pth",
    "diffusionret/disc_wti_seqtransf_7d/checkpoint.pth",
]


@pytest.mark.parametrize("case", RECORDED)
def test_recorded_file_goes_in_and_out(case: str, shared: Path, tmp_path: Path) -> None:
    recorded = shared / "golden" / case
    source = tmp_path / recorded.name
    source.write_bytes(recorded.read_bytes())
    theirs = torch.load(source, weights_only=True)
    if "state_dict" in theirs:
        options = json.loads((recorded.parent / "case.json").read_text())["options"]
        (tmp_path / "hparams_train.json").write_text(json.dumps(options))

    again = in_and_out(source, tmp_path)

    bare = {n.removeprefix("module."): v for n, v in theirs.get("state_dict", theirs).items()}
    found = {n.removeprefix("module."): v for n, v in again.get("state_dict", again).items()}
    tables = {name for name in bare if name.endswith(".pe")}  # may have any length; recomputed
    assert found.keys() == bare.keys()
    check_state(
        {n: v for n, v in found.items() if n not in tables},
        {n: v for n, v in bare.items() if n not in tables},
    )


@pytest.mark.parametrize("case", ["eval-bigru", "eval-unigru-pretrained"])
def test_recorded_file_of_dual_encoding_goes_in_and_out(
    case: str, shared: Path, tmp_path: Path
) -> None:
    source = shared / "golden/dual-encoding" / case / "checkpoint.bin"
    theirs = read_archive(source, published=True)
    words = {f"w{n}": n for n in range(theirs["args"]["vocab_size"])}
    (tmp_path / "v.json").write_text(json.dumps(words))

    again = in_and_out(source, tmp_path, "--vocab", tmp_path / "v.json", out="again.bin")

    assert again["args"].keys() == ARGUMENTS
    given = {k: v for k, v in theirs["args"].items() if k != "pretrained_weight"}
    assert {k: v for k, v in again["args"].items() if k != "pretrained_weight"} == given
    check_state(again["state_dict"], theirs["state_dict"])
