"""CenterCLIP for the contract suite: with and without each way to reduce tokens."""

import json

import torch

from models.base import RetrievalModel
from models.centerclip import published
from models.centerclip.model import build
from tests.models.centerclip.small_centerclip import batch, small
from tests.models.subject import Batch, Subject

END = 49
MEDOIDS = {"frames": 2, "tokens": 9}


def pairs(n: int) -> Batch:
    """n pairs, the last video with two real frames; texts of 12, 11, 10, ... words."""
    given = batch(videos=n)
    ends = 11 - torch.arange(n)[:, None]
    place = torch.arange(12)
    text = given["text"].masked_fill(place >= ends, 0).scatter(1, ends, END)
    return given | {"text": text, "text_mask": place <= ends}


def repad(given: Batch) -> Batch:
    """Other words behind the end of each text. Padded frames are clustered with the real ones."""
    return given | {"text": given["text"].masked_fill(~given["text_mask"], 7)}


def settings(model: RetrievalModel, file: dict) -> tuple[dict]:
    """The settings beside a file, as they are read again."""
    return (json.loads(json.dumps(published.settings(model.options, file))),)


SUBJECT = Subject(
    kinds={
        "plain": {},
        "lstm": {"temporal": "lstm", "padding": "zero", "temporal_eps": 1e-12},
        "tight": {
            "temporal": "tight",
            "temporal_layers": 1,
            "padding": "zero",
            "temporal_eps": 1e-12,
        },
        "3d": {"patches": "3d"},
        "kmedoids": {"reduce": {2: MEDOIDS}},
        "spectral": {
            "reduce": {
                2: MEDOIDS
                | {"method": "spectral", "graph": "knn", "space_time": True, "neighbours": 7}
            }
        },
        "token shift": {"reduce": {block: {"method": "token_shift"} for block in (1, 2, 3)}},
    },
    model=small,
    batch=pairs,
    repad=repad,
    build=build,
    side=settings,
    told=("temporal", "patches", "reduce", "padding", "temporal_eps"),
)
