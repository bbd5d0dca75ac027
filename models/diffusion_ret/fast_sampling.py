"""Sampling from the denoiser of DiffusionRet with everything that depends on neither x nor t
computed once.

The numbers of `denoising.sample`, by exact algebra (docs/specs/diffusionret.md, section 15, and
further). s: sentence, u: the video as a sentence sees it, c: embedding of a step, H = Wq' Wk, and
the decoder's first layer split into [A | C]:

- Logits <Wq (query + c), Wk (candidate + c)> are query' H candidate + c' H candidate (+ query' H c
  where each candidate has its own query) + what is equal for all candidates, which softmax drops.
    They are tables over the steps.
- The decoder sees A (Wo sum_k a_k Wv (candidate_k + c) + bo) + C candidate + b = sum_k a_k M
  candidate_k + C candidate + shift(t), with M = A Wo Wv: two projections per candidate, and no
    matrix product is left within a step.
- w relu(y) = (w y + sign(w) |w y|) / 2: with rows scaled by |w| / 2, the hidden layer is a sum and
  an L1 distance.
- u is a weighted sum of frames, so all of this is projected once per frame of the gallery where
  that is less work than once per pair. In video -> text it belongs to the text alone.

A query's numbers do not depend on which others are sampled with it: whatever is a product of
matrices is taken over whole test sets or per query. float32; the folded matrices are computed in
float64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.clip.matmul import linear
from models.diffusion_ret.denoiser import Denoiser
from models.diffusion_ret.noising import Schedule


class _Folded:
    """A denoiser and a plan of S steps as few matrices.

    columns (4D + S + 2, D): what a candidate is projected to: own hidden units (2D), its share in
    those of the others (2D), the sums of both with the signs of w, logits of each step. bilinear
    (D, D): H. steps (S, D): c. shift (S, 2D) of the hidden units, and line (S,), their signed sum
    plus the bias of the answer.
    """

    def __init__(self, denoiser: Denoiser, plan: Schedule):
        self.denoiser, self.plan = denoiser, plan
        width, device = denoiser.width, denoiser.proj.weight.device
        q, k, v, out = (
            part.weight.double()
            for part in (denoiser.q_proj, denoiser.k_proj, denoiser.v_proj, denoiser.proj)
        )
        hidden, last = denoiser.decoder[0], denoiser.decoder[2]
        w = last.weight[0].double()
        order = torch.argsort((w < 0).int(), stable=True)  # units that count positively come first
        self.n_positive = int((w >= 0).sum())
        half = (w.abs() / 2)[order, None]
        signs = torch.where(w[order] < 0, -1.0, 1.0).double()
        others, own = (
            half * part for part in hidden.weight.double()[order].split(width, dim=1)
        )  # (2D, D) each
        steps = denoiser.embed_timestep(torch.from_numpy(plan.timesteps).to(device)).double()
        shift = (steps @ v.T @ out.T + denoiser.proj.bias.double()) @ others.T
        shift += half[:, 0] * hidden.bias.double()[order]
        others = others @ out @ v
        bilinear = q.T @ k
        columns = [own, others, (signs @ own)[None], (signs @ others)[None], steps @ bilinear]
        self.columns = torch.cat(columns).float()
        self.shift, self.line = shift.float(), (shift @ signs + last.bias.double()).float()
        self.bilinear, self.steps = bilinear.float(), steps.float()

    def project(self, candidates: Tensor) -> Tensor:
        """(..., D) -> (..., 4D + S + 2)."""
        return linear(candidates, self.columns)

    def project_each(self, candidates: Tensor) -> Tensor:
        """The same of (B, K, D), query by query: the rounding of a product depends on its number of
        rows.
        """
        return torch.stack([self.project(rows) for rows in candidates])

    def chain(self, projected: Tensor, logits: Tensor, noise: Tensor) -> Tensor:
        """x (B, K) after all steps. projected (B, K, 4D + S + 2); logits (B, K, S or 1): besides
        those in it.
        """
        units, p = 2 * self.denoiser.width, self.n_positive
        own, others, own_line, others_line, of_steps = projected.split(
            [units, units, 1, 1, len(self.plan)], dim=2
        )
        positive, negative = (
            own[..., :p].contiguous(),
            own[..., p:].contiguous(),
        )  # (B, K, P), (B, K, 2D - P)
        others, own_line, others_line = (
            others.contiguous(),
            own_line.squeeze(2),
            others_line.squeeze(2),
        )
        logits = (of_steps + logits).permute(2, 0, 1).contiguous()  # (S, B, K)
        x = noise
        for step in reversed(range(len(self.plan))):
            attention = (logits[step] + x).softmax(1)
            shared = torch.baddbmm(self.shift[step], attention[:, None], others)  # (B, 1, 2D)
            line = own_line + (attention * others_line).sum(1, keepdim=True) + self.line[step]
            y = line + _distances(shared[..., :p], positive) - _distances(shared[..., p:], negative)
            x = self.plan.back(x, (y + attention).clamp_(-1, 1), step)
        return x


def _distances(shared: Tensor, own: Tensor) -> Tensor:
    """Sum of |shared + own| over the units: (B, 1, P), (B, K, P) -> (B, K)."""
    return torch.cdist(-shared, own, p=1.0).squeeze(1)


class TextToVideo:
    """Samples for texts (N_t, D) over videos: frames (N_v, T, D), real (N_v, T), all on the
    denoiser's device.

    n_pairs: how many pairs will be sampled in all, by every process; it decides what is projected,
    frames or pairs.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        plan: Schedule,
        text: Tensor,
        frames: Tensor,
        real: Tensor,
        n_pairs: int,
    ):
        self.folded = _Folded(denoiser, plan)
        self.frames, self.real = frames, real
        self.is_projected = n_pairs > frames.shape[0] * frames.shape[1]
        rows = frames.flatten(0, 1)
        self.rows = self.folded.project(rows) if self.is_projected else rows
        self.text = torch.stack([text, text @ self.folded.bilinear], dim=2)  # (N_t, D, 2)

    def __call__(self, queries: Tensor, candidates: Tensor, noise: Tensor) -> Tensor:
        """x (B, K) in [-1, 1] of texts `queries` (B,) and videos `candidates` (B, K), both int64;
        noise (B, K).
        """
        n_frames = self.frames.shape[1]
        frames = self.frames[candidates].flatten(1, 2)  # (B, K * T, D)
        products = (frames @ self.text[queries]).unflatten(1, (-1, n_frames))  # (B, K, T, 2)
        weight = self.folded.denoiser.frame_weights(products[..., 0], self.real[candidates])
        logits = (weight * products[..., 1]).sum(2, keepdim=True)
        rows = candidates[..., None] * n_frames + torch.arange(n_frames, device=candidates.device)
        # the weighted sum of frames, without a copy of the frames of each pair
        seen = F.embedding_bag(
            rows.flatten(0, 1), self.rows, per_sample_weights=weight.flatten(0, 1), mode="sum"
        ).unflatten(0, candidates.shape)
        projected = seen if self.is_projected else self.folded.project_each(seen)
        return self.folded.chain(projected, logits, noise)


class VideoToText:
    """Samples for videos over texts; as `TextToVideo`."""

    def __init__(
        self,
        denoiser: Denoiser,
        plan: Schedule,
        text: Tensor,
        frames: Tensor,
        real: Tensor,
        n_pairs: int,
    ):
        self.folded = folded = _Folded(denoiser, plan)
        self.frames, self.real = frames, real
        self.is_projected = n_pairs > len(text)
        self.rows = folded.project(text) if self.is_projected else text
        self.text = torch.stack([text, text @ folded.bilinear.T], dim=1)  # (N_t, 2, D)
        self.logits = frames @ (folded.steps @ folded.bilinear.T).T  # (N_v, T, S)

    def __call__(self, queries: Tensor, candidates: Tensor, noise: Tensor) -> Tensor:
        """x (B, K) in [-1, 1] of videos `queries` (B,) and texts `candidates` (B, K), both int64;
        noise (B, K).
        """
        text = self.text[candidates].flatten(1, 2)  # (B, K * 2, D)
        products = (text @ self.frames[queries].transpose(1, 2)).unflatten(
            1, (-1, 2)
        )  # (B, K, 2, T)
        weight = self.folded.denoiser.frame_weights(products[:, :, 0], self.real[queries][:, None])
        logits = (weight * products[:, :, 1]).sum(2, keepdim=True) + weight @ self.logits[queries]
        rows = self.rows[candidates]
        projected = rows if self.is_projected else self.folded.project_each(rows)
        return self.folded.chain(projected, logits, noise)
