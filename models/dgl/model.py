"""DGL: CLIP is frozen, prompts for texts, frames and whole videos are learned in one space.

Paper: Yang et al., DGL: Dynamic Global-Local Prompt Tuning for Text-Video Retrieval (AAAI 2024),
sections 3.2 (prompts) and 3.3 (global-local video attention). Published code: knightyxp/DGL,
modules/clip.py and clip4clip.py:

    here                                    there
    prompts (prompts.py)                    PromptTransformer, unified_prompt_*,
                                            visual_prompt_embedding
    read_words (prompted_attention.py)      encode_text with its prompts in the sequence
    global_local (prompted_attention.py)    VisualTransformer,
                                            ResidualAttentionBlock.visual_forward

Where we differ
- Prompts do not need the input, so texts and videos can be encoded alone, and `prepare` makes
  prompts once per step and once per evaluation; the published code makes them once per sample of
  each batch.
- What cannot reach the result is not computed (docs/specs/dgl.md, section 15): prompt rows behind
  the keys and values they give, text behind the last end token of a batch, and in the last block of
  both towers all rows except those that are read.
- Any number of frame and global prompts, any width and any number of layers. If there are fewer
  layers of prompts than blocks, later blocks run without (the published code crashes, or leaves
  text blocks out).
- `global-local-feature` works (ours, see the option). Full tuning is a recipe without `freeze`.
- Masks of frames and words are not used, as published: missing frames repeat the last one and
  count.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.base import Assets, Batch, Encoding, Mismatch, RetrievalModel, Shared, load_init
from models.clip.blocks import Block
from models.clip.build import build_clip, inputs_of
from models.clip.patches3d import Patches3d
from models.clip.sizes import Sizes
from models.clip.towers import CLIP
from models.dgl.options import Options
from models.dgl.prompted_attention import (
    ALL,
    Keep,
    attention_weights,
    global_local,
    keys_of,
    read_words,
)
from models.dgl.prompts import Prompts
from models.parts.losses import contrastive

_TABLE = "prompts.space.table"


def build(options: Options, assets: Assets) -> "Dgl":
    """Return the model of `assets.init`, else one around `assets.clip`, else an untrained one.

    Raises Mismatch if sizes, weights and options do not fit each other.
    """
    clip = build_clip(options, assets, half_rounding=options.half_rounding)
    model = Dgl(options, clip)
    if assets.init is not None:
        _check_table(model, assets.init)
        return load_init(model, assets)
    model.start_from_clip()
    return model


class Dgl(RetrievalModel):
    """Texts (B, L) and frames (B, T, S, S, 3) -> `feature` (B, D) of length 1, compared by cosine.

    Raises Mismatch for options that do not fit the CLIP.
    """

    targets = ()

    def __init__(self, options: Options, clip: CLIP):
        super().__init__()
        sizes = clip.sizes
        _check(options, sizes)
        self.options = options
        self.clip = clip
        self.inputs = inputs_of(options, sizes, padding="repeat")
        is_3d = options.patches == "3d"
        self.patches3d = Patches3d(clip.visual.conv1) if is_3d else nn.Identity()
        self.prompts = Prompts(options, sizes)
        unread = torch.zeros(options.frames, 1, sizes.vision_width)
        # no parameter: nothing reads it, so nothing can train it
        self.register_buffer("frame_embedding", unread if options.frame_embedding else None)

    @torch.no_grad()
    def start_from_clip(self) -> None:
        """Start 3d patches from CLIP's own, and the temperature as the options say."""
        if self.options.patches == "3d":
            self.patches3d.start_from(self.clip.visual.conv1)
        if self.options.logit_scale is not None:
            self.clip.logit_scale.fill_(self.options.logit_scale)

    def prepare(self) -> Shared:
        """Return keys and values of the prompts in front of each block, and the global rows.

        text (Lt, k, 2 Wt), frames (Lv, T or 1, P, 2 W), video (G, W).
        """
        rows = self.prompts()
        return {
            "text": _stack_keys(self.clip.text_blocks, rows.text),
            "frames": _stack_keys(self.clip.visual.blocks, rows.frames),
            "video": rows.video,
        }

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64 -> `feature` (B, D).

        The mask is not needed, because nothing behind the end token reaches it.
        """
        feature = self.text_feature(batch["text"], shared or self.prepare())
        return {"feature": F.normalize(feature, dim=-1)}

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or (B, T, 3, S, S) normalised -> `feature` (B, D)."""
        feature = self.video_feature(batch["frames"], shared or self.prepare())
        return {"feature": F.normalize(feature, dim=-1)}

    def text_feature(self, ids: Tensor, shared: Shared) -> Tensor:
        """Token ids (B, L) -> what each end token has read, (B, D) float32, not normalised.

        The end token is the first of the largest id.
        """
        ends = ids.argmax(1)  # (B,)
        longest = int(ends.max()) + 1
        x = self.clip.embed_text(ids[:, :longest])  # (B, S, W)
        blocks = self.clip.text_blocks
        if self.options.text_blocks == "prompted":
            blocks = blocks[: self.options.layers]
        last = len(blocks) - 1
        for i in range(last):
            x = read_words(blocks[i], x, _of_block(shared["text"], i))
        x = read_words(blocks[last], x, _of_block(shared["text"], last), ends)  # (B, 1, W)
        return self.clip.project_text(x[:, 0]).float()

    def video_feature(self, frames: Tensor, shared: Shared) -> Tensor:
        """Frames (B, T, ...) -> what the option `feature` names, (B, D) float32, not normalised."""
        feature = _FEATURES[self.options.feature]
        blocks = self.clip.visual.blocks
        last = len(blocks) - 1
        video, frames = self._start(frames, shared["video"])  # (B, G, W), (B, T, 1+N, W)
        for i in range(last):
            video, frames = self._run(blocks[i], video, frames, _of_block(shared["frames"], i))
        prompts = _of_block(shared["frames"], last)
        video, frames = self._run(blocks[last], video, frames, prompts, feature.keep)
        n_video = video.shape[1]
        classes = frames[:, :, 0] if frames.shape[2] else video[:, :0]  # (B, T or 0, W)
        rows = torch.cat([video, classes], 1)
        rows = self.clip.visual.project(rows).float()  # (B, G' + T or 0, D)
        return feature.pool(rows[:, :n_video], rows[:, n_video:])

    def _start(self, frames: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the first block reads: global rows (B, G, W) and tokens of frames (B, T, 1+N,
        W).
        """
        tokens = self.embed(frames)
        return video.expand(len(tokens), -1, -1).to(tokens.dtype), tokens

    def _run(
        self,
        block: Block,
        video: Tensor,
        frames: Tensor,
        prompts: Tensor | None,
        keep: Keep = ALL,
    ) -> tuple[Tensor, Tensor]:
        """`global_local`, with `recompute` once more in backward."""
        if self.options.recompute and torch.is_grad_enabled():
            args = (block, video, frames, prompts, keep)
            return checkpoint(global_local, *args, use_reentrant=False, preserve_rng_state=False)
        return global_local(block, video, frames, prompts, keep)

    def embed(self, frames: Tensor) -> Tensor:
        """Frames (B, T, ...) -> class token and patches of each, (B, T, 1+N, W).

        Raises Mismatch if the prompts are for another number of frames.
        """
        visual = self.clip.visual
        n_frames = frames.shape[1]
        if self.options.space == "transformer" and n_frames != self.options.frames:
            raise Mismatch(
                f"videos of {n_frames} frames, the prompts are for {self.options.frames}",
                "Deliver as many frames as the option `frames` says; prompts of `space: linear` fit"
                " any number.",
            )
        frames = frames.flatten(0, 1)  # (B*T, ...)
        if self.options.patches == "2d":
            tokens = visual.embed(frames)
        else:
            tokens = visual.place(self.patches3d.embed(visual.pixels(frames), n_frames))
        return tokens.unflatten(0, (-1, n_frames))

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Features (n_t, D) and (n_v, D) -> cosines (n_t, n_v)."""
        return {"similarity": text["feature"] @ video["feature"].T}

    summaries = "score"

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return the feature, (n, D)."""
        return encoding["feature"]

    @property
    def scale(self) -> float:
        """What a similarity is multiplied by to become a logit."""
        return math.exp(float(self.clip.logit_scale.detach()))

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Features (B, D) of matching pairs -> InfoNCE in both directions, averaged: ()."""
        logits = self.clip.logit_scale.exp() * self.score(text, video)["similarity"]  # (B, B)
        t2v = contrastive(logits)
        v2t = contrastive(logits.T)
        return {"t2v": t2v, "v2t": v2t, "loss": (t2v + v2t) / 2}

    @torch.inference_mode()
    def attention_maps(self, frames: Tensor, block: int) -> dict[str, Tensor]:
        """Frames (B, T, ...) -> where a block looks: weights of the patches, (B, T, n, G, G).

        block: from 1. "global": each global prompt; "class": the class token of each frame (n = 1);
        "frame": each frame prompt, if the block has any. Means over heads. Raises Mismatch for a
        block that does not exist.
        """
        blocks = self.clip.visual.blocks
        if not 1 <= block <= len(blocks):
            raise Mismatch(
                f"no block {block}: the vision tower has {len(blocks)}",
                f"Name one of 1 to {len(blocks)}.",
            )
        last = block - 1
        rows = self.prompts()
        video, frames = self._start(frames, rows.video)
        for i in range(last):
            prompts = _of_block(rows.frames, i)
            keys = None if prompts is None else keys_of(blocks[i], prompts)
            video, frames = global_local(blocks[i], video, frames, keys)
        weights = attention_weights(blocks[last], video, frames, _of_block(rows.frames, last))
        maps = {
            "global": weights.video.transpose(1, 2),  # (B, T, G, N)
            "class": weights.classes[:, :, None],  # (B, T, 1, N)
        }
        if weights.prompts is not None:
            maps["frame"] = weights.prompts  # (B, T, P, N)
        side = self.clip.sizes.grid
        return {name: value.unflatten(-1, (side, side)).float() for name, value in maps.items()}


class _Feature(NamedTuple):
    """What stands for a video: the rows of the last block that it reads, and what becomes of them.

    pool: global rows (B, G', D) and class tokens (B, T or 0, D) -> (B, D).
    """

    keep: Keep
    pool: Callable[[Tensor, Tensor], Tensor]


def _sum_of_directions(video: Tensor, classes: Tensor) -> Tensor:
    return F.normalize(video[:, 0], dim=-1) + F.normalize(classes.mean(1), dim=-1)


_FEATURES = {
    "global_prompt0": _Feature(Keep(1, 0), lambda video, classes: video[:, 0]),
    "average_global_prompt": _Feature(Keep(None, 0), lambda video, classes: video.mean(1)),
    "average_frame_cls_token": _Feature(Keep(0, 1), lambda video, classes: classes.mean(1)),
    "average_global_prompt_and_frame_cls_token": _Feature(
        Keep(None, 1), lambda video, classes: torch.cat([video, classes], 1).mean(1)
    ),
    "global-local-feature": _Feature(Keep(1, 1), _sum_of_directions),
}


def _stack_keys(blocks: nn.ModuleList, prompts: Tensor) -> Tensor:
    """Prompts (L, ..., W) in front of the first L blocks -> their keys and values (L, ..., 2 W)."""
    pairs = zip(blocks, prompts, strict=False)  # later blocks have no prompts
    return torch.stack([keys_of(block, rows) for block, rows in pairs])


def _of_block(values: Tensor, i: int) -> Tensor | None:
    return values[i] if i < len(values) else None


def _check(options: Options, sizes: Sizes) -> None:
    """Raise Mismatch for numbers that the towers do not have room for."""
    if options.words > sizes.context:
        raise Mismatch(
            f"texts of {options.words} tokens, the text tower reads {sizes.context}",
            f"Set words to {sizes.context} or less.",
        )
    if options.text_prompts > sizes.context:
        raise Mismatch(
            f"{options.text_prompts} prompts for texts, the text tower reads {sizes.context}"
            " tokens",
            f"Set text_prompts to {sizes.context} or less (published: 8).",
        )
    most = max(sizes.vision_layers, sizes.text_layers)
    if options.layers > most:
        raise Mismatch(
            f"prompts for {options.layers} layers, the towers have {most}",
            f"Set layers to {most} or less.",
        )


def _check_table(model: Dgl, init: Mapping[str, Tensor]) -> None:
    """Raise Mismatch in its own words for a checkpoint of another number of frames.

    Otherwise it would fail as a shape that differs.
    """
    options = model.options
    own = model.get_parameter(_TABLE)
    given = init.get(_TABLE)
    if options.space != "transformer" or given is None or given.ndim != 2:
        return
    if len(given) == len(own):
        return
    frames, rest = divmod(len(given) - options.text_prompts, options.frame_prompts)
    if rest == 0 and frames > 0:
        fits = f"{frames} frames"
        fix = (
            f"Set frames to {frames}: prompts of the transformer space fit the number they were"
            " trained with."
        )
    else:
        fits = f"{len(given)} rows of texts and frames"
        fix = "Set text_prompts, frame_prompts and frames to those they were trained with."
    raise Mismatch(
        f"the prompts of these weights are for {fits}, the options say {options.frames} frames"
        f" ({options.text_prompts} text_prompts and {options.frame_prompts} of each frame)",
        fix,
    )
