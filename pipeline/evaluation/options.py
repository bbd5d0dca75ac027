"""What an evaluation may be told: which split, how ties count, what re-ranks, on what it runs."""

from typing import Literal

from pydantic import BaseModel, Field


class QueryBank(BaseModel, extra="forbid"):
    split: str = Field("train", description="split whose captions and videos are the bank")
    size: int = Field(
        5000, ge=1, description=("captions and videos taken from that split, evenly spaced")
    )
    beta: float = Field(20.0, gt=0, description="inverse temperature, for unscaled scores")
    k: int = Field(1, ge=1, description="top items of each bank query that become active")
    theta: int = Field(
        1, ge=1, description="how often an item must be among these (1: QB-Norm; 3 and 5: DGL)"
    )


class Sampling(BaseModel, extra="forbid"):
    seed: int = Field(
        0, ge=0, lt=2**63, description=("seed of the noise; another seed gives other ranks")
    )
    steps: int | None = Field(None, ge=1, description="steps of the reverse chain  [the model's]")
    t2v_candidates: int | None = Field(
        None, ge=1, description="best videos of a text that are re-ranked  [the model's]"
    )
    v2t_candidates: int | None = Field(
        None, ge=1, description="best texts of a video that are re-ranked  [the model's]"
    )
    t2v_factor: float | None = Field(
        None, gt=0, description="factor on samples before their softmax  [the model's]"
    )
    v2t_factor: float | None = Field(None, gt=0, description="the same, from video to text")
    t2v_alpha: float | None = Field(
        None, ge=0, description="weight of that softmax beside the score  [the model's]"
    )
    v2t_alpha: float | None = Field(None, ge=0, description="the same, from video to text")
    features: Literal["denoiser", "model"] = Field(
        "denoiser",
        description=(
            "what rerank diffusion reads: the split as the denoiser's own extractor encodes it,"
            " or the evaluated model's encodings if these hold sentence and frame vectors of the"
            " denoiser's width"
        ),
    )

    @property
    def changes(self) -> dict[str, int | float]:
        """What differs from the model's own settings."""
        return self.model_dump(exclude={"seed", "features"}, exclude_none=True)


class Options(BaseModel, extra="forbid"):
    split: str = Field("test", description="split to rank; all: all captions")
    rerank: list[Literal["none", "dsl", "qbnorm", "diffusion"]] = Field(
        ["none"],
        min_length=1,
        description=("a list: none, dsl, qbnorm, diffusion"),
    )
    sampling: Sampling = Field(
        Sampling(),
        description=("{seed, steps, features, t2v_candidates, ...}"),
    )
    ties: Literal["pessimistic", "optimistic", "average", "expanded"] | None = Field(
        None, description="how equal scores rank  [as the recipe says]"
    )
    v2t: Literal["captions", "groups"] = Field(
        "captions",
        description="groups: best caption of each video",
    )
    t2v_median: Literal["mean", "lower"] = Field(
        "mean",
        description=("median of an even number of texts"),
    )
    dsl_scale: float | None = Field(
        None, gt=0, description="factor on scores for dsl  [the model's, or 100]"
    )
    bank: QueryBank = Field(QueryBank(), description=("of qbnorm: {split, size, beta, k, theta}"))
    chunk: int | None = Field(
        None,
        ge=-1,
        description="items encoded per chunk, in file order; -1: all",
    )
    set: list[str] = Field(
        [],
        description="change the recipe: options.frames=24",
        json_schema_extra={"repeated": True},
    )
    save_similarity: bool = Field(False, description="write the score matrices (.npy)")
    examples: int = Field(6, ge=0, description="best and worst queries for the report")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the encoders",
    )
    batch_size: int = Field(64, ge=1, description="items encoded at once, without --chunk")
    memory_mb: int = Field(256, ge=1, description="MB for a block of scores")
    device: str = Field(
        "auto",
        pattern="^(auto|cpu|mps|cuda(:[0-9]+)?)$",
        description=("auto: the GPU, if there is one"),
    )
    speed_passes: int = Field(0, ge=0, description="passes that measure speed")
    loader_threads: int | None = Field(
        None, ge=1, description="that read frames  [one per core, up to 8]"
    )
