"""DGL: CLIP is frozen, prompts for texts, frames and whole videos are learned in one space.

Paper: Yang et al., DGL: Dynamic Global-Local Prompt Tuning for Text-Video Retrieval (AAAI 2024),
sections 3.2 (prompts) and 3.3 (global-local video attention). Published code: knightyxp/DGL,
modules/clip.py and clip4clip.py:

    here                                    there
    prompts (models/dgl/prompts.py)             PromptTransformer, unified_prompt_*,
                                                visual_prompt_embedding
    read_words (models/dgl/prompted_attention.py)         encode_text with its prompts in the
                                                          sequence
    global_local (models/dgl/prompted_attention.py)       VisualTransformer,
                                                          ResidualAttentionBlock.visual_forward

Where we differ
- Prompts do not need the input, so texts and videos can be encoded alone, and `prepare` makes
  prompts once per step and once per evaluation; published: once per sample of each batch.
- What cannot reach the result is not computed (docs/specs/dgl.md, section 15): prompt rows behind
  the keys and values they give, text behind the last end token of a batch, all but the rows that
    are read in the last block of both towers.
- Any number of frame and global prompts, any width and any number of layers; where there are fewer
  layers of prompts than blocks, later blocks run without (published: crashes, or leaves text blocks
    out).
- `global-local-feature` works (ours, see the option). Full tuning is a recipe without `freeze`.
- Masks of frames and words are not used, as published: missing frames repeat the last one and
  count.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.base import Assets, Batch, Encoding, Inputs, Mismatch, RetrievalModel, Shared, load_init
from models.clip.sizes import BACKBONES, Sizes, Variant
from models.clip.towers import CLIP, sizes_of
from models.dgl.options import Options
from models.dgl.prompted_attention import attention_weights, global_local, keys_of, read_words
from models.dgl.prompts import Made, Prompts
from models.parts.losses import contrastive

_CLIP = "clip."
_TABLE = "prompts.space.table"


def build(options: Options, assets: Assets) -> "Dgl":
    """The model with the weights of `assets.init`, else around the CLIP of `assets.clip`, else
    untrained.

    Raises Mismatch if sizes, weights and options do not fit each other.
    """
    variant = Variant(activation=options.activation)
    if assets.init is not None:
        own = {
            name.removeprefix(_CLIP): value
            for name, value in assets.init.items()
            if name.startswith(_CLIP)
        }
        model = Dgl(options, CLIP(_sizes(options, own), variant))
        _check_table(model, assets.init)
        return load_init(model, assets)
    if assets.clip is not None:
        _sizes(options, assets.clip)
        clip = CLIP.from_state_dict(assets.clip, variant, half_rounding=options.half_rounding)
    elif options.backbone == "given":
        raise Mismatch(
            "backbone: given, but there are no weights",
            "Give weights to start from, or name a backbone.",
        )
    else:
        clip = CLIP(BACKBONES[options.backbone], variant)
    model = Dgl(options, clip)
    model.start_from_clip()
    return model


class Dgl(RetrievalModel):
    """Texts (B, L) and frames (B, T, S, S, 3) -> `feature` (B, D) of length 1 each, compared by
    their cosine.
    """

    targets = ()

    def __init__(self, options: Options, clip: CLIP):
        super().__init__()
        sizes = clip.sizes
        _check(options, sizes)
        self.options = options
        self.clip = clip
        self.inputs = Inputs(
            text="clip_bpe",
            video="frames",
            tokens=options.words,
            frames=options.frames,
            size=sizes.pixels,
            padding="repeat",
        )
        self.patches3d = _patches3d(clip) if options.patches == "3d" else nn.Identity()
        self.prompts = Prompts(options, sizes)

    @torch.no_grad()
    def start_from_clip(self) -> None:
        """3d patches start as CLIP's own in the middle frame and 0 beside it; the temperature as
        the options say.
        """
        if self.options.patches == "3d":
            self.patches3d.weight.zero_()
            self.patches3d.weight[:, :, 1] = self.clip.visual.conv1.weight
        if self.options.logit_scale is not None:
            self.clip.logit_scale.fill_(self.options.logit_scale)

    def prepare(self) -> Shared:
        """Keys and values of the prompts by block, text (Lt, k, 2 Wt) and frames (Lv, T or 1, P, 2
        W); video (G, W).
        """
        made = self.prompts()
        visual = zip(self.clip.visual.blocks, made.frames, strict=False)
        return {
            "text": torch.stack(
                [keys_of(b, p) for b, p in zip(self.clip.text_blocks, made.text, strict=False)]
            ),
            "frames": torch.stack([keys_of(block, prompts) for block, prompts in visual]),
            "video": made.video,
        }

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64. The mask is not needed: nothing behind the end token reaches
        it.
        """
        return {
            "feature": F.normalize(
                self.text_feature(batch["text"], shared or self.prepare()), dim=-1
            )
        }

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or normalised (B, T, 3, S, S)."""
        return {
            "feature": F.normalize(
                self.video_feature(batch["frames"], shared or self.prepare()), dim=-1
            )
        }

    def text_feature(self, ids: Tensor, shared: Shared) -> Tensor:
        """Sentences (B, D) float32, not normalised: what each end token, the first of the largest
        id, has read.
        """
        ends = ids.argmax(1)
        x = self.clip.embed_text(ids[:, : int(ends.max()) + 1])
        *blocks, last = enumerate(self.clip.text_blocks)
        for i, block in blocks:
            x = read_words(block, x, _of_block(shared["text"], i))
        x = read_words(last[1], x, _of_block(shared["text"], last[0]), ends)
        return self.clip.project_text(x[:, 0]).float()

    def video_feature(self, frames: Tensor, shared: Shared) -> Tensor:
        """Videos (B, D) float32, not normalised: what the option `feature` names."""
        n_global, n_tokens, pool = _FEATURES[self.options.feature]
        g, f, blocks = *self._start(frames, shared["video"]), self.clip.visual.blocks
        for i, block in enumerate(blocks[:-1]):
            g, f = self._run(block, g, f, _of_block(shared["frames"], i))
        g, f = self._run(
            blocks[-1], g, f, _of_block(shared["frames"], len(blocks) - 1), n_global, n_tokens
        )
        classes = f[:, :, 0] if f.shape[2] else g[:, :0]
        rows = self.clip.visual.project(torch.cat([g, classes], 1)).float()
        return pool(rows[:, : g.shape[1]], rows[:, g.shape[1] :])

    def _start(self, frames: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """What the first block reads: global rows (B, G, W) and the tokens of frames (B, T, 1+N,
        W).
        """
        f = self.embed(frames)
        return video.expand(len(f), -1, -1).to(f.dtype), f

    def _run(self, block: nn.Module, *of: Tensor | int | None) -> tuple[Tensor, Tensor]:
        if self.options.recompute and torch.is_grad_enabled():
            return checkpoint(
                global_local, block, *of, use_reentrant=False, preserve_rng_state=False
            )
        return global_local(block, *of)

    def embed(self, frames: Tensor) -> Tensor:
        """Class token and patches of every frame, (B, T, 1+N, W)."""
        visual, n_frames = self.clip.visual, frames.shape[1]
        if self.options.space == "transformer" and n_frames != self.options.frames:
            raise Mismatch(
                f"videos of {n_frames} frames, the prompts are for {self.options.frames}",
                "Deliver as many frames as the option `frames` says; prompts of `space: linear` fit"
                " any number.",
            )
        if self.options.patches == "2d":
            return visual.embed(frames.flatten(0, 1)).unflatten(0, (-1, n_frames))
        clips = (
            visual.pixels(frames.flatten(0, 1)).unflatten(0, (-1, n_frames)).transpose(1, 2)
        )  # (B, 3, T, S, S)
        patches = self.patches3d(clips).transpose(1, 2).flatten(0, 1).flatten(2)  # (B*T, W, N)
        return visual.place(patches.transpose(1, 2)).unflatten(0, (-1, n_frames))

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Cosines (n_t, n_v)."""
        return {"similarity": text["feature"] @ video["feature"].T}

    @property
    def scale(self) -> float:
        return math.exp(float(self.clip.logit_scale.detach()))

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """InfoNCE in both directions, averaged."""
        logits = self.clip.logit_scale.exp() * self.score(text, video)["similarity"]
        terms = {"t2v": contrastive(logits), "v2t": contrastive(logits.T)}
        return terms | {"loss": (terms["t2v"] + terms["v2t"]) / 2}

    @torch.inference_mode()
    def attention_maps(self, frames: Tensor, block: int) -> dict[str, Tensor]:
        """Where block `block` (from 1) looks in frames (B, T, ...): weights of the G x G patches,
        (B, T, n, G, G).

        "global": each global prompt; "class": the class token of each frame (n = 1); "frame": each
        frame prompt, if the block has any. Means over heads. Raises Mismatch for a block that there
        is not.
        """
        blocks, side = self.clip.visual.blocks, self.clip.sizes.grid
        if not 1 <= block <= len(blocks):
            raise Mismatch(
                f"no block {block}: the vision tower has {len(blocks)}",
                f"Name one of 1 to {len(blocks)}.",
            )
        made = self.prompts()
        g, f = self._start(frames, made.video)
        for i in range(block - 1):
            g, f = global_local(blocks[i], g, f, self._keys(made, i))
        rows = _of_block(made.frames, block - 1)
        of_global, of_class, of_frame = attention_weights(blocks[block - 1], g, f, rows)
        maps = {
            "global": of_global.transpose(1, 2),
            "class": of_class[:, :, None],
            "frame": of_frame,
        }
        return {
            name: m.unflatten(-1, (side, side)).float() for name, m in maps.items() if m is not None
        }

    def _keys(self, made: Made, i: int) -> Tensor | None:
        rows = _of_block(made.frames, i)
        return None if rows is None else keys_of(self.clip.visual.blocks[i], rows)


# rows of the last block that are read, global ones and of each frame (None: all), and what becomes
# of them
_FEATURES = {
    "global_prompt0": (1, 0, lambda g, c: g[:, 0]),
    "average_global_prompt": (None, 0, lambda g, c: g.mean(1)),
    "average_frame_cls_token": (0, 1, lambda g, c: c.mean(1)),
    "average_global_prompt_and_frame_cls_token": (
        None,
        1,
        lambda g, c: torch.cat([g, c], 1).mean(1),
    ),
    "global-local-feature": (
        1,
        1,
        lambda g, c: F.normalize(g[:, 0], dim=-1) + F.normalize(c.mean(1), dim=-1),
    ),
}


def _of_block(values: Tensor, i: int) -> Tensor | None:
    return values[i] if i < len(values) else None


def _patches3d(clip: CLIP) -> nn.Conv3d:
    flat = clip.visual.conv1
    size = (3, *flat.kernel_size)
    return nn.Conv3d(
        3, flat.out_channels, size, stride=(1, *flat.stride), padding=(1, 0, 0), bias=False
    )


def _check(options: Options, sizes: Sizes) -> None:
    if not sizes.patch:
        raise Mismatch(
            "weights of a ResNet, which has no tokens that prompts could join",
            "Use weights of a ViT.",
        )
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
    if options.layers > (most := max(sizes.vision_layers, sizes.text_layers)):
        raise Mismatch(
            f"prompts for {options.layers} layers, the towers have {most}",
            f"Set layers to {most} or less.",
        )


def _check_table(model: Dgl, init: Mapping[str, Tensor]) -> None:
    """A checkpoint of another number of frames fails here, in its own words, not as a shape that
    differs.
    """
    o, own, given = model.options, model.get_parameter(_TABLE), init.get(_TABLE)
    if o.space != "transformer" or given is None or given.ndim != 2 or len(given) == len(own):
        return
    frames, rest = divmod(len(given) - o.text_prompts, o.frame_prompts)
    fits = (
        f"{frames} frames" if rest == 0 and frames > 0 else f"{len(given)} rows of texts and frames"
    )
    raise Mismatch(
        f"the prompts of these weights are for {fits}, the options say {o.frames} frames"
        f" ({o.text_prompts} text_prompts and {o.frame_prompts} of each frame)",
        (
            f"Set frames to {frames}: prompts of the transformer space fit the number they were"
            " trained with."
            if rest == 0 and frames > 0
            else "Set text_prompts, frame_prompts and frames to those they were trained with."
        ),
    )


def _sizes(options: Options, clip: Mapping[str, Tensor]) -> Sizes:
    """The sizes of the weights, if they are those of the backbone that the options name."""
    sizes, named = sizes_of(clip), BACKBONES.get(options.backbone)
    if named and sizes != named:
        differ = [
            f"{n} {vars(sizes)[n]}, not {value}"
            for n, value in vars(named).items()
            if vars(sizes)[n] != value
        ]
        raise Mismatch(
            f"not the weights of {options.backbone}: {'; '.join(differ)}",
            "Give weights of this size, or set backbone to that of the weights (any size:"
            " weights).",
        )
    return sizes
