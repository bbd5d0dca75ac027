"""DiffusionRet, both stages, for the contract suite."""

from models.diffusion_ret.model import build
from tests.models.diffusion_ret.small_diffusion import batch, small_diffusion
from tests.models.subject import Subject, refill

SUBJECT = Subject(
    kinds={
        "compare": {"stage": "discrimination"},
        "compare lstm": {"stage": "discrimination", "aggregation": "seqLSTM"},
        "denoise": {"stage": "generation"},
        "denoise none": {"stage": "generation", "aggregation": "none"},
    },
    model=small_diffusion,
    batch=batch,
    repad=lambda given: refill(given, word=7),
    build=build,
    told=("stage", "aggregation"),
)
