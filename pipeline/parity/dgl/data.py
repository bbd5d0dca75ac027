"""Handlers of system "dgl" for what is around the model: frames, tokens, metrics, query-bank
normalisation.
"""

import json
from collections.abc import Iterator

import numpy as np

from pipeline.evaluation import rerank
from pipeline.evaluation.metrics import Counts, count, count_v2t, summary
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.text.clip_bpe import ClipBpe
from pipeline.video.sampling import choose_frames

_MODES = {
    "uniform": "centers",
    "uniform_twice": "twice",
    "segments_centre": "centers",
    "segments_random": "segments-published",
}


def frame_sampling(case: Case) -> Iterator[Comparison]:
    """Yield the frames of evaluation, of both kinds, and of training, with the published draws."""
    seed = case.info["seed"]
    yield equal("options", {}, case.info["options"])
    for i, (wanted, available) in enumerate(case.inputs["pairs"].tolist()):
        for name, mode in _MODES.items():
            rng = np.random.RandomState(seed + i)
            ours, _ = choose_frames(available, wanted, mode, rng)
            yield close(f"{name}_{i}", ours, case.outputs[f"{name}_{i}"], EXACT)


def text_encoding(case: Case) -> Iterator[Comparison]:
    """Captions as ids of each length."""
    captions, bpe = (
        json.loads(case.path("captions.json").read_text(encoding="utf-8")),
        ClipBpe.load(),
    )
    lengths = case.info["options"]["max_words"]
    for length in lengths if isinstance(lengths, list) else [lengths]:
        yield close(
            f"input_ids_{length}",
            bpe.batch(captions, length)[0],
            case.outputs[f"input_ids_{length}"],
            EXACT,
        )


def metrics(case: Case) -> Iterator[Comparison]:
    """Yield one caption per video, several, and tied rows, where every tied place counts as a
    rank.
    """
    yield equal("options", {}, case.info["options"])
    loose = Tolerance.parse(case.info["tolerance"]["multi_t2v"])
    tight = Tolerance.parse(case.info["tolerance"]["everything else"])
    scores, ends = case.inputs["sim_sentences_by_videos"], case.inputs["cut_off_points"]
    owner = np.searchsorted(ends, np.arange(len(scores)), side="right")
    if ends[-1] != len(
        scores
    ):  # cut-off points may name the last caption of each video, not the one behind it
        owner = np.searchsorted(ends, np.arange(len(scores)), side="left")
    t2v, v2t = count(scores, owner), count_v2t(scores.T, owner, "groups")[0]
    ours = [*_numbers(t2v, median="lower"), float(np.std(t2v.ranks()))]
    yield close("multi_t2v", ours, case.outputs["multi_t2v"], loose)
    yield close("multi_v2t", _numbers(v2t), case.outputs["multi_v2t"], tight)
    for name, key in (("square", "sim_square"), ("tied", "sim_square_tied")):
        for side, matrix in (("t2v", case.inputs[key]), ("v2t", case.inputs[key].T)):
            counts = count(matrix, np.arange(len(matrix)))
            yield close(f"{name}_{side}", _numbers(counts), case.outputs[f"{name}_{side}"], tight)
            ranks = counts.ranks("expanded")
            for rest, value in (("number_of_ranks", len(ranks)), ("ranks", ranks)):
                for recorded in (n for n in case.outputs if n == f"{name}_{side}_{rest}"):
                    yield close(recorded, value, case.outputs[recorded], EXACT)


def qb_norm(case: Case) -> Iterator[Comparison]:
    """Yield the published matrices at each recorded beta, and the search over all of them."""
    o, scores = case.info["options"], case.inputs["sim_matrix"]
    matrices = Tolerance.parse(case.info["tolerance"]["normalized"])
    exact = Tolerance.parse(case.info["tolerance"]["metrics"])
    banks = {"t2v": case.inputs["train_test_t2v"], "v2t": case.inputs["train_test_v2t"].T}
    sides = {"t2v": scores, "v2t": scores.T}
    own = {side: {"k": o[f"{side}_k"], "theta": o[f"{side}_theta"]} for side in sides}
    for side, matrix in sides.items():
        activated = rerank.activation_set(banks[side], **own[side])
        yield close(
            f"{side}_activation_set", activated, case.outputs[f"{side}_activation_set"], EXACT
        )
        yield close(
            f"{side}_metrics_plain", _of(matrix), case.outputs[f"{side}_metrics_plain"], exact
        )
        for i, beta in enumerate(case.inputs["betas"].tolist()):
            done = rerank.qb_norm(matrix, banks[side], beta=beta, **own[side], order=False).scores
            yield close(
                f"{side}_normalized_{i}", done, case.outputs[f"{side}_normalized_{i}"], matrices
            )
            ranked = rerank.qb_norm(matrix, banks[side], beta=beta, **own[side]).scores
            yield close(
                f"{side}_metrics_{i}", _of(ranked), case.outputs[f"{side}_metrics_{i}"], exact
            )
    betas = rerank.beta_grid(*o["beta_range"], o["beta_step"])

    def recall(beta: float) -> float:
        return _of(rerank.qb_norm(scores, banks["t2v"], beta=beta, **own["t2v"]).scores)[0]

    found = rerank.search_beta(betas, recall)
    yield close("best_beta", found.beta, case.outputs["best_beta"], Tolerance(1e-9))
    yield close("best_r1", found.value, case.outputs["best_r1"], exact)


def _of(scores: np.ndarray) -> list[float]:
    return _numbers(count(scores, np.arange(len(scores))))


def _numbers(counts: Counts, median: str = "mean") -> list[float]:
    """Return [R@1, R@5, R@10, median rank, mean rank] as published: tied places are ranks of their
    own.
    """
    values = summary(counts.ranks("expanded"), median=median)
    return [float(values[key]) for key in ("R1", "R5", "R10", "MdR", "MnR")]


HANDLERS = {
    "frame-sampling": frame_sampling,
    "text-encoding": text_encoding,
    "metrics": metrics,
    "qb-norm": qb_norm,
}
