"""What stands in front of a vision block of CenterCLIP: fewer frames, fewer tokens, or tokens
shifted in time.

Paper: Zhao et al., CenterCLIP (SIGIR 2022), section 3.2. Published code: mzhaoshuai/CenterCLIP:
modules/cluster/cluster.py; docs/specs/centerclip.md, sections 4 and 5. All of them map (tokens of
the frames of B videos, (B*T, 1+P, W), class token first) -> (B*S, 1+K, W). Nothing that chooses
tokens has a gradient. Where we differ
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
class Shape:
    """What reaches a block: frames per video, patch tokens per frame, width."""

    frames: int
    tokens: int
    width: int


def reducer(options: Reduce, before: Shape) -> nn.Module:
    """The module of one block. Mismatch if it cannot be, with the numbers."""
    return _METHODS[options.method](options, before)


def shape_after(options: Reduce, before: Shape) -> Shape:
    """What reaches the block itself."""
    if options.method in STAYS:
        return before
    return Shape(
        options.frames,
        before.tokens if options.method == "pooling" else options.tokens,
        before.width,
    )


class Shift(nn.Module):
    """An eighth of the channels from the next frame, an eighth from the previous one; `patches` or
    class token.
    """

    def __init__(self, options: Reduce, before: Shape):
        super().__init__()
        self.frames = before.frames
        self.move = shift_class if options.method == "token_shift" else shift_patches
        self.again = options.method == "token_shift"  # also between attention and MLP

    def forward(self, tokens: Tensor) -> Tensor:
        return self.move(tokens, self.frames)


class Pooling(nn.Module):
    """The mean of the frames of a segment."""

    def __init__(self, options: Reduce, before: Shape):
        super().__init__()
        self.length = before.frames // options.frames

    def forward(self, tokens: Tensor) -> Tensor:
        return pool_frames(tokens, self.length)


class Selection(nn.Module):
    """The mean class token of a segment, and K of its N patch tokens in their order; subclasses
    choose which.
    """

    def __init__(self, options: Reduce, before: Shape):
        super().__init__()
        self.options, self.length, self.k = options, before.frames // options.frames, options.tokens
        self.n = before.tokens * self.length
        if self.k > self.n:
            raise Mismatch(
                f"{self.k} tokens are to be left of segments of {self.n} ({self.length} frames with"
                f" {before.tokens})",
                "Lower reduce: tokens, or reduce to fewer frames.",
            )

    def choose(self, tokens: Tensor) -> Clusters:
        """Ids (R, K), ascending, and the cluster of every token (R, N), of segments (R, N, W)."""
        raise TypeError(f"{type(self).__name__} does not choose")

    def forward(self, tokens: Tensor) -> Tensor:
        patches = segment_tokens(tokens, self.length)
        return torch.cat(
            [segment_class(tokens, self.length), self.kept(patches, self.choose(patches.detach()))],
            1,
        )

    def kept(self, patches: Tensor, clusters: Clusters) -> Tensor:
        """What stands for the clusters: (R, N, W) -> (R, K, W)."""
        return patches.gather(1, clusters.medoids[..., None].expand(-1, -1, patches.shape[-1]))


class Clustered(Selection):
    """The medoids, or means, of k-medoids++ or spectral clusters; with a learned vector added to
    each if asked for.
    """

    def __init__(self, options: Reduce, before: Shape):
        super().__init__(options, before)
        drawn = (
            before.width**-0.5 * torch.randn(self.k, before.width) if options.embedding else None
        )
        self.embedding = None if drawn is None else nn.Parameter(drawn)
        unread = torch.zeros(self.length, 1, before.width) if options.frame_embedding else None
        self.register_buffer(
            "frame_embedding", unread
        )  # no parameter: nothing reads it, so nothing can train it
        near = None
        if options.method == "spectral" and options.space_time:
            near = space_time_neighbours(before.tokens, self.length)
        self.register_buffer("near", near, persistent=False)
        knn = options.method == "spectral" and options.graph == "knn"
        self.neighbours = (
            automatic_neighbours(options.neighbours, before.tokens, self.length) if knn else None
        )

    def choose(self, tokens: Tensor) -> Clusters:
        o = self.options
        shared = {"metric": o.metric, "p": o.p, "max_iter": o.max_iter, "tol": o.tol}
        if o.method == "kmedoids":
            return kmedoids(tokens, self.k, pre_norm=o.pre_norm, **shared)
        return spectral(
            tokens, self.k, sigma=o.sigma, neighbours=self.neighbours, near=self.near, **shared
        )

    def kept(self, patches: Tensor, clusters: Clusters) -> Tensor:
        if self.options.keep == "mean":
            kept = members_mean(patches, clusters.assign, self.k)
        else:
            kept = super().kept(patches, clusters)
        return kept if self.embedding is None else kept + self.embedding


class Sparse(Selection):
    """Tokens at equal distances; in training one drawn from each of K parts, the same for all
    videos of a batch.
    """

    def __init__(self, options: Reduce, before: Shape):
        super().__init__(options, before)
        self.segments = options.frames
        self.rng: np.random.RandomState | None = (
            None  # None: seeded from torch's generator at every call
        )

    def choose(self, tokens: Tensor) -> Clusters:
        ids = np.stack(
            self._drawn() if self.training else [spread_ids(self.n, self.k)]
        )  # (S or 1, K)
        ids = torch.from_numpy(ids).to(tokens.device)
        ids = ids.repeat(
            len(tokens) // len(ids), 1
        )  # rows are the segments of one video after the other
        return Clusters(ids, ids)  # there are no clusters, and nothing asks for them

    def _drawn(self) -> list[np.ndarray]:
        rng = self.rng or np.random.RandomState(int(torch.randint(2**31, ())))
        return [spread_ids(self.n, self.k, rng) for _ in range(self.segments)]


class Deep(Selection):
    """The tokens nearest to centres that an MLP makes of all tokens; it learns by `loss`, nothing
    else trains it.

    loss: after a forward in training, per segment (R,): sum of squared distances of tokens to their
    nearest centre.
    """

    def __init__(self, options: Reduce, before: Shape):
        super().__init__(options, before)
        self.mlp = Centres(self.n, self.length, self.k)
        self.loss: Tensor | None = None

    def choose(self, tokens: Tensor) -> Clusters:
        with (
            torch.autocast(tokens.device.type, enabled=False),
            torch.set_grad_enabled(self.training),
        ):
            x = tokens.float()
            centres = self.mlp(x.transpose(1, 2)).transpose(1, 2)  # (R, K, W)
            wide, c = (
                x.double(),
                centres.double(),
            )  # squares of distances would lose too many digits in float32
            squared = (
                wide.square().sum(-1)[..., None]
                + c.square().sum(-1)[:, None]
                - 2 * wide @ c.transpose(1, 2)
            )
            near, assign = squared.min(-1)
            self.loss = near.sum(1).float() if self.training else None
        with torch.no_grad():
            own = assign[..., None] == torch.arange(self.k, device=assign.device)
            ids = squared.masked_fill(~own, torch.inf).argmin(
                1
            )  # of an empty cluster: 0, as published
            return Clusters(ids.sort(1).values, assign)


class Centres(nn.Module):
    """(..., N) -> (..., K) by three linear layers, each followed by a norm, with nothing between
    them.
    """

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
