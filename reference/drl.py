"""What benchmarks/models/drl.py compares with: DRL's ranking, training step and decorrelation,
written from docs/specs/drl.md as the published program does them.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.drl.model import Drl
from models.drl.published import published_names

_TILE = 32


@torch.no_grad()
def published_ranking(head: Drl, text: Mapping[str, Tensor], video: Mapping[str, Tensor]) -> Tensor:
    """Tiles of 32 x 32; the networks of the weights and all directions in every tile
    (docs/specs/drl.md, section 11).
    """
    rows = []
    for t, t_real in zip(text["features"].split(_TILE), text["real"].split(_TILE), strict=True):
        row = [
            weighted(head.word_weight, head.frame_weight, t, v, t_real, v_real)[0]
            for v, v_real in zip(
                video["features"].split(_TILE), video["real"].split(_TILE), strict=True
            )
        ]
        rows.append(torch.cat(row, 1))
    return torch.cat(rows)


def weighted(
    word_net: nn.Module, frame_net: nn.Module, t: Tensor, v: Tensor, t_real: Tensor, v_real: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Similarities, the (n, m, L, T) tensor of all pairs, and both weights (docs/specs/drl.md,
    section 5).
    """
    t_weight = word_net(t).squeeze(2).masked_fill(~t_real, -math.inf).softmax(-1)
    v_weight = frame_net(v).squeeze(2).masked_fill(~v_real, -math.inf).softmax(-1)
    t, v = t / t.norm(dim=-1, keepdim=True), v / v.norm(dim=-1, keepdim=True)
    each = torch.einsum("atd,bvd->abtv", [t, v])
    each = torch.einsum("abtv,at->abtv", [each, t_real.float()])
    each = torch.einsum("abtv,bv->abtv", [each, v_real.float()])
    words, frames = each.max(-1)[0], each.max(-2)[0]
    scores = (
        torch.einsum("abt,at->ab", [words, t_weight])
        + torch.einsum("abv,bv->ab", [frames, v_weight])
    ) / 2
    return scores, each, t_weight, v_weight


def published_correlation(a: Tensor, b: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return the (N, D, D) tensor first, then its sum (docs/specs/drl.md, section 6)."""
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    return (torch.einsum("nc,nd->ncd", a, b) * weight[:, None, None]).sum(0) / count


class PublishedStep:
    """One step of the published loop on a copy of a model's weights (interaction wti, seqTransf,
    cdcr 3).
    """

    def __init__(self, model: Drl, lr: float, coef_lr: float, steps: int):
        named = published_names(
            model.options, {n: p.detach().clone() for n, p in model.named_parameters()}
        )
        self.p = {name: value.requires_grad_() for name, value in named.items()}
        self.heads = {
            "clip.visual.": model.clip.visual.blocks[0].attn.heads,
            "clip.": model.clip.text_blocks[0].attn.heads,
            "transformerClip.": model.temporal.transformer.resblocks[0].attn.heads,
        }
        self.options, self.lr, self.coef_lr, self.steps = model.options, lr, coef_lr, steps
        self.state: dict[str, list] = {}

    def __call__(self, batch: Mapping[str, Tensor]) -> float:
        with torch.autograd.set_detect_anomaly(True):
            loss = self.loss(batch)
            loss.backward()
        value = float(loss.detach())
        nn.utils.clip_grad_norm_(list(self.p.values()), 1.0, foreach=False)
        for name, parameter in self.p.items():
            if parameter.grad is not None:
                self._update(name, parameter)
                parameter.grad = None
        with torch.no_grad():
            self.p["clip.logit_scale"].clamp_(max=math.log(100))
        return value

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        p, o = self.p, self.options
        t, v = self._text(batch["text"]), self._video(batch["frames"], batch["video_mask"])
        t_real, v_real = batch["text_mask"], batch["video_mask"]
        scores, each, alpha, beta = weighted(
            self._net("text_weight_fc"), self._net("video_weight_fc"), t, v, t_real, v_real
        )
        logits = p["clip.logit_scale"].exp() * scores
        own = torch.arange(len(t))
        sim = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        matched = each[own, own]
        t, v = F.normalize(t, dim=-1), F.normalize(v, dim=-1)
        frames = v[own[:, None], matched.argmax(2)][t_real]
        words = t[own[:, None], matched.argmax(1)][v_real]
        m = published_correlation(t[t_real], frames, alpha[t_real], len(t))
        m = (m + published_correlation(v[v_real], words, beta[v_real], len(v))) / 2
        on = (m.diagonal() - 1).pow(2).sum()
        off = m.flatten()[:-1].view(len(m) - 1, len(m) + 1)[:, 1:].pow(2).sum()
        return sim + o.cdcr_lambda * (o.cdcr_alpha1 * on + o.cdcr_alpha2 * off)

    def _net(self, name: str) -> nn.Module:
        p = self.p

        def run(x: Tensor) -> Tensor:
            hidden = F.relu(F.linear(x, p[f"{name}.0.weight"], p[f"{name}.0.bias"]))
            return F.linear(hidden, p[f"{name}.2.weight"], p[f"{name}.2.bias"])

        return run

    def _text(self, ids: Tensor) -> Tensor:
        """All padding is read as well."""
        p, length = self.p, ids.shape[1]
        x = p["clip.token_embedding.weight"][ids] + p["clip.positional_embedding"][:length]
        causal = torch.full((length, length), -math.inf).triu(1)
        x = self._blocks("clip.", x.transpose(0, 1), causal, 1e-5).transpose(0, 1)
        return self._norm(x, "clip.ln_final", 1e-5) @ p["clip.text_projection"]

    def _video(self, frames: Tensor, real: Tensor) -> Tensor:
        p, (b, n) = self.p, real.shape
        x = F.conv2d(
            frames.flatten(0, 1),
            p["clip.visual.conv1.weight"],
            stride=p["clip.visual.conv1.weight"].shape[-1],
        )
        x = x.flatten(2).transpose(1, 2)
        top = p["clip.visual.class_embedding"] + torch.zeros(len(x), 1, x.shape[-1])
        x = self._norm(
            torch.cat([top, x], 1) + p["clip.visual.positional_embedding"],
            "clip.visual.ln_pre",
            1e-5,
        )
        x = self._blocks("clip.visual.", x.transpose(0, 1), None, 1e-5).transpose(0, 1)
        frame = (self._norm(x, "clip.visual.ln_post", 1e-5) @ p["clip.visual.proj"])[:, 0].view(
            b, n, -1
        )
        placed = frame + p["frame_position_embeddings.weight"][:n]
        mask = ((1 - real.float()) * -1e6)[:, None].expand(-1, n, -1)
        mask = mask.repeat_interleave(self.heads["transformerClip."], 0)
        return (
            self._blocks("transformerClip.", placed.transpose(0, 1), mask, 1e-12).transpose(0, 1)
            + frame
        )

    def _blocks(self, tower: str, x: Tensor, mask: Tensor | None, eps: float) -> Tensor:
        """x (N, B, W), sequence first."""
        base = tower if tower == "transformerClip." else f"{tower}transformer."
        number = 0
        while f"{base}resblocks.{number}.ln_1.weight" in self.p:
            name = f"{base}resblocks.{number}."
            x = x + self._attention(
                name, self._norm(x, f"{name}ln_1", eps), mask, self.heads[tower]
            )
            hidden = self._linear(self._norm(x, f"{name}ln_2", eps), f"{name}mlp.c_fc")
            x = x + self._linear(hidden * torch.sigmoid(1.702 * hidden), f"{name}mlp.c_proj")
            number += 1
        return x

    def _attention(self, name: str, x: Tensor, mask: Tensor | None, heads: int) -> Tensor:
        """Compute attention as torch did at that time: products, softmax and product apart."""
        p, (n, b, w) = self.p, x.shape
        q, k, v = F.linear(x, p[f"{name}attn.in_proj_weight"], p[f"{name}attn.in_proj_bias"]).chunk(
            3, -1
        )
        q = q * (w // heads) ** -0.5
        q, k, v = (
            part.contiguous().view(n, b * heads, w // heads).transpose(0, 1) for part in (q, k, v)
        )
        logits = torch.bmm(q, k.transpose(1, 2))
        if mask is not None:
            logits = logits + mask
        found = torch.bmm(logits.softmax(-1), v).transpose(0, 1).contiguous().view(n, b, w)
        return self._linear(found, f"{name}attn.out_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(
            x.float(), x.shape[-1:], self.p[f"{name}.weight"], self.p[f"{name}.bias"], eps
        )

    @torch.no_grad()
    def _update(self, name: str, parameter: Tensor) -> None:
        """BertAdam, one tensor: clipped by itself, no bias correction (docs/specs/drl.md, section
        9). The rate is 0 in the first step.
        """
        if name not in self.state:
            self.state[name] = [torch.zeros_like(parameter), torch.zeros_like(parameter), 0]
        m, v, k = self.state[name]
        nn.utils.clip_grad_norm_(parameter, 1.0, foreach=False)
        grad = parameter.grad
        m.mul_(0.9).add_(grad, alpha=0.1)
        v.mul_(0.98).addcmul_(grad, grad, value=0.02)
        update = m / (v.sqrt() + 1e-6)
        if "bias" not in name:
            update += 0.2 * parameter
        x = k / self.steps
        rate = (
            self.lr
            * (self.coef_lr if "clip." in name else 1.0)
            * (x / 0.1 if x < 0.1 else (1 + math.cos(math.pi * x)) / 2)
        )
        parameter.add_(-(rate * update))
        self.state[name][2] += 1
