"""import-checkpoint and export-checkpoint: published files in and out with equal scores, and what
is refused.
"""

import argparse
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import cli
from models.base import Assets, Mismatch
from models.hybrid_space import published as hybrid_space
from models.hybrid_space.model import build
from models.hybrid_space.options import Options
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.model_file import load_model
from pipeline.core.artefact import Artefact
from pipeline.evaluation import results
from pipeline.stages.prune import Options as PruneOptions
from pipeline.stages.prune import Stage as Prune
from pipeline.training import moments
from tests.evaluation.world import evaluate, world

TRAINED = world().folder / "train"


def call(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def exported(folder: Path, source: Path = TRAINED) -> dict[str, Path]:
    assert call("export-checkpoint", source, "--out", folder) == 0
    (file,) = folder.glob("*.bin")
    stem = file.name.removesuffix(".bin")
    return {
        "bin": file,
        "vocab": folder / f"{stem}.vocab.json",
        "tags": folder / f"{stem}.tag_vocab.json",
    }


def imported(files: dict[str, Path], out: Path, *more: object) -> int:
    return call(
        "import-checkpoint",
        files["bin"],
        "--vocab",
        files["vocab"],
        "--tags",
        files["tags"],
        "-o",
        out,
        *more,
    )


def scores(folder: Path, checkpoint: Path, **options: object) -> np.ndarray:
    made = [Artefact("checkpoint", checkpoint, "f", str(checkpoint), "model")]
    evaluate(folder, world().inputs | {"checkpoints": made}, save_similarity=True, **options)
    return np.load(folder / "model" / "none.t2v.npy")


def test_export_and_import_give_equal_encodings(tmp_path: Path) -> None:
    assert imported(exported(tmp_path / "out"), tmp_path / "ours.pt") == 0

    # published files pool over padding and mix scores in another way: what is compared is encoded
    # one by one, unmixed
    model, info = load_model(tmp_path / "ours.pt")
    assert (model.options.pooling, model.options.scaling) == ("padded", "shifted_max")
    assert info.facts["tags"] == load_model(TRAINED)[1].facts["tags"]
    for name, path in (("before", TRAINED), ("after", tmp_path / "ours.pt")):
        scores(tmp_path / name, path, chunk=1)
    before, after = (
        results.read_vectors(tmp_path / name / "model") for name in ("before", "after")
    )
    for side in ("text", "video"):
        assert all(
            np.allclose(rows, after[side][name], atol=1e-6) for name, rows in before[side].items()
        )


def test_a_second_round_trip_gives_the_very_same_scores_and_file(tmp_path: Path) -> None:
    imported(exported(tmp_path / "out"), tmp_path / "once")
    again = exported(tmp_path / "again", tmp_path / "once")
    imported(again, tmp_path / "twice")

    assert (
        scores(tmp_path / "a", tmp_path / "once") == scores(tmp_path / "b", tmp_path / "twice")
    ).all()
    first, second = (
        read_archive(next((tmp_path / name).glob("*.bin"))) for name in ("out", "again")
    )
    assert first["args"] | {"pretrained_weight": 0} == second["args"] | {"pretrained_weight": 0}
    assert all(
        torch.equal(value, second["state_dict"][name])
        for name, value in first["state_dict"].items()
    )


def test_export_says_what_the_form_cannot_keep(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    exported(tmp_path)

    assert "pooling masked -> padded" in capsys.readouterr().err


def test_pruned_checkpoint_is_named_as_published(tmp_path: Path) -> None:
    from pipeline.core.runner import run

    source = {"checkpoint": Artefact("checkpoint", TRAINED, content="c")}
    run(Prune(PruneOptions(amount=0.3, biases=True), source, tmp_path / "pruned"), "prune", jobs=1)

    files = exported(tmp_path / "out", tmp_path / "pruned")

    assert files["bin"].name == "small_pruned_wb_0.3.bin"


def test_recorded_file_pruned_here_equals_the_published_pruning(
    shared: Path, tmp_path: Path
) -> None:
    case = shared / "golden/dual-encoding/prune-w"
    (tmp_path / "vocab.json").write_text(json.dumps({f"word{n}": n for n in range(50)}))
    call(
        "import-checkpoint",
        case / "checkpoint.bin",
        "--vocab",
        tmp_path / "vocab.json",
        "-o",
        tmp_path / "ours",
    )
    call("prune", "--in", tmp_path / "ours", "--amount", 0.2, "--out", tmp_path / "pruned")

    call("export-checkpoint", tmp_path / "pruned", "--out", tmp_path / "out")

    (file,) = (tmp_path / "out").glob("*_pruned_w_0.2.bin")
    ours, theirs = (
        read_archive(file)["state_dict"],
        read_archive(case / "checkpoint_pruned_w_0.2.bin", published=True)["state_dict"],
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_published_pruning_is_recognised_and_kept_small(shared: Path, tmp_path: Path) -> None:
    case = shared / "golden/dual-encoding/prune-wb"
    (tmp_path / "vocab.json").write_text(json.dumps({f"word{n}": n for n in range(50)}))
    (file,) = case.glob("checkpoint_pruned_wb_*.bin")

    for name, source in (("dense", case / "checkpoint.bin"), ("pruned", file)):
        call(
            "import-checkpoint",
            source,
            "--vocab",
            tmp_path / "vocab.json",
            "-o",
            tmp_path / f"{name}.pt",
        )

    facts = [load_model(tmp_path / f"{name}.pt")[1].facts for name in ("dense", "pruned")]
    amount = float(file.stem.rpartition("_")[2])
    assert "pruned" not in facts[0]
    assert facts[1]["pruned"] == {
        "amount": pytest.approx(amount, abs=1e-3),
        "weights": True,
        "biases": True,
    }
    assert (tmp_path / "pruned.pt").stat().st_size < (tmp_path / "dense.pt").stat().st_size


def test_side_file_tells_of_the_training(tmp_path: Path) -> None:
    files = exported(tmp_path)
    optimizer = _adam_after_a_step(load_model(TRAINED)[0])
    side = {
        "epoch": 7,
        "best_total_sum_r": 214.4,
        "patience": 2,
        "optim_state_dict": optimizer.state_dict(),
    }
    torch.save(side, f"{files['bin']}.ckpt")

    imported(files, tmp_path / "ours.pt")

    model, info = load_model(tmp_path / "ours.pt")
    assert info.training == {
        "imported": files["bin"].name,
        "epoch": 7,
        "best_total_sum_r": 214.4,
        "patience": 2,
    }
    start = moments.read(tmp_path / "ours.pt")  # for train.init.go_on
    assert (start.epoch, start.step) == (7, 1)
    theirs = list(optimizer.state.values())
    for (name, _), state in zip(model.named_parameters(), theirs, strict=True):
        assert torch.equal(start.moments[name]["exp_avg"], state["exp_avg"])


def _adam_after_a_step(model: torch.nn.Module) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


def test_side_file_of_another_model_is_refused(tmp_path: Path, capsys) -> None:
    files = exported(tmp_path)
    states = {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}}
    torch.save({"epoch": 1, "optim_state_dict": {"state": states}}, f"{files['bin']}.ckpt")

    assert imported(files, tmp_path / "ours.pt") == 4

    assert (
        "small.bin.ckpt: moments of another model: 0 (video.gru.weight_ih_l0)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "parts"), [("hybrid-space-latent", 4), ("hybrid-space-eval", 4), ("2019", 2)]
)
def test_ancestors_files_come_in_and_go_out(
    golden: Path, tmp_path: Path, name: str, parts: int
) -> None:
    file = tmp_path / "model_best.pth.tar"
    source = golden / "dual-encoding" / name / "model_best.pth.tar"
    if parts == 2:
        torch.save(
            _two_dicts(golden / "dual-encoding/hybrid-space-latent/model_best.pth.tar"), file
        )
    elif not source.exists():
        pytest.skip("only beside the project")
    else:
        file = source
    n_words = read_archive(file, published=True)["opt"]["vocab_size"]
    words = ["<pad>", "<start>", "<end>", "<unk>", *(f"word{n}" for n in range(n_words - 4))]
    (tmp_path / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))

    assert (
        call(
            "import-checkpoint",
            file,
            "--vocab",
            tmp_path / "vocab.json",
            "-o",
            tmp_path / "ours.pt",
        )
        == 0
    )
    assert call("export-checkpoint", tmp_path / "ours.pt", "--out", tmp_path / "again.pth.tar") == 0

    model, info = load_model(tmp_path / "ours.pt")
    again, assets = hybrid_space.import_checkpoint(
        read_archive(tmp_path / "again.pth.tar", published=True)
    )
    assert again == model.options
    assert all(torch.equal(assets.init[key], value) for key, value in model.state_dict().items())
    assert info.text_encoder.ids(["word0 word1"]) == [
        [4, 5]
    ]  # the model adds the boundaries itself


def _two_dicts(file: Path) -> dict:
    """The recorded latent file in the form of danieljf24/dual_encoding: mappings inside the
    encoders.
    """
    value = read_archive(file, published=True)
    encoders = value["model"][:2]
    for encoder, mapping, name in zip(
        encoders, value["model"][2:], ("visual", "text"), strict=True
    ):
        encoder |= {f"{name}_{key}": tensor for key, tensor in mapping.items()}
    return value | {"model": encoders, "opt": argparse.Namespace(**value["opt"])}


def _bad(kind: str, files: dict[str, Path]) -> None:
    """Make one thing wrong."""
    value = read_archive(files["bin"])
    words, tags = (json.loads(files[name].read_text()) for name in ("vocab", "tags"))
    changes = {
        "foreign key": {"state_dict": value["state_dict"] | {"clip.proj": torch.zeros(1)}},
        "missing key": {
            "state_dict": {k: v for k, v in value["state_dict"].items() if "space_con" not in k}
        },
        "other dimension": {"args": value["args"] | {"frame_feature_dim": 2048}},
        "another file": {"args": None, "state_dict": None},
    }
    torch.save(value | changes.get(kind, {}), files["bin"])
    if kind == "unknown system":
        torch.save({"weights": 1}, files["bin"])
    if kind == "runs something":
        torch.save({"args": {}, "state_dict": {}, "x": Path("/tmp")}, files["bin"])
    if kind == "other vocabulary":
        files["vocab"].write_text(json.dumps(words | {"new": len(words)}))
    if kind == "other tags":
        files["tags"].write_text(json.dumps(tags | {"new": len(tags)}))


@pytest.mark.parametrize(("kind", "told"), [
    ("foreign key", "clip.proj"),
    ("missing key", "missing: concept.text.linear.bias"),
    ("other dimension", "the model has (48, 2048)"),
    ("another file", "no `args` and `state_dict` inside"),
    ("unknown system", "this is not a published checkpoint that the toolkit knows; it holds: weights"),
    ("runs something", "refused: it asks for pathlib"),
    ("other vocabulary", "54 entries; small.bin was trained with 53"),
    ("other tags", "13 tags; small.bin was trained with 12"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_three_parts(
    tmp_path, capsys, kind: str, told: str
) -> None:
    files = exported(tmp_path)
    _bad(kind, files)
    capsys.readouterr()

    assert imported(files, tmp_path / "ours.pt") == 4

    where, _, what = capsys.readouterr().err.partition(": ")
    assert Path(where).exists()
    assert told in what
    assert what.splitlines()[1].startswith("    ")
    assert not (tmp_path / "ours.pt").exists()


def test_missing_vocabulary_and_a_recipe_of_another_model_are_explained(tmp_path, capsys) -> None:
    files = exported(tmp_path)

    code = imported(files, tmp_path / "x", "--recipe", "hybrid_space")
    files["vocab"].rename(tmp_path / "elsewhere.json")
    codes = [code, call("import-checkpoint", files["bin"], "-o", tmp_path / "x")]

    told = capsys.readouterr().err
    assert codes == [2, 2]
    assert "recipe hybrid_space is for hybrid_space, the file holds dual_encoding" in told
    assert (
        "--vocab: small.bin does not hold its vocabulary of 53 entries, and it is not beside it"
        in told
    )
    assert "Give small.vocab.json or vocab.json, which it was trained with." in told


def test_files_of_words_beside_a_checkpoint_are_found(tmp_path: Path, capsys) -> None:
    files = exported(tmp_path / "models_hybrid")
    files["vocab"].rename(tmp_path / "vocab.json")  # the working folder of the published program
    files["tags"].rename(tmp_path / "tag_vocab.json")

    assert call("import-checkpoint", files["bin"], "-o", tmp_path / "ours.pt") == 0

    told, facts = capsys.readouterr().err, load_model(tmp_path / "ours.pt")[1].facts
    assert f"--vocab {tmp_path}/vocab.json (found" in told
    assert (len(facts["vocabulary"]), facts["tags"]) == (53, load_model(TRAINED)[1].facts["tags"])


SPECIAL = ["<pad>", "<start>", "<end>", "<unk>"]


def _ancestor(folder: Path, bag: list[str]) -> Path:
    """A file of hybrid_space whose bags count `bag`, where its program would keep it; words: a b c
    d e.
    """
    side = {"rnn": 3, "kernels": [2], "channels": 4}
    options = Options(latent_dim=4, video=side, text=side | {"word_dim": 3, "bag_words": len(bag)})
    value = hybrid_space.export_file(options, build(options, Assets(9, 3, 5)).state_dict(), {})
    file = folder / "toy/cvpr_2019/toyval/runs_0/model_best.pth.tar"
    file.parent.mkdir(parents=True)
    torch.save(value, file)
    (folder / "vocab.json").write_text(
        json.dumps({word: n for n, word in enumerate([*SPECIAL, *"abcde"])})
    )
    (folder / "bag.json").write_text(json.dumps({word: n for n, word in enumerate(bag)}, indent=2))
    return file


def test_ancestors_bags_count_a_vocabulary_of_their_own(tmp_path: Path) -> None:
    file = _ancestor(tmp_path, ["e", "zebra", "a", "b", "the", "c", "d"])
    words = ["--vocab", tmp_path / "vocab.json", "--bag", tmp_path / "bag.json"]

    assert call("import-checkpoint", file, *words, "-o", tmp_path / "ours.pt") == 0

    model, info = load_model(tmp_path / "ours.pt")
    batch = info.text_encoder.encode(["a zebra, the zebra and e"])
    text = {
        "text": torch.tensor([[4, 3, 3, 3, 3, 8]]),
        "text_mask": torch.ones(1, 6, dtype=torch.bool),
    }
    given = text | {"bow": torch.tensor([[1, 2, 1, 0, 1, 0, 0]])}
    ours, theirs = (model.encode_text(one)["latent"] for one in (batch, given))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)  # products round by their layout
    assert call("export-checkpoint", tmp_path / "ours.pt", "--out", tmp_path / "again.pth.tar") == 0
    assert (tmp_path / "again.bow_vocab.json").read_bytes() == (tmp_path / "bag.json").read_bytes()


@pytest.mark.parametrize(("more", "code", "told"), [
    ([], 2, "--bag: model_best.pth.tar counts words of a second vocabulary: bags of 7 words, a vocabulary of 9"),
    (["--bag", "vocab.json"], 4, "a bag vocabulary of 9 words, where 7 are expected"),
])  # fmt: skip
def test_bag_vocabulary_that_is_missing_or_another_one_is_explained(
    tmp_path, capsys, more, code, told
) -> None:
    file = _ancestor(tmp_path, ["e", "zebra", "a", "b", "the", "c", "d"])
    more = [tmp_path / word if word.endswith("json") else word for word in more]

    assert (
        call(
            "import-checkpoint",
            file,
            "--vocab",
            tmp_path / "vocab.json",
            *more,
            "-o",
            tmp_path / "x",
        )
        == code
    )

    assert told in capsys.readouterr().err


class Vocabulary:
    """The class that the published pickles name."""

    def __init__(self, words: list[str]):
        self.word2idx = {word: n for n, word in enumerate(words)}


def test_pickles_in_the_folder_of_the_collection_are_found(tmp_path: Path) -> None:
    file, bag = _ancestor(tmp_path, [*"abcdef"]), [*"abcdef"]
    texts = tmp_path / "toy/TextData"
    for style, words in (("rnn", [*SPECIAL, *"abcde"]), ("bow", bag)):
        (texts / "vocabulary" / style).mkdir(parents=True)
        (texts / f"vocabulary/{style}/word_vocab_5.pkl").write_bytes(
            pickle.dumps(Vocabulary(words))
        )
    (texts / "tags/video_label_th_1").mkdir(parents=True)
    (texts / "tags/video_label_th_1/tag_vocab_3.json").write_text('["man", "dog", "red"]')

    codes = [call("import-checkpoint", file, *more, "-o", tmp_path / f"{n}.pt")
             for n, more in enumerate(([], ["--vocab", texts / "vocabulary"]))]  # fmt: skip

    facts = [load_model(tmp_path / f"{n}.pt")[1].facts for n in (0, 1)]
    assert codes == [0, 0]
    assert facts[0] == facts[1]
    assert (facts[0]["tags"], list(facts[0]["bag"])) == (["man", "dog", "red"], bag)


@pytest.mark.parametrize(("changed", "told"), [
    ({"channels": [4, 5]}, r"filters \[4, 5\]"), ({"bidirectional": False}, "in one direction"),
])  # fmt: skip
def test_what_the_ancestors_form_cannot_say_is_not_exported(changed: dict, told: str) -> None:
    side = {"rnn": 3, "kernels": [2, 3], "channels": 4} | changed
    options = Options(latent_dim=4, video=side, text=side | {"word_dim": 3})

    with pytest.raises(Mismatch, match=told):
        hybrid_space.export_file(options, build(options, Assets(9, 3, 5)).state_dict(), {})


def test_imported_results_can_be_searched(tmp_path: Path, capsys) -> None:
    imported(exported(tmp_path), tmp_path / "ours.pt")
    scores(tmp_path / "results", tmp_path / "ours.pt")
    text = results.read_gallery(tmp_path / "results" / "model").texts[0]
    capsys.readouterr()

    code = call(
        "search", tmp_path / "ours.pt", text, "--videos", tmp_path / "results", "--top", 3, "--json"
    )

    assert code == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 3


@pytest.mark.parametrize("size", [-1, 3, 5])
def test_published_metrics_come_back_at_each_chunk_size(
    shared: Path, tmp_path: Path, size: int
) -> None:
    case = shared / "golden/dual-encoding/evaluate-e2e"
    recorded = np.load(case / "outputs.npz")
    call(
        "import-checkpoint",
        case / "checkpoint.bin",
        "--vocab",
        case / "vocab.json",
        "-o",
        tmp_path / "ours.pt",
    )

    code = call(
        "evaluate",
        "--in",
        tmp_path / "ours.pt",
        "--features",
        case / "feature",
        "--annotations",  # fmt: skip
        case / "captions.txt",
        "--split",
        "train",
        "--chunk",
        size,
        "--out",
        tmp_path / "results",
    )

    metrics = results.read_all(tmp_path / "results")[0]["results"]["none"]
    assert code == 0
    for side in ("t2v", "v2t"):
        ours = [metrics[side][key] for key in ("R1", "R5", "R10")]
        assert ours == pytest.approx(recorded[f"batch{size}/{side}_metrics"][:3])


def test_a_headless_file_is_read_as_the_recipe_says(shared: Path, tmp_path: Path) -> None:
    file = (
        shared / "golden/drl/eval_multi_sentence/checkpoint.bin"
    )  # DRL without a head looks like CLIP4Clip

    for recipe, interaction in (("drl_ti", "ti"), ("drl_dp_none", "dp")):
        assert (
            cli.main(
                [
                    "import-checkpoint",
                    str(file),
                    "--recipe",
                    recipe,
                    "--out",
                    str(tmp_path / recipe),
                ]
            )
            == 0
        )
        model, info = load_model(tmp_path / recipe)
        assert (info.recipe.model, model.options.interaction) == ("drl", interaction)


def test_drl_comes_in_and_goes_out_as_the_same_state_dict(shared: Path, tmp_path: Path) -> None:
    file = shared / "golden/drl/full_wti2_seqtransf_cdcr3/checkpoint.bin"

    assert cli.main(["import-checkpoint", str(file), "--out", str(tmp_path / "in")]) == 0
    assert (
        cli.main(["export-checkpoint", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    )

    (back,) = (tmp_path / "out").glob("*.bin.0")
    given, found = read_archive(file), read_archive(back)
    assert given.keys() == found.keys()
    assert all(torch.equal(found[name], value.float()) for name, value in given.items())
