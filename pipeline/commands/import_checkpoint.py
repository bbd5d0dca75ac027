"""Make a checkpoint from a published one or a CLIP file.

    python cli.py import-checkpoint model.bin --vocab vocab.json --tags tag_vocab.json --out mine
    python cli.py import-checkpoint model_best.pth.tar --out mine
    python cli.py import-checkpoint ViT-B-32.pt --recipe centerclip_zero_shot --out zero-shot

Nothing in the file is executed. The result is searched, evaluated, pruned and explained like any
other checkpoint.

Vocabulary and tags are found where the published programs keep them: vocab.json,
TextData/vocabulary and TextData/tags beside the file or above it. Dual Encoding's .bin.ckpt,
the hparams_train.json of CenterCLIP and DGL, and CLIP4Clip's pytorch_opt.bin.N are read if they lie
beside the file. What had to be assumed is said with its reason. The state of an optimizer is kept
in best.moments.pt, so that training can continue from it.
"""

import json
from pathlib import Path

import click

from pipeline import config, log
from pipeline.commands._shared import config_option


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--vocab",
    type=click.Path(path_type=Path),
    help=(
        "its vocabulary: vocab.json, word_vocab_5.pkl, TextData/vocabulary, or --out of vocab "
        " [found]"
    ),
)
@click.option(
    "--bag",
    type=click.Path(path_type=Path),
    help=(
        "hybrid_space: the vocabulary of its bags of words, if it is not that of --vocab  [found]"
    ),
)
@click.option(
    "--tags",
    type=click.Path(path_type=Path),
    help=(
        "its tags: tag_vocab.json, or --out of tags  [found; without them concepts have numbers"
        " for names]"
    ),
)
@click.option(
    "--recipe",
    default="",
    metavar="NAME",
    help="recipe that says how to read captions and how to train on  [the published one]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="OPTION=VALUE",
    help="what a file does not say, or says otherwise: options.words=64, train.seed=1",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="file (.pt) or folder to write",
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="print what was found as JSON")
def command(
    file: Path,
    vocab: Path | None,
    bag: Path | None,
    tags: Path | None,
    recipe: str,
    overrides: tuple[str, ...],
    out: Path,
    path: Path | None,
    as_json: bool,
) -> None:
    from pipeline.checkpoints import model_file
    from pipeline.checkpoints.published import import_clip, import_file, is_clip
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.checkpoints.word_files import Files
    from pipeline.training import moments

    file = find_checkpoint(file)
    if is_clip(file):
        info, weights = import_clip(file, config.load(path), recipe, overrides)
        start = None
    else:
        words = Files(vocab, bag, tags)
        info, weights = import_file(file, words, config.load(path), recipe, overrides)
        start = moments.of_published(file, info, weights)
    target = out if out.suffix == ".pt" else out / "checkpoints" / "best.pt"
    model_file.write_model(target, info, weights)
    moments.write(moments.place(target), start)
    if start:
        log.info(
            f"its training stopped after epoch {start.epoch}, step {start.step:,}; train.init.go_on"
            " continues from there"
        )
    if info.facts["tags"][:1] == ["tag 0"]:
        log.warning("without --tags the concepts have numbers for names, which explain shows")
    _report(target, info, sum(value.numel() for value in weights.values()), as_json)


def _report(target: Path, info: object, n_numbers: int, as_json: bool) -> None:
    facts = {
        "out": str(target),
        "model": info.recipe.model,
        "recipe": info.recipe.name,
        "numbers": n_numbers,
        "words": len(info.facts["vocabulary"]),
        "bag_words": len(info.facts.get("bag", ())),
        "tags": len(info.facts["tags"]),
        "feature_dim": info.facts["feature_dim"],
        # all options of hybrid_space are too many to show
        "training": {key: value for key, value in info.training.items() if key != "opt"},
        "options": info.recipe.options.model_dump(mode="json"),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        click.echo(
            f"{name:<12}"
            f" {json.dumps(shown, ensure_ascii=False) if isinstance(shown, dict) else shown}"
        )
