"""Dual Encoding++: words and features at three levels, compared in a latent and a concept space.

Torch-free: names, ranges and defaults of `models/dual_encoding/model.py`. Defaults are
dongYoun2/dual-encoding-system:
config_hybrid.yaml, except where a description says "published:". Source:
docs/specs/dual-encoding.md, sections 2 and 3.
"""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

READS = frozenset({"words", "features", "tags"})  # what of a corpus the model looks at


class Levels(BaseModel, extra="forbid"):
    """Levels 2 and 3 of an encoder."""

    rnn: int = Field(512, ge=1, description="hidden size of the GRU, per direction")
    bidirectional: bool = Field(
        True, description="GRU in both directions (rows C, E, F of the paper: not for videos)"
    )
    kernels: list[int] = Field(min_length=1, description="widths of the convolutions over time")
    channels: int | list[int] = Field(
        512, description="filters of each width: one number for all, or one per width"
    )

    @model_validator(mode="after")
    def _one_number_per_kernel(self) -> "Levels":
        if min(self.kernels) < 1 or min(self.filters) < 1:
            raise ValueError("kernels and channels count from 1")
        if len(self.filters) != len(self.kernels):
            raise ValueError(
                f"{len(self.filters)} channels for {len(self.kernels)} kernels; give one number, or"
                " one each"
            )
        return self

    @property
    def filters(self) -> list[int]:
        """Filters of each kernel."""
        return (
            self.channels
            if isinstance(self.channels, list)
            else [self.channels] * len(self.kernels)
        )


class Side(Levels):
    """One of the two encoders and its heads."""

    dropout: float = Field(
        0.2, ge=0, lt=1, description="dropout of the latent head, by default also the concept head"
    )
    concept_dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout of the concept head"
    )

    @property
    def dropouts(self) -> tuple[float, float]:
        """Rates of the latent and the concept head."""
        return self.dropout, self.dropout if self.concept_dropout is None else self.concept_dropout


class VideoSide(Side):
    kernels: list[int] = Field(
        [2, 3, 4, 5], min_length=1, description="widths of the convolutions, in frames"
    )


class TextSide(Side):
    kernels: list[int] = Field(
        [2, 3, 4], min_length=1, description="widths of the convolutions, in words"
    )
    word_dim: int = Field(
        500, ge=1, description="size of a word vector where none are given; else theirs"
    )


class LossOptions(BaseModel, extra="forbid"):
    """The triplet terms of both spaces and the tag term."""

    margin: float = Field(
        0.2, ge=0, description="by how much a match must beat a negative, latent space"
    )
    concept_margin: float | None = Field(
        None, ge=0, description="the same in the concept space (default: margin)"
    )
    direction: Literal["all", "t2v", "v2t"] = Field(
        "all", description="which side looks for its negatives"
    )
    max_violation: bool = Field(
        True, description="only the hardest negative of the batch counts, else their sum"
    )
    cost: Literal["mean", "sum"] = Field(
        "mean", description="over the batch; sum: the ancestor, all terms alike"
    )
    mask_same_video: bool = Field(
        False,
        description=(
            "captions of the same video are no negatives of each other (published: they are)"
        ),
    )


class Options(BaseModel, extra="forbid"):
    latent_dim: int = Field(1536, ge=1, description="size of the latent space")
    alpha: float = Field(
        0.6,
        ge=0,
        le=1,
        description="weight of the latent scores in the final ones; rows B to F: 0.2",
    )
    scaling: Literal["minmax", "shifted_max"] = Field(
        "minmax",
        description="of each score matrix before mixing; published: shifted_max, (S - min) / max",
    )
    pooling: Literal["masked", "padded"] = Field(
        "masked",
        description=(
            "masked: padding changes nothing; published: padded, GRU means divide by the padded"
            " length and convolutions see the padding, so encodings depend on what shares their"
            " batch"
        ),
    )
    concept_double_pass: bool = Field(
        False,
        description=(
            "published: concept heads run twice per training step (other dropout, norms updated"
            " twice)"
        ),
    )
    video: VideoSide = Field(VideoSide(), description="the video encoder and its heads")
    text: TextSide = Field(TextSide(), description="the text encoder and its heads")
    loss: LossOptions = Field(LossOptions(), description="what training minimises")
