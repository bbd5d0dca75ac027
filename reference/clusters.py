"""Clustering as docs/specs/centerclip.md, section 5 states it, one token after the other in Python
floats: what ours must agree with.

The lowest index wins every tie; values closer than 1e-9 of the largest count as equal.
"""

import numpy as np

Row = np.ndarray  # (N, D) float64


def kmedoids(
    x: Row,
    k: int,
    metric: str = "euclidean",
    p: float = 2.0,
    max_iter: int = 100,
    tol: float = 1e-5,
    pre_norm: bool = False,
    lengths: np.ndarray | None = None,
) -> tuple[list[int], list[int]]:
    """Return the medoids of one set of tokens, and the number of each token's medoid."""
    lengths = np.linalg.norm(x, axis=1) if lengths is None else lengths
    x = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-6) if pre_norm else x
    d = distances(x, metric, p)
    medoids = _start(d, first(lengths, np.argmax), k)
    for _ in range(max_iter):
        new = _update(d, _assign(d, medoids), k)
        moved = sum(float(np.linalg.norm(x[a] - x[b])) for a, b in zip(new, medoids, strict=True))
        medoids = new
        if moved < tol or moved == 0:
            break
    return sorted(medoids), _assign(d, sorted(medoids))


def distances(x: Row, metric: str, p: float) -> np.ndarray:
    n = len(x)
    d = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            if metric == "cosine":
                a, b = (v / (np.linalg.norm(v) + 1e-6) for v in (x[i], x[j]))
                d[i, j] = 1 - a @ b
            else:
                d[i, j] = (np.abs(x[i] - x[j]) ** p).sum() ** (1 / p)
    return d


def first(values: np.ndarray, best: object = np.argmin) -> int:
    """Return the index of the smallest (or, with np.argmax, largest) value, of nearly equal ones
    the first.
    """
    values = np.asarray(values, dtype=float)
    extreme = values[best(values)]
    scale = max(np.abs(values[np.isfinite(values)]).max(), 1e-300)
    return int(np.argmax(np.abs(values - extreme) <= 1e-9 * scale))


def _start(d: np.ndarray, longest: int, k: int) -> list[int]:
    medoids = [longest]
    while len(medoids) < k:
        near = [
            min(d[i, m] for m in medoids) if i not in medoids else -np.inf for i in range(len(d))
        ]
        medoids.append(first(near, np.argmax))
    return medoids


def _assign(d: np.ndarray, medoids: list[int]) -> list[int]:
    return [
        medoids.index(i) if i in medoids else first([d[i, m] for m in medoids])
        for i in range(len(d))
    ]


def _update(d: np.ndarray, of: list[int], k: int) -> list[int]:
    own = [[i for i, c in enumerate(of) if c == cluster] for cluster in range(k)]
    return [members[first([sum(d[i, j] for j in members) for i in members])] for members in own]


def spectral(
    x: Row,
    k: int,
    sigma: float,
    neighbours: int | None = None,
    near: np.ndarray | None = None,
    **options: object,
) -> tuple[list[int], list[int]]:
    """Return what `kmedoids` finds in the rows of the k eigenvectors of least eigenvalues."""
    n = len(x)
    w = np.array(
        [[np.exp(-((x[i] - x[j]) ** 2).sum() / (2 * sigma**2)) for j in range(n)] for i in range(n)]
    )
    if neighbours is not None:
        least = [sorted(row, reverse=True)[min(neighbours, n) - 1] for row in w]
        w = np.array(
            [
                [w[i, j] * (w[i, j] >= least[i] or w[i, j] >= least[j]) for j in range(n)]
                for i in range(n)
            ]
        )
    w = w if near is None else w * near
    degree = w.sum(1)
    laplacian = (np.diag(degree) - w) / np.sqrt(degree[:, None] * degree[None, :])
    rows = np.linalg.eigh(laplacian)[1][:, :k]
    lengths = np.linalg.norm(rows, axis=1)
    return kmedoids(rows / (lengths[:, None] + 1e-6), k, lengths=lengths, **options)


def space_time(per_frame: int, frames: int) -> np.ndarray:
    """1 where two tokens are at most 3 frames and 4 (from 100 tokens a frame: 9) cells apart, else
    0.
    """
    side, reach = int(per_frame**0.5), 4 if per_frame < 100 else 9
    places = [(t, i // side, i % side) for t in range(frames) for i in range(per_frame)]
    return np.array(
        [
            [
                abs(a[0] - b[0]) <= 3 and abs(a[1] - b[1]) <= reach and abs(a[2] - b[2]) <= reach
                for b in places
            ]
            for a in places
        ]
    )
