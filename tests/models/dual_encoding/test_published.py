import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from models.base import Assets, Mismatch
from models.dual_encoding.model import build
from models.dual_encoding.options import Options
from models.dual_encoding.published import export_checkpoint, import_checkpoint
from pipeline.checkpoints.archive import read_archive

SMALL = Options(
    latent_dim=8,
    alpha=0.2,
    video={"rnn": 4, "bidirectional": False, "kernels": [2, 3], "channels": [5, 6], "dropout": 0.1},
    text={"rnn": 3, "kernels": [2], "channels": 4, "concept_dropout": 0.3, "word_dim": 6},
)


def published(options: Options = SMALL) -> dict:
    return export_checkpoint(options, build(options, Assets(30, 7, 9)).state_dict())


def test_export_and_import_give_back_options_and_weights() -> None:
    model = build(SMALL, Assets(30, 7, 9))

    options, assets = import_checkpoint(export_checkpoint(SMALL, model.state_dict()))

    changed = {"pooling": "padded", "scaling": "shifted_max"}
    assert build(options, assets).state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(assets.init[name], value) for name, value in model.state_dict().items())
    assert (options.alpha, options.latent_dim, options.video.filters) == (0.2, 8, [5, 6])
    assert (options.video.dropouts, options.text.dropouts) == ((0.1, 0.1), (0.2, 0.3))
    assert {name: getattr(options, name) for name in changed} == changed


@pytest.mark.parametrize("name", ["bigru", "both-unigru", "video-unigru"])
def test_names_and_shapes_at_full_size(name: str, shared: Path) -> None:
    case = json.loads(
        (shared / f"golden/dual-encoding/full-size/dual-encoding-pp_{name}/keys.json").read_text()
    )
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in case["state_dict"].items()}
        options, assets = import_checkpoint({"args": case["options"], "state_dict": state})
        model = build(options, assets)

    again = export_checkpoint(options, model.state_dict())

    assert {key: list(value.shape) for key, value in again["state_dict"].items()} == case[
        "state_dict"
    ]
    assert {
        key: value for key, value in again["args"].items() if key != "pretrained_weight"
    } == case["options"]
    assert sum(p.numel() for p in model.parameters()) == case["total_parameters"]


def test_a_recorded_file_with_a_numpy_matrix_is_read_and_written_back(
    golden: Path, tmp_path: Path
) -> None:
    source = read_archive(
        golden / "dual-encoding/eval-unigru-pretrained/checkpoint.bin", published=True
    )
    options, assets = import_checkpoint(source)

    torch.save(export_checkpoint(options, assets.init), tmp_path / "again.bin")
    again = torch.load(tmp_path / "again.bin", weights_only=True)

    assert list(again["state_dict"]) == list(source["state_dict"])
    assert all(
        torch.equal(again["state_dict"][key], value) for key, value in source["state_dict"].items()
    )
    assert again["args"].keys() == source["args"].keys()
    assert again["args"]["pretrained_weight"].shape == source["args"]["pretrained_weight"].shape


def test_directions_of_old_files_are_seen_in_their_weights() -> None:
    old = published()
    for side in ("vid", "text"):
        del old["args"][f"{side}_rnn_bidirectional"]

    options, _ = import_checkpoint(old)

    assert (options.video.bidirectional, options.text.bidirectional) == (False, True)


def test_the_order_of_keys_carries_no_meaning() -> None:
    given = published()
    shuffled = given | {"state_dict": OrderedDict(reversed(given["state_dict"].items()))}

    model = build(*import_checkpoint(shuffled))

    assert torch.equal(model.words.weight, given["state_dict"]["text_encoder.embedding.weight"])


def test_without_word_vectors_the_published_size_needs_none() -> None:
    options = SMALL.model_copy(update={"text": SMALL.text.model_copy(update={"word_dim": 500})})

    assert published(options)["args"]["pretrained_weight"] is None


def _broken(kind: str) -> dict:
    given = published()
    args, state = given["args"], given["state_dict"]
    changes = {
        "foreign key": {"state_dict": state | {"clip.proj": torch.zeros(1)}},
        "missing key": {
            "state_dict": {k: v for k, v in state.items() if "embedding.weight" not in k}
        },
        "missing args": {"args": {k: v for k, v in args.items() if k != "alpha"}},
        "wrong args": {"args": args | {"alpha": "eval"}},
        "other size": {"args": args | {"vocab_size": 31}},
        "no size": {"args": args | {"vocab_size": None}},
        "no dict": {"args": None},
    }
    return given | changes[kind]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("foreign key", "clip.proj"),
        ("missing key", "word_dim"),
        ("missing args", "alpha"),
        ("wrong args", "alpha"),
        ("other size", r"words.weight is \(30, 6\)"),
        ("no size", "n_words"),
        ("no dict", "args"),
    ],
)
def test_what_does_not_fit_is_named(kind: str, told: str) -> None:
    with pytest.raises(Mismatch, match=told) as error:
        build(*import_checkpoint(_broken(kind)))

    assert error.value.fix
