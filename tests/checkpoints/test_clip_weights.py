import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.clip.sizes import Sizes
from models.clip.towers import CLIP
from pipeline.checkpoints import clip_weights
from pipeline.errors import DataError
from tests.models.clip.hugging_face import as_hugging_face
from tests.models.clip.small_clip import RESNET, VIT, frames, small_clip


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Box(nn.Module):
    """A tree of modules that hold the tensors of a state dict under their dotted names, as a
    program does.
    """

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        inside: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                inside.setdefault(first, {})[rest] = value
            else:
                self.register_buffer(first, value)
        for name, part in inside.items():
            self.add_module(name, Box(part))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("sizes", [VIT, RESNET])
def test_program_gives_the_model_whose_weights_it_holds(sizes: Sizes, tmp_path: Path) -> None:
    model, raw = small_clip(sizes), frames(2, sizes)
    numbers = {"input_resolution": torch.tensor(sizes.pixels), "vocab_size": torch.tensor(50)}
    torch.jit.script(Box(model.state_dict() | numbers)).save(tmp_path / "program.pt")

    again = CLIP.from_state_dict(
        clip_weights.read(tmp_path / "program.pt"), half_rounding=False
    ).eval()

    assert torch.equal(again.encode_image(raw), model.encode_image(raw))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_program_of_one_tower_is_refused(tmp_path: Path) -> None:
    torch.jit.script(Box(small_clip().visual.state_dict())).save(tmp_path / "visual.pt")

    with pytest.raises(DataError, match=r"visual\.pt: .*missing: .*text_projection"):
        clip_weights.read(tmp_path / "visual.pt")


def test_files_of_hugging_face_and_open_clip_are_recognised(tmp_path: Path) -> None:
    state = small_clip().state_dict()
    torch.save(as_hugging_face(state), tmp_path / "pytorch_model.bin")
    torch.save(
        {"epoch": 1, "name": "x", "state_dict": {f"module.{k}": v for k, v in state.items()}},
        tmp_path / "e.pt",
    )

    assert same(clip_weights.read(tmp_path / "pytorch_model.bin"), state)
    assert same(clip_weights.read(tmp_path / "e.pt"), state)


def test_safetensors_are_recognised_by_their_suffix(tmp_path: Path) -> None:
    state, table, numbers = as_hugging_face(small_clip().state_dict()), {}, b""
    for name, value in state.items():
        raw = value.detach().numpy().tobytes()
        place = [len(numbers), len(numbers) + len(raw)]
        table[name], numbers = (
            {"dtype": "F32", "shape": list(value.shape), "data_offsets": place},
            numbers + raw,
        )
    head = json.dumps(table).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + numbers)

    assert same(clip_weights.read(tmp_path / "model.safetensors"), small_clip().state_dict())


def test_named_backbone_must_be_the_published_file(tmp_path: Path) -> None:
    torch.save(small_clip().state_dict(), tmp_path / "ViT-B-32.pt")

    with pytest.raises(
        DataError, match=r"not OpenAI's ViT-B-32\.pt: sha256 .*\n.*https://openaipublic"
    ):
        clip_weights.read(tmp_path / "ViT-B-32.pt", "ViT-B/32")


@pytest.mark.parametrize(("name", "backbone"), [("ViT-B-16.pt", None), ("mine.pt", "ViT-B/16")])
def test_missing_file_says_where_to_get_it(tmp_path: Path, name: str, backbone: str | None) -> None:
    with pytest.raises(DataError, match=r"no such weight file\n.*/ViT-B-16\.pt"):
        clip_weights.read(tmp_path / name, backbone)


@pytest.mark.parametrize(
    "value", [{"a": torch.zeros(2)}, [torch.zeros(2)], torch.zeros(2), {"epoch": 3}]
)
def test_what_is_no_clip_is_refused_with_the_name_of_the_file(
    tmp_path: Path, value: object
) -> None:
    torch.save(value, tmp_path / "other.pt")

    with pytest.raises(DataError, match=r"other\.pt: .*\n"):
        clip_weights.read(tmp_path / "other.pt")


@pytest.mark.parametrize(
    "prefix", ["clip.", "model.", "module._orig_mod.", "model.clip.module.", "backbone."]
)
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "model"])
def test_wrapped_weights_are_the_weights(prefix: str, wrapper: str, tmp_path: Path) -> None:
    state = small_clip().state_dict()
    named = {prefix + name: value for name, value in state.items()}
    torch.save({wrapper: named, "epoch": 4} if wrapper else named, tmp_path / "w.pt")

    assert same(clip_weights.read(tmp_path / "w.pt"), state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = small_clip().state_dict()
    state["visual.proj"][0, 0] = value
    torch.save(state, tmp_path / "w.pt")

    with pytest.raises(DataError, match=r"NaN or infinity in 1 of .*visual\.proj"):
        clip_weights.read(tmp_path / "w.pt")
