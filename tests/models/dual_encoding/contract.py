"""Dual Encoding++ for the contract suite."""

from torch.nn import functional as F

from models.dual_encoding.model import build
from tests.models.dual_encoding.small_dual import SMALL, batch, small_in_eval
from tests.models.subject import Batch, Subject, refill


def repad(given: Batch) -> Batch:
    """Four more columns of padding, with words and numbers in them."""
    longer = {name: F.pad(given[name], (0, 4)) for name in ("text", "text_mask", "video_mask")}
    features = F.pad(given["features"], (0, 0, 0, 4))
    return refill(given | longer | {"features": features}, word=17)


SUBJECT = Subject(
    kinds={
        "masked": {},
        "one direction": {"alpha": 0.2, "text": SMALL["text"] | {"bidirectional": False}},
    },
    model=small_in_eval,
    batch=lambda n: batch(rows=tuple(range(n))),
    repad=repad,
    build=build,
    told=("latent_dim", "alpha"),
)
