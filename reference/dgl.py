"""DGL written plainly: every row of every sequence, prompts anew for each sample; what the fast
model must equal.

Source: docs/specs/dgl.md, sections 3 to 5, in its order. Recorded cases compare the inside of these
sequences, which models/dgl/model.py does not have; tests compare the model with them, and
benchmarks/models/dgl.py its time. Weights are those of the model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.clip.blocks import Block
from models.dgl.model import Dgl


def attention(block: Block, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's own multi-head attention; mask (N, M) of -inf where a query may not look."""
    attn, width = block.attn, q.shape[-1]
    q, kv = q.transpose(0, 1), kv.transpose(0, 1)
    found, _ = F.multi_head_attention_forward(
        q,
        kv,
        kv,
        width,
        attn.heads,
        attn.in_proj_weight,
        attn.in_proj_bias,
        None,
        None,
        False,
        0.0,
        attn.out_proj.weight,
        attn.out_proj.bias,
        need_weights=False,
        attn_mask=mask,
    )
    return found.transpose(0, 1)


def mlp(module: torch.nn.Module, x: Tensor) -> Tensor:
    x = module.c_fc(x)
    return module.c_proj(x * torch.sigmoid(1.702 * x))


def prompts(model: Dgl, batch: int) -> tuple[Tensor, Tensor]:
    """Prompts by layer for each of B samples: texts (L, B, rows, Wt), frames (L, B, T P or P,
    W).
    """
    space, o = model.prompts.space, model.options
    if o.space == "linear":
        rows = (
            space.table.expand(batch, -1, -1).unflatten(2, (o.layers, -1)).movedim(2, 0)
        )  # (L, B, P, W)
        return torch.cat([space.before(rows), space.behind(rows)], 2), rows
    rows = (
        space.table.expand(batch, -1, -1).unflatten(2, (o.layers, -1)).movedim(2, 0).flatten(0, 1)
    )
    block = space.block
    x = block.ln_1(rows)
    rows = rows + attention(block, x, x)
    rows = (rows + mlp(block.mlp, block.ln_2(rows))).unflatten(0, (o.layers, batch))
    return mlp(space.words, rows[:, :, : o.text_prompts]), rows[:, :, o.text_prompts :]


def text(model: Dgl, ids: Tensor) -> dict[str, Tensor]:
    """Return the sentences (`text_feature`) and all rows on the way."""
    clip, k = model.clip, model.options.prefix
    made = prompts(model, len(ids))[0]
    n_words, n_rows = ids.shape[1], ids.shape[1] + made.shape[2]
    mask = torch.full((n_rows, n_rows), float("-inf")).triu(1)
    x, found = clip.embed_text(ids), {"prompts_text": made[:, 0]}
    x = torch.cat([x[:, :1], made[0][:, :k], x[:, 1:], made[0][:, k:]], 1)
    for i, block in enumerate(clip.text_blocks):
        if i:
            x = torch.cat([x[:, :1], made[i][:, :k], x[:, 1 + k : k + n_words], made[i][:, k:]], 1)
        found[f"text_block_{i}_in"] = x
        q = block.ln_1(x)
        x = x + attention(block, q, q, mask)
        x = x + mlp(block.mlp, block.ln_2(x))
        found[f"text_block_{i}_out"] = x
    projected, ends = clip.project_text(x), ids.argmax(1) + k
    rows = projected[torch.arange(len(ids)), ends]
    return found | {
        "text_hidden_projected": projected,
        "eot_index_with_prompts": ends,
        "text_feature": rows,
    }


def video(model: Dgl, frames: Tensor) -> dict[str, Tensor]:
    """Projected global rows (`g`), class tokens (`c`) and all rows on the way, as the cases lay
    them out.
    """
    visual, o, (batch, n_frames) = model.clip.visual, model.options, frames.shape[:2]
    made = prompts(model, batch)[1]  # (L, B, T P or P, W)
    made = made.unflatten(2, (n_frames, -1)) if o.space == "transformer" else made[:, :, None]
    made = made.expand(-1, -1, n_frames, -1, -1)
    tokens = model.embed(frames)
    g = model.prompts.video.expand(batch, -1, -1)
    f = torch.cat([tokens[:, :, :1], made[0], tokens[:, :, 1:]], 2)  # (B, T, n, W)
    found = {"prompts_visual": _rows(model), "frame_tokens_after_ln_pre": tokens.flatten(0, 1)}
    for i, block in enumerate(visual.blocks):
        if i:
            f = torch.cat([f[:, :, :1], made[i], f[:, :, 1 + o.frame_prompts :]], 2)
        found[f"visual_block_{i}_in"] = _flat(g, f)
        gn, fn = block.ln_1(g), block.ln_1(f)
        both = torch.cat(
            [gn.repeat_interleave(n_frames, 0), fn.flatten(0, 1)], 1
        )  # a copy for every frame
        f = f + attention(block, fn.flatten(0, 1), both).unflatten(0, (batch, n_frames))
        g = g + attention(block, gn, torch.cat([gn, fn.flatten(1, 2)], 1))
        x = _flat(g, f)
        x = x + mlp(block.mlp, block.ln_2(x))
        g, f = _apart(x, g.shape[1], n_frames)
        found[f"visual_block_{i}_out"] = x
    projected = visual.project(_flat(g, f))
    g, f = _apart(projected, g.shape[1], n_frames)
    return found | {"visual_hidden_projected": projected, "g": g, "c": f[:, :, 0]}


def feature(g: Tensor, c: Tensor, name: str) -> Tensor:
    """Return what stands for a video, (B, D), by the published name of the option, from global rows
    and class tokens.
    """
    both = torch.cat([g, c], 1)
    return {
        "global_prompt0": g[:, 0],
        "average_global_prompt": g.mean(1),
        "average_frame_cls_token": c.mean(1),
        "average_global_prompt_and_frame_cls_token": both.mean(1),
        "global-local-feature": F.normalize(g[:, 0], dim=-1) + F.normalize(c.mean(1), dim=-1),
    }[name]


def loss(model: Dgl, ids: Tensor, frames: Tensor) -> Tensor:
    """Return the loss of one step."""
    rows = video(model, frames)
    a = F.normalize(text(model, ids)["text_feature"], dim=-1)
    b = F.normalize(feature(rows["g"], rows["c"], model.options.feature), dim=-1)
    logits = model.clip.logit_scale.exp() * a @ b.T
    own = torch.arange(len(ids))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _rows(model: Dgl) -> Tensor:
    return prompts(model, 1)[1][:, 0]


def _flat(g: Tensor, f: Tensor) -> Tensor:
    """Global rows, then row token * T + frame: (B, G + n T, W)."""
    return torch.cat([g, f.transpose(1, 2).flatten(1, 2)], 1)


def _apart(x: Tensor, n_global: int, n_frames: int) -> tuple[Tensor, Tensor]:
    return x[:, :n_global], x[:, n_global:].unflatten(1, (-1, n_frames)).transpose(1, 2)
