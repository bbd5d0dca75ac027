"""DGL for the contract suite."""

from models.dgl.model import build
from tests.models.dgl.small_dgl import batch, small_dgl
from tests.models.subject import Batch, Subject


def repad(given: Batch) -> Batch:
    """Other words behind the end of each text; its videos have no padding."""
    return given | {"text": given["text"].masked_fill(~given["text_mask"], 7)}


SUBJECT = Subject(
    kinds={
        "transformer": {"space": "transformer"},
        "linear": {"space": "linear"},
        "3d": {"space": "transformer", "patches": "3d"},
    },
    model=small_dgl,
    batch=batch,
    repad=repad,
    build=build,
    told=("space", "patches", "layers"),
)
