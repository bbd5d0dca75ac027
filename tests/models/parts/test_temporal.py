import pytest
import torch

from models.base import Mismatch
from models.parts.temporal import Mean, Recurrent, Sequence, Tight, copy_text_tower, mean_direction
from tests.models.centerclip.small_centerclip import SIZES
from tests.models.clip.small_clip import small_clip

FRAMES = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
MASK = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]


def modules() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [Mean(), Sequence(64, 2, 12), Recurrent(64, torch.zeros(12, 64))]


def test_the_mean_is_that_of_the_directions_of_real_frames() -> None:
    rows = [
        torch.nn.functional.normalize(f[m], dim=-1).mean(0)
        for f, m in zip(FRAMES, MASK, strict=True)
    ]

    expected = torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    assert torch.allclose(mean_direction(FRAMES, MASK), expected, atol=1e-6)


def test_a_video_without_real_frames_has_the_mean_zero() -> None:
    assert not mean_direction(FRAMES, torch.zeros_like(MASK)).any()


@pytest.mark.parametrize("module", modules(), ids=lambda m: type(m).__name__)
def test_what_lies_in_padding_changes_nothing(module: torch.nn.Module) -> None:
    other = torch.where(MASK[..., None], FRAMES, 100 * torch.randn_like(FRAMES))

    first, second = (mean_direction(module(frames, MASK), MASK) for frames in (FRAMES, other))

    assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("module", modules(), ids=lambda m: type(m).__name__)
def test_a_video_alone_is_encoded_as_in_a_batch(module: torch.nn.Module) -> None:
    alone = module(FRAMES[1:2, :2], MASK[1:2, :2])

    assert torch.allclose(alone[0], module(FRAMES, MASK)[1, :2], atol=1e-5)


@pytest.mark.parametrize("module", modules()[1:], ids=lambda m: type(m).__name__)
def test_the_order_of_frames_counts(module: torch.nn.Module) -> None:
    whole = torch.ones(3, 5, dtype=torch.bool)

    assert not torch.allclose(
        mean_direction(module(FRAMES, whole), whole),
        mean_direction(module(FRAMES.flip(1), whole), whole),
    )


def test_the_lstm_adds_its_states_to_the_frames() -> None:
    module = modules()[2]

    expected = module.lstm(FRAMES[2:, :3])[0] + FRAMES[2:, :3]

    assert torch.allclose(module(FRAMES, MASK)[2:, :3], expected, atol=1e-6)


def test_each_pair_is_scored_by_itself_and_padding_is_not_seen() -> None:
    torch.manual_seed(0)
    module, texts = Tight(64, 2, 12).eval(), torch.randn(4, 64)

    whole = module(texts, FRAMES, MASK)

    assert torch.allclose(
        module(texts[2:3], FRAMES[1:2, :2], MASK[1:2, :2]), whole[2:3, 1:2], atol=1e-5
    )
    assert whole.shape == (4, 3)


def test_transformers_start_from_the_text_tower() -> None:
    clip, module = small_clip(SIZES), Sequence(64, 3, SIZES.context)

    copy_text_tower(clip, module.positions, module.transformer)

    assert torch.equal(module.positions.weight, clip.positional_embedding)
    assert torch.equal(
        module.transformer.resblocks[1].mlp.c_fc.weight, clip.text_blocks[1].mlp.c_fc.weight
    )


def test_other_widths_cannot_start_from_the_text_tower() -> None:
    module = Sequence(128, 2, SIZES.context)

    with pytest.raises(Mismatch, match="cannot start as CLIP's text positions"):
        copy_text_tower(small_clip(SIZES), module.positions, module.transformer)


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(Mismatch, match="5 positions in time, the weights have 4"):
        Sequence(64, 1, 4)(FRAMES, MASK)


def test_features_that_make_no_heads_are_refused() -> None:
    with pytest.raises(Mismatch, match="width 48 for heads of 64"):
        Sequence(48, 1, 12)
