"""explain on a video file of one's own: by models of every kind, and what CenterCLIP keeps of
it.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli
from models.centerclip.tokens import segment_tokens
from pipeline.checkpoints import model_file
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.errors import DataError
from pipeline.explain import word_match
from pipeline.recipes.recipe import parse
from pipeline.stages.features import Stage as Features
from pipeline.text.clip_bpe import find_table
from tests.models.centerclip.small_centerclip import SIZES
from tests.models.clip.small_clip import small_clip
from tests.models.dgl.small_dgl import small_dgl
from tests.stages.store_runs import go, videos

TEXT = "a red circle moves left"
REDUCE = {"2": {"frames": 2, "tokens": 9}, "3": {"frames": 1, "tokens": 5}}
ON_CLIP = {"feature_dim": 0, "vocabulary": {}, "tags": [], "word_dim": None, "inputs": {}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 5 frames, 48 x 64 pixels."""
    return videos(tmp_path_factory.mktemp("raw"), 3).path / "video02.mp4"


def checkpoint(
    file: Path, model: str, options: dict, facts: dict = ON_CLIP, assets: dict | None = None
) -> Path:
    torch.manual_seed(0)
    train = {"optimizer": {"lr": 1e-3}, "frames": {"evaluation": "linspace"}}
    recipe = parse({"name": "small", "model": model, "options": options, "train": train})
    weights = model_file.build_model(recipe, facts, **(assets or {})).state_dict()
    model_file.write_model(file, ModelInfo(recipe, facts, {}), weights)
    return file


def explain(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["explain", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def needs_words() -> None:
    try:
        find_table()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")


@pytest.fixture(scope="module")
def centerclip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"backbone": "given", "frames": 4, "words": 12, "reduce": REDUCE}
    file = tmp_path_factory.mktemp("centerclip") / "model.pt"
    given = {"clip": small_clip(SIZES).state_dict()}
    return checkpoint(file, "centerclip", options, assets=given)


def test_medoids_of_each_segment_are_those_the_model_keeps(centerclip, clip, capsys) -> None:
    code, out, _ = explain(capsys, centerclip, "--video", clip, "--json")

    found = json.loads(out)
    model, info = model_file.load_model(centerclip)
    from pipeline.search.encode_file import frames_of_file

    batch = frames_of_file(model, clip, info.recipe.train.frames)
    with torch.inference_mode():
        tokens = model.embed(batch["frames"], batch["video_mask"])
        tokens = model.clip.visual.blocks[0](tokens)
        medoids = model.reduce[1].choose(segment_tokens(tokens, 2)).medoids
    assert code == 0
    assert found["kept"]["2"] == medoids.tolist()
    (last,) = found["kept"]["3"]  # ids of the frames themselves, not of what block 2 left
    first = {segment * 32 + n for segment, ids in enumerate(medoids.tolist()) for n in ids}
    assert len(last) == 5 and set(last) <= first
    assert [row["frames"] for row in found["segments"]] == [[0, 1, 2, 3]]


def test_dropped_patches_are_covered_in_the_picture(centerclip, clip, tmp_path, capsys) -> None:
    asked = ("--video", clip, "--out", tmp_path / "kept.png", "--kept", tmp_path / "kept.npy")

    code, out, _ = explain(capsys, centerclip, *asked)

    ids = np.load(tmp_path / "kept.npy")
    picture = np.asarray(Image.open(tmp_path / "kept.png"))
    assert code == 0 and ids.shape == (1, 5)
    assert "block 2: 2 segments, 9 of 32 patches left" in out
    assert "block 3: 1 segments, 5 of 64 patches left" in out
    assert picture.shape[0] > 3 * 32 and picture.shape[1] > 4 * 32


def test_sentence_gets_a_similarity_for_each_part_of_a_file(clip, tmp_path, capsys) -> None:
    needs_words()
    options = {"backbone": "tiny", "frames": 4, "words": 16}
    options |= {"reduce": {"3": {"frames": 2, "tokens": 4}}}
    file = checkpoint(tmp_path / "model.pt", "centerclip", options)

    code, out, _ = explain(capsys, file, "--video", clip, "--text", TEXT, "--json")

    found = json.loads(out)
    similar = [row["similarity"] for row in found["segments"]]
    assert code == 0 and len(similar) == 2
    assert -1 <= min(similar) <= max(similar) <= 1
    assert -1 <= found["score"] <= 1


def test_model_that_keeps_everything_shows_its_frames(clip, tmp_path, capsys) -> None:
    needs_words()
    options = {"backbone": "tiny", "frames": 3, "words": 16, "padding": "zero"}
    file = checkpoint(tmp_path / "model.pt", "centerclip", options)

    code, out, _ = explain(
        capsys, file, "--video", clip, "--text", TEXT, "--out", tmp_path / "seen.png"
    )

    assert code == 0
    assert "keeps every patch" in out and "frame 2" in out and "whole video" in out
    assert Image.open(tmp_path / "seen.png").size[0] >= 480


def test_words_and_frames_of_a_file(clip, tmp_path, capsys) -> None:
    needs_words()
    options = {"backbone": "tiny", "words": 16, "frames": 3, "temporal_layers": 1}
    file = checkpoint(tmp_path / "model.pt", "drl", options)

    asked = ("--video", clip, "--text", TEXT, "--out", tmp_path / "words.png", "--json")
    code, out, _ = explain(capsys, file, *asked)

    assert code == 0 and len(json.loads(out)["frames"]) == 3
    assert (tmp_path / "words.png").stat().st_size > 1000


def test_looks_into_a_file(clip, tmp_path, capsys) -> None:
    model = small_dgl()
    options = model.options.model_dump()
    file = checkpoint(tmp_path / "model.pt", "dgl", options, assets={"init": model.state_dict()})

    code, out, _ = explain(capsys, file, "--video", clip, "--json")

    assert code == 0 and len(json.loads(out)["frames"]) == 3


def test_model_of_features_reads_a_file_as_its_features_step_did(clip, tmp_path, capsys) -> None:
    source = videos(tmp_path / "raw", 3)
    go(
        Features(
            Features.Options(networks=["tiny-random"]), {"videos": source}, tmp_path / "features"
        )
    )
    side = {"rnn": 4, "kernels": [2], "channels": 4}
    options = {"latent_dim": 4, "video": side, "text": side | {"word_dim": 4}}
    words = {word: n for n, word in enumerate(["<pad>", "<start>", "<end>", "<unk>", "circle"])}
    facts = {"vocabulary": words, "tags": ["a", "b", "c"], "feature_dim": 407, "word_dim": None}
    file = checkpoint(tmp_path / "train/best.pt", "hybrid_space", options, facts)
    step = tmp_path / "features"

    shutil.copytree(step, tmp_path.parent / f"{tmp_path.name}-other/features")  # farther away

    stored = explain(capsys, file, "--video", "video02", "--features", step, "--json")[1]
    found = explain(capsys, file, "--video", clip, "--text", TEXT, "--json")[1]  # step is near
    named = explain(capsys, file, "--video", clip, "--features", step, "--json")[1]

    by_file = {row["tag"]: row["weight"] for row in json.loads(found)["video_concepts"]}
    by_id = {row["tag"]: row["weight"] for row in json.loads(stored)["video_concepts"]}
    assert by_file == pytest.approx(by_id, abs=1e-4)
    assert json.loads(named)["video_concepts"] == json.loads(found)["video_concepts"]
    other = explain(capsys, file, "--video", clip, "--features", tmp_path / "raw")
    assert other[0] == 2 and "Name a features step" in other[2]


@pytest.mark.parametrize("shape", [(40, 40), (30, 60), (80, 40)])
def test_frames_keep_their_shape_between_words_and_frames(shape: tuple[int, int], tmp_path) -> None:
    frame = np.zeros((*shape, 3), np.uint8) + np.array([255, 0, 255], np.uint8)
    ones = np.full((2, 3), 0.5, np.float32)
    match = word_match.WordMatch(
        ["a", "b"], ones, ones[:, 0], ones[0], ones[:, 0], ones[0], np.stack([frame] * 3)
    )
    (tmp_path / "p.png").write_bytes(word_match.picture(match, "t"))

    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
    drawn = (pixels[..., 0] > 250) & (pixels[..., 1] < 5) & (pixels[..., 2] > 250)
    rows = np.flatnonzero(drawn.any(1))
    first = np.flatnonzero(drawn[rows[len(rows) // 2]])
    width = np.flatnonzero(np.diff(first) > 1)[0] + 1  # up to the gap behind the first frame

    assert len(rows) / width == pytest.approx(shape[0] / shape[1], rel=0.05)
