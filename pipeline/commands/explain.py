"""Show what a model reads in a sentence and a video.

    python cli.py explain data/work/demo/train@dual --text "a red circle moves left" \\
        --video demo_test_0003 --out seen.png

Depending on the model it shows concepts, which word goes with which frame, or where in the frames
the model looks. The video is one that `evaluate` has encoded (its results are found beside the
checkpoint, or named with --videos), or one of a folder of features (--features).
"""

import json
from pathlib import Path

import click

from pipeline import log
from pipeline.errors import ConfigError
from pipeline.evaluation.locate import find_results


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--text", help="sentence to explain")
@click.option("--video", metavar="ID", help="video to explain: its id")
@click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help="results that hold the video  [those beside the checkpoint]",
)
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="features (a BigFile) that hold the video, instead of results",
)
@click.option(
    "--frames",
    type=click.Path(path_type=Path),
    help="step that holds the frames, to draw them (words, looks)",
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
@click.option("-o", "--out", type=click.Path(path_type=Path), help="picture to write (.png)")
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(
    checkpoint: Path,
    text: str | None,
    video: str | None,
    videos: Path | None,
    features: Path | None,
    frames: Path | None,
    block: int | None,
    per_video: bool,
    top: int,
    out: Path | None,
    as_json: bool,
) -> None:
    if text is None and video is None:
        raise ConfigError(
            "there is nothing to explain",
            where="explain",
            fix="Give --text SENTENCE, --video ID or both.",
        )
    if out and out.suffix.lower() != ".png":
        raise ConfigError(
            f"pictures are .png files, not {out.suffix or 'without a suffix'}",
            where=out,
            fix="Rename.",
        )
    from pipeline.checkpoints.model_file import load_model
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.core.files import atomic_write
    from pipeline.explain import concepts

    path = find_checkpoint(checkpoint)
    model, info = load_model(path)
    if hasattr(model, "attention_maps"):
        _explain_looks(
            model,
            info,
            asked=(text, video),
            frames=frames,
            settings=(block, per_video),
            out=out,
            as_json=as_json,
        )
        return
    if hasattr(model, "explain"):
        _explain_words(
            model,
            info,
            folder=find_results(path, videos),
            asked=(text, video),
            frames=frames,
            out=out,
            as_json=as_json,
        )
        return
    of_text = of_video = None
    unknown: list[str] = []
    if text is not None:
        unknown = info.text_encoder.unknown_words(text)
        of_text = concepts.read_text(model, info, text, path)
    if video is not None and features:
        of_video = concepts.read_video(model, info, features, video, path)
    elif video is not None:
        of_video = concepts.read_evaluated(info, find_results(path, videos), video, path)
    reading = concepts.Reading(info.facts["tags"], of_text, of_video)
    if out:
        titles = (f"video: {video}" if video else "", f"text: {text}" if text else "")
        atomic_write(out, concepts.picture(reading, titles, top))
    if unknown:
        log.warning(f"the model does not know, and ignores: {', '.join(unknown)}")
    _print({"text": text, "video": video, "unknown_words": unknown}, reading, top, as_json)


def _print(asked: dict, reading: object, top: int, as_json: bool) -> None:
    found = {f"{side}_concepts": reading.top(side, top) for side in ("text", "video")}
    found["shared"] = reading.shared(top)
    both = bool(found["shared"])
    if as_json:
        similarity = {"concept_similarity": round(float(reading.shares.sum()), 5)} if both else {}
        click.echo(json.dumps(asked | similarity | found, indent=1, ensure_ascii=False))
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


def _explain_words(
    model: object,
    info: object,
    folder: Path,
    asked: tuple[str | None, str | None],
    frames: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Words and frames of a model that compares them one by one."""
    from models.base import Mismatch
    from pipeline.core.files import atomic_write
    from pipeline.explain import word_match

    text, video = asked
    if text is None or video is None:
        raise ConfigError(
            "this model compares words with frames, so it needs a sentence and a video",
            where="explain",
            fix="Give --text and --video.",
        )
    try:
        match = word_match.read(
            model, info, folder=folder, text=text, video_id=video, frames=frames
        )
    except Mismatch as error:
        raise ConfigError(error.what, where="explain", fix=error.fix) from error
    if out:
        atomic_write(out, word_match.picture(match, f"{text}   ({video})"))
    rows = match.rows()
    if as_json:
        t2v, v2t = match.sides
        found = {
            "text": text,
            "video": video,
            "t2v": t2v,
            "v2t": v2t,
            "score": (t2v + v2t) / 2,
        } | rows
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for name, best in (("word", "frame"), ("frame", "word")):
        click.echo(f"{name:<24}{'weight':>9}{'similarity':>12}   best {best}")
        for row in rows[f"{name}s"]:
            click.echo(
                f"  {row[name]!s:<22}{row['weight']:>9.3f}{row['similarity']:>12.3f}   {row[best]}"
            )
    click.echo(match.title)


def _explain_looks(
    model: object, info: object, asked: tuple[str | None, str | None], frames: Path | None,
    settings: tuple[int | None, bool], out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Where in the frames a model with global prompts looks."""
    from models.base import Mismatch
    from pipeline.core.files import atomic_write
    from pipeline.explain import attention

    (text, video), (block, per_video) = asked, settings
    if video is None or frames is None:
        raise ConfigError(
            "this model needs a video and its frames, to show where in the frames it looks",
            where="explain",
            fix=(
                "Give --video ID and --frames STEP: a tensors, frames or compress step that"
                " holds it."
            ),
        )
    try:
        looks = attention.read(model, info, frames, video, block)
    except Mismatch as error:
        raise ConfigError(error.what, where="explain --block", fix=error.fix) from error
    if out:
        atomic_write(out, attention.picture(looks, text or video, per_video))
    rows = looks.rows()
    if as_json:
        click.echo(
            json.dumps(
                {"text": text, "video": video, "block": looks.block, "frames": rows}, indent=1
            )
        )
        return
    click.echo(f"block {looks.block}: share of attention on the patches of each frame")
    names = [name for name in rows[0] if name != "frame"]
    click.echo(f"{'frame':<8}" + "".join(f"{name:>15}" for name in names))
    for row in rows:
        click.echo(f"{row['frame']:<8}" + "".join(f"{row[name]:>15.3f}" for name in names))
