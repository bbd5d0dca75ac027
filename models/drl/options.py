"""DRL: every word finds its best frame and every frame its best word, on a fine-tuned CLIP.

Torch-free: names, ranges and defaults of `models/drl/model.py`. Defaults are foolwood/DRL: main.py,
except where a description says "published:". Source: docs/specs/drl.md, sections 4 to 7 and 12.
"""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from models.clip.options import VITS, Activation, HalfWeights, TokenPadding, check_words


class Options(BaseModel, extra="forbid"):
    backbone: str = Field(
        "ViT-B/32", description=f"CLIP: {VITS}; weights that are given decide where they differ"
    )
    activation: Activation = "quick_gelu"
    words: int = Field(32, ge=3, description="tokens of a text, start and end included")
    frames: int = Field(12, ge=1, description="frames of a video")
    aggregation: Literal["none", "seqLSTM", "seqTransf"] = Field(
        "seqTransf", description="what is done with frames before they are compared"
    )
    temporal_layers: int = Field(4, ge=1, description="blocks of seqTransf")
    interaction: Literal["dp", "ti", "xti", "wti"] = Field(
        "wti",
        description=(
            "dp: cosine of two vectors; ti: token-wise; wti: the same, weighted by small networks;"
            " xti: a transformer over each pair, which costs as many sequences as there are pairs"
        ),
    )
    wti_arch: Literal[1, 2, 3] = Field(
        2, description="layers of the networks that weigh words and frames (wti)"
    )
    cross_layers: int = Field(4, ge=1, description="blocks of the cross transformer (xti)")
    cdcr: Literal[0, 1, 2, 3] = Field(
        0,
        description=(
            "channel decorrelation: 0 none; 1 a random word and frame of each pair (dp: its two"
            " vectors); 2 every word with its best frame and the reverse; 3 the same, weighted (wti"
            " only). Published default: 3, although the published table means 0 where it names none"
        ),
    )
    cdcr_alpha1: float = Field(
        1.0, ge=0, description="weight of the diagonal of the correlation matrix"
    )
    cdcr_alpha2: float = Field(0.06, ge=0, description="weight of everything beside it")
    cdcr_lambda: float = Field(0.001, ge=0, description="weight of the decorrelation in the loss")
    padding: TokenPadding = "zero"
    half_weights: HalfWeights = False

    @model_validator(mode="after")
    def _together(self) -> "Options":
        check_words(self.backbone, self.words)
        if self.cdcr == 3 and self.interaction == "ti":
            raise ValueError(
                "cdcr 3 weighs words and frames, which ti does not; use cdcr 2, or interaction wti"
            )
        return self
