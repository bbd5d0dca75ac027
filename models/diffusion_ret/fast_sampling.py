"""Fast sampling from DiffusionRet's denoiser: what depends on neither x nor t is computed once.

It gives the numbers of `denoiser.sample` by exact algebra (docs/specs/diffusionret.md, section 15,
and further). s: sentence, u: the video as a sentence sees it, c: embedding of a step, H = Wq' Wk,
and the decoder's first layer split into [A | C]:

- Logits <Wq (query + c), Wk (candidate + c)> are query' H candidate + c' H candidate (+ query' H c
  where each candidate has its own query), plus terms that are equal for all candidates and that
  softmax drops. They are tables over the steps.
- The decoder sees A (Wo sum_k a_k Wv (candidate_k + c) + bo) + C candidate + b = sum_k a_k M
  candidate_k + C candidate + shift(t), with M = A Wo Wv. That is two projections per candidate, and
  no matrix product is left within a step.
- w relu(y) = (w y + sign(w) |w y|) / 2: with rows scaled by |w| / 2, the hidden layer is a sum and
  an L1 distance.
- u is a weighted sum of frames. Where it is less work to project every frame of the gallery than
  every pair, all of this is projected once per frame. In video -> text it belongs to the text
  alone.

The numbers of a query do not depend on which others are sampled with it: every matrix product runs
over whole test sets or over one query. float32; the folded matrices are computed in float64.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.diffusion_ret.noising import NoiseSchedule
from models.parts.matmul import linear


class Features(NamedTuple):
    """What denoisers see: text (N_t, D), not normalised; frames (N_v, T, D) and real (N_v, T).

    Padded frames hold numbers too.
    """

    text: Tensor
    frames: Tensor
    real: Tensor


class FoldableNetwork(Protocol):
    """The parts of a denoiser that the algebra above needs, for features of width D."""

    width: int
    q_proj: nn.Linear  # (D, D), as k_proj and v_proj without a bias
    k_proj: nn.Linear
    v_proj: nn.Linear
    proj: nn.Linear  # (D, D)
    decoder: nn.Sequential  # (2D, 2D), ReLU, (1, 2D)

    def embed_timestep(self, t: Tensor) -> Tensor:
        """t int64 (S,) -> (S, D)."""

    def frame_weights(self, similarity: Tensor, real: Tensor) -> Tensor:
        """similarity and real (..., T) -> (..., T)."""


class _Folded:
    """A denoiser and a plan of S steps as few matrices.

    columns (4D + S + 2, D) project a candidate to its own hidden units (2D), its share in those of
    the others (2D), the sums of both with the signs of w, and its logits of each step. bilinear
    (D, D): H. steps (S, D): c. shift (S, 2D): of the hidden units. line (S,): the signed sum of the
    shift, plus the bias of the answer.
    """

    def __init__(self, denoiser: FoldableNetwork, plan: NoiseSchedule):
        self.denoiser = denoiser
        self.plan = plan
        query = denoiser.q_proj.weight.double()  # (D, D)
        key = denoiser.k_proj.weight.double()
        value = denoiser.v_proj.weight.double()
        out = denoiser.proj.weight.double()
        hidden = denoiser.decoder[0]
        last = denoiser.decoder[2]
        w = last.weight[0].double()  # (2D,)
        order = torch.argsort((w < 0).int(), stable=True)  # units that count positively come first
        self.n_positive = int((w >= 0).sum())
        half = (w.abs() / 2)[order, None]  # (2D, 1)
        signs = torch.where(w[order] < 0, -1.0, 1.0).double()
        of_found, of_candidate = hidden.weight.double()[order].split(denoiser.width, dim=1)
        others = half * of_found  # (2D, D)
        own = half * of_candidate  # (2D, D)
        timesteps = torch.from_numpy(plan.timesteps).to(out.device)
        steps = denoiser.embed_timestep(timesteps).double()  # (S, D)
        shift = (steps @ value.T @ out.T + denoiser.proj.bias.double()) @ others.T  # (S, 2D)
        shift += half[:, 0] * hidden.bias.double()[order]
        others = others @ out @ value
        bilinear = query.T @ key
        columns = [own, others, (signs @ own)[None], (signs @ others)[None], steps @ bilinear]
        self.columns = torch.cat(columns).float()
        self.shift = shift.float()
        self.line = (shift @ signs + last.bias.double()).float()
        self.bilinear = bilinear.float()
        self.steps = steps.float()

    def project(self, candidates: Tensor) -> Tensor:
        """Apply all linear maps of a candidate at once: (..., D) becomes (..., 4D + S + 2)."""
        return linear(candidates, self.columns)

    def project_each(self, candidates: Tensor) -> Tensor:
        """Apply them query by query: (B, K, D) becomes (B, K, 4D + S + 2).

        The rounding of a product depends on its number of rows, which is K here whatever B is.
        """
        return torch.stack([self.project(rows) for rows in candidates])

    def run_chain(self, projected: Tensor, logits: Tensor, noise: Tensor) -> Tensor:
        """Return x (B, K) after all steps, from noise (B, K).

        projected (B, K, 4D + S + 2); logits (B, K, S or 1): besides those in it.
        """
        units = 2 * self.denoiser.width
        positive = slice(0, self.n_positive)
        negative = slice(self.n_positive, units)
        parts = projected.split([units, units, 1, 1, len(self.plan)], dim=2)
        own, others, own_line, others_line, of_steps = parts
        own_positive = own[..., positive].contiguous()  # (B, K, P)
        own_negative = own[..., negative].contiguous()  # (B, K, 2D - P)
        others = others.contiguous()  # (B, K, 2D)
        own_line = own_line.squeeze(2)  # (B, K)
        others_line = others_line.squeeze(2)  # (B, K)
        logits = (of_steps + logits).permute(2, 0, 1).contiguous()  # (S, B, K)
        x = noise
        for step in reversed(range(len(self.plan))):
            attention = (logits[step] + x).softmax(1)  # (B, K)
            shared = torch.baddbmm(self.shift[step], attention[:, None], others)  # (B, 1, 2D)
            line = own_line + (attention * others_line).sum(1, keepdim=True) + self.line[step]
            gain = _distances(shared[..., positive], own_positive)  # (B, K)
            loss = _distances(shared[..., negative], own_negative)  # (B, K)
            answer = line + gain - loss + attention
            x = self.plan.step_back(x, answer.clamp_(-1, 1), step)
        return x

    def pair_bytes(self, n_frames: int) -> int:
        """Return what sampling holds of a pair at its peak: its frames, and its projection three
        times.
        """
        width = self.denoiser.width
        return 4 * (n_frames * width + 3 * (4 * width + len(self.plan)))


def _distances(shared: Tensor, own: Tensor) -> Tensor:
    """Sum of |shared + own| over the units: (B, 1, P), (B, K, P) -> (B, K)."""
    return torch.cdist(-shared, own, p=1.0).squeeze(1)


class TextToVideo:
    """Samples for texts over videos, from the features of all of them on the denoiser's device.

    n_pairs: how many pairs all processes will sample together. It decides what is projected, frames
    or pairs. pair_bytes: memory for one pair.
    """

    def __init__(
        self, denoiser: FoldableNetwork, plan: NoiseSchedule, features: Features, n_pairs: int
    ):
        text, frames, real = features  # (N_t, D), (N_v, T, D), (N_v, T)
        n_videos, n_frames, _ = frames.shape
        self.folded = _Folded(denoiser, plan)
        self.pair_bytes = self.folded.pair_bytes(n_frames)
        self.frames = frames
        self.real = real
        self.is_projected = n_pairs > n_videos * n_frames
        rows = frames.flatten(0, 1)  # (N_v * T, D)
        self.rows = self.folded.project(rows) if self.is_projected else rows
        self.text = torch.stack([text, text @ self.folded.bilinear], dim=2)  # (N_t, D, 2)

    def __call__(self, queries: Tensor, candidates: Tensor, noise: Tensor) -> Tensor:
        """Return x (B, K) in [-1, 1], from noise (B, K).

        queries int64 (B,): texts; candidates int64 (B, K): videos.
        """
        n_frames = self.frames.shape[1]
        frames = self.frames[candidates].flatten(1, 2)  # (B, K * T, D)
        products = (frames @ self.text[queries]).unflatten(1, (-1, n_frames))  # (B, K, T, 2)
        weight = self.folded.denoiser.frame_weights(products[..., 0], self.real[candidates])
        logits = (weight * products[..., 1]).sum(2, keepdim=True)  # (B, K, 1)
        place = torch.arange(n_frames, device=candidates.device)
        rows = candidates[..., None] * n_frames + place  # (B, K, T)
        # the weighted sum of frames, without a copy of the frames of each pair
        seen = F.embedding_bag(
            rows.flatten(0, 1), self.rows, per_sample_weights=weight.flatten(0, 1), mode="sum"
        ).unflatten(0, candidates.shape)  # (B, K, D or 4D + S + 2)
        projected = seen if self.is_projected else self.folded.project_each(seen)
        return self.folded.run_chain(projected, logits, noise)


class VideoToText:
    """Samples for videos over texts; arguments as of `TextToVideo`."""

    def __init__(
        self, denoiser: FoldableNetwork, plan: NoiseSchedule, features: Features, n_pairs: int
    ):
        text, frames, real = features  # (N_t, D), (N_v, T, D), (N_v, T)
        folded = _Folded(denoiser, plan)
        self.folded = folded
        self.pair_bytes = folded.pair_bytes(frames.shape[1])
        self.frames = frames
        self.real = real
        self.is_projected = n_pairs > len(text)
        self.rows = folded.project(text) if self.is_projected else text
        self.text = torch.stack([text, text @ folded.bilinear.T], dim=1)  # (N_t, 2, D)
        self.logits = frames @ (folded.steps @ folded.bilinear.T).T  # (N_v, T, S)

    def __call__(self, queries: Tensor, candidates: Tensor, noise: Tensor) -> Tensor:
        """Return x (B, K) in [-1, 1], from noise (B, K).

        queries int64 (B,): videos; candidates int64 (B, K): texts.
        """
        text = self.text[candidates].flatten(1, 2)  # (B, K * 2, D)
        products = text @ self.frames[queries].transpose(1, 2)  # (B, K * 2, T)
        products = products.unflatten(1, (-1, 2))  # (B, K, 2, T)
        real = self.real[queries][:, None]  # (B, 1, T)
        weight = self.folded.denoiser.frame_weights(products[:, :, 0], real)  # (B, K, T)
        of_query = (weight * products[:, :, 1]).sum(2, keepdim=True)  # (B, K, 1)
        logits = of_query + weight @ self.logits[queries]  # (B, K, S)
        rows = self.rows[candidates]  # (B, K, D or 4D + S + 2)
        projected = rows if self.is_projected else self.folded.project_each(rows)
        return self.folded.run_chain(projected, logits, noise)
