"""CenterCLIP: CLIP whose vision tower keeps only medoids of its tokens; without, it is CLIP4Clip.

Papers: Zhao et al., CenterCLIP (SIGIR 2022), section 3; Luo et al., CLIP4Clip (Neurocomputing
2022), section 3. Published code: mzhaoshuai/CenterCLIP, ArrowLuo/CLIP4Clip; a reader may lay
modules/clip4clip.py and modules/clip.py beside this:

    here                                  there
    encode_frames                         VisualTransformer.forward, Transformer.forward
    reduce[i] (reduction.py)              ResidualAttentionBlock.tokencluster_inter
    temporal (models/parts/temporal.py)   seqTransf, seqLSTM, tightTransf of clip4clip.py
    start_from_clip                       the initialisation in from_pretrained

Where we differ
- Medoids do not depend on the batch (models/centerclip/kmedoids.py).
- The last block is computed for the class token alone, because nothing else of it is read.
- Temporal layers run before features are gathered from other processes, as everything else does.
- A video without a real frame has the feature 0, not NaN.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Assets, Batch, Encoding, Mismatch, RetrievalModel, Shared, load_init
from models.centerclip.options import Options
from models.centerclip.reduction import (
    Deep,
    Pooling,
    Shift,
    TokenSelection,
    TokenShape,
    build_reducer,
    shape_after,
)
from models.centerclip.tokens import last_of_segments
from models.clip.blocks import Block, set_recompute
from models.clip.build import build_clip, inputs_of
from models.clip.patches3d import Patches3d
from models.clip.sizes import Sizes
from models.clip.towers import CLIP, end_row, half_arithmetic, keep_in_half, round_to_half
from models.parts.losses import contrastive
from models.parts.temporal import Mean, Recurrent, Sequence, Tight, copy_text_tower, mean_direction


def build(options: Options, assets: Assets) -> "CenterCLIP":
    """Return the model of `assets.init`, else one around `assets.clip`, else an untrained one.

    Raises Mismatch if sizes, weights and options do not fit each other.
    """
    model = CenterCLIP(options, build_clip(options, assets))
    if assets.init is None:
        model.start_from_clip()  # from weights that are not rounded yet, as published
        if options.logit_scale is not None:
            nn.init.constant_(model.clip.logit_scale, options.logit_scale)
        if assets.clip is not None and options.half_rounding:
            round_to_half(model.clip)
            round_to_half(model.patches3d)
    load_init(model, assets)
    if options.half_weights:
        keep_in_half(model.clip)
        keep_in_half(model.patches3d)
    return model


class CenterCLIP(RetrievalModel):
    """Texts (B, L) and frames (B, T, S, S, 3) -> `feature` (B, D) of length 1, compared by cosine.

    With `temporal: tight` videos stay frames, and a transformer compares each of them with each
    sentence. Raises Mismatch for options that do not fit the CLIP.
    """

    def __init__(self, options: Options, clip: CLIP):
        super().__init__()
        sizes = clip.sizes
        self.options = options
        self.clip = clip
        self.inputs = inputs_of(options, sizes, padding=options.padding)
        if options.words > sizes.context:
            raise Mismatch(
                f"texts of {options.words} tokens, the text tower reads {sizes.context}",
                f"Set words to {sizes.context} or less.",
            )
        is_3d = options.patches == "3d"
        self.patches3d = Patches3d(clip.visual.conv1) if is_3d else nn.Identity()
        self.reduce = nn.ModuleList(_build_reducers(options, sizes))  # [i]: in front of block i
        self.temporal = _build_temporal(options, clip)
        set_recompute(self.clip, options.recompute)

    @torch.no_grad()
    def start_from_clip(self) -> None:
        """Start the rest from CLIP's weights, as published.

        Temporal transformers take its text positions and first text blocks, 3d patches the 2d ones
        in the middle frame and 0 beside it, vectors added to kept tokens the positions of the first
        patches. Raises Mismatch if there are fewer positions than they need.
        """
        visual = self.clip.visual
        if isinstance(self.temporal, (Sequence, Tight)):
            copy_text_tower(self.clip, self.temporal.positions, self.temporal.transformer)
        if self.options.patches == "3d":
            self.patches3d.start_from(visual.conv1)
        for block, reduce in self.options.reduce.items():
            if reduce.embedding and reduce.embedding_from_clip:
                positions = visual.positional_embedding[1:]  # (P, W)
                _copy_positions(positions, self.reduce[block - 1].embedding, block)

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64 -> `feature` (B, D).

        The mask is not needed, because nothing behind the end token reaches it.
        """
        ids = batch["text"]
        with half_arithmetic(self.options.half_weights, ids):
            end = end_row(ids, self.clip.read(ids))  # (B, W)
            feature = self.clip.project_text(end).float()  # (B, D)
        if self._is_tight:
            return {"feature": feature}
        return {"feature": F.normalize(feature, dim=-1)}

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or (B, T, 3, S, S) normalised, video_mask (B, T).

        Returns `feature` (B, D), or for tight `frames` (B, S, D) and `mask` (B, S); in training
        `cluster_loss` (B,) too if clusterings are learned.
        """
        frames = self.encode_frames(batch["frames"], batch["video_mask"])  # (B, S, D)
        mask = last_of_segments(batch["video_mask"], frames.shape[1])  # (B, S)
        if self._is_tight:
            encoding = {"frames": frames, "mask": mask.float()}
        else:
            encoding = {"feature": mean_direction(self.temporal(frames, mask), mask)}
        losses = self._cluster_losses(len(frames))
        if losses:
            encoding["cluster_loss"] = torch.stack(losses).sum(0)  # (B,)
        return encoding

    def encode_frames(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Frames (B, T, ...), mask (B, T) -> class tokens of the S frames left, (B, S, D) float32.

        They are in the joint space, not normalised. Raises Mismatch for another number of frames
        than the options say.
        """
        n_videos, n_frames = frames.shape[:2]
        if n_frames != self.options.frames:
            raise Mismatch(
                f"videos of {n_frames} frames, the model reads {self.options.frames}",
                "Deliver as many frames as the model's option `frames` says.",
            )
        blocks = self.clip.visual.blocks
        with half_arithmetic(self.options.half_weights, frames):
            tokens = self.embed(frames, mask)  # (B*T, 1+P, W)
            for block, reduce in zip(blocks[:-1], self.reduce[:-1], strict=True):
                tokens = run_block(block, reduce, tokens)  # (B*S, 1+K, W)
            tokens = run_block(blocks[-1], self.reduce[-1], tokens, only_class=True)  # (B*S, 1, W)
            features = self.clip.visual.project(tokens[:, 0]).float()  # (B*S, D)
        return features.unflatten(0, (n_videos, -1))

    @torch.inference_mode()
    def kept_patches(self, frames: Tensor, mask: Tensor) -> dict[int, Tensor]:
        """Frames (1, T, ...), mask (1, T) -> by block from 1, the patches that stand before it.

        int64 (S, K): ids of the patches of each segment, ascending: frame in the segment * P +
        row * columns + column. Of means over frames, every patch that is part of one. Only blocks
        where a reduction left fewer frames or patches are named.
        """
        tokens = self.embed(frames, mask)  # (T, 1+P, W)
        n_frames, n_patches = len(tokens), tokens.shape[1] - 1
        origin = torch.arange(n_frames * n_patches).view(n_frames, n_patches, 1)
        found = {}
        pairs = zip(self.clip.visual.blocks, self.reduce, strict=True)
        for number, (block, reduce) in enumerate(pairs, 1):
            if isinstance(reduce, (TokenSelection, Pooling)):
                origin = reduce.origin(origin, tokens)  # (S, K, M): what each token stands for
                ids = origin.flatten(1).sort(1).values
                per_segment = n_frames // len(ids) * n_patches
                found[number] = ids % per_segment
            tokens = run_block(block, reduce, tokens)
        return found

    def embed(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Frames (B, T, ...), mask (B, T) -> what the first block reads, (B*T, 1+P, W)."""
        visual = self.clip.visual
        n_frames = frames.shape[1]
        frames = visual.pixels(frames.flatten(0, 1))  # (B*T, 3, S, S)
        if self.options.padding == "zero":
            frames = frames * mask.flatten()[:, None, None, None]
        if self.options.patches == "2d":
            return visual.embed(frames)
        return visual.place(self.patches3d.embed(frames, n_frames))

    def _cluster_losses(self, n_videos: int) -> list[Tensor]:
        """Return what each learned clustering has to minimise, (B,); in training only."""
        losses = []
        for module in self.reduce:
            if isinstance(module, Deep) and module.loss is not None:
                per_segment = module.loss.unflatten(0, (n_videos, -1))  # (B, S)
                losses.append(per_segment.mean(1))
        return losses

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return cosines (n_t, n_v), for tight logits.

        They are float32 whatever the precision of the towers.
        """
        if self._is_tight:
            mask = video["mask"].bool()
            return {"similarity": self.temporal(text["feature"], video["frames"], mask).float()}
        with torch.autocast(text["feature"].device.type, enabled=False):
            return {"similarity": text["feature"] @ video["feature"].T}

    @property
    def summaries(self) -> str:
        return "candidates" if self._is_tight else "score"

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return the feature (n, D), or what the mean of the frames (n, T, D) makes of it."""
        if "frames" in encoding:
            return mean_direction(encoding["frames"], encoding["mask"].bool())
        feature = encoding["feature"]
        return F.normalize(feature, dim=-1) if self._is_tight else feature

    def similar(self, video: Encoding, others: Encoding, statistics: Mapping[str, float]) -> Tensor:
        """Return cosines (n, m) of features; with `temporal: tight` of the means of the frames."""
        return self.summary(video) @ self.summary(others).T

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Return the bytes that `score` needs for a pair; tight reads `frames` (n_v, S, D)."""
        if self._is_tight:
            return self.temporal.pair_bytes(video["frames"].shape[1])
        return super().pair_bytes(text, video)

    @property
    def scale(self) -> float:
        """What a similarity is multiplied by to become a logit."""
        return 1.0 if self._is_tight else math.exp(float(self.clip.logit_scale.detach()))

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Features (B, D) of matching pairs -> InfoNCE in both directions, averaged: ().

        The loss of learned clusterings is added with weight 1.
        """
        logits = self.score(text, video)["similarity"]  # (B, B)
        if not self._is_tight:
            logits = self.clip.logit_scale.exp() * logits
        terms = {"similarity": (contrastive(logits) + contrastive(logits.T)) / 2}
        if "cluster_loss" in video:
            terms["cluster"] = video["cluster_loss"].mean()
        return terms | {"loss": sum(terms.values())}

    @property
    def _is_tight(self) -> bool:
        return self.options.temporal == "tight"


def run_block(block: Block, reduce: nn.Module, tokens: Tensor, only_class: bool = False) -> Tensor:
    """Tokens (N, 1+P, W) through what stands in front of a vision block, and the block itself.

    Returns (N', 1+K, W), or with `only_class` the class tokens alone, (N', 1, W).
    """
    tokens = reduce(tokens)
    if not (isinstance(reduce, Shift) and reduce.again):
        return block.first(tokens) if only_class else block(tokens)
    tokens = reduce(tokens + block.attend(block.ln_1(tokens)))
    if only_class:
        tokens = tokens[:, :1]
    return tokens + block.mlp(block.ln_2(tokens))


def _build_reducers(options: Options, sizes: Sizes) -> list[nn.Module]:
    """Return what stands in front of each block; nn.Identity where nothing does.

    Raises Mismatch for blocks that do not exist and for numbers that do not fit.
    """
    n_blocks = sizes.vision_layers
    if options.reduce and max(options.reduce) > n_blocks:
        raise Mismatch(
            f"reduce: block {max(options.reduce)} of a vision tower of {n_blocks}",
            f"Blocks count from 1 to {n_blocks}.",
        )
    modules: list[nn.Module] = []
    shape = TokenShape(frames=options.frames, tokens=sizes.grid**2, width=sizes.vision_width)
    for block in range(1, n_blocks + 1):
        wanted = options.reduce.get(block)
        if wanted is None:
            modules.append(nn.Identity())
            continue
        modules.append(build_reducer(wanted, shape))
        shape = shape_after(wanted, shape)
    return modules


def _copy_positions(positions: Tensor, embedding: Tensor, block: int) -> None:
    """Positions (P, W) -> embedding (K, W), in place. Raises Mismatch if P is less than K."""
    if len(positions) < len(embedding):
        raise Mismatch(
            f"reduce.{block}: {len(embedding)} embeddings cannot start from {len(positions)}"
            " positions",
            "Set embedding_from_clip: false, or keep fewer tokens.",
        )
    embedding.copy_(positions[: len(embedding)])


def _build_temporal(options: Options, clip: CLIP) -> nn.Module:
    """Raises Mismatch if a transformer cannot start from the text tower."""
    sizes = clip.sizes
    width = sizes.embed
    if options.temporal == "mean":
        return Mean()
    if options.temporal == "lstm":
        return Recurrent(width, clip.positional_embedding)
    if width != sizes.text_width:
        raise Mismatch(
            f"temporal: {options.temporal} needs a text tower as wide as features:"
            f" {sizes.text_width}, {width}",
            "Use temporal: mean or lstm with this backbone.",
        )
    eps = options.temporal_eps
    if options.temporal == "sequence":
        return Sequence(width, options.temporal_layers, positions=sizes.context, eps=eps)
    return Tight(
        width,
        options.temporal_layers,
        positions=sizes.context,
        eps=eps,
        dropout=options.temporal_dropout,
    )
