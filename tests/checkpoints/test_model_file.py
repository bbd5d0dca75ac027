"""Weight files: whole or absent, equal bytes for equal content, nothing executed, every refusal
explained.
"""

import argparse
import datetime
import io
import multiprocessing
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints import model_file
from pipeline.errors import DataError, SystemRefused
from tests.training import toy


def content(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    tensors = {"w": torch.randn(30, 30, generator=generator), "n": torch.tensor(seed)}
    return {"weights": tensors, "groups": [{"betas": (0.9, 0.98), "name": "a"}], "best": None}


def same(a: dict, b: dict) -> bool:
    return (
        all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
        and a["groups"] == b["groups"]
    )


def test_what_is_written_is_read_back(tmp_path):
    model_file.write(tmp_path / "a.pt", content())

    assert same(model_file.read(tmp_path / "a.pt"), content())


def test_equal_content_has_equal_bytes_whatever_was_shared_in_memory(tmp_path):
    word = "".join(["na", "me"])
    shared = {word: [1, 2]}
    big = torch.arange(10.0)
    model_file.write(
        tmp_path / "a.pt", {"x": shared, "y": shared, "t": big[2:5], "u": [word, word]}
    )

    again = {
        "x": {"name": [1, 2]},
        "y": {"name": [1, 2]},
        "t": torch.tensor([2.0, 3.0, 4.0]),
        "u": ["name", "na" + "me"],
    }
    model_file.write(tmp_path / "other name.pt", again)

    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other name.pt").read_bytes()


def test_only_tensors_and_plain_values_can_be_written(tmp_path):
    with pytest.raises(TypeError, match="datetime"):
        model_file.write(tmp_path / "a.pt", {"when": datetime.datetime.now()})

    assert list(tmp_path.iterdir()) == []


class Evil:
    """Unpickled by a careless program, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("published", [True, False])
def test_hostile_file_is_refused_by_name_and_executes_nothing(tmp_path, zipped, published):
    path = tmp_path / "a.pt"
    torch.save(
        {"weights": {"w": torch.ones(2)}, "x": Evil(tmp_path / "pwned")},
        path,
        _use_new_zipfile_serialization=zipped,
    )

    with pytest.raises(
        DataError, match=r"refused: it asks for posix.system.*\n.*Nothing in it was executed"
    ):
        model_file.read(path, published=published)

    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("value", "name"), [
    (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    (argparse.Namespace(a=1), "argparse.Namespace"),
    ({"x": np.ones(3)}, "reconstruct"),
])  # fmt: skip
def test_what_is_no_plain_value_is_refused_by_name(tmp_path, value, name):
    torch.save(value, tmp_path / "a.pt")

    with pytest.raises(DataError, match=name):
        model_file.read(tmp_path / "a.pt")


def test_published_files_may_hold_float_arrays_and_a_namespace(tmp_path):
    value = {
        "args": {"pretrained_weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "opt": argparse.Namespace(lr=0.1),
    }
    torch.save(value, tmp_path / "a.bin")

    read = model_file.read(tmp_path / "a.bin", published=True)

    assert torch.equal(read["args"]["pretrained_weight"], torch.arange(6.0).view(2, 3))
    assert read["opt"] == {"lr": 0.1}


@pytest.mark.parametrize("dtype", [object, "U3", np.int64])
def test_published_files_may_hold_no_other_arrays(tmp_path, dtype):
    torch.save({"x": np.array([1, 2], dtype=dtype)}, tmp_path / "a.bin")

    with pytest.raises(DataError):
        model_file.read(tmp_path / "a.bin", published=True)


def test_published_checkpoints_load(shared):
    names = [
        "eval-bigru/checkpoint.bin",
        "eval-unigru-pretrained/checkpoint.bin",
        "prune-w/checkpoint_pruned_w_0.2.bin",
    ]
    names += ["hybrid-space-eval/model_best.pth.tar"]

    for name in names:
        value = model_file.read(shared / "golden" / "dual-encoding" / name, published=True)

        assert isinstance(value, dict)
        assert value.keys() >= {"args", "state_dict"} or value.keys() >= {"model", "opt"}


def test_archive_that_expands_beyond_its_size_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50 << 20))

    with pytest.raises(DataError, match="claims to hold 52,428,800 bytes"):
        model_file.read(tmp_path / "a.pt")


def test_torchscript_program_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")

    with pytest.raises(DataError, match="TorchScript program"):
        model_file.read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80\x02", b"PK\x03\x04" + bytes(200), os.urandom(500)]
)
def test_garbage_is_no_checkpoint(tmp_path, data):
    (tmp_path / "a.pt").write_bytes(data)

    with pytest.raises(DataError, match="not a readable checkpoint"):
        model_file.read(tmp_path / "a.pt")


def test_damage_anywhere_is_found(tmp_path):
    buffer = io.BytesIO()
    torch.save(content(), buffer)
    whole, rng = buffer.getvalue(), random.Random(0)
    for n in range(200):
        data = bytearray(whole)
        if n % 2:
            data = data[: rng.randrange(len(data))]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "a.pt").write_bytes(data)

        try:  # a flipped bit in padding or in a field nobody reads changes nothing
            assert same(model_file.read(tmp_path / "a.pt"), content())
        except DataError as error:
            assert error.fix


def test_checkpoint_of_another_kind_is_named(tmp_path):
    model_file.write(tmp_path / "a.pt", {"format": model_file.TRAINING, "version": 1})
    torch.save({"w": torch.ones(2)}, tmp_path / "b.pt")

    with pytest.raises(DataError, match="a tvrkit/training file, not tvrkit/model"):
        model_file.load_model(tmp_path / "a.pt")
    with pytest.raises(DataError, match="weights of another program"):
        model_file.load_model(tmp_path / "b.pt")


def test_checkpoint_whose_weights_do_not_fit_its_recipe_is_refused(tmp_path):
    toy.trainer(tmp_path, epochs=1).fit()
    value = model_file.read(tmp_path / "checkpoints" / "best.pt")
    value["weights"]["words.weight"] = torch.ones(3, 3)
    model_file.write(tmp_path / "wrong.pt", value)

    with pytest.raises(DataError, match="words.weight is .3, 3."):
        model_file.load_model(tmp_path / "wrong.pt")


def test_best_checkpoint_loads_alone(tmp_path):
    toy.trainer(tmp_path, epochs=1).fit()

    model, info = model_file.load_model(tmp_path)

    assert not model.training
    assert (info.recipe.name, info.training["epoch"]) == ("toy", 1)
    assert info.vocabulary.ids == toy.FACTS["vocabulary"]
    assert info.text_encoder.ids(["word5 word7"]) == [[5, 7]]


def test_missing_checkpoint_is_an_error_with_the_path(tmp_path):
    with pytest.raises(DataError, match="there is no checkpoint here"):
        model_file.load_model(tmp_path / "nothing")


def _rewrite_for_ever(path: Path) -> None:
    for n in range(10**9):
        model_file.write(path, content(n % 2) | {"ballast": torch.zeros(1_000_000)})


def test_kill_while_saving_leaves_the_old_or_the_new_file(tmp_path):
    path, rng = tmp_path / "last.pt", random.Random(1)
    model_file.write(path, content())
    for _ in range(min(30, int(os.environ.get("TVRKIT_KILLS", "5")))):
        child = multiprocessing.get_context("fork").Process(target=_rewrite_for_ever, args=(path,))
        child.start()
        child.join(rng.uniform(0.02, 0.2))
        child.kill()
        child.join()

        assert any(same(model_file.read(path), content(seed)) for seed in (0, 1))


def test_full_disk_is_said_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    model_file.write(path, content())
    refused = multiprocessing.get_context("fork").Process(target=_write_with_a_limit, args=(path,))

    refused.start()
    refused.join()

    assert refused.exitcode == 0
    assert same(model_file.read(path), content())
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def _write_with_a_limit(path: Path) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    with pytest.raises(SystemRefused, match="file-size limit"):
        model_file.write(path, {"w": torch.zeros(1_000_000)})
