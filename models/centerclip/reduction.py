"""What stands in front of a vision block of CenterCLIP: fewer frames or tokens, or shifted tokens.

Paper: Zhao et al., CenterCLIP (SIGIR 2022), section 3.2. Published code: mzhaoshuai/CenterCLIP:
modules/cluster/cluster.py; docs/specs/centerclip.md, sections 4 and 5. All modules map the tokens
of the frames of B videos, (B*T, 1+P, W) with the class token first, to (B*S, 1+K, W). What chooses
tokens has no gradient.

Where we differ
- `adaptive_cls` and `mean_residual`, which no published option reaches, are not here.
- More tokens asked for than there are is an error; the published code then repeats some.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Mismatch
from models.centerclip.kmedoids import Clusters, kmedoids
from models.centerclip.options import STAYS, Reduce
from models.centerclip.spectral import automatic_neighbours, space_time_neighbours, spectral
from models.centerclip.tokens import (
    members_mean,
    pool_frames,
    segment_class,
    segment_tokens,
    shift_class,
    shift_patches,
    spread_ids,
)

_DEEP_STD = 0.01  # of the first weights of the learned clustering


@dataclass(frozen=True)
class TokenShape:
    """What reaches a block: frames per video, patch tokens per frame, width."""

    frames: int
    tokens: int
    width: int


def build_reducer(options: Reduce, before: TokenShape) -> nn.Module:
    """Return the module of one block. Raises Mismatch, with the numbers, if it does not fit."""
    return _METHODS[options.method](options, before)


def shape_after(options: Reduce, before: TokenShape) -> TokenShape:
    """Return what reaches the block itself."""
    if options.method in STAYS:
        return before
    tokens = before.tokens if options.method == "pooling" else options.tokens
    return TokenShape(frames=options.frames, tokens=tokens, width=before.width)


class Shift(nn.Module):
    """Exchange channels of patches, or of class tokens, with the next and the previous frame."""

    def __init__(self, options: Reduce, before: TokenShape):
        super().__init__()
        is_of_class = options.method == "token_shift"
        self.frames = before.frames
        self.shift = shift_class if is_of_class else shift_patches
        self.again = is_of_class  # also between attention and MLP

    def forward(self, tokens: Tensor) -> Tensor:
        """Shift some channels of tokens (B*T, 1+P, W) between frames; the shape stays."""
        return self.shift(tokens, self.frames)


class Pooling(nn.Module):
    """The mean of the frames of a segment."""

    def __init__(self, options: Reduce, before: TokenShape):
        super().__init__()
        self.length = before.frames // options.frames

    def forward(self, tokens: Tensor) -> Tensor:
        """Average tokens (B*T, 1+P, W) over the frames of each segment: (B*S, 1+P, W)."""
        return pool_frames(tokens, self.length)

    def origin(self, before: Tensor, tokens: Tensor) -> Tensor:
        """Return what each token stands for: (T, P, M) before -> (S, P, L*M): a place of every
        frame.
        """
        return before.unflatten(0, (-1, self.length)).transpose(1, 2).flatten(2)


class TokenSelection(nn.Module):
    """The mean class token of a segment, and K of its N patch tokens, which subclasses choose.

    Raises Mismatch if K is more than N.
    """

    def __init__(self, options: Reduce, before: TokenShape):
        super().__init__()
        self.options = options
        self.length = before.frames // options.frames
        self.k = options.tokens
        self.n = before.tokens * self.length
        if self.k > self.n:
            raise Mismatch(
                f"{self.k} tokens are to be left of segments of {self.n} ({self.length} frames with"
                f" {before.tokens})",
                "Lower reduce: tokens, or reduce to fewer frames.",
            )
        weight = torch.full((1, before.frames, 1, 1), 1 / self.length)
        self.class_weight = nn.Parameter(weight) if options.class_weights else None

    def choose(self, tokens: Tensor) -> Clusters:
        """Segments (R, N, W) -> ids (R, K), ascending, and the cluster of every token (R, N).

        Raises TypeError unless a subclass chooses.
        """
        raise TypeError(f"{type(self).__name__} does not choose")

    def origin(self, before: Tensor, tokens: Tensor) -> Tensor:
        """Return what each token stands for: (T, P, M) before, by tokens (T, 1+P, W), -> (S, K,
        M).
        """
        chosen = self.choose(segment_tokens(tokens, self.length)).medoids  # (S, K)
        segments = before.unflatten(0, (-1, self.length)).flatten(1, 2)  # (S, N, M)
        return segments.gather(1, chosen.cpu()[..., None].expand(-1, -1, before.shape[2]))

    def forward(self, tokens: Tensor) -> Tensor:
        """Keep K of the patches of each segment: tokens (B*T, 1+P, W) become (B*S, 1+K, W)."""
        patches = segment_tokens(tokens, self.length)  # (B*S, N, W)
        clusters = self.choose(patches.detach())
        chosen = self.represent(patches, clusters)  # (B*S, K, W)
        classes = segment_class(self._weigh(tokens), self.length)  # (B*S, 1, W)
        return torch.cat([classes, chosen], 1)

    def _weigh(self, tokens: Tensor) -> Tensor:
        """Return the class tokens times what was learned for their frame: (B*T, 1, W)."""
        classes = tokens[:, :1]
        if self.class_weight is None:
            return classes
        n_frames = self.class_weight.shape[1]
        return (classes.unflatten(0, (-1, n_frames)) * self.class_weight).flatten(0, 1)

    def represent(self, patches: Tensor, clusters: Clusters) -> Tensor:
        """Return what stands for the clusters, the medoids: (R, N, W) -> (R, K, W)."""
        ids = clusters.medoids[..., None].expand(-1, -1, patches.shape[-1])
        return patches.gather(1, ids)


class Clustered(TokenSelection):
    """The medoids, or means, of k-medoids++ or spectral clusters.

    A learned vector is added to each if the options say so.
    """

    def __init__(self, options: Reduce, before: TokenShape):
        super().__init__(options, before)
        self.embedding = None
        if options.embedding:
            drawn = before.width**-0.5 * torch.randn(self.k, before.width)
            self.embedding = nn.Parameter(drawn)
        frame_embedding = None
        if options.frame_embedding:
            frame_embedding = torch.zeros(self.length, 1, before.width)
        # no parameter: nothing reads it, so nothing can train it
        self.register_buffer("frame_embedding", frame_embedding)
        near = None
        neighbours = None
        if options.method == "spectral" and options.space_time:
            near = space_time_neighbours(before.tokens, self.length)
        if options.method == "spectral" and options.graph == "knn":
            neighbours = automatic_neighbours(options.neighbours, before.tokens, self.length)
        self.register_buffer("near", near, persistent=False)
        self.neighbours = neighbours

    def choose(self, tokens: Tensor) -> Clusters:
        """Segments (R, N, W) -> medoids (R, K) and the cluster of every token (R, N)."""
        o = self.options
        how = {"metric": o.metric, "p": o.p, "max_iter": o.max_iter, "tol": o.tol}
        if o.method == "kmedoids":
            return kmedoids(tokens, self.k, pre_norm=o.pre_norm, **how)
        how |= {"sigma": o.sigma, "neighbours": self.neighbours, "near": self.near}
        return spectral(tokens, self.k, **how)

    def represent(self, patches: Tensor, clusters: Clusters) -> Tensor:
        """Return what stands for the clusters, medoids or means: (R, N, W) -> (R, K, W)."""
        if self.options.keep == "mean":
            chosen = members_mean(patches, clusters.assign, self.k)
        else:
            chosen = super().represent(patches, clusters)
        return chosen if self.embedding is None else chosen + self.embedding


class Sparse(TokenSelection):
    """Tokens at equal distances; in training one is drawn from each of K parts.

    The draw is the same for all videos of a batch.
    """

    def __init__(self, options: Reduce, before: TokenShape):
        super().__init__(options, before)
        self.segments = options.frames
        # None: seeded from torch's generator at every call
        self.rng: np.random.RandomState | None = None

    def choose(self, tokens: Tensor) -> Clusters:
        """Segments (R, N, W) -> ids (R, K). There are no clusters, and nothing asks for them."""
        chosen = self._draw() if self.training else [spread_ids(self.n, self.k)]
        ids = torch.from_numpy(np.stack(chosen)).to(tokens.device)  # (S or 1, K)
        # rows are the segments of one video after the other
        ids = ids.repeat(len(tokens) // len(ids), 1)  # (R, K)
        return Clusters(ids, ids)

    def _draw(self) -> list[np.ndarray]:
        rng = self.rng or np.random.RandomState(int(torch.randint(2**31, ())))
        return [spread_ids(self.n, self.k, rng) for _ in range(self.segments)]


class Deep(TokenSelection):
    """The tokens nearest to centres that an MLP makes of all tokens.

    The MLP learns by `loss`, nothing else trains it. loss: after a forward in training, per segment
    (R,), the sum of squared distances of tokens to their nearest centre.
    """

    def __init__(self, options: Reduce, before: TokenShape):
        super().__init__(options, before)
        self.mlp = Centres(self.n, self.length, self.k)
        self.loss: Tensor | None = None

    def choose(self, tokens: Tensor) -> Clusters:
        """Segments (R, N, W) -> ids (R, K) and the nearest centre of every token (R, N)."""
        with (
            torch.autocast(tokens.device.type, enabled=False),
            torch.set_grad_enabled(self.training),
        ):
            squared = self._squared_distances(tokens.float())  # (R, N, K)
            nearest, assign = squared.min(-1)
            self.loss = nearest.sum(1).float() if self.training else None
        with torch.no_grad():
            own = assign[..., None] == torch.arange(self.k, device=assign.device)
            # of an empty cluster: 0, as published
            ids = squared.masked_fill(~own, torch.inf).argmin(1)  # (R, K)
            return Clusters(ids.sort(1).values, assign)

    def _squared_distances(self, tokens: Tensor) -> Tensor:
        """Tokens (R, N, W) -> squared distances to their K centres, (R, N, K) float64."""
        centres = self.mlp(tokens.transpose(1, 2)).transpose(1, 2)  # (R, K, W)
        # squares of distances would lose too many digits in float32
        tokens = tokens.double()
        centres = centres.double()
        of_tokens = tokens.square().sum(-1)[..., None]  # (R, N, 1)
        of_centres = centres.square().sum(-1)[:, None]  # (R, 1, K)
        return of_tokens + of_centres - 2 * tokens @ centres.transpose(1, 2)


class Centres(nn.Module):
    """Three linear layers, each followed by a norm, with nothing between them."""

    def __init__(self, n: int, length: int, k: int):
        super().__init__()
        sizes = [(n, 4 * n), (4 * n, length * k), (length * k, k)]
        for i, (into, out) in enumerate(sizes, 1):
            linear = nn.Linear(into, out)
            nn.init.normal_(linear.weight, std=_DEEP_STD)
            nn.init.zeros_(linear.bias)
            self.add_module(f"fc{i}", linear)
            self.add_module(f"ln{i}", nn.LayerNorm(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis from N to K: (..., N) becomes (..., K)."""
        for layer in self.children():
            x = layer(x)
        return x


_METHODS = {
    "kmedoids": Clustered,
    "spectral": Clustered,
    "deep": Deep,
    "pooling": Pooling,
    "sparse": Sparse,
    "temporal_shift": Shift,
    "token_shift": Shift,
}
