"""CLIP read word by word and frame by frame, each weighted by what it says: what DRL and
DiffusionRet have in common.

Papers: Wang et al. 2022, Disentangled Representation Learning for Text-Video Retrieval, sections
3.1 and 3.2 (encoders, weighted token-wise interaction); Jin et al., DiffusionRet (ICCV 2023),
section 3.2, uses the same. Published code: foolwood/DRL: tvr/models/modeling.py,
jpthu17/DiffusionRet: tvr/models/modeling.py (docs/specs/drl.md, sections 4 to 6,
docs/specs/diffusionret.md, section 3).

Where we differ, and why:
- Weights and directions are made once per text and video, the published evaluations make them anew
  in every tile.
- Padded frames are not encoded one by one: where they count (`padding_counts`), all of them share
  one encoding of an empty picture. The same values as encoding all of them.
- Padded words are not read, besides the first one behind the longest text (with DRL's cdcr it may
  win a maximum).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Assets, Batch, Encoding, Inputs, Mismatch, RetrievalModel
from models.clip.blocks import Attention
from models.clip.sizes import BACKBONES, Sizes, Variant
from models.clip.towers import CLIP, half_parameters, sizes_of
from models.parts.interaction import Tokens
from models.parts.temporal import Mean, Recurrent, Sequence, Tight, copy_text_tower

EPS = 1e-12  # of the layer norms outside CLIP
_CLIP = "clip."


class Reading(Protocol):
    """What the options of a system say about its extractor."""

    backbone: str
    activation: Literal["quick_gelu", "gelu"]
    words: int
    frames: int
    aggregation: str
    temporal_layers: int
    half_weights: bool


@dataclass(frozen=True)
class Match:
    """Why a text and a video of L words and T frames score as they do; (t2v + v2t) / 2 is the
    score.

    similarity (L, T): cosines; best_frame (L,) and best_word (T,): their maxima as they count;
    weights sum to 1.
    """

    similarity: Tensor
    best_frame: Tensor
    best_word: Tensor
    word_weight: Tensor
    frame_weight: Tensor

    @property
    def t2v(self) -> float:
        return float(self.word_weight @ self.best_frame)

    @property
    def v2t(self) -> float:
        return float(self.frame_weight @ self.best_word)


class WordsFrames(RetrievalModel):
    """The extractor: token ids (B, L) and frames (B, T, S, S, 3) -> features of words and frames,
    not normalised.

    A system adds `word_weight` and `frame_weight`, (..., D) -> (..., 1), and its own parts, scores
    and losses.
    """

    def __init__(self, options: Reading, clip: CLIP):
        super().__init__()
        self.options, self.clip = options, clip
        sizes = clip.sizes
        self.inputs = Inputs(
            "clip_bpe", "frames", options.words, options.frames, sizes.pixels, padding="zero"
        )
        self.temporal = _temporal(options, sizes.embed, sizes.context)

    def start_from_clip(self) -> None:
        """Give new parts the published first values; new transformers the positions and first
        blocks of CLIP's text.
        """
        for part in self.new_parts():
            _as_published(part)
            if isinstance(part, (Sequence, Tight)):
                copy_text_tower(self.clip, part.positions, part.transformer)

    def new_parts(self) -> list[nn.Module]:
        """Everything besides CLIP."""
        return [part for name, part in self.named_children() if name != "clip"]

    @property
    def scale(self) -> float:
        return self.clip.logit_scale.exp().item()

    @property
    def padding_counts(self) -> bool:
        """Whether anything reads the features of padded frames."""
        return False

    def word_features(self, batch: Batch, ends_only: bool = False) -> Tensor:
        """(B, L', D) of the longest text's words and one more, or (B, D) of the end tokens;
        float32.
        """
        ids, real = batch["text"], batch["text_mask"]
        longest = _longest(real, "text", self.options.words)
        cut = min(
            ids.shape[1], longest + 1
        )  # the first padding word may win a maximum, no other can
        with self._towers(ids):
            read = self.clip.read(ids[:, :cut])
            if ends_only:
                read = read[torch.arange(len(ids), device=ids.device), real.sum(1) - 1]
            return self.clip.project_text(read).float()

    def read_text(self, batch: Batch) -> Encoding:
        """What is gathered of texts: features (B, words, D), not normalised, and `real`."""
        return {
            "features": self.to_words(self.word_features(batch)),
            "real": self.to_words(batch["text_mask"]),
        }

    def read_video(self, batch: Batch) -> Encoding:
        """What is gathered of videos: features (B, T, D) behind the temporal module, not
        normalised, and `real`.
        """
        frames, real = batch["frames"], batch["video_mask"]
        _longest(real, "video", self.options.frames)
        return {"features": self.temporal(self._frame_features(frames, real), real), "real": real}

    def weights(self, features: Tensor, real: Tensor, network: str) -> Tensor:
        """The learnt weight (B, L) of each word or frame; of a text or video they sum to 1, padding
        has 0.
        """
        with full_precision(features):
            logits = getattr(self, network)(features).squeeze(-1)
            return logits.masked_fill(~real, float("-inf")).softmax(-1)

    def explain(self, text: Encoding, video: Encoding) -> Match:
        """The first text and video of two encodings, word by frame."""
        (u, u_real, alpha), (w, w_real, beta) = tokens(text), tokens(video)
        each = (u[0] * u_real[0, :, None]) @ (w[0] * w_real[0, :, None]).T  # (L, T)
        words, frames = u_real[0], w_real[0]
        return Match(
            each[words][:, frames],
            each.amax(1)[words],
            each.amax(0)[frames],
            alpha[0][words],
            beta[0][frames],
        )

    def to_words(self, x: Tensor) -> Tensor:
        """(B, L, ...) with zeros behind, as long as texts can be."""
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.options.words - x.shape[1]))

    def _frame_features(self, frames: Tensor, real: Tensor) -> Tensor:
        """(B, T, D) of all frames; padded ones share the encoding of an empty picture where it
        counts, else 0.
        """
        visual = self.clip.visual
        with self._towers(real):
            if bool(real.all()):
                return visual(frames.flatten(0, 1)).float().unflatten(0, real.shape)
            some = visual.pixels(frames[real])
            if self.padding_counts:
                some = torch.cat([some, torch.zeros_like(some[:1])])
            rows = visual(some).float()
        if not self.padding_counts:
            rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        place = torch.full(real.shape, len(rows) - 1, device=real.device)
        place[real] = torch.arange(len(rows) - 1, device=real.device)
        return rows[place]

    def _towers(self, like: Tensor) -> AbstractContextManager:
        """float16 arithmetic where the weights are float16; else as the trainer says."""
        half = self.options.half_weights
        return torch.autocast(like.device.type, torch.float16) if half else nullcontext()


def tokens(encoding: Encoding) -> Tokens:
    """An encoding as token-wise comparison reads it: directions, made here where the encoding holds
    features.
    """
    vectors = (
        encoding["tokens"] if "tokens" in encoding else F.normalize(encoding["features"], dim=-1)
    )
    return Tokens(vectors, encoding["real"].bool(), encoding["weight"])


def full_precision(like: Tensor) -> AbstractContextManager:
    """No autocast: as published, everything behind the towers is float32."""
    return torch.autocast(like.device.type, enabled=False)


def halve(model: WordsFrames) -> None:
    """Keep CLIP's matrices in float16, if the options say so."""
    if model.options.half_weights:
        for parameter in half_parameters(model.clip):
            parameter.data = parameter.data.half()


def backbone(options: Reading, assets: Assets) -> CLIP:
    """The CLIP of `assets`, of its checkpoint or alone; else an untrained one of the named size.

    Raises Mismatch if the weights are of another backbone than the options name, or do not fit.
    """
    variant = Variant(activation=options.activation)
    init: Mapping[str, Tensor] = assets.init or {}
    own = {
        name.removeprefix(_CLIP): value for name, value in init.items() if name.startswith(_CLIP)
    }
    weights = own if assets.init is not None else assets.clip
    if weights is None and options.backbone not in BACKBONES:
        raise Mismatch(
            "backbone given, but no weights of a CLIP are", "Name a backbone, or give weights."
        )
    if weights is None:
        return CLIP(BACKBONES[options.backbone], variant)
    sizes, named = sizes_of(weights), BACKBONES.get(options.backbone)
    if named not in (None, sizes):
        raise Mismatch(
            f"weights of another CLIP than {options.backbone}: {_differences(sizes, named)}",
            "Name the backbone they are of, or `backbone: given`.",
        )
    return CLIP.from_state_dict(
        weights, variant, half_rounding=False
    )  # published: only where `half_weights` are used


def check_sizes(options: Reading, sizes: Sizes, positions: int) -> None:
    """Raise Mismatch for a CLIP the published systems cannot use. positions: in time that are
    needed, 0 for none.
    """
    if not sizes.patch:
        raise Mismatch(
            "words and frames of a ResNet", "Give a ViT: the published code reads no other."
        )
    if sizes.embed != sizes.text_width:
        raise Mismatch(
            f"words of width {sizes.text_width} in a space of {sizes.embed}: the new transformers"
            " start from the text tower and need them equal",
            "Give one of OpenAI's ViT-B/32, ViT-B/16, ViT-L/14.",
        )
    if max(options.words, positions) > sizes.context:
        raise Mismatch(
            f"{options.words} words and {options.frames} frames, the backbone has {sizes.context}"
            " positions",
            "Lower words or frames.",
        )


def weigher(layers: int, width: int, hidden: int) -> nn.Module:
    """(..., D) -> (..., 1): one to three linear layers with ReLU between them."""
    widths = [width] + [hidden] * (layers - 1)
    inner = [
        part
        for a, b in zip(widths, widths[1:], strict=False)
        for part in (nn.Linear(a, b), nn.ReLU())
    ]
    return nn.Sequential(*inner, nn.Linear(widths[-1], 1))


def _longest(real: Tensor, side: str, limit: int) -> int:
    """The most real entries of a row (B, L). Mismatch for a row without any, or for more than the
    options allow.
    """
    counts = real.sum(1)
    fewest, most = torch.stack([counts.amin(), counts.amax()]).tolist()
    unit = "word" if side == "text" else "frame"
    if fewest == 0:
        row = int(counts.argmin())
        raise Mismatch(
            f"{side} {row} of the batch is all padding", f"Leave out items without a real {unit}."
        )
    if max(most, real.shape[1] if side == "text" else most) > limit:
        raise Mismatch(
            f"{side}s of {max(most, real.shape[1])} {unit}s, the model reads {limit}",
            f"Cut them to {limit}, or raise the option {unit}s.",
        )
    return most


def _temporal(options: Reading, width: int, positions: int) -> nn.Module:
    if options.aggregation == "none":
        return Mean()
    if options.aggregation == "seqLSTM":
        return Recurrent(width)
    return Sequence(width, options.temporal_layers, positions, EPS)


@torch.no_grad()
def _as_published(module: nn.Module) -> None:
    """Weights of linear layers and embeddings from normal(0, 0.02), biases 0; attention's stacked
    matrix as torch's.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, Attention):
            nn.init.xavier_uniform_(part.in_proj_weight)


def _differences(found: Sizes, named: Sizes) -> str:
    pairs = ((name, getattr(found, name), value) for name, value in vars(named).items())
    return ", ".join(
        f"{name} {ours} instead of {value}" for name, ours, value in pairs if ours != value
    )
