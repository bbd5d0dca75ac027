"""Which parameters a recipe trains."""

import pytest
from torch import nn

from pipeline.errors import ConfigError
from pipeline.recipes.freeze import count_parameters, freeze, frozen_names, unchanging_names
from pipeline.recipes.options import FreezeOptions, TrainOptions

REQUIRED = {"optimizer": {"lr": 0.1}}
NAMES = ["logit_scale", "clip.proj.weight", "clip.proj.bias", "head.weight"]


def toy() -> nn.Module:
    model = nn.Module()
    model.clip = nn.Linear(3, 2)
    model.head = nn.Linear(2, 1)
    return model


def test_matching_names_are_frozen_but_for_the_exceptions():
    options = FreezeOptions(match=r"^clip\.", exceptions=["proj.bias"])

    assert frozen_names(NAMES, options) == ["clip.proj.weight"]
    assert frozen_names(NAMES, None) == []


@pytest.mark.parametrize(
    ("match", "words"), [("vision", "no parameter matches"), (".", "nothing is left to train")]
)
def test_freezing_nothing_or_everything_is_a_mistake(match, words):
    with pytest.raises(ConfigError, match=words):
        freeze(toy(), FreezeOptions(match=match))


def test_what_is_counted_as_trained_is_what_trains():
    model, options = toy(), TrainOptions(**REQUIRED, freeze={"match": r"^clip\."})

    freeze(model, options.freeze)

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count_parameters(model, options) == {"all": 11, "trained": trained}


def test_a_frozen_temperature_may_still_change():
    model = toy()
    model.logit_scale = nn.Parameter(model.head.bias.detach().clone())
    options = TrainOptions(**REQUIRED, freeze={"match": r"^(clip\.|logit_scale)"})

    assert unchanging_names(model, options) == ["clip.weight", "clip.bias"]
