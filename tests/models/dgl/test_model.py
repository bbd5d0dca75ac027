"""DGL: what the model promises. The plain form, which computes every row, is reference/dgl.py."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from models.base import Assets, Mismatch
from models.dgl.model import build
from models.dgl.options import Feature, Options
from reference import dgl
from tests.models.dgl.small_dgl import END, FRAMES, START, WORDS, batch, small_clip, small_dgl

FEATURES = get_args(Feature)
SHAPES = [
    {"space": "transformer"},
    {"space": "linear"},
    {"space": "transformer", "text_prompts": 5, "frame_prompts": 2, "global_prompts": 3},
    {"space": "linear", "text_prompts": 2, "frame_prompts": 3, "global_prompts": 1},
    {
        "space": "linear",
        "text_prompts": 7,
        "frame_prompts": 2,
    },  # part of the second projection stands in front
    {"space": "transformer", "text_prompts": 0},
    {"space": "transformer", "patches": "3d"},
]


@torch.no_grad()
def plain_features(model, data):
    rows = dgl.video(model, data["frames"])
    text = dgl.text(model, data["text"])["text_feature"]
    return text, dgl.feature(rows["g"], rows["c"], model.options.feature)


@torch.no_grad()
def features(model, data):
    shared = model.prepare()
    return model.text_feature(data["text"], shared), model.video_feature(data["frames"], shared)


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_what_is_left_out_changes_nothing(options: dict) -> None:
    model, data = small_dgl(**options), batch()

    ours, plain = features(model, data), plain_features(model, data)

    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-5)  # float32, other order of sums


@pytest.mark.parametrize("feature", FEATURES)
def test_every_video_feature_is_that_of_all_rows_of_the_last_block(feature: str) -> None:
    model, data = small_dgl(feature=feature), batch()

    torch.testing.assert_close(
        features(model, data)[1], plain_features(model, data)[1], atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_gradients_of_prompts_and_backbone_are_those_of_the_plain_form(options: dict) -> None:
    model, data = small_dgl(**options).train(), batch()

    ours = gradients(model, model(data)["loss"])
    plain = gradients(model, dgl.loss(model, data["text"], data["frames"]))

    assert ours.keys() == plain.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(ours[name], grad, atol=1e-4, rtol=1e-3)


def test_recomputing_blocks_in_backward_gives_the_same_gradients() -> None:
    kept, again, data = small_dgl().train(), small_dgl(recompute=True).train(), batch()

    one, other = (gradients(model, model(data)["loss"]) for model in (kept, again))

    torch.testing.assert_close(one, other)


def test_prompts_made_once_serve_every_batch() -> None:
    model, data = small_dgl(), batch()

    with torch.no_grad():
        shared = model.prepare()
        once = model.encode_text(data, shared), model.encode_video(data, shared)
        anew = model.encode_text(data), model.encode_video(data)

    torch.testing.assert_close(once, anew, atol=0, rtol=0)


def test_an_evaluation_makes_prompts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.evaluation.retrieve import encode_all

    model, data, calls = small_dgl(), batch(), []
    model.prompts.register_forward_hook(lambda *_: calls.append(1))
    rows = torch.arange(4).numpy()
    texts = [(rows[i : i + 1], {k: v[i : i + 1] for k, v in data.items()}) for i in range(4)]

    encode_all(model, iter(texts), iter(texts), rows, 4)

    assert len(calls) == 1


def test_frames_see_each_other_only_through_the_global_rows() -> None:
    model, data = small_dgl(feature="average_frame_cls_token", layers=1), batch(1)
    swapped = data | {"frames": data["frames"].flip(1)}
    model.prompts.space.table.data[8:] = model.prompts.space.table.data[8:12].repeat(FRAMES, 1)

    torch.testing.assert_close(
        features(model, data)[1], features(model, swapped)[1], atol=2e-6, rtol=1e-5
    )


def test_linear_prompts_fit_any_number_of_frames() -> None:
    model = small_dgl(space="linear")

    assert features(model, batch(2, frames=5))[1].shape == (2, 32)


def test_transformer_prompts_refuse_another_number_of_frames() -> None:
    with pytest.raises(Mismatch, match="videos of 5 frames, the prompts are for 3"):
        features(small_dgl(), batch(2, frames=5))


@pytest.mark.parametrize("layers", [1, 2])
def test_blocks_behind_the_last_layer_of_prompts_run_as_in_plain_clip(layers: int) -> None:
    model = small_dgl(space="linear", layers=layers)
    shared = model.prepare()

    assert len(shared["text"]) == len(shared["frames"]) == layers
    assert features(model, batch())[0].shape == (4, 32)


def test_towers_of_different_depth_take_the_prompts_they_have_blocks_for() -> None:
    model = small_dgl(sizes={"text_layers": 2})

    assert [len(model.prepare()[name]) for name in ("text", "frames")] == [2, 3]


def test_without_any_prompt_of_its_own_a_text_is_read_as_by_clip() -> None:
    model, data = small_dgl(text_prompts=1), batch()

    with torch.no_grad():
        plain = model.clip.encode_text(data["text"])

    torch.testing.assert_close(features(model, data)[0], plain, atol=2e-6, rtol=1e-5)


def test_prompts_behind_the_text_have_the_gradient_zero_not_none() -> None:
    model = small_dgl(space="linear").train()

    model(batch())["loss"].backward()

    assert not model.prompts.space.behind.weight.grad.any()


@pytest.mark.parametrize("space", ["transformer", "linear"])
def test_a_frozen_backbone_gets_no_gradient_and_every_prompt_one(space: str) -> None:
    model = small_dgl(space=space).train()
    model.clip.requires_grad_(False)

    model(batch())["loss"].backward()

    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, _ in model.named_parameters() if name.startswith("prompts.")
    }


def test_global_local_feature_is_half_of_each_direction() -> None:
    data = batch()
    both, top, local = (
        features(small_dgl(feature=name), data)[1]
        for name in ("global-local-feature", "global_prompt0", "average_frame_cls_token")
    )

    torch.testing.assert_close(
        both, F.normalize(top, dim=-1) + F.normalize(local, dim=-1), atol=1e-6, rtol=1e-5
    )


def test_3d_patches_start_as_the_2d_ones() -> None:
    flat, deep, data = small_dgl(), small_dgl(patches="3d"), batch()
    deep.prompts.load_state_dict(flat.prompts.state_dict())

    torch.testing.assert_close(
        features(flat, data)[1], features(deep, data)[1], atol=1e-5, rtol=1e-5
    )


def test_the_temperature_can_be_set_at_the_start() -> None:
    assert small_dgl(logit_scale=3.0).scale == pytest.approx(20.0855, rel=1e-4)


def test_maps_are_shares_of_attention_that_leave_room_for_other_keys() -> None:
    model = small_dgl()

    maps = model.attention_maps(batch(2)["frames"], 3)

    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "global": (2, 3, 4, 2, 2), "class": (2, 3, 1, 2, 2), "frame": (2, 3, 4, 2, 2),
    }  # fmt: skip
    assert (maps["global"].sum((1, 3, 4)) < 1).all()
    assert (maps["class"] > 0).all()


def test_a_block_without_prompts_has_no_map_of_them() -> None:
    assert "frame" not in small_dgl(layers=1).attention_maps(batch(1)["frames"], 2)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"words": 20}, "texts of 20 tokens, the text tower reads 16"),
        ({"text_prompts": 20}, "20 prompts for texts, the text tower reads 16 tokens"),
        ({"layers": 9}, "prompts for 9 layers, the towers have 3"),
        ({"backbone": "ViT-B/32"}, "not the weights of ViT-B/32"),
    ],
)
def test_options_that_do_not_fit_the_backbone_are_refused(options: dict, what: str) -> None:
    with pytest.raises(Mismatch, match=what) as caught:
        small_dgl(**options)

    assert caught.value.fix


def test_weights_of_another_number_of_frames_say_which() -> None:
    weights = small_dgl(frames=5).state_dict()

    with pytest.raises(Mismatch, match="are for 5 frames, the options say 3 frames") as caught:
        build(Options(backbone="given", words=WORDS, frames=3, layers=3), Assets(init=weights))

    assert "Set frames to 5" in caught.value.fix


def test_linear_prompts_cannot_fill_a_longer_prefix() -> None:
    with pytest.raises(
        ValidationError, match="9 in front of a text, but 4 frame_prompts make only 8"
    ):
        Options(space="linear", text_prompts=18)


def test_no_weights_for_a_backbone_of_weights_is_refused() -> None:
    with pytest.raises(Mismatch, match="there are no weights"):
        build(Options(backbone="given"), Assets())


def test_a_model_is_rebuilt_from_its_own_weights() -> None:
    model, data = small_dgl(), batch()

    again = build(model.options, Assets(init=model.state_dict())).eval()

    torch.testing.assert_close(features(again, data), features(model, data), atol=0, rtol=0)


def test_clip_itself_is_not_changed_by_its_prompts() -> None:
    clip = small_clip().state_dict()

    kept = small_dgl(half_rounding=False).clip.state_dict()

    assert all(torch.equal(kept[name], value) for name, value in clip.items())


def test_the_first_of_two_end_tokens_is_read() -> None:
    model = small_dgl()
    ids = torch.tensor(
        [[START, 5, END, 6, END, 0, 0, 0, 0, 0], [START, 5, END, 0, 0, 0, 0, 0, 0, 0]]
    )

    text, _ = features(model, batch(2) | {"text": ids})

    torch.testing.assert_close(text[0], text[1], atol=2e-6, rtol=1e-5)
