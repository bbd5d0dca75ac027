"""DGL: CLIP stays as it is; a few learned prompts for both towers are all that trains.

Torch-free: names, ranges and defaults of `models/dgl/model.py`. Defaults are knightyxp/DGL:
main_params.py and scripts; the published name of an option is in brackets. What trains is said by
`train.freeze` of a recipe [freeze_clip]: the prompts are `prompts.*`, everything else is `clip.*`
and `patches3d.*`. Source: docs/specs/dgl.md, sections 2 to 5 and 8.
"""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from models.clip.options import VITS, Activation, vit_sizes

Feature = Literal[
    "global_prompt0",
    "average_global_prompt",
    "average_frame_cls_token",
    "average_global_prompt_and_frame_cls_token",
    "global-local-feature",
]


class Options(BaseModel, extra="forbid"):
    backbone: str = Field(
        "ViT-B/32",
        description=f"CLIP: {VITS}; given: whatever the weights are [pretrained_clip_name]",
    )
    activation: Activation = "quick_gelu"
    frames: int = Field(12, ge=1, description="frames of a video [max_frames]")
    words: int = Field(32, ge=3, description="tokens of a text, start and end included [max_words]")
    space: Literal["transformer", "linear"] = Field(
        "transformer",
        description=(
            "what makes the prompts: transformer mixes those of texts and of each frame, so it fits"
            " one number of frames; linear gives all frames the same ones and projects them for"
            " texts [shared_latent_space]"
        ),
    )
    text_prompts: int = Field(
        8,
        ge=0,
        description=(
            "prompts of a text; half of them (rounded down) stand behind its start token, the rest"
            " behind its end, where nothing reads them. linear: only says how many are in front"
            " [text_prompt_length]"
        ),
    )
    frame_prompts: int = Field(
        4, ge=1, description="prompts of each frame [local_each_frame_prompt_length]"
    )
    global_prompts: int = Field(
        4, ge=1, description="prompts of the whole video [global_visual_prompt_length]"
    )
    layers: int = Field(
        12,
        ge=1,
        description=(
            "blocks of each tower that get prompts, from the first; later blocks see none"
            " (published: such sizes crash or leave blocks out) [unified_transformer_layers]"
        ),
    )
    text_blocks: Literal["all", "prompted"] = Field(
        "all",
        description=(
            "which blocks of the text tower run; published: prompted, so that blocks behind the"
            " last layer of prompts are left out"
        ),
    )
    feature: Feature = Field(
        "global_prompt0",
        description=(
            "what stands for a video; global-local-feature crashes as published: here it is the sum"
            " of the directions of global prompt 0 and of the mean class token [visual_output_type]"
        ),
    )
    patches: Literal["2d", "3d"] = Field(
        "2d", description="3d: patches look at the frame before and after as well [linear_patch]"
    )
    frame_embedding: bool = Field(
        False,
        description=(
            "published: a parameter that is never read; kept for files that have it"
            " [time_embedding]"
        ),
    )
    logit_scale: float | None = Field(
        None,
        description="log temperature to start with instead of CLIP's [temperature_new above 1]",
    )
    half_rounding: bool = Field(
        True,
        description=(
            "round CLIP weights to float16 as the published program does (no change for OpenAI's"
            " files)"
        ),
    )
    recompute: bool = Field(
        False, description="run vision blocks again in backward: more time, far less memory"
    )

    @model_validator(mode="after")
    def _together(self) -> "Options":
        """Raises ValueError for a backbone that is no ViT, or a prefix that no prompts fill."""
        vit_sizes(self.backbone)
        if self.space == "linear" and self.prefix > 2 * self.frame_prompts:
            raise ValueError(
                f"text_prompts {self.text_prompts}: {self.prefix} in front of a text, but"
                f" {self.frame_prompts} frame_prompts make only {2 * self.frame_prompts} in the"
                " linear space"
            )
        return self

    @property
    def prefix(self) -> int:
        """Prompts in front of the words: the only ones that a sentence can see."""
        return self.text_prompts // 2
