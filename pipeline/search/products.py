"""Products of one query with many rows: fast in float16, exact in float32."""

import numpy as np
import torch

# float16 rounds a query, and a product, by 2 ** -11 of their size; twice that for both ends
ROUNDING = 4 * 2.0**-11
_BLOCK = 1_024


def products(summaries: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Products of all rows (n, S) and a query (S,), float32; of float16 rows with its rounding."""
    rows = torch.from_numpy(summaries)
    return torch.mv(rows, torch.from_numpy(vector).to(rows.dtype)).float().numpy()


def exact_products(summaries: np.ndarray, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Products of some rows and a query in float32, (n,)."""
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        # a sum per row: a matrix product would round by what else is in the block
        found[start : start + _BLOCK] = np.einsum(
            "ns,s->n", summaries[part].astype(np.float32), vector
        )
    return found
