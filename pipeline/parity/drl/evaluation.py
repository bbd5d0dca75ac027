"""Handler of system "drl", kind "evaluation": encode, score in blocks, both directions; and one
typed sentence.
"""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.base import Encoding
from models.drl.model import Drl
from pipeline.evaluation.metrics import Counts, count, count_v2t, summary
from pipeline.evaluation.retrieve import Encoded, encode_all, score
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, close_tree, equal
from pipeline.parity.drl.model import batch_of, opened, tolerance
from pipeline.search.search_record import record_of

_SCORES = "sim_matrix"
_PATH = "videos/clip{:04d}.mp4"  # as query_reference says of the recorded paths


def evaluate(case: Case) -> Iterator[Comparison]:
    """Yield the whole matrix and the metrics of both directions; with a query also its ranking and
    its record.
    """
    batch = batch_of(case.inputs)
    model = opened(case, batch)
    allowed = tolerance(case.info["tolerance"][_SCORES])
    encoded = _encoded(case, model, batch)
    found = score(model, encoded.text, encoded.video, budget=1 << 16)["similarity"].numpy()
    yield close(_SCORES, found, case.outputs[_SCORES], allowed)
    owner = _owner(case, len(found))
    yield from _metrics(case, found, owner)
    # two scores of our matrix may each be off by the tolerance
    gap = _smallest_gap(found, owner)
    yield close("min_gap", gap, case.info["min_gap"], Tolerance(2 * allowed.absolute))
    if "query_ids" in case.inputs:
        yield from _query(case, model, encoded.video, allowed)


def _encoded(case: Case, model: Drl, batch: Mapping[str, Tensor]) -> Encoded:
    """In the recorded order (repeats, which the published sampler makes, once), in batches of the
    recorded size.
    """
    options, n_videos = case.info["options"], len(batch["frames"])
    order = case.inputs.get("loader_order", np.arange(n_videos))
    videos = list(dict.fromkeys(order.tolist()))
    texts = videos if len(batch["text"]) == n_videos else list(range(len(batch["text"])))
    size = options["batch_size_val"]

    def batches(
        rows: list[int], names: tuple[str, ...]
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, {name: batch[name][part] for name in names}

    text, video = batches(texts, ("text", "text_mask")), batches(videos, ("frames", "video_mask"))
    return encode_all(model, text, video, np.arange(len(texts)), n_videos)


def _owner(case: Case, n_texts: int) -> np.ndarray:
    """Return the video of each text."""
    captions = case.info["options"]["captions_per_video"]
    if captions is None:
        return np.arange(n_texts)
    ends = np.cumsum(captions)
    assert (ends == case.inputs["cut_off_points"]).all()
    return np.repeat(np.arange(len(captions)), captions)


def _metrics(case: Case, scores: np.ndarray, owner: np.ndarray) -> Iterator[Comparison]:
    several = case.info["options"]["multi_sentence"]
    t2v, (v2t, _) = count(scores, owner), count_v2t(scores.T, owner, "groups")
    sides = {
        "text_to_video": _names(t2v, "lower" if several else "mean"),
        "video_to_text": _names(v2t, "mean"),
    }
    rounding = Tolerance(1e-5)  # in percent; the published code keeps some of them as float32
    for side, ours in sides.items():
        yield from close_tree(f"metrics_{side}", ours, case.info[f"metrics_{side}"], rounding)
    yield close(
        "model_selection_score",
        sides["text_to_video"]["R1"],
        case.info["model_selection_score"],
        rounding,
    )


def _names(counts: Counts, median: str) -> dict[str, object]:
    ranks = counts.ranks("expanded")
    values = summary(ranks, median=median)
    named = {"MR": values["MdR"], "MedianR": values["MdR"], "MeanR": values["MnR"]}
    return values | named | {"cols": ranks, "Std_Rank": float(np.std(ranks))}


def _smallest_gap(scores: np.ndarray, owner: np.ndarray) -> float:
    """Return how near any score comes to the true one it competes with, in both directions."""
    true = scores[np.arange(len(scores)), owner]
    is_other = np.arange(scores.shape[1]) != owner[:, None]
    by_video = np.stack(
        [scores[owner == v].max(0) for v in range(scores.shape[1])]
    )  # (N_v, N_v): best caption of each
    of_videos = np.abs(by_video - by_video.diagonal())[~np.eye(len(by_video), dtype=bool)]
    return float(min(np.abs(scores - true[:, None])[is_other].min(), of_videos.min()))


def _query(case: Case, model: Drl, video: Encoding, allowed: Tolerance) -> Iterator[Comparison]:
    """A sentence that is not padded, as the fork reads it: so the model is told that texts
    are no longer than it.
    """
    ids = torch.from_numpy(case.inputs["query_ids"])[None]
    whole = Drl(model.options.model_copy(update={"words": ids.shape[1]}), model.clip).eval()
    whole.load_state_dict(model.state_dict())
    with torch.inference_mode():
        text = whole.encode_text({"text": ids, "text_mask": torch.ones_like(ids, dtype=torch.bool)})
        scores = whole.score(text, video)["similarity"][0].numpy()
    ranking = np.argsort(-scores, kind="stable")
    yield close("query_sim", scores, case.outputs["query_sim"], allowed)
    yield equal("query_ranking", ranking, case.outputs["query_ranking"])
    gap = np.diff(np.sort(scores)).min()
    yield close("query_min_gap", gap, case.info["query_min_gap"], Tolerance(2 * allowed.absolute))
    reference = str(case.info["query_reference"])
    recorded = json.loads(
        case.path(reference.partition("; ")[2].partition(" ")[0]).read_text(encoding="utf-8")
    )
    paths = [_PATH.format(k) for k in ranking]
    yield equal("t2v_query", record_of(recorded["text"], None, paths), recorded)


HANDLERS = {"evaluation": evaluate}
