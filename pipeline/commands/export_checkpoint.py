"""Write a checkpoint in the published form of its system.

    python cli.py export-checkpoint data/work/demo/train@dual --out exported.bin

If --out is a folder, the file is named after its recipe, and a pruned one as published
(<recipe>_pruned_w_0.3.bin). Vocabulary and tags are written beside it. Settings that the published
form cannot hold are listed.
"""

import json
from pathlib import Path

import click

from pipeline import log


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
    from pipeline.checkpoints import published
    from pipeline.checkpoints.archive_writer import write_archive
    from pipeline.checkpoints.pruned import file_suffix
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.core.files import atomic_write

    file = find_checkpoint(checkpoint)
    value, form, info, changes = published.export_file(file)
    target = out
    if not out.name.endswith(form.SUFFIX):
        target = out / f"{info.recipe.name or file.stem}{file_suffix(info.facts)}{form.SUFFIX}"
    write_archive(target, value)
    written = {"checkpoint": target}
    facts = info.facts
    for key, words in (
        ("vocab", facts.get("vocabulary")),
        ("bow_vocab", facts.get("bag")),
        ("tag_vocab", _numbered(facts.get("tags"))),
    ):
        if words:
            written[key] = target.with_name(f"{target.name.removesuffix(form.SUFFIX)}.{key}.json")
            atomic_write(written[key], json.dumps(words, indent=2))
    if hasattr(form, "SETTINGS_FILE"):
        written["settings"] = target.with_name(f"{target.name}.{form.SETTINGS_FILE}")
        settings = form.settings(info.recipe.options, value)
        atomic_write(written["settings"], json.dumps(settings, indent=4, sort_keys=True))
    if changes:
        log.warning(
            f"the published form cannot hold {'; '.join(changes)}: its program scores differently"
        )
    if as_json:
        click.echo(
            json.dumps({k: str(v) for k, v in written.items()} | {"not_kept": changes}, indent=1)
        )
        return
    for name, path in written.items():
        click.echo(f"{name:<12} {path}   {path.stat().st_size:,} bytes")


def _numbered(tags: list[str] | None) -> dict[str, int]:
    return {tag: n for n, tag in enumerate(tags or [])}
