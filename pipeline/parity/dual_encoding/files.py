"""Handlers of system "dual-encoding" that need no model: BigFile folders, and metrics of fused
scores.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.evaluation.metrics import Counts, count_relevant, summary
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, between, close, equal
from pipeline.stores.big_file.feature_text import import_text
from pipeline.stores.big_file.reader import BigFile

_INDEX_FILES = ("feature.bin", "id.txt", "shape.txt", "video2frames.txt")


def bigfile(case: Case) -> Iterator[Comparison]:
    """Folders read as published; text converted to a folder with the same bytes; the read rules of
    the reference.
    """
    stores = {}
    for prefix in sorted(
        {name.partition("/")[0] for name in case.outputs if name.endswith("/ids")}
    ):
        store = stores[prefix] = BigFile.open(case.path(prefix))
        yield from _store_rows(prefix, store, case)
    for text in sorted(case.folder.glob("*.txt")):
        yield from _converted(case.path(text.name), stores["from_text"], case)
    yield from _reading(stores, case)


def _store_rows(name: str, store: BigFile, case: Case) -> Iterator[Comparison]:
    tolerance = Tolerance.parse(case.info["tolerance"])
    yield equal(f"{name}/ids", store.ids, case.outputs[f"{name}/ids"])
    yield close(
        f"{name}/matrix", store.block(0, len(store)), case.outputs[f"{name}/matrix"], tolerance
    )
    yield equal(f"{name}/shape", [store.rows, store.dim], case.outputs[f"{name}/shape"])


def _converted(text: Path, recorded: BigFile, case: Case) -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "store"
        ours.mkdir()
        import_text(text, ours)
        for name in _INDEX_FILES:
            if (recorded.path / name).exists():
                yield equal(
                    f"from_text/{name}",
                    (ours / name).read_bytes(),
                    (recorded.path / name).read_bytes(),
                )
        yield equal(
            "video2frames[made from text]", BigFile.open(ours).videos, case.info["video2frames"]
        )
    yield equal("video2frames[recorded folder]", recorded.videos, case.info["video2frames"])


def _reading(stores: dict[str, BigFile], case: Case) -> Iterator[Comparison]:
    """Yield the reference drops unknown ids silently and answers in file order; ours names them and
    keeps the order asked.
    """
    tolerance, returned = (
        Tolerance.parse(case.info["tolerance"]),
        case.outputs["read/returned_ids"].tolist(),
    )
    store = next(s for s in stores.values() if all(i in s for i in returned))
    request = case.outputs["read/request"].tolist()
    unknown = sorted({i for i in request if i not in store})
    yield equal("read/request[unknown ids named]", _named_missing(store, request), unknown)
    known = [i for i in store.ids if i in set(request)]
    yield equal("read/returned_ids", known, returned)
    yield close(
        "read/returned_vectors", store.read(known), case.outputs["read/returned_vectors"], tolerance
    )
    one = case.outputs["read_one/id"].tolist()
    yield equal("read_one/id", [i for i in one if i in store], one)
    yield close("read_one/vector", store.read(one)[0], case.outputs["read_one/vector"], tolerance)
    raises = "raises" in str(case.info["unknown_id_single_read"])
    yield equal(
        "unknown_id_single_read", all(_named_missing(store, [i]) == [i] for i in unknown), raises
    )


def _named_missing(store: BigFile, ids: list[str]) -> list[str]:
    try:
        store.read(ids)
    except KeyError as error:
        return sorted(i for i in set(ids) if repr(i) in str(error.args[0]))
    return []


def metrics(case: Case) -> Iterator[Comparison]:
    """Ground truth by caption id, fused matrices for each alpha, ranks and metrics. A video whose
    captions are not contiguous has several rows, all of them true. Where scores tie, the
    reference's order is undefined: its ranks and metrics must lie between our optimistic and
    pessimistic ones.
    """
    videos = [caption_id.split("#", 1)[0] for caption_id in case.inputs["caption_ids"].tolist()]
    relevant = case.inputs["video_ids"][:, None] == np.array(videos)[None, :]  # (N_v, N_t)
    truth = {"v2t": relevant, "t2v": relevant.T}
    for side, true in truth.items():
        yield equal(f"{side}_gt_flat", np.nonzero(true)[1], case.outputs[f"{side}_gt_flat"])
        yield equal(
            f"{side}_gt_lengths", np.count_nonzero(true, axis=1), case.outputs[f"{side}_gt_lengths"]
        )
    ties = dict(case.info["ties"])
    for name in (n for n in case.outputs if n.endswith("/fused")):
        prefix = name.removesuffix("/fused")
        fused = _fused(float(re.sub(r"[^\d.]", "", prefix)), case)
        yield close(name, fused, case.outputs[name], Tolerance.parse(case.info["tolerance"]))
        for side, true in truth.items():
            counts = count_relevant(fused if side == "v2t" else fused.T, true)
            yield from _side_rows(f"{prefix}/{side}", counts, case)
            key = f"{prefix}/{side} queries with ties"
            yield equal(f"ties.{key}", counts.n_tied, ties.pop(key, None))
    yield equal("ties", sorted(ties), [])


def _side_rows(name: str, counts: Counts, case: Case) -> Iterator[Comparison]:
    ends = {policy: counts.ranks(policy) for policy in ("optimistic", "pessimistic")}
    for policy, ranks in ends.items():
        yield close(
            f"{name}_rank_{policy}", ranks + 1, case.outputs[f"{name}_rank_{policy}"], EXACT
        )
    low = ends["optimistic"] + 1
    high = ends["pessimistic"] + 1
    yield between(
        f"{name}_rank_reference_here", case.outputs[f"{name}_rank_reference_here"], (low, high)
    )
    best = _six(ends["optimistic"])
    worst = _six(ends["pessimistic"])
    reference = case.outputs[f"{name}_metrics_reference_here"]
    yield between(f"{name}_metrics_reference_here", reference, (best, worst), Tolerance(1e-9))


def _six(ranks: np.ndarray) -> list[float]:
    values = summary(ranks)
    return [values[key] for key in ("R1", "R5", "R10", "Rsum", "MdR", "MnR")]


def _fused(alpha: float, case: Case) -> np.ndarray:
    """alpha * scale(latent) + (1 - alpha) * scale(concept) with the published scaling."""
    import torch

    from models.dual_encoding.model import mix

    latent = torch.from_numpy(case.inputs["sim_latent_v2t"])
    concept = torch.from_numpy(case.inputs["sim_concept_v2t"])
    return mix(latent, concept, alpha, "shifted_max").numpy()


HANDLERS = {"bigfile": bigfile, "metrics": metrics}
