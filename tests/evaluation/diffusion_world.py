"""Twelve small videos with two captions each, some of them equal, and untrained checkpoints that
rank them.
"""

from pathlib import Path

import torch

from models.base import Assets, RetrievalModel
from models.clip.sizes import BACKBONES
from models.clip.towers import CLIP
from models.diffusion_ret import model as diffusion_ret
from models.drl import model as drl
from pipeline.checkpoints import model_file
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.core import runner
from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.recipes.recipe import parse
from pipeline.stages.evaluate import Options, Stage
from tests.feeding import frames_toy

SIZES = {"backbone": "tiny", "words": 12, "frames": 3, "temporal_layers": 1}
SAMPLING = {"diffusion_steps": 10, "t2v_candidates": 4, "v2t_candidates": 5, "negatives": 3}
FACTS = {"feature_dim": 0, "vocabulary": {}, "tags": [], "word_dim": None, "inputs": {}}
BUILDS = {"drl": drl.build, "diffusion_ret": diffusion_ret.build}


def make(folder: Path) -> dict[str, Artefact]:
    """tensors, annotations, and the checkpoints drl, xti, first (a DiffusionRet of the first stage)
    and second.
    """
    inputs = frames_toy.build(folder)
    for file in (folder / "TextData").iterdir():
        lines = [line.split("#0 ") for line in file.read_text().splitlines()]
        file.write_text(
            "".join(f"{i}#0 {text}\n{i}#1 waves, {text.split()[1]}\n" for i, text in lines)
        )
    start = CLIP(BACKBONES["tiny"])
    first = write(
        folder / "first",
        "diffusion_ret",
        SIZES | {"stage": "discrimination"},
        Assets(clip=start.state_dict()),
    )
    second = Assets(init=first.state_dict(), is_start=True)
    write(folder / "second", "diffusion_ret", SIZES | SAMPLING | {"stage": "generation"}, second)
    write(folder / "drl", "drl", SIZES, Assets(clip=start.state_dict()))
    write(
        folder / "xti",
        "drl",
        SIZES | {"interaction": "xti", "cross_layers": 1},
        Assets(clip=start.state_dict()),
    )
    made = {
        name: Artefact("checkpoint", folder / name, name, name, name)
        for name in ("first", "second", "drl", "xti")
    }
    annotations = dataset_artefact({"type": "caption_files", "root": str(folder)}, "annotations")
    return made | {"tensors": inputs["tensors"], "annotations": annotations}


def write(folder: Path, name: str, options: dict, assets: Assets) -> RetrievalModel:
    """A checkpoint of a new model with none of its weights at its first value."""
    torch.manual_seed(0)
    recipe = parse(
        {"name": name, "model": name, "options": options, "train": {"optimizer": {"lr": 1e-4}}}
    )
    model = BUILDS[name](recipe.options, assets)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    model_file.write_model(
        folder / "checkpoints" / "best.pt", ModelInfo(recipe, FACTS, {}), model.state_dict()
    )
    return model


def evaluate(
    inputs: dict, out: Path, *names: str, denoiser: str | None = None, **options: object
) -> dict:
    """Run the evaluate stage on the checkpoints of these names; its manifest."""
    given = dict.fromkeys(Stage.needs) | {key: inputs[key] for key in ("tensors", "annotations")}
    given |= {"checkpoints": [inputs[name] for name in names], "denoiser": inputs.get(denoiser)}
    return runner.run(Stage(Options(**options), given, out), "evaluate", jobs=1)
