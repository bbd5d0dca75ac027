"""Where the training of a DGL checkpoint stopped: moments by the names of our parameters."""

from collections.abc import Mapping

from torch import Tensor

from models.centerclip.published_training import stopped_at
from models.dgl.options import Options
from models.dgl.published import optimizer_state


def companion(name: str) -> str:
    """Return the file that has the optimizer state; "": the checkpoint itself."""
    return ""


def import_training(
    published: Mapping[str, object],
    side: Mapping[str, object],
    options: Options,
    weights: Mapping[str, Tensor],
) -> dict[str, object] | None:
    """Return {"epoch" and "step" that were done, "moments", "scaler"}; None without a state.

    Moments have the shapes of their parameters. The files share the form of CenterCLIP's.
    """
    if not (published.get("optimizer") or {}).get("state"):
        return None
    return stopped_at(int(published["epoch"]), published, optimizer_state(published))
