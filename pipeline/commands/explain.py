"""Show what a model reads in a sentence and a video.

    python cli.py explain data/work/demo/train@dual --text "a red circle moves left" \\
        --video demo_test_0003 --out seen.png

    python cli.py explain imported --video clip.mp4 --text "a dog runs" --out kept.png

Depending on the model it shows concepts, which word goes with which frame, where in the frames the
model looks, or which patches CenterCLIP keeps of each segment. The video is a file, one that
`evaluate` has encoded (its results are found beside the checkpoint, or named with --videos), or one
of a folder of features (--features). A model that reads features makes those of a file as the
features step beside the checkpoint did, or the one of --features.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import log
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from models.base import RetrievalModel
    from pipeline.checkpoints.model_file import ModelInfo
    from pipeline.commands._explain_video import OneVideo

_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Explained:
    """The command line: a sentence, a video, or both; how to show what is found.

    kept: where the ids of patches that are left go.
    """

    text: str | None
    video: "OneVideo | None"
    block: int | None
    per_video: bool
    top: int
    kept: Path | None
    out: Path | None
    as_json: bool

    @property
    def title(self) -> str:
        """What the picture is of."""
        name = self.video.name if self.video else ""
        return f"{self.text}   ({name})" if self.text and name else self.text or name


@click.command(help=__doc__)
@click.argument("checkpoint", type=_PATH)
@click.option("--text", help="sentence to explain")
@click.option("--video", metavar="ID|FILE", help="video to explain: its id, or a file")
@click.option(
    "--videos", type=_PATH, help="results that hold the video  [those beside the checkpoint]"
)
@click.option(
    "--features",
    type=_PATH,
    help="features (a BigFile) that hold the video; of a FILE: the step that makes such features",
)
@click.option(
    "--frames",
    type=_PATH,
    help="step that holds the frames, to draw them (words, looks, kept)",
)
@click.option(
    "--block",
    type=click.IntRange(1),
    metavar="INTEGER",
    help="looks: vision block to draw  [the last]",
)
@click.option(
    "--per-video",
    is_flag=True,
    help=("looks: one colour scale for all frames instead of one for each"),
)
@click.option(
    "--top",
    type=click.IntRange(1),
    metavar="INTEGER",
    default=10,
    help=("concepts: how many to list  [10]"),
)
@click.option(
    "--kept",
    type=_PATH,
    metavar="FILE",
    help="kept: also write their ids, as `visualize --kept` reads them (.npy)",
)
@click.option("-o", "--out", type=_PATH, help="picture to write (.png)")
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(checkpoint: Path, text: str | None, video: str | None, **options: object) -> None:
    if text is None and video is None:
        raise ConfigError(
            "there is nothing to explain",
            where="explain",
            fix="Give --text SENTENCE, --video ID or both.",
        )
    out = options["out"]
    if out and out.suffix.lower() != ".png":
        raise ConfigError(
            f"pictures are .png files, not {out.suffix or 'without a suffix'}",
            where=out,
            fix="Rename.",
        )
    from models.base import Mismatch
    from pipeline.checkpoints.model_file import load_model
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.commands._explain_video import OneVideo

    path = find_checkpoint(checkpoint)
    places = [options.pop(name) for name in ("videos", "features", "frames")]
    request = Explained(text, None if video is None else OneVideo(video, path, *places), **options)
    model, info = load_model(path)
    show = next((show for name, show in _BY_ABILITY.items() if hasattr(model, name)), _concepts)
    try:
        show(model, info, request, path)
    except Mismatch as error:
        raise ConfigError(error.what, where="explain", fix=error.fix) from error


def _concepts(
    model: "RetrievalModel", info: "ModelInfo", request: Explained, checkpoint: Path
) -> None:
    """Tags of a model with a concept space."""
    from pipeline.core.files import atomic_write
    from pipeline.explain import concepts

    text, video, top = request.text, request.video, request.top
    of_text = of_video = None
    unknown: list[str] = []
    if text is not None:
        unknown = info.text_encoder.unknown_words(text)
        of_text = concepts.read_text(model, info, text, checkpoint)
    if video is not None:
        of_video = concepts.read_video(info, video.encoding(model, info), checkpoint)
    reading = concepts.Reading(info.facts["tags"], of_text, of_video)
    name = video.name if video else None
    if request.out:
        titles = (f"video: {name}" if name else "", f"text: {text}" if text else "")
        atomic_write(request.out, concepts.picture(reading, titles, top))
    if unknown:
        log.warning(f"the model does not know, and ignores: {', '.join(unknown)}")
    found = {f"{side}_concepts": reading.top(side, top) for side in ("text", "video")}
    found["shared"] = reading.rank_shared(top)
    both = bool(found["shared"])
    if request.as_json:
        asked = {"text": text, "video": name, "unknown_words": unknown}
        similarity = {"concept_similarity": round(float(reading.shares.sum()), 5)} if both else {}
        _print_json(asked | similarity | found)
        return
    for title, key, columns in (
        ("in the text", "text_concepts", ("weight",)),
        ("in the video", "video_concepts", ("weight",)),
        ("in both", "shared", ("text", "video", "share")),
    ):
        if found[key]:
            click.echo(f"{title:<24}" + "".join(f"{name:>9}" for name in columns))
            for row in found[key]:
                click.echo(
                    f"  {row['tag']:<22}" + "".join(f"{row[name]:>9.3f}" for name in columns)
                )
    if both:
        click.echo(f"{'concept similarity':<24}{reading.shares.sum():>9.3f}")


def _words(
    model: "RetrievalModel", info: "ModelInfo", request: Explained, checkpoint: Path
) -> None:
    """Words and frames of a model that compares them one by one."""
    from pipeline.core.files import atomic_write
    from pipeline.explain import word_match

    text, video = request.text, request.video
    if text is None or video is None:
        raise ConfigError(
            "this model compares words with frames, so it needs a sentence and a video",
            where="explain",
            fix="Give --text and --video.",
        )
    seen = video.pictures(model, info)
    frames = None if seen is None else seen["frames"][0][seen["video_mask"][0]].numpy()
    match = word_match.read(model, info, text, video.encoding(model, info), frames)
    if request.out:
        atomic_write(request.out, word_match.picture(match, request.title))
    rows = match.rows()
    if request.as_json:
        t2v, v2t = match.sides
        score = (t2v + v2t) / 2
        found = {"text": text, "video": video.name, "t2v": t2v, "v2t": v2t, "score": score}
        _print_json(found | rows)
        return
    for name, best in (("word", "frame"), ("frame", "word")):
        click.echo(f"{name:<24}{'weight':>9}{'similarity':>12}   best {best}")
        for row in rows[f"{name}s"]:
            won = "padding, counted as 0" if row[best] is None else row[best]
            click.echo(
                f"  {row[name]!s:<22}{row['weight']:>9.3f}{row['similarity']:>12.3f}   {won}"
            )
    click.echo(match.title)


def _looks(
    model: "RetrievalModel", info: "ModelInfo", request: Explained, checkpoint: Path
) -> None:
    """Where in the frames a model with global prompts looks."""
    from pipeline.core.files import atomic_write
    from pipeline.explain import attention

    batch = _needed_pictures(model, info, request, "to show where in the frames it looks")
    looks = attention.read(model, batch["frames"], request.block)
    if request.out:
        title = request.text or request.video.name
        atomic_write(request.out, attention.picture(looks, title, request.per_video))
    rows = looks.rows()
    if request.as_json:
        asked = {"text": request.text, "video": request.video.name}
        _print_json(asked | {"block": looks.block, "frames": rows})
        return
    click.echo(f"block {looks.block}: share of attention on the patches of each frame")
    names = [name for name in rows[0] if name != "frame"]
    click.echo(f"{'frame':<8}" + "".join(f"{name:>15}" for name in names))
    for row in rows:
        click.echo(f"{row['frame']:<8}" + "".join(f"{row[name]:>15.3f}" for name in names))


def _kept(model: "RetrievalModel", info: "ModelInfo", request: Explained, checkpoint: Path) -> None:
    """Which patches a model that reduces tokens keeps, and how its segments fit a sentence."""
    from pipeline.explain import kept_tokens

    batch = _needed_pictures(model, info, request, "to show which patches of the frames it keeps")
    kept = kept_tokens.read(model, info, batch, request.text)
    if request.out:
        _write_picture(request.out, kept_tokens.picture(kept, request.title))
    if request.kept:
        _write_ids(request.kept, kept)
    rows = kept.rows()
    blocks = {str(block): ids.tolist() for block, ids in kept.ids.items()}
    if request.as_json:
        asked = {"text": request.text, "video": request.video.name, "score": kept.score}
        _print_json(asked | {"segments": rows, "kept": blocks})
        return
    for block, ids in sorted(kept.ids.items()):
        patches = len(kept.frames) // len(ids) * kept.grid**2
        click.echo(
            f"block {block}: {len(ids)} segments, {ids.shape[1]:,} of {patches:,} patches left"
        )
    if not blocks:
        click.echo("this model keeps every patch")
    for row in rows if kept.similarity is not None else []:
        first, last = row["frames"][0], row["frames"][-1]
        frames = f"{first}" if first == last else f"{first} to {last}"
        click.echo(f"{'frame ' + frames:<24}{row['similarity']:>9.3f}")
    if kept.score is not None:
        click.echo(f"{'whole video':<24}{kept.score:>9.3f}")


def _needed_pictures(
    model: "RetrievalModel", info: "ModelInfo", request: Explained, why: str
) -> dict:
    """Return the frames of the video. Raises ConfigError if no file or step has them."""
    batch = request.video and request.video.pictures(model, info)
    if batch is None:
        raise ConfigError(
            f"this model needs a video and its frames, {why}",
            where="explain",
            fix=(
                "Give --video FILE, or --video ID --frames STEP: a tensors, frames or compress step"
                " that holds it."
            ),
        )
    return batch


def _write_picture(path: Path, image: object) -> None:
    from pipeline.core.files import atomic_path

    with atomic_path(path, ".png") as temporary:
        image.save(temporary, "PNG")


def _write_ids(path: Path, kept: object) -> None:
    """The ids of the last block that reduces, as `visualize --kept` reads them."""
    import numpy as np

    from pipeline.core.files import atomic_path

    if not kept.ids:
        raise ConfigError(
            "this model keeps every patch: there are no ids to write",
            where="--kept",
            fix="Leave it out, or explain a recipe with `reduce`.",
        )
    with atomic_path(path, ".npy") as temporary:
        np.save(temporary, kept.ids[max(kept.ids)])


def _print_json(value: dict) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


_BY_ABILITY = {"attention_maps": _looks, "explain": _words, "kept_patches": _kept}
