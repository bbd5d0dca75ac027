"""Draw the frames of a video that a model would see.

    python cli.py visualize video7020 --dataset msrvtt-9k --out sheet.png

The video is compressed as the compress step would do it; its frames are chosen as for testing (or
by --mode) and cropped to the square of the model. Captions are printed below. --single and
--patches also write every frame and every patch of 32 x 32; --kept greys out the patches that a
token reduction dropped. An id that begins with - goes last, after --.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import config, registry
from pipeline.commands._dataset import find_dataset
from pipeline.commands._shared import config_option
from pipeline.core.files import atomic_path
from pipeline.datasets.base import Annotations
from pipeline.errors import ConfigError, DataError, ItemError

if TYPE_CHECKING:
    import numpy as np

_MODES = ("centers", "segments", "segments-published", "linspace", "head", "tail", "twice", "all")
_MOST_CAPTIONS = 20
_FPS, _SHORT_SIDE = 3.0, 224


@dataclass(frozen=True)
class _View:
    """What to look at. frames, size: of the model. every: choose among every n-th frame. seed: of
    modes that draw.
    """

    frames: int
    mode: str
    every: int
    seed: int
    fps: float
    short_side: int
    crf: int
    size: int


@click.command(help=__doc__)
@click.argument("video")
@click.option("--recipe", metavar="NAME", help="recipe or pipeline: what its model sees")
@click.option(
    "--frames",
    type=click.IntRange(1, 512),
    metavar="INTEGER",
    help="frames of the video  [12, or the recipe's]",
)
@click.option("--mode", type=click.Choice(_MODES), help="which frames  [centers, or the recipe's]")
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="INTEGER",
    default=0,
    help="seed of modes that draw at random  [0]",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, 240, min_open=True),
    metavar="NUMBER",
    help="frames per second of the compressed video  [3, or the pipeline's]",
)
@click.option(
    "--short-side",
    type=click.IntRange(16, 4096),
    metavar="INTEGER",
    help="short side of the compressed video  [224, or the pipeline's]",
)
@click.option(
    "--crf",
    type=click.IntRange(0, 51),
    metavar="INTEGER",
    default=23,
    help="quality of the compressed video, 0 is best  [23]",
)
@click.option(
    "--size",
    type=click.IntRange(16, 1024),
    metavar="INTEGER",
    help="side of the crop  [--short-side]",
)
@click.option("--dataset", help="dataset of the video, whose id VIDEO may then be")
@click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help=("folder of the files, if it is not the one that the dataset names"),
)
@click.option(
    "--caption",
    "captions",
    multiple=True,
    metavar="TEXT",
    help="caption to print (may be repeated)",
)
@click.option(
    "--kept",
    type=click.Path(path_type=Path),
    help=".npy of integers (segments, kept): patches that stay visible",
)
@click.option("--single", is_flag=True, help="also write crop-1.png, crop-2.png, ...")
@click.option(
    "--patches",
    is_flag=True,
    help=("also write crop-1/crop-1-1.png, ...: patches of 32 x 32, column by column"),
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="PNG to write  [VIDEO.sheet.png]"
)
@config_option
def command(video: str, out: Path | None, captions: tuple[str, ...], **values: object) -> None:
    from pipeline.explain.contact_sheet import covered, sheet

    loaded = config.load(values["path"])
    source, spoken = _source(loaded, video, values["dataset"], values["videos"])
    recipe, compressed = _named(loaded, values["recipe"])
    fps = values["fps"] or compressed.get("fps") or _FPS
    short_side = values["short_side"] or compressed.get("short_side") or _SHORT_SIDE
    frames, mode, every = _sampling(loaded, recipe, fps)
    view = _View(
        frames=values["frames"] or frames,
        mode=values["mode"] or mode,
        every=every,
        seed=values["seed"],
        fps=fps,
        short_side=short_side,
        crf=values["crf"],
        size=values["size"] or short_side,
    )
    images, labels, title = _look(source, view)
    out = out or Path(f"{source.stem}.sheet.png")
    shown = images
    if values["kept"]:
        shown = covered(images, _kept(values["kept"]))
    _write([(out, sheet(shown, labels, title, [*captions, *spoken][:_MOST_CAPTIONS]))])
    if values["single"]:
        _write_frames(out.parent, images, "crop")
        if values["kept"]:
            _write_frames(out.parent, shown, "crop-masked")
    if values["patches"]:
        _write_patches(out.parent, images)
    click.echo(out)


def _named(loaded: config.Config, name: str | None) -> tuple[str | dict | None, dict]:
    """Return the recipe, and the options of the compress step, that a recipe's or a pipeline's name
    stands for.
    """
    if name is None or name not in loaded.pipelines:
        return name, {}
    steps = loaded.pipelines[name].get("steps") or {}
    recipes = [(step or {}).get("recipe") for step in steps.values()]
    trained = next((recipe for recipe in recipes if recipe), None)
    if trained is None:
        raise ConfigError(
            "this pipeline trains no model", where=name, fix="Give --recipe the name of a recipe."
        )
    return trained, steps.get("compress") or {}


def _sampling(loaded: config.Config, recipe: str | dict | None, fps: float) -> tuple[int, str, int]:
    """Return (frames, mode, every n-th of `fps` a second) of a recipe, as it is tested; the
    published defaults without one.
    """
    from pipeline.feeding.frame_choice import stride
    from pipeline.recipes.options import FrameOptions

    if recipe is None:
        return 12, "centers", 1
    resolved = loaded.resolve("recipes", recipe)
    where = f"recipes.{resolved['name']}"
    model = registry.model_options(resolved["model"])
    frames = getattr(
        registry.options(model, resolved.get("options") or {}, f"{where}.options"), "frames", None
    )
    if frames is None:
        what = f"its model, {resolved['model']}, reads features and not frames"
        raise ConfigError(
            what, where=where, fix="Give --frames, or the recipe of a model that reads frames."
        )
    chosen = (resolved.get("train") or {}).get("frames") or {}
    how = registry.options(FrameOptions, chosen, f"{where}.train.frames")
    return frames, how.evaluation, how.every * stride(fps, how.fps)


def _source(
    loaded: config.Config, video: str, dataset: str | None, videos: Path | None
) -> tuple[Path, list[str]]:
    """Return the file, and what the dataset says about it. DataError if there is no such file."""
    path = Path(video)
    if dataset is None:
        if not path.is_file():
            raise DataError(
                "there is no such file",
                where=video,
                fix="Give the path of a video, or --dataset and its id.",
            )
        return path, []
    annotations = find_dataset(loaded, dataset, videos).load()
    video_id = _id(annotations, path, video)
    known = annotations.videos[video_id].path if video_id else None
    source = path if path.is_file() else known
    if source is None or not source.is_file():
        raise DataError(
            f"{video!r} is neither a file nor a video of {dataset} whose file is there",
            where=dataset,
            fix=f"Check the id, or give the path of the file. See: python cli.py check {dataset}",
        )
    return source, [c.text for c in annotations.captions.values() if c.video_id == video_id]


def _id(annotations: Annotations, path: Path, video: str) -> str | None:
    """Return the id that a file or a word stands for: of the video with this file, else with this
    name.
    """
    here = next(
        (
            v.id
            for v in annotations.videos.values()
            if v.path and v.path.absolute() == path.absolute()
        ),
        None,
    )
    return here or next((name for name in (video, path.stem) if name in annotations.videos), None)


def _look(source: Path, view: _View) -> tuple["np.ndarray", list[str], str]:
    """Return (frames uint8 (T, size, size, 3), a label for each, a title). DataError if the video
    cannot be used.
    """
    import numpy as np

    from pipeline.video.compress import Options, compress
    from pipeline.video.crop import center_crop
    from pipeline.video.reader import FrameChoice, decode_clip
    from pipeline.video.sampling import choose_frames

    options = registry.options(
        Options, {"fps": view.fps, "short_side": view.short_side, "crf": view.crf}, "visualize"
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = compress(source, Path(folder), "small.mp4", options)
            clip = decode_clip(Path(folder, "small.mp4"), FrameChoice("all"))
        except ItemError as error:
            raise DataError(
                f"it cannot be used: {error}",
                where=source,
                fix=("Replace the file by a whole one."),
            ) from error
    candidates = np.arange(0, len(clip.images), view.every)
    chosen, real = choose_frames(
        len(candidates), view.frames, view.mode, np.random.default_rng(view.seed)
    )
    chosen = candidates[chosen]
    labels = [
        f"{slot + 1}: {clip.times_ms[frame] / 1000:.2f} s{'' if slot < real else ' (repeated)'}"
        for slot, frame in enumerate(chosen)
    ]
    damage = f", {outcome.reason}" if outcome.status == "damaged" else ""
    title = (
        f"{source.name}: {len(chosen)} of {len(candidates)} frames at {view.fps:g} fps"
        f" ({view.mode}){damage}"
    )
    return center_crop(clip.images[chosen], view.size), labels, title


def _kept(path: Path) -> "np.ndarray":
    from pipeline.arrays import read_npy

    try:
        return read_npy(path)
    except DataError as error:
        raise DataError(error.what, where=path, fix="Give a .npy file of integers.") from error


def _write_frames(folder: Path, images: "np.ndarray", name: str) -> None:
    from PIL import Image

    _write(
        [
            (folder / f"{name}-{n}.png", Image.fromarray(image))
            for n, image in enumerate(images, start=1)
        ]
    )


def _write_patches(folder: Path, images: "np.ndarray") -> None:
    from PIL import Image

    from pipeline.explain.contact_sheet import patches

    for n, image in enumerate(images, start=1):
        tiles = enumerate(patches(image), start=1)
        _write(
            [
                (folder / f"crop-{n}/crop-{n}-{k}.png", Image.fromarray(tile.copy()))
                for k, tile in tiles
            ]
        )


def _write(pictures: Iterable[tuple[Path, object]]) -> None:
    for path, picture in pictures:
        with atomic_path(path, ".png") as temporary:
            picture.save(temporary, "PNG")
