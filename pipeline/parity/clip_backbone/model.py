"""Handlers of system "clip-backbone": weights as loaded, every intermediate of both towers, image
preprocessing.
"""

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.clip.blocks import causal_mask
from models.clip.pixels import Pixels
from models.clip.sizes import OPENAI
from models.clip.towers import CLIP, VisionTransformer, end_row, half_parameters, sizes_of
from pipeline.checkpoints import clip_weights, torchscript
from pipeline.checkpoints.archive import read_archive
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, Tolerance, close, equal
from pipeline.video.crop import center_crop, resize_short

_HALF = Tolerance(2e-2)  # of features divided by their length, as the cases say
_CHECKSUM = Tolerance(0.0, 1e-6)
_LARGE = 224


@torch.inference_mode()
def forward(case: Case) -> Iterator[Comparison]:
    """Yield a weight file through both towers in float32, and images also with float16 weights and
    arithmetic.
    """
    path = case.path(case.info["checkpoint_file"].partition(":")[0])
    stored = torchscript.read(path) if torchscript.is_program(path) else read_archive(path)
    yield from _types(case, stored)
    state = clip_weights.read(path)
    yield from _sizes(case, state)
    model = CLIP.from_state_dict(state).eval()
    yield from _checksums(case, model.state_dict())
    image = torch.from_numpy(case.inputs["image"])
    ids = torch.from_numpy(case.inputs["text"])
    ours = _vision(model.visual, image) | _text(model, ids)
    ours["logits_per_image"] = model(image, ids)
    ours["logits_per_text"] = ours["logits_per_image"].T
    tolerance = Tolerance(case.info["tolerance"]["default_max_abs_diff"])
    for name, value in ours.items():
        if (recorded := name.partition("[")[0]) in case.outputs:
            yield close(name, value, case.outputs[recorded], tolerance)
    if "image_features_half_compute" in case.outputs:
        expected = torch.from_numpy(case.outputs["image_features_half_compute"])
        half, length = (
            _in_half(model).encode_image(image).float(),
            expected.norm(dim=-1, keepdim=True),
        )
        yield close("image_features_half_compute", half / length, expected / length, _HALF)


def preprocess(case: Case) -> Iterator[Comparison]:
    """Resize, crop, normalise; and crop, normalise."""
    size, stated = case.info["target_size"], case.info["tolerance"]
    loose, tight = Tolerance(stated["float"]), Tolerance(stated["crop_only"])
    yield close("mean", OPENAI.mean, case.info["mean"], Tolerance(0))
    yield close("std", OPENAI.std, case.info["std"], Tolerance(0))
    for picture in case.info["images"]:
        n = picture["image"]
        image = case.inputs[f"image{n}"][None]
        resized = resize_short(image, size)
        yield equal(
            f"images[{n}]", [list(image.shape[1:3]), list(resized.shape[1:3])], _shapes(picture)
        )
        yield close(f"resized{n}", resized[0], case.outputs[f"resized{n}"], Tolerance(1))
        differ = np.mean(resized[0] != case.outputs[f"resized{n}"])
        yield close(f"resized{n}[share that differs]", differ, 0, Tolerance(1e-3))
        yield close(f"clip{n}", _normalised(resized, size)[0], case.outputs[f"clip{n}"], loose)
        yield close(
            f"crop_only{n}", _normalised(image, size)[0], case.outputs[f"crop_only{n}"], tight
        )
    big = _normalised(resize_short(case.inputs["big"][None], _LARGE), _LARGE)[0]
    yield close("big_clip_row100", big[:, 100], case.outputs["big_clip_row100"], loose)
    yield close("big_clip_col17", big[:, :, 17], case.outputs["big_clip_col17"], loose)


def _shapes(picture: Mapping[str, object]) -> list[object]:
    return [[picture["h"], picture["w"]], picture["resized_hw"]]


def _normalised(frames: np.ndarray, size: int) -> Tensor:
    return Pixels(size, OPENAI)(torch.from_numpy(center_crop(frames, size)))


def _types(case: Case, stored: Mapping[str, Tensor]) -> Iterator[Comparison]:
    """Yield the types in the file: one by one, or the words "all float32"."""
    expected = case.info["checkpoint_dtypes"]
    ours = {name: str(value.dtype).removeprefix("torch.") for name, value in stored.items()}
    if isinstance(expected, str):
        expected = dict.fromkeys(ours, expected.removeprefix("all "))
    yield equal("checkpoint_dtypes", ours, expected)


def _sizes(case: Case, state: Mapping[str, Tensor]) -> Iterator[Comparison]:
    """Yield the sizes as inferred from the shapes, in the words of the case."""
    sizes = sizes_of(state)
    is_vit = sizes.patch > 0
    ours = {
        "embed_dim": sizes.embed,
        "image_resolution": sizes.pixels,
        "context_length": sizes.context,
        "vocab_size": sizes.vocabulary,
        "resnet_layers": None if is_vit else list(sizes.vision_layers),
        "vw": sizes.vision_width if is_vit else None,
        "vl": sizes.vision_layers if is_vit else None,
        "patch": sizes.patch or None,
        "tw": sizes.text_width,
        "tl": sizes.text_layers,
        "width": None if is_vit else sizes.vision_width,
    }
    yield equal("dims", ours, case.info["dims"])


def _checksums(case: Case, state: Mapping[str, Tensor]) -> Iterator[Comparison]:
    """Yield [length, sum] of every floating tensor after loading: shows which of them were
    rounded.
    """
    expected = case.info["parameter_checksums_after_load"]
    ours = {n: v.double() for n, v in state.items() if v.is_floating_point()}
    yield equal("parameter_checksums_after_load[names]", sorted(ours), sorted(expected))
    lengths = [float(ours[name].square().sum().sqrt()) for name in expected]
    sums = [float(ours[name].sum()) for name in expected]
    yield close(
        "parameter_checksums_after_load[length]",
        lengths,
        [e[0] for e in expected.values()],
        _CHECKSUM,
    )
    yield close(
        "parameter_checksums_after_load[sum]",
        sums,
        [e[1] for e in expected.values()],
        Tolerance(1e-6, 1e-6),
    )


def _vision(tower: nn.Module, image: Tensor) -> dict[str, Tensor]:
    if isinstance(tower, VisionTransformer):
        return _transformer(tower, image)
    values, x = {}, tower.stem(image)
    for n, layer in enumerate(tower.layers, 1):
        x = values[f"visual_layer{n}"] = layer(x)
    return values | {"image_features": tower(image)}


def _transformer(tower: VisionTransformer, image: Tensor) -> dict[str, Tensor]:
    values = {"visual_conv1": tower.conv1(image), "visual_ln_pre": tower.embed(image)}
    x = values["visual_ln_pre"]
    for n, block in enumerate(tower.blocks, 1):
        x = values[f"visual_block{n}"] = block(x)
    return values | {
        "image_features": tower(image),
        "image_features[all rows]": tower.project(x)[:, 0],
    }


def _text(model: CLIP, ids: Tensor) -> dict[str, Tensor]:
    values, x = {}, model.embed_text(ids)
    for n, block in enumerate(model.text_blocks, 1):
        x = values[f"text_block{n}"] = block(x, causal_mask(ids.shape[1]))
    values["text_ln_final"] = model.ln_final(x)
    words = end_row(ids, model.encode_words(ids))
    return values | {"text_features": model.encode_text(ids), "text_features[all rows]": words}


def _in_half(model: CLIP) -> CLIP:
    """Return the model with its weights in float16, as the published programs run it on a GPU."""
    half = copy.deepcopy(model)
    for value in half_parameters(half):
        value.data = value.data.half()
    return half


HANDLERS = {"forward": forward, "preprocess": preprocess}
