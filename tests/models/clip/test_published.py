import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Mismatch
from models.clip.published import import_weights
from models.clip.sizes import BACKBONES, FILES
from models.clip.towers import CLIP
from tests.models.clip.hugging_face import as_hugging_face
from tests.models.clip.small_clip import RESNET, VIT, frames, small_clip, texts


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_openai_names_are_ours() -> None:
    state = small_clip().state_dict()
    sizes = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(12),
        "vocab_size": torch.tensor(50),
    }

    assert same(import_weights(state | sizes), state)


@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_open_clip_training_files_are_unwrapped(sizes) -> None:
    state = small_clip(sizes).state_dict()
    file = {
        "epoch": 3,
        "name": "x",
        "state_dict": {f"module.{name}": value for name, value in state.items()},
    }

    assert same(import_weights(file), state)


def test_open_clip_may_keep_the_text_tower_apart() -> None:
    state = small_clip().state_dict()
    stays = ("visual.", "logit_scale")
    apart = {
        name if name.startswith(stays) else f"text.{name}": value for name, value in state.items()
    }

    assert same(import_weights(apart | {"text.attn_mask": torch.zeros(12, 12)}), state)


def test_files_of_hugging_face_are_renamed_and_stacked() -> None:
    state = small_clip().state_dict()

    assert same(import_weights(as_hugging_face(state)), state)


def hugging_face_names(tower: str, layers: int) -> set[str]:
    parts = ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"] + [
        f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")
    ]
    return {
        f"{tower}.encoder.layers.{i}.{p}.{n}"
        for i in range(layers)
        for p in parts
        for n in ("weight", "bias")
    }


def test_names_are_those_of_hugging_face_at_full_size() -> None:
    with torch.device("meta"):
        state = CLIP(BACKBONES["ViT-B/32"]).state_dict()
        exported = as_hugging_face(state)

    rest = """logit_scale text_projection.weight visual_projection.weight
        text_model.embeddings.token_embedding.weight text_model.embeddings.position_embedding.weight
        text_model.final_layer_norm.weight text_model.final_layer_norm.bias
        vision_model.embeddings.class_embedding vision_model.embeddings.patch_embedding.weight
        vision_model.embeddings.position_embedding.weight vision_model.pre_layrnorm.weight
        vision_model.pre_layrnorm.bias vision_model.post_layernorm.weight vision_model.post_layernorm.bias"""
    blocks = hugging_face_names("text_model", 12) | hugging_face_names("vision_model", 12)
    assert exported.keys() == blocks | set(rest.split())
    assert tuple(exported["visual_projection.weight"].shape) == (512, 768)
    assert import_weights(exported).keys() == state.keys()


def hugging_face_block(state: dict[str, Tensor], name: str, x: Tensor, hidden: Tensor) -> Tensor:
    """One layer from the weights under their names, x (N, W), heads of 64; `hidden` (N, N) is added
    to the scores.
    """
    get = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
    linear = lambda part, y: F.linear(y, get[f"{part}.weight"], get[f"{part}.bias"])  # noqa: E731
    norm = lambda part, y: F.layer_norm(y, y.shape[-1:], get[f"{part}.weight"], get[f"{part}.bias"])  # noqa: E731
    q, k, v = (
        linear(f"self_attn.{p}_proj", norm("layer_norm1", x)).unflatten(1, (-1, 64)) for p in "qkv"
    )
    weights = (torch.einsum("ihd,jhd->hij", q / 8, k) + hidden).softmax(-1)
    x = x + linear("self_attn.out_proj", torch.einsum("hij,jhd->ihd", weights, v).flatten(1))
    wide = linear("mlp.fc1", norm("layer_norm2", x))
    return x + linear("mlp.fc2", wide * torch.sigmoid(1.702 * wide))


def test_their_weights_computed_their_way_give_our_sentence() -> None:
    model, (ids, _) = small_clip(), texts()
    theirs = {k: v for k, v in as_hugging_face(model.state_dict()).items() if "vision" not in k}

    x = theirs["text_model.embeddings.token_embedding.weight"][ids[1]]
    x = x + theirs["text_model.embeddings.position_embedding.weight"]
    hidden = torch.full((12, 12), -torch.inf).triu(1)
    for i in range(2):
        x = hugging_face_block(theirs, f"text_model.encoder.layers.{i}", x, hidden)
    norm = [theirs[f"text_model.final_layer_norm.{n}"] for n in ("weight", "bias")]
    sentence = F.linear(F.layer_norm(x, (64,), *norm), theirs["text_projection.weight"])[
        ids[1].argmax()
    ]

    torch.testing.assert_close(model.encode_text(ids)[1], sentence, atol=1e-5, rtol=1e-4)


def test_position_numbers_of_hugging_face_are_ignored() -> None:
    exported = as_hugging_face(small_clip().state_dict())
    numbers = {
        f"{t}_model.embeddings.position_ids": torch.arange(12)[None] for t in ("text", "vision")
    }

    model = CLIP.from_state_dict(import_weights(exported | numbers))

    assert model.encode_image(frames(1)).shape == (1, 16)


@pytest.mark.parametrize(("extra", "message"), [
    ({"logit_bias": torch.zeros(())}, "unknown: logit_bias"),
    ({"visual.trunk.norm.weight": torch.zeros(2)}, "unknown: visual.trunk.norm.weight"),
])  # fmt: skip
def test_what_other_models_have_is_refused_by_name(extra: dict[str, Tensor], message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        CLIP.from_state_dict(import_weights(small_clip().state_dict() | extra))


def test_hugging_face_file_without_a_key_matrix_is_refused_by_name() -> None:
    exported = as_hugging_face(small_clip().state_dict())
    del exported["text_model.encoder.layers.1.self_attn.k_proj.bias"]

    with pytest.raises(Mismatch, match=r"missing: transformer\.resblocks\.1\.attn\.k_proj\.bias"):
        import_weights(exported)


@pytest.mark.parametrize(
    "value", [{"state_dict": 3}, {1: torch.zeros(1)}, {"a": "b"}, {"optimizer": {}}]
)
def test_what_holds_no_tensors_is_refused(value: dict) -> None:
    with pytest.raises(Mismatch):
        import_weights(value)


def test_published_files_are_known_by_digest_and_place() -> None:
    assert FILES.keys() == BACKBONES.keys() - {"tiny"}
    assert all(len(file.sha256) == 64 for file in FILES.values())
    assert FILES["ViT-B/32"].url.endswith(
        "/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"
    )
