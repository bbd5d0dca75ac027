"""One recorded case: what its `case.json`, arrays and files hold, and which of them were looked
at.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import DataError

# top-level keys of case.json that say how the case was made or what its arrays mean; anything else
# is an option, a file name or an expected value, and a handler that never looks at it has not
# compared the whole case
DESCRIPTIONS = frozenset(
    "system kind case purpose about what source reference environment generated_with made_with seed"
    " rng mode note notes options_note system_note tolerance tolerance_note inputs outputs"
    " inputs_meaning outputs_meaning meaning arrays arrays_in arrays_out quirks adaptation"
    " clip_config_legend frame_sampling_source linguistic_resources commands expected files"
    " ground_truth duplicate_rows description comment".split()
)
_ARRAYS = {"case.json", "inputs.npz", "outputs.npz"}


class Watched(Mapping):
    """case.json as a mapping that remembers which of its top-level keys were read."""

    def __init__(self, values: dict):
        self._values, self.read = values, set()

    def __getitem__(self, key: str) -> object:
        self.read.add(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:  # asking is not reading
        return key in self._values


class Case:
    """A folder with a case.json. `info`, `inputs`, `outputs` are read on first use; `path` gives
    its files.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.used_files: set[str] = set()

    @property
    def name(self) -> str:
        """The last two parts of the folder: "metrics/square_ties"."""
        return "/".join(self.folder.resolve().parts[-2:])

    @cached_property
    def info(self) -> Watched:
        """case.json. DataError if it is not a JSON object with `system` and `kind`."""
        path = self.folder / "case.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot be read: {error}", where=path, fix="Restore the recorded case."
            ) from error
        if not isinstance(values, dict) or not all(
            isinstance(values.get(key), str) for key in ("system", "kind")
        ):
            raise DataError(
                "has no `system` and `kind`", where=path, fix="Restore the recorded case."
            )
        return Watched(values)

    @property
    def system(self) -> str:
        return self.info["system"]

    @property
    def kind(self) -> str:
        return self.info["kind"]

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """Arrays of inputs.npz by name; {} if there is none."""
        return _arrays(self.folder / "inputs.npz")

    @cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """Arrays of outputs.npz by name; {} if there is none."""
        return _arrays(self.folder / "outputs.npz")

    def path(self, name: str) -> Path:
        """Path of a file or sub-folder of the case; it, and all below it, counts as used."""
        self.used_files.add(name.strip("/"))
        return self.folder / name

    def unused_files(self) -> list[str]:
        """Files of the folder, relative, that no call of `path` covers."""
        files = (p.relative_to(self.folder) for p in sorted(self.folder.rglob("*")) if p.is_file())
        return [f.as_posix() for f in files if f.as_posix() not in _ARRAYS and not self._is_used(f)]

    def _is_used(self, file: Path) -> bool:
        return any(part.as_posix() in self.used_files for part in (file, *file.parents))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read: {error}", where=path, fix="Restore the recorded case."
        ) from error
