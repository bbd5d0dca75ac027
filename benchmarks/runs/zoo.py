"""Size and cost of every shipped recipe: the numbers of docs/model-zoo.md.

Parameters, those that train, megabytes of float32 weights in best.pt (frozen ones that lie in
another file left out), and the arithmetic of encoding one clip and one caption (multiplications and
additions of matrix products, 1e9; a training step of everything takes about three times that).
Counted on the meta device where no result decides what comes next, else by computing.

Run: python -m benchmarks.runs.zoo [RECIPE ...]      (seconds per model, minutes for all)
"""

import argparse
from collections.abc import Mapping

import click
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from models.base import Inputs, Mismatch
from pipeline import config
from pipeline.checkpoints import model_file
from pipeline.recipes.freeze import count_parameters
from pipeline.recipes.recipe import Recipe, parse

# of MSR-VTT's training captions and of the published features; 2048 where one network made them
WORDS, TAGS, DIM = 7811, 512, 4096
FRAMES, WORDS_PER_CAPTION = (
    28,
    12,
)  # of an average clip of MSR-VTT at two frames per second, and of its captions


def facts(recipe: Recipe) -> dict:
    """What Dual Encoding is built from at its published size; other models read nothing of it."""
    if "words" not in recipe.reads:
        return {}
    words = {f"word{n}": n for n in range(WORDS)}
    dim = DIM // 2 if recipe.name == "dual_encoding_2019" else DIM
    return {
        "vocabulary": words,
        "tags": [f"tag{n}" for n in range(TAGS)],
        "feature_dim": dim,
        "word_dim": 500,
    }


def batch(inputs: Inputs, dim: int) -> Mapping[str, Tensor]:
    """One caption and one clip, as the model reads them."""
    n_words, n_frames = inputs.tokens or WORDS_PER_CAPTION, inputs.frames or FRAMES
    video = {"features": torch.zeros(1, n_frames, dim)}
    if inputs.video == "frames":
        video = {"frames": torch.zeros(1, n_frames, inputs.size, inputs.size, 3, dtype=torch.uint8)}
    masks = {
        "text_mask": torch.ones(1, n_words, dtype=torch.bool),
        "video_mask": torch.ones(1, n_frames).bool(),
    }
    return {"text": torch.ones(1, n_words, dtype=torch.int64), **masks, **video}


def arithmetic(recipe: Recipe, known: Mapping, device: str = "meta") -> float:
    """Of encoding one clip and one caption, 1e9 operations."""
    with torch.device(device):
        model = model_file.build_model(recipe, known).eval().requires_grad_(False)
        given = {
            name: value.to(device)
            for name, value in batch(model.inputs, known.get("feature_dim", 0)).items()
        }
    counter = FlopCounterMode(display=False, custom_mapping=_FUSED)
    try:
        with torch.device(device), torch.no_grad(), counter:
            shared = model.prepare()
            model.encode_text(given, shared)
            model.encode_video(given, shared)
    except (NotImplementedError, RuntimeError):  # the meta device has no values to choose by
        if device == "cpu":
            raise
        return arithmetic(recipe, known, "cpu")
    return counter.get_total_flops() / 1e9


def _linear(x: torch.Size, weight: torch.Size, *rest: object, **named: object) -> int:
    return 2 * x.numel() * weight[0]


def _attention(q: torch.Size, k: torch.Size, v: torch.Size, *rest: object, **named: object) -> int:
    return sdpa_flop_count(q, k, v)


# what torch's counter does not know of the CPU
_FUSED = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten.linear: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*")
    loaded = config.load(None)
    names = parser.parse_args().recipes or list(loaded.recipes)
    click.echo(f"{'recipe':<42}{'parameters':>14}{'trained':>14}{'MB':>8}{'1e9 operations':>16}")
    costs: dict[
        str, float
    ] = {}  # by model and options: recipes that differ in their training alone share one
    for name in names:
        recipe = parse(loaded.recipe(name))
        known = facts(recipe)
        try:
            with torch.device("meta"):
                model = model_file.build_model(recipe, known).eval()
        except Mismatch as error:  # a second stage is built on the first
            click.echo(f"{name:<42}  {error.what}")
            continue
        found = count_parameters(model, recipe.train)
        stored = found["trained"] if found["trained"] < 0.5 * found["all"] else found["all"]
        key = f"{recipe.model} {recipe.options.model_dump_json()} {known.get('feature_dim')}"
        cost = costs[key] = costs[key] if key in costs else arithmetic(recipe, known)
        click.echo(
            f"{name:<42}{found['all']:>14,}{found['trained']:>14,}{stored * 4 / 1e6:>8.1f}{cost:>16,.1f}"
        )


if __name__ == "__main__":
    main()
