"""DRL: words and frames compared one by one and weighted by what they say; channels decorrelated in training.

Paper: Wang et al. 2022, Disentangled Representation Learning for Text-Video Retrieval, sections 3.1 (encoders), 3.2
(interaction), 3.3 (channel decorrelation), 3.4 (loss). Published code: foolwood/DRL: tvr/models/modeling.py;
alro923/DRL is the same model. Numbers in brackets are sections of specs/drl.md. Side by side with the published file:

    here                          there
    temporal.py                   agg_video_feat; Transformer, CrossModel of module_cross.py
    token_wise (interaction.py)   get_similarity_logits: ti_interaction, wti_interaction
    losses.py, _correlation       CDCR inside them
    read_text, read_video       get_text_feat, get_video_feat
    forward, gather               AllGather (dp, ti, wti), AllGather2 (xti)

Where we differ, and why:
- Weights and directions are made once per text and video, the published evaluation makes them anew in every tile.
- Padding is not encoded. As published a padded frame or word counts as similarity 0 and may win a maximum, and with
  cdcr 2 and 3 its vector then enters the loss: so in training all padded frames share one encoding of an empty picture,
  and one padding word is read behind the longest text. The same values as encoding all of it.
- `gather_rule` local_gradient is published for dp, ti and wti: the encoders get 1/N of the gradient on N processes;
  full_gradient (default) makes N processes one. xti always has the full gradient, as published.
- The published interaction `mlp` cannot run and is not offered; cdcr 3 with ti crashes there and is refused here.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Assets, Batch, Encoding, Inputs, Mismatch, RetrievalModel, Shared, gather, load_init, own_rows
from models.clip import CLIP, half_parameters, sizes_of
from models.clip_blocks import Attention, Transformer
from models.clip_sizes import BACKBONES, Sizes
from models.interaction import Tokens, token_wise
from models.losses import contrastive, correlation, decorrelation
from models.options.drl import Options
from models.temporal import Mean, Recurrent, Sequence, Tight, pooled

_EPS = 1e-12  # of the layer norms outside CLIP
_CROSS_HEADS = 8  # whatever the width (published)
_DRAWS = 10_000  # cdcr 1: a draw below this, modulo the number of words, names one (published)
_CLIP = "clip."


def build(options: Options, assets: Assets) -> "Drl":
    """The model with the weights of `assets.init`; else a new one around `assets.clip`, or around an untrained CLIP.

    Raises Mismatch if the weights are of another backbone than the options name, or do not fit.
    """
    model = Drl(options, _backbone(options, assets))
    if assets.init is None:
        model.start_from_clip()
    load_init(model, assets)
    if options.half_weights:
        for parameter in half_parameters(model.clip):
            parameter.data = parameter.data.half()
    return model


@dataclass(frozen=True)
class Match:
    """Why a text and a video of L words and T frames score as they do; (t2v + v2t) / 2 is the score.

    similarity (L, T): cosines; best_frame (L,) and best_word (T,): their maxima as they count; weights sum to 1.
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


class Drl(RetrievalModel):
    """Token ids (B, L) and frames (B, T, S, S, 3) -> one vector each (dp), or words and frames with weights.

    Encodings: dp {"vector" (B, D) of length 1}; xti {"vector"} and {"frames" (B, T, D), "real"}; ti and wti {"tokens"
    (B, L or T, D) of length 1, "weight", "real"}. L is always `words`, so that texts of any batch can be put together.
    """

    targets = ()

    def __init__(self, options: Options, clip: CLIP):
        super().__init__()
        sizes = clip.sizes
        _check(options, sizes)
        self.options, self.clip = options, clip
        self.inputs = Inputs("clip_bpe", "frames", options.words, options.frames, sizes.pixels, padding="zero")
        width = sizes.embed
        self.temporal = _temporal(options, width, sizes.context)
        if options.interaction == "wti":
            self.word_weight, self.frame_weight = (_weigher(options.wti_arch, width) for _ in range(2))
        if options.interaction == "xti":
            self.cross = Tight(width, options.cross_layers, sizes.context, eps=_EPS, heads=_CROSS_HEADS)

    def start_from_clip(self) -> None:
        """Give the new transformers the positions and first blocks of CLIP's text tower, as published (10)."""
        for part in self.new_parts():
            _as_published(part)
            if isinstance(part, (Sequence, Tight)):
                _copy_text_tower(self.clip, part.positions, part.transformer)

    def new_parts(self) -> list[nn.Module]:
        """Everything besides CLIP."""
        return [part for name, part in self.named_children() if name != "clip"]

    @property
    def scale(self) -> float:
        return float(self.clip.logit_scale.exp())

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: text (B, L) int64, L at most `words`; text_mask (B, L) bool."""
        return self.text_encoding(self.read_text(batch))

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """batch: frames (B, T, S, S, 3) uint8 or normalised floats (B, T, 3, S, S); video_mask (B, T) bool."""
        return self.video_encoding(self.read_video(batch))

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Similarities (n_t, n_v), without temperature; cosines, except for xti."""
        with _full_precision(text):
            if self.options.interaction == "dp":
                return {"similarity": text["vector"] @ video["vector"].T}
            if self.options.interaction == "xti":
                return {"similarity": self.cross(text["vector"], video["frames"], video["real"].bool())}
            return {"similarity": token_wise(_tokens(text), _tokens(video))}

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """token_wise bounds its own memory; xti holds a sequence for each pair, about 16 times over within a block."""
        if self.options.interaction != "xti":
            return 8
        _, frames, width = video["frames"].shape
        return 16 * 4 * (1 + frames) * width

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """As the base class, but what is gathered are features: weights and scores come after it, as published (8)."""
        text, video = self.read_text(batch), self.read_video(batch)
        if self.options.interaction != "xti":
            text, video = gather(text, self.gather_rule), gather(video, self.gather_rule)
        return self.loss(self.text_encoding(text), self.video_encoding(video), {})

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Symmetric InfoNCE of all pairs at the present temperature, plus lambda x CDCR (6, 7)."""
        with _full_precision(text):
            t2v, v2t, first, share = self.logits(text, video)
            terms = {"t2v": share * contrastive(t2v, first), "v2t": share * contrastive(v2t, first)}
            loss = (terms["t2v"] + terms["v2t"]) / 2
            if self.options.cdcr and self.options.interaction != "xti":
                terms["cdcr"] = self._decorrelation(text, video)
                loss = loss + self.options.cdcr_lambda * terms["cdcr"]
            return terms | {"loss": loss}

    def logits(self, text: Encoding, video: Encoding) -> tuple[Tensor, Tensor, int, float]:
        """Scores at the present temperature, rows = queries: t2v, v2t; the column of row 0; the share in the loss.

        xti on several processes: own texts with all videos and own videos with all texts, so that each process scores
        its share of the pairs; the share is 1 where all have equally many rows. Else all pairs, v2t the transpose.
        """
        scale = self.clip.logit_scale.exp()
        n = len(next(iter(text.values())))
        first, processes = own_rows(n, scale.device) if self.options.interaction == "xti" else (0, 1)
        if processes == 1:
            t2v = scale * self.score(text, video)["similarity"]
            return t2v, t2v.T, 0, 1.0
        t2v = scale * self.score(text, gather(video, "full_gradient"))["similarity"]  # (n, N)
        v2t = scale * self.score(gather(text, "full_gradient"), video)["similarity"].T
        return t2v, v2t, first, n * processes / t2v.shape[1]

    def explain(self, text: Encoding, video: Encoding) -> Match:
        """The first text and video of two encodings, word by frame. Raises Mismatch for models that see no words."""
        if self.options.interaction not in ("ti", "wti"):
            raise Mismatch(
                f"interaction {self.options.interaction} compares whole texts and videos, there is nothing to show",
                "Explain a model with interaction ti or wti.",
            )
        (u, u_real, alpha), (w, w_real, beta) = _tokens(text), _tokens(video)
        each = (u[0] * u_real[0, :, None]) @ (w[0] * w_real[0, :, None]).T  # (L, T)
        words, frames = u_real[0], w_real[0]
        return Match(
            each[words][:, frames], each.amax(1)[words], each.amax(0)[frames], alpha[0][words], beta[0][frames]
        )

    def read_text(self, batch: Batch) -> Encoding:
        """What is gathered of texts: vector (B, D), or features (B, words, D) with `real`; not normalised."""
        ids, real = batch["text"], batch["text_mask"]
        longest = _longest(real, "text", self.options.words)
        cut = min(ids.shape[1], longest + 1)  # the first padding word may win a maximum, no other can
        with self._towers(ids):
            read = self.clip.read(ids[:, :cut])
            if self.options.interaction in ("dp", "xti"):
                read = read[torch.arange(len(ids), device=ids.device), real.sum(1) - 1]
            features = self.clip.project_text(read).float()
        if features.ndim == 2:
            return {"vector": features}
        found = {"features": self._to_words(features), "real": self._to_words(real)}
        return found | self._draw(real)

    def read_video(self, batch: Batch) -> Encoding:
        """What is gathered of videos: features (B, T, D) behind the temporal module, not normalised, and `real`."""
        frames, real = batch["frames"], batch["video_mask"]
        _longest(real, "video", self.options.frames)
        features = self.temporal(self._frame_features(frames, real), real)
        return {"features": features, "real": real} | self._draw(real)

    def _frame_features(self, frames: Tensor, real: Tensor) -> Tensor:
        """(B, T, D) of all frames; padded ones share the encoding of an empty picture where it is needed, else 0."""
        visual = self.clip.visual
        with self._towers(real):
            if bool(real.all()):
                return visual(frames.flatten(0, 1)).float().unflatten(0, real.shape)
            some = visual.pixels(frames[real])
            is_needed = self.training and self.options.cdcr >= 2
            if is_needed:
                some = torch.cat([some, torch.zeros_like(some[:1])])
            rows = visual(some).float()
        if not is_needed:
            rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        place = torch.full(real.shape, len(rows) - 1, device=real.device)
        place[real] = torch.arange(len(rows) - 1, device=real.device)
        return rows[place]

    def text_encoding(self, read: Encoding) -> Encoding:
        if self.options.interaction == "xti":
            return read
        if self.options.interaction == "dp":
            return {"vector": F.normalize(read["vector"], dim=-1)}
        return self._weighed(read, "word_weight")

    def video_encoding(self, read: Encoding) -> Encoding:
        if self.options.interaction == "xti":
            return {"frames": read["features"], "real": read["real"]}
        if self.options.interaction == "dp":
            return {"vector": pooled(read["features"], read["real"])}
        return self._weighed(read, "frame_weight")

    def _weighed(self, read: Encoding, network: str) -> Encoding:
        """Directions of words or frames, and the weight of each: learnt (wti) or equal (ti)."""
        features, real = read["features"], read["real"]
        with _full_precision(read):
            if self.options.interaction == "wti":
                logits = getattr(self, network)(features).squeeze(-1)
                weight = logits.masked_fill(~real, float("-inf")).softmax(-1)
            else:
                weight = real / real.sum(1, keepdim=True)
            found = {"tokens": F.normalize(features, dim=-1), "weight": weight, "real": real}
        return found | {name: value for name, value in read.items() if name == "draw"}

    def _to_words(self, x: Tensor) -> Tensor:
        """(B, L, ...) with zeros behind, as long as texts can be."""
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.options.words - x.shape[1]))

    def _draw(self, real: Tensor) -> Encoding:
        """The numbers of cdcr 1; drawn with the features, so that all processes see the same ones."""
        if not self.training or self.options.cdcr != 1 or self.options.interaction == "dp":
            return {}
        return {"draw": torch.randint(_DRAWS, (len(real),), device=real.device)}

    def _towers(self, like: Tensor) -> AbstractContextManager:
        """float16 arithmetic where the weights are float16; else as the trainer says."""
        half = self.options.half_weights
        return torch.autocast(like.device.type, torch.float16) if half else nullcontext()

    def _decorrelation(self, text: Encoding, video: Encoding) -> Tensor:
        o = self.options
        matrix = _correlation(text, video, o.cdcr) if "tokens" in text else correlation(text["vector"], video["vector"])
        return decorrelation(matrix, o.cdcr_alpha1, o.cdcr_alpha2)


def _correlation(text: Encoding, video: Encoding, cdcr: int) -> Tensor:
    """The correlation of channels (D, D) over matched words and frames of the pairs (6)."""
    (u, u_real, alpha), (w, w_real, beta) = _tokens(text), _tokens(video)
    rows = torch.arange(len(u), device=u.device)
    if cdcr == 1:
        return correlation(u[rows, text["draw"] % u_real.sum(1)], w[rows, video["draw"] % w_real.sum(1)])
    with torch.no_grad():
        each = (u * u_real[..., None]) @ (w * w_real[..., None]).transpose(1, 2)  # (B, L, T)
        best_frame, best_word = each.argmax(2), each.argmax(1)  # the first of equal ones
    frames, words = w[rows[:, None], best_frame][u_real], u[rows[:, None], best_word][w_real]
    if cdcr == 2:
        return (correlation(u[u_real], frames) + correlation(w[w_real], words)) / 2
    of_words = correlation(u[u_real], frames, alpha[u_real], len(u))
    return (of_words + correlation(w[w_real], words, beta[w_real], len(w))) / 2


def _tokens(encoding: Encoding) -> Tokens:
    return Tokens(encoding["tokens"], encoding["real"].bool(), encoding["weight"])


def _full_precision(like: Encoding) -> AbstractContextManager:
    """No autocast: as published, everything behind the towers is float32."""
    return torch.autocast(next(iter(like.values())).device.type, enabled=False)


def _longest(real: Tensor, side: str, limit: int) -> int:
    """The most real entries of a row (B, L). Mismatch for a row without any, or for more than the options allow."""
    counts = real.sum(1)
    fewest, most = torch.stack([counts.amin(), counts.amax()]).tolist()
    unit = "word" if side == "text" else "frame"
    if fewest == 0:
        row = int(counts.argmin())
        raise Mismatch(f"{side} {row} of the batch is all padding", f"Leave out items without a real {unit}.")
    if max(most, real.shape[1] if side == "text" else most) > limit:
        raise Mismatch(
            f"{side}s of {max(most, real.shape[1])} {unit}s, the model reads {limit}",
            f"Cut them to {limit}, or raise the option {unit}s.",
        )
    return most


def _temporal(options: Options, width: int, positions: int) -> nn.Module:
    if options.aggregation == "none":
        return Mean()
    if options.aggregation == "seqLSTM":
        return Recurrent(width)
    return Sequence(width, options.temporal_layers, positions, _EPS)


def _weigher(layers: int, width: int) -> nn.Module:
    """(..., D) -> (..., 1): one to three linear layers with ReLU between them."""
    hidden = [part for _ in range(layers - 1) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 1))


@torch.no_grad()
def _as_published(module: nn.Module) -> None:
    """Weights of linear layers and embeddings from normal(0, 0.02), biases 0; attention's stacked matrix as torch's."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
        if isinstance(part, Attention):
            nn.init.xavier_uniform_(part.in_proj_weight)


@torch.no_grad()
def _copy_text_tower(clip: CLIP, positions: nn.Embedding, transformer: Transformer) -> None:
    """Give a new transformer the positions and the first blocks of CLIP's text tower, as many as there are."""
    positions.weight.copy_(clip.positional_embedding)
    for own, block in zip(transformer.resblocks, clip.text_blocks, strict=False):
        own.load_state_dict(block.state_dict())


def _backbone(options: Options, assets: Assets) -> CLIP:
    init: Mapping[str, Tensor] = assets.init or {}
    own = {name.removeprefix(_CLIP): value for name, value in init.items() if name.startswith(_CLIP)}
    weights = own if assets.init is not None else assets.clip
    if weights is None and options.backbone not in BACKBONES:
        raise Mismatch("backbone given, but no weights of a CLIP are", "Name a backbone, or give weights.")
    if weights is None:
        return CLIP(BACKBONES[options.backbone])
    sizes, named = sizes_of(weights), BACKBONES.get(options.backbone)
    if named not in (None, sizes):
        raise Mismatch(
            f"weights of another CLIP than {options.backbone}: {_differences(sizes, named)}",
            "Name the backbone they are of, or `backbone: given`.",
        )
    return CLIP.from_state_dict(weights, half_rounding=False)  # published: only where `half_weights` are used


def _differences(found: Sizes, named: Sizes) -> str:
    pairs = ((name, getattr(found, name), value) for name, value in vars(named).items())
    return ", ".join(f"{name} {ours} instead of {value}" for name, ours, value in pairs if ours != value)


def _check(options: Options, sizes: Sizes) -> None:
    if not sizes.patch:
        raise Mismatch("DRL on a ResNet", "Give a ViT: the published code reads no other.")
    if sizes.embed != sizes.text_width:
        raise Mismatch(
            f"words of width {sizes.text_width} in a space of {sizes.embed}: the new transformers start from the text "
            "tower and need them equal",
            "Give one of OpenAI's ViT-B/32, ViT-B/16, ViT-L/14.",
        )
    positions = 1 + options.frames if options.interaction == "xti" else options.frames
    is_placed = options.interaction == "xti" or options.aggregation == "seqTransf"
    if options.words > sizes.context or (is_placed and positions > sizes.context):
        raise Mismatch(
            f"{options.words} words and {options.frames} frames, the backbone has {sizes.context} positions",
            "Lower words or frames.",
        )
