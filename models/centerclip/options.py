"""CenterCLIP: CLIP on frames whose tokens are clustered on the way; without, it is CLIP4Clip.

Torch-free: names, ranges and defaults of `models/centerclip/model.py`. Defaults are
mzhaoshuai/CenterCLIP: params.py and scripts; the published name of an option is in brackets.
Source: docs/specs/centerclip.md, sections 4 to 7 and 12.
"""

from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from models.clip.options import VITS, Activation, HalfWeights
from models.clip.sizes import BACKBONES

STAYS = ("temporal_shift", "token_shift")  # methods that reduce nothing


class Reduce(BaseModel, extra="forbid"):
    """What happens to the tokens in front of one vision block."""

    method: Literal[
        "kmedoids", "spectral", "deep", "pooling", "sparse", "temporal_shift", "token_shift"
    ] = Field(
        "kmedoids",
        description=(
            "kmedoids, spectral, deep (a learned clustering): keep `tokens` of each segment;"
            " sparse: take them at equal distances (training: at random); pooling: mean of the"
            " frames, `tokens` does not count; temporal_shift, token_shift: exchange channels"
            " between neighbouring frames, reduce nothing [cluster_algo]"
        ),
    )
    frames: int | None = Field(
        None, ge=1, description="segments that are left of a video [target_frames_blocks]"
    )
    tokens: int = Field(
        49, ge=1, description="patch tokens that are left of a segment [cluster_num_blocks]"
    )
    metric: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="distance of tokens [cluster_distance]"
    )
    p: float = Field(
        2.0, gt=0, description="exponent of the Minkowski distance (euclidean) [minkowski_norm_p]"
    )
    max_iter: int = Field(100, ge=1, description="most rounds of k-medoids [cluster_iter_limit]")
    tol: float = Field(
        1e-5,
        ge=0,
        description="k-medoids stops when medoids move less in a round [cluster_threshold]",
    )
    pre_norm: bool = Field(False, description="kmedoids: cluster tokens of length 1 [pre_norm]")
    keep: Literal["medoid", "mean"] = Field(
        "medoid",
        description=(
            "what stands for a cluster: its medoid, or the mean of its members [aggregation]"
        ),
    )
    embedding: bool = Field(
        False, description="add a learned vector to each kept token [cluster_embedding]"
    )
    embedding_from_clip: bool = Field(
        True,
        description=(
            "it starts as the position embedding of CLIP, else random [cluser_embed_from_clip]"
        ),
    )
    frame_embedding: bool = Field(
        False, description="published: a parameter that is never read; kept for files that have it"
    )
    class_weights: bool = Field(
        False,
        description=(
            "multiply each frame's class token by a learned number before the mean of its segment"
            " [adaptive_cls, which the published program parses and does not pass on]"
        ),
    )
    graph: Literal["knn", "heat"] = Field(
        "heat",
        description="spectral: affinities to the nearest tokens only, or to all [spectral_graph]",
    )
    sigma: float = Field(2.0, gt=0, description="spectral: width of the affinity [spectral_sigma]")
    neighbours: int = Field(
        1,
        ge=1,
        description="spectral, knn: nearest tokens; below 5: chosen by the size [spectral_knn_k]",
    )
    space_time: bool = Field(
        False,
        description=(
            "spectral: only tokens near each other in space and time are neighbours [spectral_spg]"
        ),
    )

    @property
    def added(self) -> list[str]:
        """The options in force that change what stands for a cluster."""
        stated = {
            "keep": self.keep == "mean",
            "embedding": self.embedding,
            "frame_embedding": self.frame_embedding,
        }
        return [name for name, is_on in stated.items() if is_on]


class Options(BaseModel, extra="forbid"):
    backbone: str = Field(
        "ViT-B/32",
        description="CLIP to build on; given: any ViT, as large as the weights it starts from",
    )
    activation: Activation = "quick_gelu"
    frames: int = Field(12, ge=1, description="frames per video [max_frames]")
    words: int = Field(32, ge=3, description="tokens per text, start and end included [max_words]")
    patches: Literal["2d", "3d"] = Field(
        "2d", description="3d: patches look at the frame before and after as well [linear_patch]"
    )
    temporal: Literal["mean", "sequence", "lstm", "tight"] = Field(
        "mean", description="CLIP4Clip's meanP, seqTransf, seqLSTM, tightTransf [sim_header]"
    )
    temporal_layers: int = Field(
        4, ge=1, description="blocks of sequence and tight [cross_num_hidden_layers]"
    )
    temporal_eps: float = Field(
        1e-5, gt=0, description="of the layer norms of sequence and tight; CLIP4Clip: 1e-12"
    )
    temporal_dropout: float = Field(0.1, ge=0, lt=1, description="tight: dropout of its input")
    logit_scale: float | None = Field(
        None, description="log temperature to start with, instead of CLIP's [temperature_new]"
    )
    padding: Literal["repeat", "zero"] = Field(
        "repeat",
        description="missing frames repeat the last one, or (CLIP4Clip) are 0 after normalisation",
    )
    half_rounding: bool = Field(
        True,
        description=(
            "round CLIP weights to float16 where the published programs do (no change for OpenAI's"
            " files)"
        ),
    )
    half_weights: HalfWeights = False
    recompute: bool = Field(
        False, description="run blocks again in backward: a third more time, far less memory"
    )
    reduce: dict[int, Reduce] = Field(
        {}, description="by vision block, from 1: what happens in front of it"
    )

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name: str) -> str:
        """Raises ValueError for anything but a ViT or "given"."""
        if name != "given" and name not in BACKBONES:
            raise ValueError(f"choose one of {VITS}, given")
        if name != "given" and not BACKBONES[name].patch:
            raise ValueError("a ResNet has no tokens between its blocks; use a ViT")
        return name

    @model_validator(mode="after")
    def _frames_divide(self) -> "Options":
        """Raises ValueError unless every reduction divides the frames that reach its block."""
        frames = self.frames
        for block, reduce in sorted(self.reduce.items()):
            if block < 1:
                raise ValueError(f"reduce: blocks count from 1, got {block}")
            if reduce.method in STAYS:
                continue
            if reduce.frames is None:
                raise ValueError(f"reduce.{block}.frames: required, but not given")
            if frames % reduce.frames:
                raise ValueError(f"reduce.{block}.frames: {_do_not_divide(frames, reduce.frames)}")
            if reduce.method not in ("kmedoids", "spectral") and (added := reduce.added):
                raise ValueError(f"reduce.{block}.{added[0]}: only for kmedoids and spectral")
            frames = reduce.frames
        return self


def _do_not_divide(frames: int, segments: int) -> str:
    possible = ", ".join(str(n) for n in range(1, frames + 1) if frames % n == 0)
    choice = f"choose one of {possible}"
    if segments > frames:
        return f"{frames} frames are fewer than {segments} segments; {choice}, or more frames"
    return f"{frames} frames do not make {segments} equal segments; {choice}, or other frames"
