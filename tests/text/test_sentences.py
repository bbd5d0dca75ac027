"""Batches cut from sentences of many lengths."""

import numpy as np

from pipeline.text.sentences import Sentences


def test_sentences_are_padded_in_the_order_asked():
    batch = Sentences([[4, 5], [6], [4, 5, 6]]).batch(np.array([2, 1, 2]))

    assert batch["text"].tolist() == [[4, 5, 6], [6, 0, 0], [4, 5, 6]]
    assert batch["text_mask"].sum(1).tolist() == [3, 1, 3]
