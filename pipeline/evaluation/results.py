"""The folder of one evaluated checkpoint: metrics, ranks, the gallery, encodings for search, scores
if wanted.

    metrics.json      {checkpoint, model, recipe, split, texts, videos, results: {rerank: metrics},
                      examples, ...}
    ranks.npz         per rerank: <rerank>/t2v_above, /t2v_tied, /v2t_above, /v2t_tied (int64),
                      /v2t_rows; target
    gallery.json      {checkpoint, split, video_ids, caption_ids, texts (distinct), row_of_text,
                      text_keys, statistics}
    encodings.npz     float32: text/<name> (a row per distinct text), video/<name> (a row per
                      gallery video)
    <rerank>.t2v.npy, <rerank>.v2t.npy   with save_similarity: float32, rows = queries

No times, no paths: equal evaluations give equal bytes. No pickles.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.arrays import read_npz, write_npy, write_npz
from pipeline.core.files import atomic_write, disk_name
from pipeline.core.seeds import groups
from pipeline.core.state import usable_records
from pipeline.errors import DataError
from pipeline.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    from models.base import Encoding

METRICS = "metrics.json"
RANKS = "ranks.npz"
GALLERY = "gallery.json"
ENCODINGS = "encodings.npz"
CONCEPTS = "pred_tags.txt"
_TOP_CONCEPTS = 10
_COLUMNS = ("R1", "R5", "R10", "MdR", "MnR")
_SIDES = {"t2v": "text -> video", "v2t": "video -> text"}
_ROWS = {"similarity": "similarity alone"}
ALONE = {
    "none": "the scores alone",
    "similarity": "the similarity alone",
}  # what sampling is compared with
Vectors = dict[str, dict[str, np.ndarray]]  # {"text": {name: rows}, "video": {name: rows}}


@dataclass(frozen=True)
class Gallery:
    """What was ranked. checkpoint: sha256 of its file. row_of_text: place of each caption's text
    among `texts`.

    text_keys: what each of `texts` is known by where it is a query or a candidate of sampling.
    statistics: what the model's fusion took from all scores, so that search fuses a query alone.
    """

    checkpoint: str
    split: str
    video_ids: list[str]
    caption_ids: list[str]
    texts: list[str]
    row_of_text: np.ndarray
    text_keys: Sequence[int] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def keys(self) -> np.ndarray:
        """text_keys as models/parts/noise.py wants them, uint64 (n,)."""
        return np.array(self.text_keys, dtype=np.uint64)


def save(
    folder: Path, metrics: dict, ranks: Mapping[str, np.ndarray], gallery: Gallery, vectors: Vectors
) -> list[Path]:
    """Write metrics.json, ranks.npz, gallery.json and encodings.npz; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / name for name in (METRICS, RANKS, GALLERY, ENCODINGS)]
    atomic_write(written[0], _json(metrics))
    write_npz(written[1], ranks)
    atomic_write(written[2], _json(vars(gallery) | {"row_of_text": gallery.row_of_text.tolist()}))
    write_npz(
        written[3],
        {
            f"{side}/{name}": rows
            for side, encoding in vectors.items()
            for name, rows in encoding.items()
        },
    )
    return written


def save_concepts(
    folder: Path, video_ids: Sequence[str], weights: np.ndarray, tags: Sequence[str]
) -> Path:
    """Write pred_tags.txt, the ten heaviest concepts of every video, as hybrid_space does.

    weights: float (n, K), those of the K tags. A line: `<id>\\t<tag>:<weight> <tag>:<weight> ...`;
    of equal weights the earlier tag comes first.
    """
    lines = []
    for video_id, of_video in zip(video_ids, weights, strict=True):
        best = np.argsort(-of_video, kind="stable")[:_TOP_CONCEPTS]
        shown = " ".join(f"{tags[n]}:{of_video[n]:.3f}" for n in best)
        lines.append(f"{video_id}\t{shown}\n")
    atomic_write(folder / CONCEPTS, "".join(lines))
    return folder / CONCEPTS


def rank_arrays(name: str, found: Evaluation) -> dict[str, np.ndarray]:
    """Return what ranks.npz holds of the way of ranking called `name`."""
    arrays = {f"{name}/v2t_rows": found.v2t_rows}
    for side, counts in (("t2v", found.t2v), ("v2t", found.v2t)):
        arrays |= {f"{name}/{side}_above": counts.above, f"{name}/{side}_tied": counts.tied}
    return arrays


def save_similarity(folder: Path, name: str, t2v: np.ndarray, v2t: np.ndarray) -> list[Path]:
    """Write the final scores of the way of ranking called `name`, float32 .npy.

    t2v (N_t, N_v), v2t (N_v, N_t). Returns the paths of both files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{side}.npy" for side in ("t2v", "v2t")]
    for path, scores in zip(paths, (t2v, v2t), strict=True):
        write_npy(path, scores.astype(np.float32, copy=False))
    return paths


def read_all(step: Path) -> list[dict]:
    """metrics.json of every checkpoint that the evaluate step in this folder ranked, in their
    order.
    """
    return [read_metrics(step / disk_name(record.id)) for record in usable_records(step)]


def read_metrics(folder: Path) -> dict:
    """metrics.json of an evaluated checkpoint. DataError if it is missing or damaged."""
    return _read_json(folder / METRICS)


def changes_of(folder: Path) -> list[str]:
    """Return what `evaluate --set` changed in the recipe of the checkpoint of these results.

    Raises DataError as `read_metrics` does.
    """
    return read_metrics(folder).get("set", [])


def searched(folder: Path) -> str:
    """Return what a search in these results looks through, in words: how many videos, of which
    split.

    Raises DataError as `read_gallery` does.
    """
    gallery = read_gallery(folder)
    whole = read_metrics(folder).get("of", {})
    of = f" of {whole['videos']:,}" if whole else ""
    made = f", splits {whole['splits']}" if whole else ""
    return f"{len(gallery.video_ids):,}{of} videos are searched (split {gallery.split}{made})"


def read_ranks(folder: Path, rerank: str) -> dict[str, np.ndarray]:
    """Return {"t2v", "v2t"}: pessimistic ranks from 1 of every query, int64. DataError if they were
    not saved.
    """
    arrays = read_npz(folder / RANKS)
    try:
        return {
            side: 1 + arrays[f"{rerank}/{side}_above"] + arrays[f"{rerank}/{side}_tied"]
            for side in ("t2v", "v2t")
        }
    except KeyError as error:
        raise _damaged(folder / RANKS, f"no ranks of {error}") from error


def read_gallery(folder: Path) -> Gallery:
    """gallery.json of an evaluated checkpoint. DataError if it is missing or damaged."""
    values = _read_json(folder / GALLERY)
    try:
        return Gallery(
            **(values | {"row_of_text": np.array(values["row_of_text"], dtype=np.int64)})
        )
    except (TypeError, KeyError, ValueError) as error:
        raise _damaged(folder / GALLERY, error) from error


def read_vectors(folder: Path) -> Vectors:
    """Return the encodings as saved, float32. DataError if they are missing, damaged or not a row
    per id.
    """
    gallery = read_gallery(folder)
    sides: Vectors = {"text": {}, "video": {}}
    for name, array in read_npz(folder / ENCODINGS).items():
        side, _, key = name.partition("/")
        if side not in sides or array.dtype != np.float32 or not array.ndim:
            raise _damaged(folder / ENCODINGS, f"unexpected array {name}")
        sides[side][key] = array
    for side, rows in (("text", len(gallery.texts)), ("video", len(gallery.video_ids))):
        lengths = {len(values) for values in sides[side].values()}
        if lengths != {rows}:
            raise _damaged(folder / ENCODINGS, f"{side}: rows {sorted(lengths)} for {rows:,} ids")
    return sides


def read_encodings(folder: Path) -> "dict[str, Encoding]":
    """Return {"text", "video"}: the encodings as tensors, float32 on the CPU.

    Raises DataError as `read_vectors` does.
    """
    import torch

    return {
        side: {name: torch.from_numpy(rows) for name, rows in vectors.items()}
        for side, vectors in read_vectors(folder).items()
    }


def table(step: Path) -> str:
    """Return the metrics of an evaluate step as aligned lines: a row for each checkpoint and way of
    ranking, and chance.

    trained: the share of the parameters that the recipe trains.
    """
    found = read_all(step)
    if not found:
        raise DataError(
            "there are no evaluated checkpoints", where=step, fix="Run the evaluate step."
        )
    labels = [_label(m, name, n) for m in found for n, name in enumerate(m["results"])]
    width = max(map(len, [*labels, "checkpoint"]))
    titles = "".join(f"{f'R@{c[1:]}' if c[1:].isdigit() else c:>7}" for c in _COLUMNS)
    lines = [
        f"{'':<{width}}   {'text -> video':<{len(titles)}}   {'video -> text':<{len(titles)}}",
        f"{'checkpoint':<{width}}   {titles}   {titles}     Rsum   trained",
    ]
    rows = [values for m in found for values in m["results"].values()]
    shares = [_share(m.get("parameters"), n) for m in found for n in range(len(m["results"]))]
    for label, row, share in zip(labels, rows, shares, strict=True):
        lines.append(f"{label:<{width}}{_sides(row)}{row['Rsum']:9.1f}{share:>10}")
    first = found[0]
    said = [
        (m["checkpoint"], gain_words(gain)) for m in found for gain in m.get("gains", {}).values()
    ]
    lines.append(f"{'chance':<{width}}{_sides(first['chance'])}")
    policy, gallery = tie_policies(rows), rows[0]["v2t_definition"]
    lines.append(
        f"{first['texts']:,} texts, {first['videos']:,} videos of {first['split']}; ties {policy}; "
        f"video -> text over {gallery}"
    )
    lines += [f"{name}: {words}" for name, words in said]
    lines += _seed_lines(found)
    lines += _interval_lines(labels, rows, width)
    if len(rows) > 1:
        lines.append(f"whether they differ by more than chance: python cli.py compare {step}")
    return "\n".join(line.rstrip() for line in lines)


def _seed_lines(found: list[dict]) -> list[str]:
    """Return a block for steps that were trained with several seeds: mean and spread of each."""
    by_name = {metrics["checkpoint"]: metrics for metrics in found}
    runs = groups(list(by_name))
    if not runs:
        return []
    width = max(len(name) for name in [*runs, "checkpoint"])
    titles = "".join(f"   {title:>14}" for title in ("t2v R@1", "v2t R@1", "Rsum"))
    lines = [
        "",
        "mean over seeds, +- standard deviation",
        f"{'checkpoint':<{width}}   seeds{titles}",
    ]
    for base, names in runs.items():
        first = [next(iter(by_name[name]["results"].values())) for name in names]
        cells = []
        for values in (
            [row["t2v"]["R1"] for row in first],
            [row["v2t"]["R1"] for row in first],
            [row["Rsum"] for row in first],
        ):
            cells.append(f"{np.mean(values):.1f} +- {np.std(values, ddof=1):.1f}")
        lines.append(f"{base:<{width}}   {len(names):5}" + "".join(f"   {c:>14}" for c in cells))
    return lines


def _interval_lines(labels: list[str], rows: list[dict], width: int) -> list[str]:
    """Return a block of 95 % intervals of R@1 and Rsum: a line for each row of the table."""
    from pipeline.evaluation.intervals import interval_words

    known = [row["intervals"] for row in rows if "intervals" in row]
    if not known:
        return []
    titles = "".join(f"   {title:>16}" for title in ("t2v R@1", "v2t R@1", "Rsum"))
    lines = ["", interval_words(known[0]), f"{'checkpoint':<{width}}{titles}"]
    for label, row in zip(labels, rows, strict=True):
        found = row.get("intervals")
        if found is None:
            lines.append(f"{label:<{width}}   ranked before intervals were: evaluate --force")
            continue
        limits = [found["t2v"]["R1"], found["v2t"]["R1"], found["Rsum"]]
        cells = [f"{low:.1f} to {high:.1f}" for low, high in limits]
        lines.append(f"{label:<{width}}" + "".join(f"   {cell:>16}" for cell in cells))
    return lines


def tie_policies(rows: Sequence[Mapping]) -> str:
    """Return how ties were counted in these metrics: one name, or all, in their order."""
    return ", ".join(dict.fromkeys(row["tie_policy"] for row in rows))


def gain_words(gain: dict) -> str:
    """Return what sampling adds, in one line."""
    both = ", ".join(f"{words} R@1 {gain[side]['R1']:+z.1f}" for side, words in _SIDES.items())
    return f"sampling, against {ALONE[gain['over']]}: {both}"


def _label(metrics: dict, rerank: str, place: int) -> str:
    if place:
        return f"  {_ROWS.get(rerank, rerank)}"
    return metrics["checkpoint"] if rerank == "none" else f"{metrics['checkpoint']} {rerank}"


def _share(parameters: dict[str, int] | None, place: int) -> str:
    """Of a model's parameters, those that its recipe trains; said once for each checkpoint."""
    return (
        f"{100 * parameters['trained'] / parameters['all']:.3g} %"
        if parameters and not place
        else ""
    )


def _sides(values: dict) -> str:
    cells = [[values[side].get(column) for column in _COLUMNS] for side in ("t2v", "v2t")]
    return "".join(
        "   " + "".join(" " * 7 if v is None else f"{v:7.1f}" for v in side) for side in cells
    )


def _json(value: dict) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(values, dict):
        raise _damaged(path, "not a JSON object")
    return values


def _damaged(path: Path, error: object) -> DataError:
    return DataError(f"cannot be used: {error}", where=path, fix="Run the evaluate step again.")
