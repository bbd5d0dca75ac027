"""Evaluating models that sample, and re-ranking other models' scores by their denoisers, in
evaluate and metrics.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cli
from pipeline.checkpoints import model_file
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import results
from pipeline.report import page
from pipeline.text.clip_bpe import find_table
from tests.evaluation.diffusion_world import evaluate, make
from tests.search import asked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict:
    try:
        find_table()
    except DataError as error:
        pytest.skip(f"the table of the installed openai-clip is needed: {error}")
    return make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def own(inputs: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the generative model."""
    out = tmp_path_factory.mktemp("own")
    evaluate(inputs, out, "second", save_similarity=True)
    return out


def matrices(out: Path, checkpoint: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.load(out / checkpoint / f"{name}.{side}.npy") for side in ("t2v", "v2t"))


def ranks(out: Path, name: str = "second") -> dict[str, np.ndarray]:
    with np.load(out / name / "ranks.npz") as arrays:
        return dict(arrays)


def test_a_model_that_samples_is_also_ranked_by_its_similarity_alone(own: Path) -> None:
    metrics = results.read_metrics(own / "second")

    assert list(metrics["results"]) == ["none", "similarity"]
    assert metrics["sampling"]["seed"] == 0 and metrics["sampling"]["t2v"]["candidates"] == 4
    t2v, plain = matrices(own, "second", "none")[0], matrices(own, "second", "similarity")[0]
    assert ((t2v != plain).sum(1) == 4).all()


def test_what_sampling_adds_is_said_in_metrics_and_table(own: Path) -> None:
    metrics = results.read_metrics(own / "second")
    gain = metrics["gains"]["none"]

    found, alone = (metrics["results"][name]["t2v"]["R1"] for name in ("none", "similarity"))
    assert gain["over"] == "similarity" and gain["t2v"]["R1"] == pytest.approx(
        found - alone, abs=1e-3
    )
    assert f"text -> video R@1 {found - alone:+.1f}" in results.table(own)


def test_the_report_shows_both_rankings_and_their_difference(own: Path) -> None:
    metrics = results.read_metrics(own / "second")

    text = page.page(
        page.Report(
            "t", [page.ReportEntry(metrics, results.read_ranks(own / "second", "none"))], [], {}, {}
        )
    )

    difference = metrics["gains"]["none"]["v2t"]["R1"]
    assert "similarity alone" in text and "Sampling, against the similarity alone" in text
    assert f"video → text R@1 {difference:+.1f}" in text


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"memory_mb": 1, "batch_size": 5}, {"examples": 0}]
)
def test_ranks_do_not_depend_on_batches_or_memory(
    inputs: dict, own: Path, tmp_path: Path, options: dict
) -> None:
    evaluate(inputs, tmp_path, "second", **options)

    found, expected = ranks(tmp_path), ranks(own)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_another_seed_gives_other_scores(inputs: dict, own: Path, tmp_path: Path) -> None:
    evaluate(inputs, tmp_path, "second", save_similarity=True, sampling={"seed": 1})

    assert not np.allclose(
        matrices(tmp_path, "second", "none")[0], matrices(own, "second", "none")[0], atol=1e-3
    )


def test_equal_captions_have_equal_scores_both_ways(own: Path) -> None:
    gallery = results.read_gallery(own / "second")
    t2v, v2t = matrices(own, "second", "none")

    one, other = (gallery.caption_ids.index(f"test{n}#1") for n in (0, 1))  # both are: waves, red

    assert gallery.row_of_text[one] == gallery.row_of_text[other] and len(gallery.texts) == 16
    assert (t2v[one] == t2v[other]).all() and (v2t[:, one] == v2t[:, other]).all()


def test_more_candidates_than_the_gallery_has_take_all_of_it(inputs: dict, tmp_path: Path) -> None:
    sampling = {"t2v_candidates": 1000, "v2t_candidates": 1000}
    evaluate(inputs, tmp_path, "second", save_similarity=True, sampling=sampling)

    t2v, plain = (
        matrices(tmp_path, "second", "none")[0],
        matrices(tmp_path, "second", "similarity")[0],
    )

    np.testing.assert_allclose((t2v - plain).sum(1), 1, atol=1e-5)


def test_without_weight_sampling_changes_nothing(inputs: dict, tmp_path: Path) -> None:
    evaluate(
        inputs,
        tmp_path,
        "second",
        save_similarity=True,
        sampling={"t2v_alpha": 0, "v2t_alpha": 0, "steps": 1},
    )

    for found, plain in zip(
        *(matrices(tmp_path, "second", name) for name in ("none", "similarity")), strict=True
    ):
        assert (found == plain).all()


def test_dsl_and_qbnorm_take_what_was_sampled(inputs: dict, tmp_path: Path) -> None:
    evaluate(inputs, tmp_path, "second", rerank=["none", "dsl", "qbnorm"], bank={"size": 8})

    assert list(results.read_metrics(tmp_path / "second")["results"]) == [
        "none",
        "similarity",
        "dsl",
        "qbnorm",
    ]


@pytest.mark.parametrize("name", ["drl", "xti", "first"])
def test_any_models_scores_are_re_ranked_by_a_denoiser(
    inputs: dict, tmp_path: Path, name: str
) -> None:
    evaluate(
        inputs,
        tmp_path,
        name,
        denoiser="second",
        rerank=["none", "diffusion"],
        save_similarity=True,
    )

    metrics = results.read_metrics(tmp_path / name)
    (t2v, v2t), (plain, _) = matrices(tmp_path, name, "diffusion"), matrices(tmp_path, name, "none")
    gain = metrics["results"]["diffusion"]["t2v"]["R1"] - metrics["results"]["none"]["t2v"]["R1"]
    assert metrics["gains"]["diffusion"]["t2v"]["R1"] == pytest.approx(gain, abs=1e-3)
    assert ((t2v != plain).sum(1) == 4).all() and v2t.shape == (12, 24)


@pytest.mark.parametrize("name", ["second", "drl"])
def test_a_saved_matrix_is_re_ranked_as_in_the_evaluation(
    inputs, own, tmp_path, capsys, name: str
) -> None:
    options = {"second": {}, "drl": {"denoiser": "second", "rerank": ["none", "diffusion"]}}[name]
    plain, sampled = {"second": ("similarity", "none"), "drl": ("none", "diffusion")}[name]
    evaluate(inputs, tmp_path, name, save_similarity=True, **options)
    np.savez(
        tmp_path / "plain.npz", sim=matrices(tmp_path, name, plain)[0], owner=ranks(own)["target"]
    )
    denoiser = ["--denoiser", str(inputs["second"].path), "--videos", str(own)]
    capsys.readouterr()

    assert (
        cli.main(
            [
                "metrics",
                str(tmp_path / "plain.npz"),
                "--rerank",
                "diffusion",
                *denoiser,
                "--map",
                "--json",
            ]
        )
        == 0
    )

    found, expected = (
        json.loads(capsys.readouterr().out),
        results.read_metrics(tmp_path / name)["results"][sampled],
    )
    assert found["t2v"] == expected["t2v"] and found["v2t"] == expected["v2t"]


def test_encodings_of_the_evaluated_model_can_be_taken_where_they_fit(
    inputs: dict, tmp_path: Path
) -> None:
    options = {"denoiser": "second", "rerank": ["none", "diffusion"], "save_similarity": True}
    evaluate(inputs, tmp_path / "model", "xti", sampling={"features": "model"}, **options)
    evaluate(inputs, tmp_path / "denoiser", "xti", **options)

    a, b = (matrices(tmp_path / name, "xti", "diffusion")[0] for name in ("model", "denoiser"))
    assert not np.allclose(a, b, atol=1e-3)


def test_encodings_without_sentences_and_frames_are_refused(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokens, weight, real") as caught:
        evaluate(
            inputs,
            tmp_path,
            "drl",
            denoiser="second",
            rerank=["diffusion"],
            sampling={"features": "model"},
        )

    assert (
        caught.value.where == "evaluate.sampling.features"
        and "features: denoiser" in caught.value.fix
    )


@pytest.mark.parametrize(
    ("denoiser", "options", "message"),
    [
        (None, {"rerank": ["none", "diffusion"]}, "no denoiser is given"),
        ("second", {"rerank": ["none"]}, "nothing is re-ranked by it"),
        (
            "second",
            {"rerank": ["diffusion"], "sampling": {"steps": 11}},
            "11 sampling steps of a schedule of 10",
        ),
    ],
)
def test_options_that_contradict_are_refused(inputs, tmp_path, denoiser, options, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        evaluate(inputs, tmp_path, "drl", denoiser=denoiser, **options)

    assert caught.value.where and caught.value.fix


def test_a_checkpoint_without_denoisers_is_refused_by_name(inputs: dict, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a diffusion_ret without denoisers") as caught:
        evaluate(inputs, tmp_path, "drl", denoiser="first", rerank=["diffusion"])

    assert "best.pt" in caught.value.where and "stage generation" in caught.value.fix


def test_a_matrix_of_another_split_is_refused_with_both_sizes(
    inputs: dict, own: Path, tmp_path: Path, capsys
) -> None:
    np.save(tmp_path / "s.npy", np.eye(5, dtype=np.float32))
    denoiser = ["--denoiser", str(inputs["second"].path), "--videos", str(own)]

    assert cli.main(["metrics", str(tmp_path / "s.npy"), "--rerank", "diffusion", *denoiser]) == 4

    assert "5 x 5, the denoiser was evaluated on 24 captions x 12 videos" in capsys.readouterr().err


def test_search_scores_as_the_evaluation_did(inputs: dict, tmp_path: Path) -> None:
    evaluate(
        inputs,
        tmp_path,
        "second",
        save_similarity=True,
        sampling={"seed": 4, "steps": 3, "t2v_candidates": 6},
    )
    model, info = model_file.load_model(inputs["second"].path / "checkpoints" / "best.pt")
    gallery, (t2v, v2t) = (
        results.read_gallery(tmp_path / "second"),
        matrices(tmp_path, "second", "none"),
    )

    hits = asked.search_text(model.eval(), info, tmp_path / "second", "Something red is LEFT", None)
    texts = asked.search_video(model, tmp_path / "second", gallery.video_ids[7], None, 3)

    row = t2v[gallery.caption_ids.index("test0#0")]
    assert [hit.score for hit in hits] == pytest.approx(sorted(row, reverse=True), abs=1e-6)
    assert [hit.score for hit in texts][0] == pytest.approx(v2t[7].max(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["second", "drl"])
def test_two_processes_sample_the_very_numbers_of_one(
    inputs: dict, tmp_path: Path, name: str
) -> None:
    folder = inputs[name].path.parent
    (tmp_path / "own.yaml").write_text(
        f"datasets: {{toy: {{type: caption_files, root: {folder}}}}}"
    )
    more = (
        ["--rerank", "[none, diffusion]", "--denoiser", str(folder / "second")]
        if name == "drl"
        else []
    )
    shared = [
        "evaluate",
        "--config",
        "own.yaml",
        "--annotations",
        "toy",
        "--tensors",
        str(folder / "tensors"),
        *more,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    for out, start in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        command = [
            sys.executable,
            *start,
            str(ROOT / "cli.py"),
            *shared,
            "--in",
            str(folder / name),
            "--out",
            out,
        ]
        subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, timeout=200, capture_output=True
        )

    one, two = (tmp_path / out / name / "metrics.json" for out in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
