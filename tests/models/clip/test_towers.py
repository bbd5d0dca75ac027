import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Mismatch
from models.clip.blocks import Block, Mlp, causal_mask, set_recompute
from models.clip.sizes import BACKBONES, OPENAI, Sizes, Variant
from models.clip.towers import CLIP, end_row, half_parameters, round_to_half, sizes_of
from tests.models.clip.small_clip import END, RESNET, VIT, frames, small_clip, texts

PARAMETERS = {  # of both towers, as published (docs/specs/clip-backbone.md, section 2)
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
}


def without_memory(name: str) -> CLIP:
    with torch.device("meta"):
        return CLIP(BACKBONES[name])


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_models_have_their_published_parameters(name: str) -> None:
    model = without_memory(name)

    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert sizes_of(model.state_dict()) == BACKBONES[name]


def test_names_shapes_and_order_are_those_of_the_published_files(shared: Path) -> None:
    published = json.loads((shared / "golden/clip-backbone/keys.json").read_text())

    for name, expected in published.items():
        ours = {key: list(value.shape) for key, value in without_memory(name).state_dict().items()}
        assert list(ours.items()) == list(
            expected["params"].items()
        )  # optimizers count parameters in this order


def plain_attention(block: Block, q: Tensor, kv: Tensor, allowed: Tensor) -> Tensor:
    """One head, one query at a time. q (N, W), kv (M, W), allowed (N, M)."""
    weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((q, kv, kv), weights, biases, strict=True))
    found = torch.zeros_like(q)
    for start in range(0, q.shape[1], 64):
        head = slice(start, start + 64)
        for i in range(len(q)):
            scores = (k[allowed[i], head] @ q[i, head]) / 8
            found[i, head] = scores.exp() / scores.exp().sum() @ v[allowed[i], head]
    return block.attn.out_proj(found)


def test_attention_is_that_of_plain_loops_with_other_keys_and_a_mask() -> None:
    block = small_clip().visual.blocks[0]
    q, kv = torch.randn(2, 5, 128), torch.randn(2, 7, 128)
    allowed = torch.rand(5, 7) > 0.4
    allowed[:, 2] = True

    ours = block.attend(q, kv, allowed)

    expected = torch.stack(
        [plain_attention(block, a, b, allowed) for a, b in zip(q, kv, strict=True)]
    )
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_attention_looks_at_the_queries_unless_told_otherwise() -> None:
    block, x = small_clip().visual.blocks[0], torch.randn(2, 5, 128)

    torch.testing.assert_close(block.attend(x), block.attend(x, x))


@pytest.mark.parametrize("grad", [True, False])
def test_quick_gelu_inside_the_products_is_the_published_function(grad: bool) -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(64), torch.randn(3, 5, 64, requires_grad=grad)

    with torch.set_grad_enabled(grad):
        ours, wide = mlp(x), mlp.c_fc(x)
        expected = mlp.c_proj(wide * torch.sigmoid(1.702 * wide))

    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    if grad:
        weights = [x, *mlp.parameters()]
        for a, b in zip(
            *(torch.autograd.grad(y.sum(), weights) for y in (ours, expected)), strict=True
        ):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_other_weights_may_want_another_activation() -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(64, "gelu"), torch.randn(3, 64)

    torch.testing.assert_close(mlp(x), mlp.c_proj(F.gelu(mlp.c_fc(x))))


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_frames_are_normalised_on_the_way_in(sizes: Sizes) -> None:
    model, raw = small_clip(sizes), frames(2, sizes)
    mean, std = torch.tensor(OPENAI.mean), torch.tensor(OPENAI.std)

    normalised = ((raw / 255 - mean) / std).permute(0, 3, 1, 2)

    torch.testing.assert_close(
        model.encode_image(raw), model.encode_image(normalised), atol=1e-5, rtol=1e-4
    )


def test_parts_by_hand_are_the_plain_forward() -> None:
    visual, raw = small_clip().visual, frames(3)

    x = visual.embed(raw)
    for block in visual.blocks:
        x = block(x)

    assert x.shape == (3, 17, 128)
    torch.testing.assert_close(visual.project(x)[:, 0], visual(raw), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_a_frame_does_not_depend_on_its_neighbours(sizes: Sizes) -> None:
    model, raw = small_clip(sizes), frames(4, sizes)

    together = model.encode_image(raw)

    alone = torch.cat([model.encode_image(frame[None]) for frame in raw])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_first_row_of_a_block_is_all_that_is_computed_of_it_and_the_same() -> None:
    block, x = small_clip().visual.blocks[0], torch.randn(2, 17, 128)

    torch.testing.assert_close(block.first(x), block(x)[:, :1], atol=1e-5, rtol=1e-4)


def test_text_reads_forward_only() -> None:
    model = small_clip()
    ids, _ = texts()
    changed = ids.clone()
    changed[:, 3:] = 7

    before, after = model.encode_words(ids), model.encode_words(changed)

    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_sentence_does_not_depend_on_padding() -> None:
    model = small_clip()
    ids, real = texts()

    expected = model.encode_text(ids)

    torch.testing.assert_close(model.encode_text(ids, real), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.encode_text(ids[:1, :4]), expected[:1], atol=1e-5, rtol=1e-4)


def test_hidden_padding_is_seen_by_nobody() -> None:
    model = small_clip()
    ids, real = texts()
    other = torch.where(real, ids, 5)

    words = model.encode_words(ids, real), model.encode_words(other, real)
    plain = model.encode_words(ids)

    torch.testing.assert_close(words[0][real], words[1][real])
    torch.testing.assert_close(words[0][real], plain[real], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(words[0][~real], plain[~real])


def test_sentence_is_the_first_of_the_largest_ids() -> None:
    ids = torch.tensor([[3, END, END, 0], [END, 1, 2, END]])

    assert end_row(ids, torch.arange(8.0).view(2, 4, 1)).flatten().tolist() == [1, 4]


def test_causal_mask_hides_what_follows_and_what_is_padding() -> None:
    mask = causal_mask(3, torch.tensor([[True, True, False]]))

    assert causal_mask(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]


def test_logits_are_scaled_cosines() -> None:
    model = small_clip()
    raw, (ids, _) = frames(2), texts()

    ours = model(raw, ids)

    image, text = model.encode_image(raw), model.encode_text(ids)
    expected = F.cosine_similarity(image[:, None], text[None], dim=-1) * model.logit_scale.exp()
    torch.testing.assert_close(ours, expected)


def kept_bytes(model: CLIP, raw: Tensor) -> int:
    held: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x) or x, lambda x: x):
        model.encode_image(raw)
    return sum(x.numel() * x.element_size() for x in held)


def test_recomputing_keeps_less_and_changes_no_gradient() -> None:
    model, raw = small_clip(), frames(2)
    weights = list(model.visual.parameters())
    expected, bytes_before = (
        torch.autograd.grad(model.encode_image(raw).sum(), weights),
        kept_bytes(model, raw),
    )

    set_recompute(model)
    ours = torch.autograd.grad(model.encode_image(raw).sum(), weights)

    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert kept_bytes(model, raw) < bytes_before / 3


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_every_parameter_learns(sizes: Sizes) -> None:
    model = small_clip(sizes)

    model(frames(2, sizes), texts()[0]).square().sum().backward()

    silent = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert silent == []


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_towers_compile_without_a_break(sizes: Sizes) -> None:
    model = small_clip(sizes)
    raw, (ids, real) = frames(2, sizes), texts()
    torch.compiler.reset()

    image = torch.compile(model.encode_image, fullgraph=True, backend="eager")(raw)
    text = torch.compile(model.encode_text, fullgraph=True, backend="eager")(ids, real)

    torch.testing.assert_close(image, model.encode_image(raw), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(text, model.encode_text(ids, real), atol=1e-5, rtol=1e-4)


def test_compiled_towers_have_one_graph_with_recomputing_too() -> None:
    model = small_clip()
    set_recompute(model)
    torch.compiler.reset()

    found = torch._dynamo.explain(model.visual)(frames(2))

    assert (found.graph_count, found.graph_break_count) == (1, 0)


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_half_rounding_touches_what_the_published_programs_keep_in_half(sizes: Sizes) -> None:
    model = small_clip(sizes)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    round_to_half(model)

    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    kept = ("ln_", ".bn", "embedding", "logit_scale", "downsample.1.")
    assert changed == {name for name in before if not any(part in f".{name}" for part in kept)}
    assert all(
        torch.equal(model.state_dict()[name], before[name].half().float()) for name in changed
    )


def test_loading_rounds_unless_told_not_to() -> None:
    state = small_clip().state_dict()

    rounded, exact = CLIP.from_state_dict(state), CLIP.from_state_dict(state, half_rounding=False)

    assert all(torch.equal(value, state[name]) for name, value in exact.state_dict().items())
    assert torch.equal(rounded.text_projection, state["text_projection"].half().float())
    assert not torch.equal(rounded.text_projection, state["text_projection"])


def test_loaded_model_is_float32_and_shares_no_memory_with_what_it_was_given() -> None:
    state = {name: value.half() for name, value in small_clip().state_dict().items()}

    model = CLIP.from_state_dict(state)
    with torch.no_grad():
        model.logit_scale.add_(1)

    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert state["logit_scale"].item() != model.logit_scale.item()
    assert model.encode_image(frames(1)).shape == (
        1,
        16,
    )  # the pixels' mean is there although no file holds it


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_weights_in_half_compute_in_half(sizes: Sizes) -> None:
    model, raw, (ids, _) = small_clip(sizes), frames(2, sizes), texts()
    expected = model.encode_image(raw), model.encode_text(ids)
    for value in half_parameters(model):
        value.data = value.data.half()

    ours = model.encode_image(raw), model.encode_text(ids)

    assert [x.dtype for x in ours] == [torch.float16] * 2
    assert all(
        F.cosine_similarity(a.float(), b).min() > 0.999 for a, b in zip(ours, expected, strict=True)
    )


def test_autocast_to_bfloat16_changes_directions_little() -> None:
    model, raw, (ids, _) = small_clip(), frames(2), texts()
    expected = model.encode_image(raw), model.encode_text(ids)

    with torch.autocast("cpu", torch.bfloat16):
        ours = model.encode_image(raw), model.encode_text(ids)

    # bfloat16 has 8 bits: about 0.4 % per operation, some of them in a row
    assert all(
        F.cosine_similarity(a.float(), b).min() > 0.999 for a, b in zip(ours, expected, strict=True)
    )


def test_misfits_are_named_all_at_once() -> None:
    state = small_clip().state_dict()
    state["visual.extra"] = state.pop("visual.ln_pre.bias")
    state["ln_final.bias"] = torch.zeros(3)

    with pytest.raises(Mismatch) as raised:
        CLIP.from_state_dict(state)

    assert "missing: visual.ln_pre.bias (128,)" in raised.value.what
    assert "unknown: visual.extra" in raised.value.what
    assert "ln_final.bias is (3,), not (64,)" in raised.value.what


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "0 entries, 6 missing"),
        ({"weight": torch.zeros(2)}, "1 entries, 6 missing: visual.conv1.weight"),
    ],
)
def test_what_is_no_clip_is_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        CLIP.from_state_dict(state)


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("text_projection", (3,), r"shapes that no CLIP has: text_projection \(3,\)"),
    ("ln_final.weight", (65,), "text width 65 is no positive multiple of 64"),
    ("ln_final.weight", (0,), "text width 0 is no positive multiple of 64"),
    ("visual.positional_embedding", (0, 128), "no positions for patches"),
])  # fmt: skip
def test_shapes_that_no_clip_can_have_are_refused(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(Mismatch, match=message):
        CLIP.from_state_dict(small_clip().state_dict() | {name: torch.zeros(shape)})


@pytest.mark.parametrize("raw", [
    torch.zeros(2, 48, 48, 3, dtype=torch.uint8),
    torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
    torch.zeros(2, 32, 32, 3),
])  # fmt: skip
def test_frames_of_another_size_are_refused(raw: Tensor) -> None:
    with pytest.raises(Mismatch, match="the vision tower reads"):
        small_clip().encode_image(raw)


def test_text_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(Mismatch, match="texts of 13 tokens, the text tower reads 12"):
        small_clip().encode_text(torch.ones(1, 13, dtype=torch.long))


def test_heads_of_another_width_are_possible() -> None:
    state = small_clip().state_dict()

    model = CLIP.from_state_dict(state, Variant(head_width=32))

    assert model.visual.blocks[0].attn.heads == 4
    assert model.text_blocks[0].attn.heads == 1
