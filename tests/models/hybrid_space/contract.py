"""The hybrid space for the contract suite."""

from torch.nn.functional import pad

from models.base import RetrievalModel
from models.hybrid_space.model import build
from tests.models.hybrid_space.small_hybrid import batch, small
from tests.models.subject import Batch, Subject, refill


def model(**options: object) -> RetrievalModel:
    """In eval mode, with running means and variances that no batch has."""
    made = small(**options).eval()
    for name, value in made.named_buffers():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    return made


def repad(given: Batch) -> Batch:
    """Three more columns of padding, with words and numbers in them."""
    longer = {name: pad(given[name], (0, 3)) for name in ("text", "text_mask", "video_mask")}
    features = pad(given["features"], (0, 0, 0, 3))
    return refill(given | longer | {"features": features}, word=17)


SUBJECT = Subject(
    kinds={
        "hybrid": {},
        "latent": {"space": "latent"},
        "reduced": {"levels": "reduced"},
        "max": {"gru_pool": "max"},
        "order": {"measure": "order", "text_norm": False},
        "cosine": {"concept_measure": "cosine", "concept_training": "dot"},
        "plain": {"measure": "euclidean", "distance": "plain", "normalise": "always"},
    },
    model=model,
    batch=lambda n: batch(n=n),
    repad=repad,
    build=build,
    told=("space", "levels", "gru_pool", "measure", "concept_measure", "text_norm"),
)
