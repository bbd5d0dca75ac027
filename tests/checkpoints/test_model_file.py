"""Checkpoints of models: read alone, refused with a reason when they do not fit."""

import pytest
import torch

from pipeline.checkpoints import model_file
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.toolkit_file import TRAINING
from pipeline.errors import DataError
from tests.training import toy


def test_checkpoint_of_another_kind_is_named(tmp_path):
    write_archive(tmp_path / "a.pt", {"format": TRAINING, "version": 1})
    torch.save({"w": torch.ones(2)}, tmp_path / "b.pt")

    with pytest.raises(DataError, match="a tvrkit/training file, not tvrkit/model"):
        model_file.load_model(tmp_path / "a.pt")
    with pytest.raises(DataError, match="weights of another program"):
        model_file.load_model(tmp_path / "b.pt")


def test_checkpoint_whose_weights_do_not_fit_its_recipe_is_refused(tmp_path):
    toy.trainer(tmp_path, epochs=1).fit()
    value = read_archive(tmp_path / "checkpoints" / "best.pt")
    value["weights"]["words.weight"] = torch.ones(3, 3)
    write_archive(tmp_path / "wrong.pt", value)

    with pytest.raises(DataError, match="words.weight is .3, 3."):
        model_file.load_model(tmp_path / "wrong.pt")


def test_best_checkpoint_loads_alone(tmp_path):
    toy.trainer(tmp_path, epochs=1).fit()

    model, info = model_file.load_model(tmp_path)

    assert not model.training
    assert (info.recipe.name, info.training["epoch"]) == ("toy", 1)
    assert info.vocabulary.ids == toy.FACTS["vocabulary"]
    assert info.text_encoder.ids(["word5 word7"]) == [[5, 7]]


def test_missing_checkpoint_is_an_error_with_the_path(tmp_path):
    with pytest.raises(DataError, match="there is no checkpoint here"):
        model_file.load_model(tmp_path / "nothing")
