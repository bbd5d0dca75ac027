"""Where the training of a DGL checkpoint stopped: its optimizer's moments by the names of our
parameters.
"""

from collections.abc import Mapping

from torch import Tensor

from models.centerclip.published_training import stopped_at
from models.dgl.options import Options
from models.dgl.published import optimizer_state


def companion(name: str) -> str:
    """The file beside a checkpoint that has its optimizer state; empty: the checkpoint has it
    itself.
    """
    return ""


def import_training(
    published: Mapping[str, object],
    side: Mapping[str, object],
    options: Options,
    weights: Mapping[str, Tensor],
) -> dict[str, object] | None:
    """As that of centerclip_training.py, whose file it shares the form with."""
    if not (published.get("optimizer") or {}).get("state"):
        return None
    return stopped_at(int(published["epoch"]), published, optimizer_state(published))
