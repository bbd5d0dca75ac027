"""Running out of memory says what was being done and which knobs to turn."""

import pytest
import torch

from pipeline.errors import SystemRefused
from pipeline.training.memory import naming_knobs
from tests.training import toy


def ask_for_too_much() -> None:
    torch.empty(1 << 55, dtype=torch.uint8)


@pytest.mark.parametrize("error", [ask_for_too_much, lambda: bytearray(1 << 60)])
def test_out_of_memory_names_work_and_knobs(error):
    with (
        pytest.raises(SystemRefused, match="out of memory") as caught,
        naming_knobs("a batch of 128", "Lower it."),
    ):
        error()

    assert (caught.value.where, caught.value.fix) == ("a batch of 128", "Lower it.")


def test_gpu_out_of_memory_is_recognised():
    with pytest.raises(SystemRefused, match="CUDA out of memory"), naming_knobs("a", "b"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="size mismatch"), naming_knobs("a", "b"):
        raise RuntimeError("size mismatch")


def test_out_of_memory_names_micro_batch_first_where_the_model_can_be_trained_in_parts(tmp_path):
    still = {"freeze": {"match": r"\.norm\.", "norms_in_eval_mode": True}}
    trainer = toy.trainer(tmp_path, micro_batch=8, **still)
    trainer.model.text.register_forward_pre_hook(lambda *_: ask_for_too_much())

    with pytest.raises(SystemRefused) as caught:
        trainer.fit()

    assert "8 captions at once on cpu" in caught.value.where
    assert caught.value.fix.startswith("Set train.micro_batch: 2, ")


def test_training_that_runs_out_of_memory_names_the_batch_size(tmp_path):
    trainer = toy.trainer(tmp_path)
    trainer.model.register_forward_pre_hook(lambda *_: ask_for_too_much())

    with pytest.raises(SystemRefused) as caught:
        trainer.fit()

    assert "12 captions at once on cpu" in caught.value.where
    assert (
        "Lower train.batch_size (12)" in caught.value.fix
        and "train.evaluation.batch_size (128)" in caught.value.fix
    )
