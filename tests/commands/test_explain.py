"""explain: the concepts of a sentence and a video, as JSON and as a picture; and what cannot be
explained.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from pipeline.checkpoints import model_file
from pipeline.evaluation import results
from pipeline.explain import concepts
from pipeline.recipes.recipe import parse
from tests.evaluation.world import evaluate, world


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline's folder: a trained step, and its results beside it."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copytree(world().folder / "train", folder / "train")
    evaluate(folder / "evaluate")
    return folder


def explain(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["explain", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def first_pair(pipeline: Path) -> tuple[str, str, np.ndarray, np.ndarray]:
    """(text, video id, their concept weights) of the first caption and the first video of the
    gallery.
    """
    folder = pipeline / "evaluate" / "train"
    gallery, vectors = results.read_gallery(folder), results.read_vectors(folder)
    return (
        gallery.texts[0],
        gallery.video_ids[0],
        vectors["text"]["concept"][0],
        vectors["video"]["concept"][0],
    )


def test_weights_are_those_of_the_encodings_and_shares_add_up_to_the_similarity(
    pipeline, capsys
) -> None:
    text, video, of_text, of_video = first_pair(pipeline)

    code, out, _ = explain(
        capsys, pipeline / "train", "--text", text, "--video", video, "--json", "--top", 12
    )

    found, tags = json.loads(out), model_file.load_model(pipeline / "train")[1].facts["tags"]
    assert code == 0
    for side, weights in (("text", of_text), ("video", of_video)):
        listed = {row["tag"]: row["weight"] for row in found[f"{side}_concepts"]}
        assert listed == pytest.approx(dict(zip(tags, weights, strict=True)), abs=1e-4)
    jaccard = np.minimum(of_text, of_video).sum() / np.maximum(of_text, of_video).sum()
    assert found["concept_similarity"] == pytest.approx(jaccard, abs=1e-4)
    assert sum(row["share"] for row in found["shared"]) == pytest.approx(jaccard, abs=1e-3)


def test_features_serve_as_well_as_results(pipeline, capsys) -> None:
    _, video, _, of_video = first_pair(pipeline)

    _, out, _ = explain(
        capsys,
        pipeline / "train",
        "--video",
        video,
        "--features",
        world().folder / "features",
        "--json",
    )

    found = json.loads(out)
    assert found["video_concepts"][0]["weight"] == pytest.approx(of_video.max(), abs=1e-3)
    assert (found["text_concepts"], found["shared"]) == ([], [])


@pytest.mark.parametrize("asked", [("text", "video"), ("text",), ("video",)])
def test_picture_shows_a_row_for_each_concept_and_is_the_same_each_time(
    pipeline, capsys, tmp_path, asked
) -> None:
    text, video, *_ = first_pair(pipeline)
    chosen = [
        part for side in asked for part in (f"--{side}", {"text": text, "video": video}[side])
    ]

    sizes = []
    for n in (3, 3, 10):
        explain(
            capsys, pipeline / "train", *chosen, "--out", tmp_path / f"{len(sizes)}.png", "--top", n
        )
        sizes.append(Image.open(tmp_path / f"{len(sizes)}.png").size)

    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert sizes[2][1] > sizes[0][1]


def test_text_that_looks_like_a_formula_or_a_very_long_one_is_drawn() -> None:
    reading = concepts.Reading(["$x^", "日本"], np.array([0.1, 0.9]), np.array([0.5, 0.2]))

    picture = concepts.picture(reading, ("video: $\\frac$", "word " * 200), 2)

    assert picture.startswith(b"\x89PNG")


def latent_model(folder: Path) -> Path:
    """An untrained model without a concept space."""
    side = {"rnn": 4, "kernels": [2], "channels": 4}
    options = {"space": "latent", "latent_dim": 4, "video": side, "text": side | {"word_dim": 4}}
    recipe = parse({"name": "old", "model": "hybrid_space", "options": options,
                    "train": {"optimizer": {"lr": 1e-3}}})  # fmt: skip
    words = {word: n for n, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", "star"])}
    facts = {"vocabulary": words, "tags": [], "feature_dim": 3, "word_dim": None}
    torch.manual_seed(0)
    weights = model_file.build_model(recipe, facts).state_dict()
    model_file.write_model(folder / "best.pt", model_file.ModelInfo(recipe, facts, {}), weights)
    return folder / "best.pt"


def test_model_without_a_concept_space_is_refused(tmp_path, capsys) -> None:
    code, _, err = explain(capsys, latent_model(tmp_path), "--text", "a star")

    assert code == 4
    assert "hybrid_space of recipe old has no concept space" in err
    assert "Explain a model that has one" in err


def test_what_cannot_be_explained_says_why(pipeline, tmp_path, capsys) -> None:
    train = pipeline / "train"

    said = [
        explain(capsys, train, *more)
        for more in (
            [],
            ["--video", "demo_test_00"],
            ["--text", "zorgblat"],
            ["--text", "star", "--out", "x.jpg"],
            ["--video", "x", "--videos", tmp_path],
        )
    ]

    assert [code for code, _, _ in said] == [2, 4, 2, 2, 4]
    assert "Give --text SENTENCE, --video ID or both" in said[0][2]
    assert "Did you mean 'demo_test_00" in said[1][2]
    assert "none of its words" in said[2][2]
    assert "pictures are .png files, not .jpg" in said[3][2]
    assert "there are no encodings here" in said[4][2]
