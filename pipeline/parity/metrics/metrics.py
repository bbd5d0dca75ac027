"""Handlers of system "metrics": ranks, tie policies, several captions per video, DSL and QB-Norm
(docs/specs/metrics.md).
"""

import re
from collections.abc import Iterator

import numpy as np

from pipeline.evaluation import metrics, rerank
from pipeline.evaluation.metrics import Counts, count, count_v2t, summary
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, close_tree, equal

_FLOAT_NOISE = Tolerance(1e-9)  # "equal" of percentages: the order of a product and a quotient


def square(case: Case) -> Iterator[Comparison]:
    """Ground truth on the diagonal: counts, four tie policies, and the rounded numbers of
    qb-norm.
    """
    scores, tolerance = case.inputs["sim"], _tolerance(case, "metrics")
    for direction, counts in _diagonal(scores).items():
        yield close(
            f"{direction}_greater", counts.above, case.outputs[f"{direction}_greater"], EXACT
        )
        yield close(f"{direction}_tied", counts.tied, case.outputs[f"{direction}_tied"], EXACT)
        wanted, name = case.info["expected"][direction], f"expected.{direction}"
        policies = {policy: summary(counts.ranks(policy)) for policy in wanted["policies"]}
        yield from close_tree(f"{name}.policies", policies, wanted["policies"], tolerance)
        yield close(
            f"{name}.expanded_cols", counts.ranks("expanded"), wanted["expanded_cols"], EXACT
        )
        rounded = _qb_norm_names(counts)
        yield from close_tree(
            f"{name}.averaged_rounded", rounded, wanted["averaged_rounded"], _FLOAT_NOISE
        )


def multi_caption(case: Case) -> Iterator[Comparison]:
    """Several captions per video: video-to-text over groups (CLIP4Clip) and over all captions (Dual
    Encoding).
    """
    scores, owner, tolerance = case.inputs["sim"], case.inputs["owner"], _tolerance(case, "metrics")
    yield equal("inputs.captions_per_video", np.bincount(owner), case.inputs["captions_per_video"])
    t2v = count(scores, owner)
    groups = count_v2t(scores.T, owner, "groups")[0]
    captions = count_v2t(scores.T, owner, "captions")[0]
    yield close("t2v_rank0", t2v.ranks(), case.outputs["t2v_rank0"], EXACT)
    yield close("v2t_rank0_groups", groups.ranks(), case.outputs["v2t_rank0_groups"], EXACT)
    yield close(
        "v2t_rank0_all_captions", captions.ranks(), case.outputs["v2t_rank0_all_captions"], EXACT
    )
    clip4clip = {
        "t2v": _clip4clip_names(t2v, median="lower") | {"Std_Rank": float(np.std(t2v.ranks()))},
        "v2t": _clip4clip_names(groups),
        "v2t_n": len(groups.above),
    }
    dual = {
        name: _dual_encoding_names(counts) for name, counts in (("t2v", t2v), ("v2t", captions))
    }
    dual["t2v_mAP"] = float(np.mean(1 / (t2v.ranks() + 1)))
    dual["v2t_mAP"] = metrics.mean_average_precision(scores.T, owner)
    ours = {"clip4clip_family": clip4clip, "dual_encoding": dual}
    yield from close_tree("expected", ours, case.info["expected"], tolerance)


def multi_caption_masked(case: Case) -> Iterator[Comparison]:
    """Yield a fixed number of caption slots per video, some of them empty; ties averaged; rounded
    to one decimal.
    """
    scores, there = case.inputs["sim"], case.inputs["query_mask"].ravel() > 0
    owner = np.repeat(np.arange(scores.shape[1]), len(scores) // scores.shape[1])[there]
    videos, _ = count_v2t(scores[there].T, owner)
    # the reference divides by the sum of its mask: its text-to-video numbers are rounded in the
    # precision of the mask
    precision = type(100.0 / case.inputs["query_mask"].sum())
    ours = {
        "t2v": _qb_norm_names(count(scores[there], owner), precision=precision),
        "v2t": _qb_norm_names(videos, own_ties=True),
    }
    yield from close_tree("expected", ours, case.info["expected"], _tolerance(case, "metrics"))


def dsl(case: Case) -> Iterator[Comparison]:
    """Dual softmax: the published matrices, the loss, and the ranks of our overflow-free order."""
    logits, tolerance = case.inputs["sim_scaled"], _tolerance(case, "default")
    for name, expected in case.outputs.items():
        yield close(name, _dsl_matrix(name, logits, case), expected, tolerance)
    order, transposed = rerank.dsl_order(logits), rerank.dsl_order(logits.T)
    for name, wanted in case.info["expected"].items():
        number = _trailing_number(name)
        if name.startswith("loss_temp"):
            ours = {
                "t2v": rerank.dsl_loss(logits, number),
                "v2t": rerank.dsl_loss(logits.T, number),
            }
        elif name == "plain":
            ours = _clip4clip_both(logits, logits.T)
        elif name == "per_direction":
            ours = _clip4clip_both(order, transposed)
        elif name == "one_matrix_dim0":
            ours = _clip4clip_both(rerank.dsl(logits), rerank.dsl(logits).T)
        # temp_<T>: another temperature; cosine_times_<c>: scores and softmax scale differ by that
        # factor
        else:
            of_cosines = name.startswith("cosine")
            matrix = (
                rerank.dsl_order(logits / number, 1 / number)
                if of_cosines
                else rerank.dsl_order(logits, number)
            )
            ours = _clip4clip_both(matrix, matrix.T)
        yield from close_tree(f"expected.{name}", ours, wanted, tolerance)


def qb_norm(case: Case) -> Iterator[Comparison]:
    """Dynamic and static inverted softmax, DGL's theta; settings are read from what the case writes
    on its arrays.
    """
    matrices, noise = _tolerance(case, "matrices"), _FLOAT_NOISE
    ranked: dict[str, rerank.Normalised] = {}
    for name, expected in case.outputs.items():
        scores, bank, options = _bank_setting(name, case)
        published = rerank.qb_norm(scores, bank, **options, order=False)
        ranked[_group(name)] = rerank.qb_norm(scores, bank, **options)
        if "activated" in name:
            yield close(name, published.activated, expected, EXACT)
        elif name.startswith("rows"):
            yield close(name, published.rows, expected, EXACT)
        else:
            yield close(name, published.scores, expected, matrices)
    scores = case.inputs["sim"]
    static = rerank.inverted_softmax_order(
        scores, case.inputs["bank_text_vs_test_video"], _beta(case)
    )
    for name, wanted in case.info["expected"].items():
        if name == "qb_rounded":
            ours = _qb_norm_names(_diagonal(ranked["qb"].scores)["t2v"])
        elif name in ("plain", "static_inverted_softmax"):
            matrix = scores if name == "plain" else static
            ours = _clip4clip_both(matrix, matrix.T)
        else:
            sides = [
                f"{name}_{side}" if f"{name}_{side}" in ranked else name for side in ("t2v", "v2t")
            ]
            ours = _clip4clip_both(*(ranked[side].scores for side in sides))
        yield from close_tree(f"expected.{name}", ours, wanted, noise)


def _diagonal(scores: np.ndarray) -> dict[str, Counts]:
    target = np.arange(len(scores))
    return {"t2v": count(scores, target), "v2t": count(scores.T, target)}


def _clip4clip_both(t2v: np.ndarray, v2t: np.ndarray) -> dict[str, dict[str, float]]:
    target = np.arange(len(t2v))
    return {
        "t2v": _clip4clip_names(count(t2v, target)),
        "v2t": _clip4clip_names(count(v2t, target)),
    }


def _clip4clip_names(counts: Counts, median: str = "mean") -> dict[str, float]:
    values = summary(counts.ranks("expanded"), median=median)
    return values | {"MR": values["MdR"], "MedianR": values["MdR"], "MeanR": values["MnR"]}


def _dual_encoding_names(counts: Counts) -> dict[str, float]:
    values = summary(counts.ranks())
    return values | {"SumR": values["Rsum"]}


def _qb_norm_names(
    counts: Counts, own_ties: bool = False, precision: type = float
) -> dict[str, float]:
    values = summary(counts.ranks("average", own_ties))
    values |= {"MedR": np.float64(values["MdR"]), "MeanR": np.float64(values["MnR"])}
    values |= {f"R{k}": precision(values[f"R{k}"]) for k in metrics.KS}
    values["geometric_mean_R1-R5-R10"] = precision(metrics.geometric_mean(values))
    return {
        key: round(value, 1) for key, value in values.items()
    }  # halves: Python's rule for float, NumPy's for its own


def _tolerance(case: Case, key: str) -> Tolerance:
    stated = case.info["tolerance"]
    return Tolerance.parse(stated.get(key) if isinstance(stated, dict) else stated)


def _trailing_number(name: str) -> float:
    found = re.search(r"(\d+(?:\.\d+)?)$", name)
    return float(found[1]) if found else 1.0


def _dsl_matrix(name: str, logits: np.ndarray, case: Case) -> np.ndarray:
    if name == "dsl_v2t":
        return rerank.dsl(logits.T)
    if name == "dsl_cosine":
        stated = re.search(r"softmax\((\d+(?:\.\d+)?)", str(case.info["outputs"].get(name, "")))
        scale = float(stated[1]) if stated else 100.0
        return rerank.dsl(logits / scale, 1 / scale)
    return rerank.dsl(logits, _trailing_number(name) if "temp" in name else 1.0)


def _group(name: str) -> str:
    """normalised_k3 -> qb_k3, dgl_activated_t2v -> dgl_t2v: the name under which the case lists the
    metrics.
    """
    rest = re.sub(r"^(dgl_)?(rows_)?(normalised|activated)", "", name)
    return ("dgl" if name.startswith("dgl") else "qb") + rest


def _bank_setting(name: str, case: Case) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Scores, bank and options of an output: published defaults, replaced by what the case writes
    on its arrays.
    """
    text_bank, video_bank = (
        case.inputs["bank_text_vs_test_video"],
        case.inputs["test_text_vs_bank_video"],
    )
    scores, group = case.inputs["sim"], _group(name)
    if group.startswith("dgl"):
        side, words = (
            group.rpartition("_")[2],
            _described(case, f"dgl_normalised_{group.rpartition('_')[2]}"),
        )
        scale = np.float32(_stated("times", words, 100))
        options = {"beta": _stated("beta", words, 0.87), "k": int(_stated("k", words, 1))}
        options["theta"] = int(_stated("theta", words, 3 if side == "t2v" else 5))
        pair = (scores, text_bank) if side == "t2v" else (scores.T, video_bank.T)
        return pair[0] * scale, pair[1] * scale, options
    words = _described(case, group.replace("qb", "normalised"))
    return (
        scores,
        text_bank,
        {"beta": _stated("beta", words, _beta(case)), "k": int(_stated("k", words, 1))},
    )


def _beta(case: Case) -> float:
    return _stated("beta", _described(case, "normalised"), 20.0)


def _described(case: Case, name: str) -> str:
    return str(case.info["outputs"].get(name, ""))


def _stated(option: str, words: str, default: float) -> float:
    """Return the number after an option's name: "k=3", "beta 0.87", "times 100"."""
    found = re.search(rf"\b{option}\b\s*[=:]?\s*(\d+(?:\.\d+)?)", words)
    return float(found[1]) if found else default


HANDLERS = {
    "square": square,
    "multi_caption": multi_caption,
    "multi_caption_masked": multi_caption_masked,
    "dsl": dsl,
    "qb_norm": qb_norm,
}
