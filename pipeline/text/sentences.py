"""Token ids of many sentences in one array, from which batches are cut."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Sentences:
    """Token ids of N sentences of any length >= 1, kept as one int64 array.

    width: columns of every batch, for models that read a fixed number of tokens; 0: as many as the
    longest sentence of the batch has.
    """

    def __init__(self, sentences: Sequence[Sequence[int]], width: int = 0):
        self.lengths = np.array([len(s) for s in sentences], dtype=np.int64)
        assert self.lengths.all(), "a sentence without tokens has nothing to encode"
        assert not width or self.lengths.max(initial=0) <= width, (
            "a sentence is wider than the batch"
        )
        self._width = width
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        self._ids = np.fromiter(
            (i for s in sentences for i in s), np.int64, int(self.lengths.sum())
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """text (B, L) int64 padded with 0, text_mask (B, L) bool.

        L is the length of the longest sentence of the batch, or `width`.
        """
        lengths = self.lengths[rows]
        columns = np.arange(self._width or lengths.max())
        mask = columns < lengths[:, None]
        places = np.where(mask, self._starts[rows, None] + columns, 0)
        return {
            "text": torch.from_numpy(np.where(mask, self._ids[places], 0)),
            "text_mask": torch.from_numpy(mask),
        }
