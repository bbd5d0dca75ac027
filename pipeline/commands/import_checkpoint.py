"""Make a checkpoint of ours from a published one (Dual Encoding, CenterCLIP, CLIP4Clip, DRL, ...) or from a CLIP file.

python cli.py import-checkpoint model.bin --vocab vocab.json --tags tag_vocab.json --out imported
python cli.py import-checkpoint ViT-B-32.pt --recipe centerclip_zero_shot --out zero-shot

CenterCLIP's hparams_train.json is read if it lies beside its file.

Nothing in the file is executed. The result is searched, evaluated, pruned and explained like any other checkpoint.
"""

import json
from pathlib import Path

import click

from pipeline import config, log


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--vocab",
    type=click.Path(path_type=Path),
    help="the vocabulary it was trained with: vocab.json, word_vocab_5.pkl, or the folder of a vocab step",
)
@click.option(
    "--tags",
    type=click.Path(path_type=Path),
    help="its tags: tag_vocab.json, or the folder of a tags step (without them concepts have numbers for names)",
)
@click.option(
    "--recipe", default="", metavar="NAME", help="how to read captions and train on  [the published one of its system]"
)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="file (.pt) or folder to write  [required]"
)
@click.option(
    "--config", "path", type=click.Path(path_type=Path), default=None, help="YAML file that adds to the shipped one"
)
@click.option("--json", "as_json", is_flag=True, help="print what was found as JSON")
def command(
    file: Path, vocab: Path | None, tags: Path | None, recipe: str, out: Path, path: Path | None, as_json: bool
) -> None:
    from pipeline.text import tag_files
    from pipeline.text import vocab as vocabularies
    from pipeline.training import checkpoint
    from pipeline.training.published import Words, import_clip, import_file, is_clip

    ids = dict(vocabularies.load(vocab).ids) if vocab else None
    names = (tag_files.load(tags).words if tags.is_dir() else tag_files.read_vocabulary(tags)) if tags else None
    if is_clip(file):
        info, weights = import_clip(file, config.load(path), recipe)
    else:
        info, weights = import_file(file, Words(ids, vocab, names, tags), config.load(path), recipe)
    target = out if out.suffix == ".pt" else out / "checkpoints" / "best.pt"
    checkpoint.write_model(target, info, weights)
    if names is None and info.facts["tags"]:
        log.warning("no --tags: the concepts have numbers for names (explain shows them)")
    _report(target, info, sum(value.numel() for value in weights.values()), as_json)


def _report(target: Path, info: object, n_numbers: int, as_json: bool) -> None:
    facts = {
        "out": str(target),
        "model": info.recipe.model,
        "recipe": info.recipe.name,
        "numbers": n_numbers,
        "words": len(info.facts["vocabulary"]),
        "tags": len(info.facts["tags"]),
        "feature_dim": info.facts["feature_dim"],
        "training": info.training,
        "options": info.recipe.options.model_dump(mode="json"),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        click.echo(f"{name:<12} {json.dumps(shown, ensure_ascii=False) if isinstance(shown, dict) else shown}")
