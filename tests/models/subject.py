"""What the contract suite (test_contract.py) asks of every system; each gives it in
`contract.py`.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from models.base import Assets, RetrievalModel
from pipeline import registry

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Subject:
    """A system made small. Every kind is a set of its options under which it keeps the contract."""

    kinds: Mapping[str, dict]
    model: Callable[..., RetrievalModel]  # options -> in eval mode, no weight at its first value
    batch: Callable[[int], Batch]  # n pairs whose texts and videos differ in length, if they may
    repad: Callable[[Batch], Batch]  # the same items, with more padding or other values in it
    build: Callable[[object, Assets], RetrievalModel]
    assets: Assets = Assets()  # sizes besides the weights, as training knows them
    told: tuple[str, ...] = ()  # options that a published file tells
    # what lies beside a published file, from the model and the file
    side: Callable[[RetrievalModel, object], tuple] = lambda model, file: ()


def subject(system: str) -> Subject:
    """The subject of a system by its registry name."""
    return importlib.import_module(f"tests.models.{system}.contract").SUBJECT


def cases() -> list[tuple[str, str]]:
    """Every system of the registry with each of its kinds."""
    return [(name, kind) for name in registry.names("model") for kind in subject(name).kinds]


def refill(batch: Batch, word: int) -> Batch:
    """Other words and other pictures or features where the masks say padding."""
    text = batch["text"].masked_fill(~batch["text_mask"], word)
    video = "frames" if "frames" in batch else "features"
    fake = ~batch["video_mask"]
    values = batch[video].clone()
    values[fake] = values[fake] // 2 + 77 if video == "frames" else values[fake] + 100
    return batch | {"text": text, video: values}
