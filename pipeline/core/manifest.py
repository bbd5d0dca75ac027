"""The manifest of a finished step, and the fingerprint that decides whether it still holds."""

import importlib.metadata
from collections import Counter

from pipeline.core.artefact import Artefact
from pipeline.core.stage import Stage
from pipeline.core.state import Record, digest

SCHEMA = 1


def stage_fingerprint(stage: Stage) -> str:
    """sha256 of canonical JSON: stage name, version, options that matter, fingerprints (not paths)
    of the inputs.
    """
    return digest(
        {
            "stage": stage_name(stage),
            "version": stage.version,
            "options": effective_options(stage),
            "inputs": {need: _fingerprints(value) for need, value in stage.inputs.items()},
        }
    )


def stage_name(stage: Stage) -> str:
    return type(stage).__module__.rpartition(".")[2]


def effective_options(stage: Stage) -> dict:
    """Return the options that change the result, as plain JSON values."""
    return stage.options.model_dump(mode="json", exclude=set(stage.indifferent))


def _fingerprints(value: Artefact | list[Artefact] | None) -> object:
    if isinstance(value, list):
        return [_fingerprints(v) for v in value]
    return value.fingerprint if value is not None else None


def content_of(records: list[Record]) -> str:
    """Digest of what a step's items became; the key of later single-item steps."""
    return digest([[r.id, r.status, r.content] for r in records if r.usable])


def build_manifest(
    stage: Stage,
    name: str,
    fingerprint: str,
    records: list[Record],
    summary: dict,
    lineage: dict[str, dict],
) -> dict:
    """Return the manifest without its run facts (times, versions of Python): plain JSON values."""
    counts = Counter({"ok": 0, "damaged": 0, "failed": 0})
    counts.update(r.status for r in records)
    return {
        "schema": SCHEMA,
        "step": name,
        "stage": stage_name(stage),
        "makes": stage.makes,
        "fingerprint": fingerprint,
        "content": content_of(records),
        "options": stage.options.model_dump(mode="json"),
        "inputs": {need: _describe(value) for need, value in stage.inputs.items()},
        "lineage": lineage | {name: effective_options(stage)},
        "counts": dict(counts),
        "summary": summary,
        "packages": _packages(),
    }


def _describe(value: Artefact | list[Artefact] | None) -> object:
    if isinstance(value, list):
        return [_describe(v) for v in value]
    if value is None:
        return None
    return {
        "step": value.step,
        "path": str(value.path),
        "fingerprint": value.fingerprint,
        "content": value.known_content,
        "options": value.options,
    }


def _packages() -> dict[str, str]:
    names = ("torch", "numpy", "av", "lmdb", "h5py", "simplejpeg", "gensim", "nltk")
    found = {}
    for package in names:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
