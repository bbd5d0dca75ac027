"""CenterCLIP: CLIP whose vision tower keeps only medoids of its tokens; without reduction it is
CLIP4Clip.

Papers: Zhao et al., CenterCLIP (SIGIR 2022), section 3; Luo et al., CLIP4Clip (Neurocomputing
2022), section 3.
Published code: mzhaoshuai/CenterCLIP, ArrowLuo/CLIP4Clip; a reader may lay modules/clip4clip.py and
modules/clip.py beside this:

    here                                          there
    encode_frames                                 VisualTransformer.forward, Transformer.forward
    reduce[i] (models/centerclip/reduction.py)         ResidualAttentionBlock.tokencluster_inter
    temporal (models/parts/temporal.py)                 seqTransf, seqLSTM, tightTransf of
                                                        clip4clip.py
    start_from_clip                               the initialisation in from_pretrained

Where we differ
- Medoids do not depend on the batch (models/centerclip/kmedoids.py).
- The last block is computed for the class token alone: nothing else of it is read.
- Temporal layers run before features are gathered from other processes, as everything else.
- A video without a real frame has the feature 0, not NaN.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Assets, Batch, Encoding, Inputs, Mismatch, RetrievalModel, Shared, load_init
from models.centerclip.options import Options
from models.centerclip.reduction import Deep, Shape, Shift, reducer, shape_after
from models.centerclip.tokens import last_of_segments
from models.clip.blocks import Block, set_recompute
from models.clip.sizes import BACKBONES, Sizes, Variant
from models.clip.towers import CLIP, end_row, round_to_half, sizes_of
from models.parts.losses import contrastive
from models.parts.temporal import Mean, Recurrent, Sequence, Tight, copy_text_tower, pooled

_CLIP = "clip."


def build(options: Options, assets: Assets) -> "CenterCLIP":
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
        return load_init(CenterCLIP(options, CLIP(_sizes(options, own), variant)), assets)
    if assets.clip is not None:
        _sizes(options, assets.clip)
        clip = CLIP.from_state_dict(assets.clip, variant, half_rounding=False)
    elif options.backbone == "given":
        raise Mismatch(
            "backbone: given, but there are no weights",
            "Give weights to start from, or name a backbone.",
        )
    else:
        clip = CLIP(BACKBONES[options.backbone], variant)
    model = CenterCLIP(options, clip)
    model.start_from_clip()  # from what is not rounded yet: published
    if options.logit_scale is not None:
        nn.init.constant_(model.clip.logit_scale, options.logit_scale)
    if assets.clip is not None and options.half_rounding:
        round_to_half(nn.ModuleList([model.clip, model.patches3d]))
    return model


class CenterCLIP(RetrievalModel):
    """Texts (B, L) and frames (B, T, S, S, 3) -> `feature` (B, D) of length 1 each, compared by
    their cosine.

    With `temporal: tight` videos stay frames, and a transformer compares each of them with each
    sentence.
    """

    def __init__(self, options: Options, clip: CLIP):
        super().__init__()
        sizes = clip.sizes
        self.options = options
        self.clip = clip
        self.inputs = Inputs(
            text="clip_bpe",
            video="frames",
            tokens=options.words,
            frames=options.frames,
            size=sizes.pixels,
            padding=options.padding,
        )
        if options.words > sizes.context:
            raise Mismatch(
                f"texts of {options.words} tokens, the text tower reads {sizes.context}",
                f"Set words to {sizes.context} or less.",
            )
        self.patches3d = _patches3d(clip) if options.patches == "3d" else nn.Identity()
        self.reduce = nn.ModuleList(_reducers(options, sizes))  # [i]: in front of block i
        self.temporal = _temporal(options, sizes)
        set_recompute(self.clip, options.recompute)

    @torch.no_grad()
    def start_from_clip(self) -> None:
        """Start the rest from CLIP's weights, as published.

        Temporal transformers take its text positions and first text blocks, 3d patches the 2d ones
        in the middle frame and 0 beside it, vectors added to kept tokens the positions of the first
        patches.
        """
        visual = self.clip.visual
        if isinstance(self.temporal, (Sequence, Tight)):
            copy_text_tower(self.clip, self.temporal.positions, self.temporal.transformer)
        if self.options.patches == "3d":
            self.patches3d.weight.zero_()
            self.patches3d.weight[:, :, 1] = visual.conv1.weight
        for block, o in self.options.reduce.items():
            if o.embedding and o.embedding_from_clip:
                _copy_places(
                    visual.positional_embedding[1:], self.reduce[block - 1].embedding, block
                )

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64. The mask is not needed: nothing behind the end token reaches
        it.
        """
        ids = batch["text"]
        feature = self.clip.project_text(end_row(ids, self.clip.read(ids))).float()  # (B, D)
        return {"feature": feature if self._is_tight else F.normalize(feature, dim=-1)}

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or normalised (B, T, 3, S, S), video_mask (B, T)
        bool.
        """
        frames = self.encode_frames(batch["frames"], batch["video_mask"])
        mask = last_of_segments(batch["video_mask"], frames.shape[1])
        if self._is_tight:
            return {"frames": frames, "mask": mask.float()} | self._cluster_loss(len(frames))
        return {"feature": pooled(self.temporal(frames, mask), mask)} | self._cluster_loss(
            len(frames)
        )

    def encode_frames(self, frames: Tensor, mask: Tensor) -> Tensor:
        """The class token of every frame that is left, in the joint space, not normalised: (B, S,
        D) float32.
        """
        if frames.shape[1] != self.options.frames:
            raise Mismatch(
                f"videos of {frames.shape[1]} frames, the model reads {self.options.frames}",
                "Deliver as many frames as the model's option `frames` says.",
            )
        tokens = self.embed(frames, mask)
        *blocks, last = zip(self.clip.visual.blocks, self.reduce, strict=True)
        for block, reduce in blocks:
            tokens = step(block, reduce, tokens)
        tokens = step(*last, tokens, only_class=True)
        return self.clip.visual.project(tokens[:, 0]).float().unflatten(0, (len(frames), -1))

    def embed(self, frames: Tensor, mask: Tensor) -> Tensor:
        """What the first block reads: (B*T, 1+P, W)."""
        visual, n_frames = self.clip.visual, frames.shape[1]
        frames = visual.pixels(frames.flatten(0, 1))  # (B*T, 3, S, S)
        if self.options.padding == "zero":
            frames = frames * mask.flatten()[:, None, None, None]
        if self.options.patches == "2d":
            return visual.embed(frames)
        clips = frames.unflatten(0, (-1, n_frames)).transpose(1, 2)  # (B, 3, T, S, S)
        patches = self.patches3d(clips).transpose(1, 2).flatten(0, 1)  # (B*T, W, G, G)
        return visual.place(patches.flatten(2).transpose(1, 2))

    def _cluster_loss(self, n_videos: int) -> Encoding:
        """What learned clusterings are to minimise, per video (B,), in training."""
        found = [
            m.loss.unflatten(0, (n_videos, -1)).mean(1)
            for m in self.reduce
            if isinstance(m, Deep) and m.loss is not None
        ]
        return {"cluster_loss": torch.stack(found).sum(0)} if found else {}

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Cosines (n_t, n_v), in float32 whatever the precision of the towers; with `temporal:
        tight` logits.
        """
        if self._is_tight:
            return {
                "similarity": (
                    self.temporal(text["feature"], video["frames"], video["mask"].bool()).float()
                )
            }
        with torch.autocast(text["feature"].device.type, enabled=False):
            return {"similarity": text["feature"] @ video["feature"].T}

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        return self.temporal.pair_bytes(video["frames"].shape[1]) if self._is_tight else 16

    @property
    def scale(self) -> float:
        return 1.0 if self._is_tight else math.exp(float(self.clip.logit_scale.detach()))

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """InfoNCE in both directions, averaged, and the loss of learned clusterings with weight
        1.
        """
        scores = self.score(text, video)["similarity"]
        logits = scores if self._is_tight else self.clip.logit_scale.exp() * scores
        terms = {"similarity": (contrastive(logits) + contrastive(logits.T)) / 2}
        if "cluster_loss" in video:
            terms["cluster"] = video["cluster_loss"].mean()
        return terms | {"loss": sum(terms.values())}

    @property
    def _is_tight(self) -> bool:
        return self.options.temporal == "tight"


def step(block: Block, reduce: nn.Module, tokens: Tensor, only_class: bool = False) -> Tensor:
    """A vision block with what stands in front of it, (N, 1+P, W) -> (N', 1+K, W).

    only_class: of the result the class tokens alone, (N', 1, W).
    """
    tokens = reduce(tokens)
    if not (isinstance(reduce, Shift) and reduce.again):
        return block.first(tokens) if only_class else block(tokens)
    tokens = reduce(tokens + block.attend(block.ln_1(tokens)))
    tokens = tokens[:, :1] if only_class else tokens
    return tokens + block.mlp(block.ln_2(tokens))


def _reducers(options: Options, sizes: Sizes) -> list[nn.Module]:
    """What stands in front of each block; nn.Identity where nothing does."""
    if options.reduce and max(options.reduce) > sizes.vision_layers:
        raise Mismatch(
            f"reduce: block {max(options.reduce)} of a vision tower of {sizes.vision_layers}",
            f"Blocks count from 1 to {sizes.vision_layers}.",
        )
    modules, shape = [], Shape(options.frames, sizes.grid**2, sizes.vision_width)
    for block in range(1, sizes.vision_layers + 1):
        wanted = options.reduce.get(block)
        modules.append(reducer(wanted, shape) if wanted else nn.Identity())
        shape = shape_after(wanted, shape) if wanted else shape
    return modules


def _copy_places(places: Tensor, embedding: Tensor, block: int) -> None:
    if len(places) < len(embedding):
        raise Mismatch(
            f"reduce.{block}: {len(embedding)} embeddings cannot start from {len(places)}"
            " positions",
            "Set embedding_from_clip: false, or keep fewer tokens.",
        )
    embedding.copy_(places[: len(embedding)])


def _sizes(options: Options, clip: Mapping[str, Tensor]) -> Sizes:
    """The sizes of the weights, if they are those of the backbone that the options name."""
    sizes, named = sizes_of(clip), BACKBONES.get(options.backbone)
    if not sizes.patch:
        raise Mismatch(
            "weights of a ResNet, which has no tokens between its blocks", "Use weights of a ViT."
        )
    if named and sizes != named:
        differ = [
            f"{n} {vars(sizes)[n]}, not {value}"
            for n, value in vars(named).items()
            if vars(sizes)[n] != value
        ]
        raise Mismatch(
            f"not the weights of {options.backbone}: {'; '.join(differ)}",
            "Give weights of this size, or set backbone to that of the weights (any ViT: given).",
        )
    return sizes


def _patches3d(clip: CLIP) -> nn.Conv3d:
    flat = clip.visual.conv1
    size = (3, *flat.kernel_size)
    return nn.Conv3d(
        3, flat.out_channels, size, stride=(1, *flat.stride), padding=(1, 0, 0), bias=False
    )


def _temporal(options: Options, sizes: Sizes) -> nn.Module:
    if options.temporal in ("sequence", "tight") and sizes.embed != sizes.text_width:
        raise Mismatch(
            f"temporal: {options.temporal} needs a text tower as wide as features:"
            f" {sizes.text_width}, {sizes.embed}",
            "Use temporal: mean or lstm with this backbone.",
        )
    width, layers, eps = sizes.embed, options.temporal_layers, options.temporal_eps
    if options.temporal == "sequence":
        return Sequence(width, layers, sizes.context, eps)
    if options.temporal == "tight":
        return Tight(width, layers, sizes.context, eps, options.temporal_dropout)
    return Recurrent(width) if options.temporal == "lstm" else Mean()
