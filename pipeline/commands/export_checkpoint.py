"""Write a checkpoint in the published form of its system.

    python cli.py export-checkpoint data/work/demo/train@dual --out exported.bin

    python cli.py export-checkpoint drl --out pytorch_model.bin.4

    python cli.py export-checkpoint drl --out drl.safetensors

.safetensors holds our own model whole, for a model hub; every command takes it as a checkpoint. A
name that ends as weight files do (.bin, .pth, .pt, .tar, .ckpt, perhaps with an epoch behind) is
a file, any other name a folder; there the file is named after its recipe, and a pruned one as
published (<recipe>_pruned_w_0.3.bin). Vocabulary, tags and what was imported of an optimizer are
written beside it or into it, as its program has them. What the published form cannot hold is
listed.
"""

import json
import re
from pathlib import Path

import click

from pipeline import log

_HUB = ".safetensors"
_FILE = re.compile(r"\.(bin|pth|pt|tar|ckpt)(\.\w+)*$")  # what a file of weights is called


@click.command(help=__doc__)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="file or folder to write",
)
@click.option("--json", "as_json", is_flag=True, help="print what was written as JSON")
def command(checkpoint: Path, out: Path, as_json: bool) -> None:
    if out.suffix == _HUB:
        from pipeline.checkpoints.model_file import write_safetensors

        write_safetensors(out, checkpoint)
        _tell({"checkpoint": out}, [], as_json)
        return
    from pipeline.checkpoints import published
    from pipeline.checkpoints.archive_writer import write_archive
    from pipeline.checkpoints.pruned import file_suffix
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.core.files import atomic_write
    from pipeline.training import moments

    file = find_checkpoint(checkpoint)
    made = published.export_file(file)
    form, info = made.module, made.info
    value, optimizer = moments.export(file, made.value, info, made.weights)
    lost = [] if optimizer else list(getattr(form, "LOST", ()))
    if "imported" not in info.training:
        lost += getattr(form, "NEVER_KEPT", ())
    target = out
    if not _FILE.search(out.name):
        target = out / f"{info.recipe.name or file.stem}{file_suffix(info.facts)}{form.SUFFIX}"
    write_archive(target, value)
    written = {"checkpoint": target}
    if optimizer and optimizer.beside:
        written["optimizer"] = target.with_name(optimizer.file_name(target.name))
        write_archive(written["optimizer"], optimizer.beside)
    facts = info.facts
    stem = target.name.removesuffix(form.SUFFIX)
    for key, words in (
        ("vocab", facts.get("vocabulary")),
        ("bow_vocab", facts.get("bag")),
        ("tag_vocab", _numbered(facts.get("tags"))),
    ):
        if words:
            written[key] = target.with_name(f"{stem}.{key}.json")
            atomic_write(written[key], json.dumps(words, indent=2))
    if hasattr(form, "SETTINGS_FILE"):
        written["settings"] = target.with_name(f"{target.name}.{form.SETTINGS_FILE}")
        settings = form.settings(info.recipe.options, value)
        atomic_write(written["settings"], json.dumps(settings, indent=4, sort_keys=True))
    if made.changes:
        log.warning(
            f"the published form cannot hold {'; '.join(made.changes)}: its program scores"
            " differently"
        )
    if lost:
        log.warning(f"not kept: {'; '.join(lost)}")
    _tell(written, made.changes + lost, as_json)


def _tell(written: dict[str, Path], lost: list[str], as_json: bool) -> None:
    if as_json:
        names = {name: str(path) for name, path in written.items()}
        click.echo(json.dumps(names | {"not_kept": lost}, indent=1))
        return
    for name, path in written.items():
        click.echo(f"{name:<12} {path}   {path.stat().st_size:,} bytes")


def _numbered(tags: list[str] | None) -> dict[str, int]:
    return {tag: n for n, tag in enumerate(tags or [])}
