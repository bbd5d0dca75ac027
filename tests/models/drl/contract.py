"""DRL for the contract suite."""

from models.drl.model import build
from tests.models.drl.small_drl import batch, small_drl
from tests.models.subject import Subject, refill

SUBJECT = Subject(
    kinds={
        "dp": {"interaction": "dp", "aggregation": "none"},
        "ti": {"interaction": "ti"},
        "xti": {"interaction": "xti", "cross_layers": 2},
        "wti1 lstm": {"wti_arch": 1, "aggregation": "seqLSTM"},
        "wti2": {"wti_arch": 2, "temporal_layers": 2},
        "wti3 none": {"wti_arch": 3, "aggregation": "none"},
        "cdcr": {"temporal_layers": 1, "cdcr": 3, "cdcr_lambda": 0.1},
    },
    model=small_drl,
    batch=batch,
    repad=lambda given: refill(given, word=7),
    build=build,
    told=("aggregation", "temporal_layers", "cross_layers"),
)
