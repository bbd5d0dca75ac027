"""Dual Encoding, before Dual Encoding++ (TPAMI 2021; `space: latent` is the form of CVPR 2019).

Torch-free: names, ranges and defaults of `models/hybrid_space/model.py`. Defaults are
danieljf24/hybrid_space's training command for MSR-VTT. Source: docs/specs/dual-encoding.md, section
11.
"""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from models.dual_encoding import options as dual_encoding
from models.dual_encoding.options import Levels

READS = frozenset({"words", "bag", "features", "tags"})  # what of a corpus the model looks at


class VideoLevels(Levels):
    kernels: list[int] = Field(
        [2, 3, 4, 5], min_length=1, description="widths of the convolutions, in frames"
    )
    max_frames: int = Field(
        64, ge=1, description="frames that levels 2 and 3 read; level 1 reads all"
    )


class TextLevels(Levels):
    kernels: list[int] = Field(
        [2, 3, 4], min_length=1, description="widths of the convolutions, in words"
    )
    word_dim: int = Field(
        500, ge=1, description="size of a word vector where none are given; else theirs"
    )
    bag_words: int | None = Field(
        None,
        ge=1,
        description=(
            "size of a bag vocabulary of its own; by default the words without the special tokens"
        ),
    )


class HybridLoss(dual_encoding.LossOptions):
    cost: Literal["mean", "sum"] = Field("sum", description="over the batch")
    tag_cost: Literal["mean", "sum"] | None = Field(
        None,
        description=(
            "the same for the tag terms (default: cost; published: sum, also where cost is mean)"
        ),
    )


class Options(BaseModel, extra="forbid"):
    space: Literal["hybrid", "latent"] = Field(
        "hybrid", description="with or without the concept space"
    )
    levels: Literal["full", "reduced"] = Field(
        "full", description="reduced leaves level 1 out (published: --concate)"
    )
    gru_pool: Literal["mean", "max"] = Field(
        "mean", description="how GRU outputs are pooled over time"
    )
    measure: Literal["cosine", "order", "euclidean"] = Field(
        "cosine", description="similarity of the latent space"
    )
    concept_measure: Literal["jaccard", "cosine"] = Field(
        "jaccard",
        description=(
            "similarity of the concept space (published: --measure_2; for TRECVID AVS: cosine)"
        ),
    )
    text_norm: bool = Field(
        True, description="latent vectors of texts get length 1; cosine needs both"
    )
    video_norm: bool = Field(
        True, description="latent vectors of videos get length 1 (published: --visual_norm)"
    )
    normalise: Literal["by_flag", "always"] = Field(
        "by_flag",
        description=(
            "by_flag: as text_norm and video_norm say; published: always, whatever they say"
        ),
    )
    distance: Literal["squared", "plain"] = Field(
        "squared",
        description=(
            "what measure euclidean ranks by; published: plain, while training takes squares"
        ),
    )
    concept_training: Literal["as_ranked", "dot"] = Field(
        "as_ranked",
        description=(
            "how training compares concepts; published: dot, raw products where concept_measure is"
            " cosine"
        ),
    )
    latent_dim: int = Field(1536, ge=1, description="size of the latent space")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="of GRU means, of filter responses, of the latent head"
    )
    alpha: float = Field(
        0.6,
        ge=0,
        le=1,
        description="weight of the latent scores, each scaled to [0, 1] first (TRECVID AVS: 0.8)",
    )
    pooling: Literal["masked", "padded"] = Field(
        "masked",
        description=(
            "masked: padding changes nothing; published: padded, the video GRU runs over padding"
            " and convolutions see it"
        ),
    )
    video: VideoLevels = Field(VideoLevels(), description="the video encoder")
    text: TextLevels = Field(TextLevels(), description="the text encoder")
    loss: HybridLoss = Field(HybridLoss(), description="what training minimises")

    @model_validator(mode="after")
    def _cosine_of_unit_vectors(self) -> "Options":
        if self.measure == "cosine" and not (self.text_norm and self.video_norm):
            raise ValueError("measure cosine needs text_norm and video_norm, as published")
        return self
