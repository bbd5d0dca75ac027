"""Patches over three frames that start as those of one."""

import torch

from models.clip.patches3d import Patches3d
from tests.models.clip.small_clip import small_clip


def test_at_the_start_they_are_the_patches_of_each_frame() -> None:
    visual = small_clip().visual
    frames = torch.randn(2 * 5, 3, 32, 32)
    patches = Patches3d(visual.conv1)

    patches.start_from(visual.conv1)

    expected = visual.conv1(frames).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches.embed(frames, 5), expected, atol=1e-5, rtol=1e-5)


def test_later_they_see_the_frames_beside_theirs_in_their_video_alone() -> None:
    visual = small_clip().visual
    frames = torch.randn(2 * 3, 3, 32, 32)
    patches = Patches3d(visual.conv1)
    other = frames.clone()
    other[2] += 1  # the last frame of the first video

    changed = (patches.embed(frames, 3) != patches.embed(other, 3)).flatten(1).any(1)

    assert changed.tolist() == [False, True, True, False, False, False]
