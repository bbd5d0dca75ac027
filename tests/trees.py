"""Everything a step wrote, for comparison: bytes of files, content of LMDB files; what the engine
keeps beside it (`_state/`, `_parts/`, `_previous/`) stays out.
"""

import hashlib
from pathlib import Path


def tree(folder: Path) -> dict[str, str]:
    """{relative path: digest}. LMDB files are compared by content: free pages differ without
    meaning anything.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and {"_state", "_parts", "_previous"}.isdisjoint(relative.parts):
            found[str(relative)] = (
                _lmdb(path)
                if path.suffix == ".lmdb"
                else hashlib.sha256(path.read_bytes()).hexdigest()
            )
    return found


def _lmdb(path: Path) -> str:
    import lmdb

    digest = hashlib.sha256()
    with (
        lmdb.open(str(path), subdir=False, readonly=True, lock=False) as store,
        store.begin() as view,
    ):
        for key, value in view.cursor():
            digest.update(
                len(key).to_bytes(4, "little") + key + len(value).to_bytes(8, "little") + value
            )
    return digest.hexdigest()
