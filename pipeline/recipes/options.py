"""TrainOptions: everything about training that a recipe may state. Defaults are
docs/specs/training-loop.md, section 3's.

Torch-free, so that `--help`, `status` and a mistake in a recipe never pay for importing torch.
"""

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

# what a validation may be judged by; rsum adds R@1, R@5 and R@10, map is mean average precision
# (both directions added without a prefix)
METRICS = tuple(
    f"{d}_{m}" for d in ("t2v", "v2t") for m in ("r1", "r5", "r10", "r50", "rsum", "map")
) + ("rsum", "map")
Metric = Literal[
    "t2v_r1", "t2v_r5", "t2v_r10", "t2v_r50", "t2v_rsum", "t2v_map",
    "v2t_r1", "v2t_r5", "v2t_r10", "v2t_r50", "v2t_rsum", "v2t_map", "rsum", "map",
]  # fmt: skip


Ties = Literal["pessimistic", "optimistic", "average", "expanded"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class OptimizerOptions(BaseModel, extra="forbid"):
    name: Literal["adam", "adamw", "bertadam", "rmsprop"] = Field(
        "adamw", description="update rule; rmsprop (the ancestors' other one) has no betas"
    )
    lr: float = Field(
        gt=0, description="learning rate before the schedule and the rules of `params`"
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="decay of the first and second moment"
    )
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.0, ge=0, description="adam: L2 term; adamw, bertadam: decoupled")
    clip_per_tensor: float | None = Field(
        None,
        gt=0,
        description=(
            "largest gradient norm of each tensor, after grad_clip (bertadam as published: 1.0)"
        ),
    )


class ScheduleOptions(BaseModel, extra="forbid"):
    name: Literal["cosine", "bert_cosine", "linear", "constant", "plateau"] = Field(
        "cosine",
        description=(
            "cosine, linear: fall from the end of the warm-up to the floor; bert_cosine: the cosine"
            " of all steps, entered after the warm-up (1 -> 0.976 at 0.1); plateau: by the results"
            " of validation"
        ),
    )
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the horizon in which the rate rises (not plateau)"
    )
    floor: float = Field(
        0.0, ge=0, description="smallest learning rate, before the rules of `params`"
    )
    horizon_epochs: int | None = Field(
        None, ge=1, description="epochs the curve spans (default: all); then it stays"
    )
    on_best: float = Field(
        1.0, gt=0, le=1, description="plateau: factor after each best validation"
    )
    on_each: float = Field(
        1.0, gt=0, le=1, description="plateau: factor after each validation, best or not"
    )
    factor: float = Field(
        0.5, gt=0, le=1, description="plateau: factor after every `wait` validations without a best"
    )
    wait: int = Field(
        3, ge=1, description="plateau: validations without a best before the rate is cut"
    )
    wait_since: Literal["best", "cut"] = Field(
        "best",
        description=(
            "plateau: `wait` counts from the last best, or (hybrid_space) all from the last cut"
        ),
    )
    reload_best: bool = Field(False, description="plateau: go back to the best weights at each cut")


class ParameterRule(BaseModel, extra="forbid"):
    """Sets what it names for the parameters whose name it matches; the first rule that names a key
    wins.
    """

    match: Pattern = Field(description="regular expression, searched in the parameter's name")
    lr_scale: float | None = Field(None, ge=0, description="factor on the learning rate")
    weight_decay: float | None = Field(None, ge=0, description="instead of the optimizer's")


class FreezeOptions(BaseModel, extra="forbid", populate_by_name=True):
    match: Pattern = Field(description="regular expression: parameters that do not train")
    exceptions: list[Pattern] = Field(
        [], alias="except", description="regular expressions: parameters that train all the same"
    )
    norms_in_eval_mode: bool = Field(
        False, description="frozen normalisation layers use their stored statistics"
    )


class TemperatureOptions(BaseModel, extra="forbid"):
    match: Pattern = Field(
        "logit_scale$", description="regular expression: parameters that hold a log temperature"
    )
    min: float | None = Field(None, description="smallest value kept after each step")
    max: float | None = Field(math.log(100), description="largest value kept after each step")


class EmaOptions(BaseModel, extra="forbid"):
    moment: float = Field(
        0.99, gt=0, lt=1, description="share of the old average kept at each step"
    )
    dtype: Literal["float32", "parameter"] = Field("float32", description="type of the averages")


class EvaluationOptions(BaseModel, extra="forbid"):
    every_epochs: int | None = Field(
        1, ge=1, description="validate after every n-th epoch (and after the last)"
    )
    every_steps: int | None = Field(None, ge=1, description="also validate after every n-th step")
    at_first_step: bool = Field(False, description="also validate after the first step")
    models: Literal["raw", "ema", "both"] | None = Field(
        None, description="default: both with ema, else raw"
    )
    batch_size: int = Field(128, ge=1, description="items encoded at once in validation")
    chunk: int | None = Field(
        None,
        ge=1,
        description="published, for padded pooling: items encoded per chunk, in file order (2000)",
    )
    ties: Ties | None = Field(
        None,
        description=(
            "how `evaluate` ranks a query whose own item ties, unless its --ties says so; null:"
            " pessimistic (published by the CLIP4Clip family: expanded)"
        ),
    )


FrameMode = Literal["segments", "centers", "segments-published", "linspace", "head", "tail"]
FrameOrder = Literal["forward", "reversed", "shuffled"]


class FrameOptions(BaseModel, extra="forbid"):
    """For models that read frames; how many, and how large, are options of the model."""

    source: Literal["auto", "tensors", "store", "videos"] = Field(
        "auto",
        description=(
            "where frames are read; auto: the first of tensor cache, frame store, video files given"
        ),
    )
    train: FrameMode = Field(
        "segments", description="which frames a training step sees (segments: one random of each)"
    )
    evaluation: FrameMode = Field("centers", description="which frames are encoded otherwise")
    every: int = Field(1, ge=1, description="choose among every n-th frame, of those at `fps`")
    train_order: FrameOrder = Field("forward", description="order of the chosen frames in training")
    evaluation_order: FrameOrder = Field(
        "forward", description="order of the chosen frames otherwise"
    )
    fit: Literal["resize_crop", "center_crop"] = Field(
        "resize_crop",
        description="store, videos: scale the short side to the model's size first; or only crop",
    )
    fps: float | None = Field(
        None,
        gt=0,
        description=(
            "frames per second that the model reads of videos, stores and caches that hold more;"
            " null: all"
        ),
    )


class InitOptions(BaseModel, extra="forbid"):
    take: Literal["all", "clip"] = Field(
        "all",
        description=(
            "of a checkpoint: all its weights, or its CLIP alone, as if that were a CLIP file"
        ),
    )
    match: Pattern = Field(
        "", description="with all: only weights whose name matches this; others keep first values"
    )
    go_on: bool = Field(
        False,
        description=(
            "go on where that training stopped: its optimizer's moments, loss scale, epoch and"
            " step too"
        ),
    )
    keep_zeros: bool = Field(
        True, description="with all, of a pruned checkpoint: its zeros stay zero in training"
    )


class DistributedOptions(BaseModel, extra="forbid"):
    gather: Literal["full_gradient", "local_gradient"] = Field(
        "full_gradient",
        description="full_gradient: N processes equal one; local_gradient: as published",
    )
    find_unused_parameters: bool = Field(
        False, description="let parameters without gradient pass (costs time)"
    )
    sync_batchnorm: bool = Field(False, description="batch statistics over all processes")
    timeout_minutes: float = Field(60, gt=0, description="how long processes wait for each other")


class TrainOptions(BaseModel, extra="forbid"):
    epochs: int = Field(5, ge=1, description="passes over the training captions")
    batch_size: int = Field(128, ge=2, description="captions per batch")
    batch_scope: Literal["global", "per_process"] = Field(
        "global", description="what batch_size counts"
    )
    expected_processes: int | None = Field(
        None, ge=1, description="processes the recipe was published with; a warning"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description=(
            "pairs encoded at once: the gradient of the whole batch in the memory of a part, for"
            " one more forward pass"
        ),
    )
    accumulation: int = Field(
        1,
        ge=1,
        description=(
            "batches per step; for contrastive losses not the same as a larger batch, see"
            " micro_batch"
        ),
    )
    clean_captions: bool = Field(
        True,
        description=(
            "split captions like the vocabulary does (published: false, at white space only)"
        ),
    )
    drop_last: bool = Field(
        True, description="leave out the last batch of an epoch when it is smaller"
    )
    distinct_videos: bool = Field(
        False,
        description="no video twice in a batch (its captions would be each other's negatives)",
    )
    pairs_together: bool = Field(
        False,
        description=(
            "keep videos that follow each other in twos (the demo's time reversals) in one batch"
        ),
    )
    frames: FrameOptions = Field(
        FrameOptions(), description="which frames, and where they are read"
    )
    init: InitOptions = Field(
        InitOptions(), description="what is taken from the weights to start from"
    )
    seed: int = Field(42, ge=0, lt=2**31, description="of weights, order, dropout and noise")
    seed_scope: Literal["same", "per_rank"] = Field(
        "per_rank", description="dropout and noise of the processes"
    )
    deterministic: bool = Field(True, description="deterministic GPU kernels where there are any")
    precision: Literal["auto", "float32", "bfloat16", "amp"] = Field(
        "auto",
        description=(
            "amp: float16 with loss scaling; auto: bfloat16 on a GPU, float32 elsewhere. Weights"
            " are float32"
        ),
    )
    optimizer: OptimizerOptions
    schedule: ScheduleOptions = Field(ScheduleOptions(), description="of the learning rate")
    params: list[ParameterRule] = Field(
        [ParameterRule(match=r"bias|norm|\bln_|embedding|logit_scale", weight_decay=0.0)],
        description="rules for some parameters",
    )
    freeze: FreezeOptions | None = Field(None, description="parameters that do not train")
    grad_clip: float | None = Field(1.0, gt=0, description="largest norm of the whole gradient")
    temperature: TemperatureOptions = Field(
        TemperatureOptions(), description="limits of the log temperature"
    )
    ema: EmaOptions | None = Field(None, description="keep a moving average of the weights")
    evaluation: EvaluationOptions = Field(
        EvaluationOptions(), description="when and how to validate"
    )
    selection_split: Literal["val", "test", "none"] = Field(
        "val",
        description=(
            "split that picks the best weights; none: keep the last. test is stated in the log"
        ),
    )
    select: Metric = Field("t2v_r1", description="metric that picks the best weights")
    tie: Literal["first", "last"] = Field(
        "first", description="which of two equal validations is the best"
    )
    stop_after: int | None = Field(
        None, ge=1, description="stop after this many validations in a row without a best"
    )
    keep_epochs: bool = Field(
        False, description="also keep the weights of every epoch (checkpoints/epoch-N.pt)"
    )
    non_finite: Literal["stop", "skip"] = Field(
        "stop", description="what a loss that is not finite does"
    )
    skip_limit: int = Field(
        10, ge=1, description="skipped steps after which the run stops all the same"
    )
    detect_anomaly: bool = Field(False, description="slow: name the operation that made a NaN")
    distributed: DistributedOptions = Field(
        DistributedOptions(), description="training with several processes"
    )
    log_every: int = Field(50, ge=1, description="steps between lines of metrics.jsonl")
