"""DiffusionRet: DRL's comparison of words and frames, then denoisers re-rank the best candidates.

Torch-free: names, ranges and defaults of `models/diffusion_ret/model.py`. Defaults are
jpthu17/DiffusionRet:
main_retrieval.py, except where a description says so; the published name of an option is in
brackets. Source:
docs/specs/diffusionret.md, sections 3 to 8 and 10.
"""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from models.clip.options import VITS, Activation, HalfWeights, TokenPadding, check_words

MIN_LINEAR = (
    21  # below 20 a variance exceeds 1, at 20 the last one is 1 and a step back divides by zero
)


class Options(BaseModel, extra="forbid"):
    backbone: str = Field(
        "ViT-B/32",
        description=f"CLIP: {VITS}; weights that are given decide where they differ [base_encoder]",
    )
    activation: Activation = "quick_gelu"
    words: int = Field(32, ge=3, description="tokens of a text, start and end included [max_words]")
    frames: int = Field(12, ge=1, description="frames of a video [max_frames]")
    aggregation: Literal["none", "seqLSTM", "seqTransf"] = Field(
        "seqTransf", description="what is done with frames before they are compared [agg_module]"
    )
    temporal_layers: int = Field(4, ge=1, description="blocks of seqTransf [num_hidden_layers]")
    interaction: Literal["wti"] = Field(
        "wti",
        description="weighted token-wise; the published program names others and runs none of them",
    )
    stage: Literal["discrimination", "generation"] = Field(
        "generation",
        description=(
            "discrimination: compare, as DRL does; generation: re-rank by denoising, on top of a"
            " trained first stage [stage]"
        ),
    )
    schedule: Literal["cosine", "linear"] = Field(
        "cosine", description="how noise grows with steps [noise_schedule]"
    )
    diffusion_steps: int = Field(
        50,
        ge=1,
        description=(
            "steps of the schedule that the denoiser learns. Published runs pass 50, the training"
            f" script's default is 1000; linear: at least {MIN_LINEAR} [diffusion_steps]"
        ),
    )
    sampling_steps: int | None = Field(
        None,
        ge=1,
        description=(
            "steps of the reverse chain, evenly among them; null: all of them, as published"
        ),
    )
    negatives: int = Field(
        127,
        ge=1,
        description=(
            "hardest negatives of a query in training; a batch needs one row more. 127 of a batch"
            " of 128 takes all other rows, fewer are a real choice [num]"
        ),
    )
    clean_negative: Literal[0, -1] = Field(
        0, description="what a wrong candidate is in the clean vector [neg]"
    )
    logit_factor: float = Field(
        100.0, gt=0, description="what predictions are multiplied by in the loss [d_temp]"
    )
    frame_temperature: float = Field(
        1.0,
        gt=0,
        description="temperature of a sentence's attention to frames, in the denoisers [temp]",
    )
    masked_softmax: bool = Field(
        False,
        description=(
            "padded frames take no part in that attention. Published (false): they count in its"
            " denominator, so short videos get smaller weights"
        ),
    )
    t2v_candidates: int = Field(
        32, ge=1, description="best videos of a text that are re-ranked [t2v_num]"
    )
    v2t_candidates: int = Field(
        32, ge=1, description="best texts of a video that are re-ranked [v2t_num]"
    )
    t2v_factor: float = Field(
        1.0, gt=0, description="what samples are multiplied by before their softmax [t2v_temp]"
    )
    v2t_factor: float = Field(1.0, gt=0, description="the same, from video to text [v2t_temp]")
    t2v_alpha: float = Field(
        1.0, ge=0, description="weight of that softmax beside the similarity [t2v_alpha]"
    )
    v2t_alpha: float = Field(1.0, ge=0, description="the same, from video to text [v2t_alpha]")
    padding: TokenPadding = "zero"
    half_weights: HalfWeights = False

    @model_validator(mode="after")
    def _together(self) -> "Options":
        check_words(self.backbone, self.words)
        if self.schedule == "linear" and self.diffusion_steps < MIN_LINEAR:
            raise ValueError(
                f"{self.diffusion_steps} diffusion_steps of the linear schedule, it needs at least"
                f" {MIN_LINEAR}; use the cosine schedule for fewer"
            )
        if self.sampling_steps is not None and self.sampling_steps > self.diffusion_steps:
            raise ValueError(
                f"{self.sampling_steps} sampling_steps, but the schedule has {self.diffusion_steps}"
                " diffusion_steps; the denoiser knows no others"
            )
        return self
