"""What to say when memory runs out: how much was being worked on, and which knobs make it less."""

import contextlib
from collections.abc import Iterator

import torch

from models.base import RetrievalModel
from pipeline.errors import SystemRefused
from pipeline.recipes.recipe import Recipe

# torch has no class of its own for running out of memory on a CPU
_CPU = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")


@contextlib.contextmanager
def naming_knobs(doing: str, knobs: str) -> Iterator[None]:
    """Turn running out of memory in the block into a SystemRefused.

    doing: what the block works on, such as "a batch of 128 captions"; knobs: what to change, a
    sentence.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SystemRefused(f"out of memory: {first[:160]}", where=doing, fix=knobs) from error


def step_and_knobs(
    name: str,
    model: RetrievalModel,
    recipe: Recipe,
    n_captions: int,
    precision: str,
    in_parts: bool,
) -> tuple[str, str]:
    """Return what one training step works on, and which options would make it less, for
    `naming_knobs`.

    name: of the training run. n_captions: in the batch of one process. in_parts: whether the model
    can be trained with `micro_batch`.
    """
    inputs, options = model.inputs, recipe.train
    device = next(model.parameters()).device
    frames = f", each with {inputs.frames} frames of {inputs.size} pixels" if inputs.frames else ""
    part = min(options.micro_batch or n_captions, n_captions)
    knobs = ""
    if in_parts and part > 1:
        knobs = (
            f"Set train.micro_batch: {max(part // 4, 1)}, which has the gradient of the whole batch"
            " in the memory of a part. "
        )
    knobs += f"Lower train.batch_size ({options.batch_size}), or use more processes (torchrun)"
    if precision == "float32" and device.type == "cuda":
        knobs += "; set train.precision: bfloat16"
    if hasattr(recipe.options, "recompute"):
        knobs += "; set options.recompute: true (a third more time)"
    return (
        f"{name}: {part} captions at once on {device}{frames}",
        f"{knobs}. For contrastive losses train.accumulation is not the same as a larger batch. If"
        f" it was a validation: train.evaluation.batch_size ({options.evaluation.batch_size}).",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the GPU or the machine has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU)
