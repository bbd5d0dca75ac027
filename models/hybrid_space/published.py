"""Checkpoints of danieljf24/hybrid_space and ours, both ways; of danieljf24/dual_encoding, in.

The file is a torch archive {"epoch", "model", "best_rsum", "opt", "Eiters"}
(docs/specs/dual-encoding.md, section 11.1). "model" is a list of four state dicts: video encoder,
text encoder, video and text mapping; in danieljf24/dual_encoding two, with the mappings inside the
encoders. "opt" is an argparse.Namespace: reading the file admits that one class besides tensors and
arrays (`pipeline/checkpoints/model_file.py`, published=True) and delivers a dict.

Changed on the way: convolutions are 2-d there, (channels, 1, width, C) instead of (channels, C,
width); columns of the mappings stand in the order (GRU, filters, level 1) there, (level 1, GRU,
filters) here.
"""

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from pydantic import ValidationError
from torch import Tensor

from models.base import Assets, Mismatch
from models.hybrid_space.model import SPECIAL
from models.hybrid_space.options import Options
from models.parts.keys import Rule, to_ours, to_theirs
from models.parts.wrappers import bare

# of pipelines.yaml: how such files were trained, and how captions are read
RECIPE = "hybrid_space_published"
SUFFIX = ".pth.tar"
SIDE_FILE = ""  # there is none
NEVER_KEPT = ("the optimizer's state, which its program does not save",)
IMPLIED = {  # what the published program does without being told
    "pooling": "padded",
    "alpha": 0.6,
    "normalise": "always",
    "distance": "plain",
    "concept_training": "dot",
}

_SIDES = {
    "video": ("vid", "visual"),
    "text": ("text", "text"),
}  # prefixes of state dicts, and of options
_GRU = r"(weight|bias)_(ih|hh)_l0(_reverse)?"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_MODULES = ("vid_encoding", "text_encoding", "vid_mapping", "text_mapping")
_ANCHORS = ("rnn.weight_ih_l0", "rnn.weight_ih_l0", "mapping.fc1.weight", "mapping.fc1.weight")
# what the parser of its trainer has besides, and what the program adds at run time; where the data
# lie is not known here
_PARSER: dict[str, object] = {
    "vocab": "word_vocab_5",
    "visual_feature": "resnext101-resnet152",
    "optimizer": "adam",
    "learning_rate": 0.0001,
    "lr_decay_rate": 0.99,
    "grad_clip": 2.0,
    "val_metric": "recall",
    "num_epochs": 50,
    "batch_size": 128,
    "workers": 5,
    "postfix": "runs_0",
    "cv_name": "cv_tpami_2021",
    "collectionStrt": "single",
    "collection": "own",
    "trainCollection": "owntrain",
    "valCollection": "ownval",
    "testCollection": "owntest",
    "collections_pathname": {"train": "own", "val": "own", "test": "own"},
    "cap_file": {"train": "owntrain.caption.txt", "val": "ownval.caption.txt"},
    "logger_name": "runs",
    "rootpath": "VisualSearch",
    "overwrite": 0,
    "resume": "",
}
_FOREIGN = "Give a model_best.pth.tar of danieljf24/hybrid_space or danieljf24/dual_encoding."


def implied(options: Options, state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return what of IMPLIED decides the scores of a model with these options."""
    idle = set()
    if options.text_norm and options.video_norm:
        idle.add("normalise")
    if options.measure != "euclidean":
        idle.add("distance")
    idle.add("concept_training")  # nothing scores by it
    return {name: value for name, value in IMPLIED.items() if name not in idle}


def words_beside(name: str, published: Mapping[str, object]) -> dict[str, list[str]]:
    """Return where the files of words lie: in the training collection, beside its checkpoints."""
    opt = published.get("opt")
    said = {
        key: value
        for key, value in (opt.items() if isinstance(opt, Mapping) else ())
        if isinstance(value, str)
    }
    words = said.get("vocab", "word_vocab_5")
    words = (
        words if re.fullmatch(r"[\w.-]+", words) else "word_vocab_5"
    )  # it becomes part of a path
    size = opt.get("tag_vocab_size", 512) if isinstance(opt, Mapping) else 512
    stem, tags = name.removesuffix(SUFFIX), f"TextData/tags/video_label_th_1/tag_vocab_{size}.json"
    return {
        "vocab": [f"TextData/vocabulary/rnn/{words}.pkl", f"{stem}.vocab.json"],
        "bag": [f"TextData/vocabulary/bow/{words}.pkl", f"{stem}.bow_vocab.json"],
        "tags": [tags, f"{stem}.tag_vocab.json"],
    }


def as_published(value: object) -> object:
    """Return a file's content with no prefix in front of the names of its four state dicts, out of
    what it was wrapped in.
    """
    inner = (part for part in value.values()) if isinstance(value, Mapping) else ()
    if not recognises(value) and (whole := next(filter(recognises, inner), None)):
        value = whole
    if not recognises(value) or not isinstance(value["model"], Sequence):
        return value
    anchors = zip(_ANCHORS, value["model"], strict=False)
    return {**value, "model": [bare(part, anchor) for anchor, part in anchors]}


def recognises(value: object) -> bool:
    """Return whether a file that was read is of this system (or of its ancestor)."""
    return isinstance(value, Mapping) and {"opt", "model"} <= value.keys()


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Return what is known of the training: epoch, the best sum of recalls, steps, and `opt`, all
    options of its program.
    """
    names = ("epoch", "best_rsum", "Eiters")
    known = {
        name: published[name] for name in names if isinstance(published.get(name), (int, float))
    }
    opt = published.get("opt")
    return known | ({"opt": dict(opt)} if isinstance(opt, Mapping) else {})


def import_checkpoint(published: Mapping[str, object]) -> tuple[Options, Assets]:
    """Return what `build` needs: options, with the published pooling, and assets with the weights.

    published: the file as read, "opt" being a mapping. Raises Mismatch naming what is missing,
    unknown or unfit.
    """
    opt, model = published.get("opt"), published.get("model")
    if not isinstance(opt, Mapping) or not isinstance(model, Sequence) or len(model) not in (2, 4):
        raise Mismatch("no `opt` and no list `model` of two or four state dicts inside", _FOREIGN)
    try:
        options = Options.model_validate(_options(opt, n_parts=len(model)))
        sizes = {"n_words": opt["vocab_size"], "feature_dim": opt["visual_feat_dim"]}
        sizes["n_tags"] = opt["tag_vocab_size"] if options.space == "hybrid" else 0
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Mismatch(
            f"invalid opt: {faults}", "The file is damaged or of another system."
        ) from None
    except KeyError as error:
        raise Mismatch(f"opt lacks {error.args[0]}", _FOREIGN) from None
    if not all(isinstance(size, int) for size in sizes.values()):
        raise Mismatch(
            f"sizes that are not integers: {sizes}", "The file is damaged or of another system."
        )
    state = {
        f"{name}.{key}": value
        for name, part in zip(_MODULES, model, strict=False)
        for key, value in part.items()
    }
    return options, Assets(
        **sizes, init=to_ours(state, _rules(options, separate_mappings=len(model) == 4))
    )


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, object]:
    """Return the whole content of a published file.

    "opt" holds every option that its program has when it loads, resumes and tests: what the model
    is built from; the others as they were imported, else as our recipe and its parser say.

    Raises Mismatch for different numbers of filters and for GRUs in one direction, which the format
    cannot say.
    """
    scores = (
        training.get("scores") or {}
    )  # ours; a checkpoint that was imported has the published names
    known = {"epoch": 0, "best_rsum": scores.get("rsum", 0.0), "Eiters": training.get("step", 0)}
    known |= {name: value for name, value in training_facts(training, {}).items() if name in known}
    opt = _PARSER | _trained(training.get("train") or {}) | dict(training.get("opt") or {})
    built = _opt(options, state)
    if options.space == "latent" and "tag_vocab_size" in opt:
        del built["tag_vocab_size"]  # parsed all the same, and without effect
    return known | {"model": export_model(options, state), "opt": Namespace(**opt | built)}


def _trained(train: Mapping[str, object]) -> dict[str, object]:
    """Return the options of training as its program calls them, of our resolved ones."""
    if not train:
        return {}
    optimizer = train["optimizer"]
    return {
        "optimizer": "rmsprop" if optimizer["name"] == "rmsprop" else "adam",
        "learning_rate": optimizer["lr"],
        "grad_clip": float(train["grad_clip"] or 0.0),
        "num_epochs": train["epochs"],
        "batch_size": train["batch_size"],
    }


def _opt(options: Options, state: Mapping[str, Tensor]) -> dict[str, object]:
    words, heads = (
        state["words.weight"],
        {side: state[f"latent.{side}.linear.weight"] for side in _SIDES},
    )
    full, rest = options.levels == "full", 2 * options.text.rnn + sum(options.text.filters)
    bag_words = (
        heads["text"].shape[1] - rest if full else options.text.bag_words or len(words) - SPECIAL
    )
    opt: dict[str, object] = {
        "model": f"dual_encoding_{options.space}",
        "space": options.space,
        "concate": options.levels,
        "gru_pool": options.gru_pool,
        "measure": options.measure,
        "measure_2": options.concept_measure,
        "dropout": options.dropout,
        "text_norm": options.text_norm,
        "visual_norm": options.video_norm,
        "word_dim": words.shape[1],
        "vocab_size": len(words),
        "bow_vocab_size": bag_words,
        "we_parameter": None,
        "visual_feat_dim": state["video.gru.weight_ih_l0"].shape[1],
        "loss_fun": "mrl",
        "margin": options.loss.margin,
        "direction": options.loss.direction,
        "margin_2": (
            options.loss.margin
            if options.loss.concept_margin is None
            else options.loss.concept_margin
        ),
        "max_violation": options.loss.max_violation,
        "cost_style": options.loss.cost,
        "tag_vocab_size": (
            len(state["concept.text.linear.bias"]) if options.space == "hybrid" else 0
        ),
    }
    for side, (_, prefix) in _SIDES.items():
        levels = getattr(options, side)
        if len(set(levels.filters)) > 1:
            raise Mismatch(
                f"{side} filters {levels.filters}: the format knows one number",
                "Export is not possible.",
            )
        if not levels.bidirectional:
            raise Mismatch(
                f"{side}: a GRU in one direction; the format knows two", "Export is not possible."
            )
        out, width = heads[side].shape
        opt |= {f"{prefix}_rnn_size": levels.rnn, f"{prefix}_kernel_sizes": levels.kernels}
        opt |= {f"{prefix}_kernel_num": levels.filters[0], f"{prefix}_mapping_layers": [width, out]}
    return opt


def export_model(options: Options, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the list "model" of a published file from our weights."""
    renamed = published_names(options, state)
    return [
        {
            key.removeprefix(f"{name}."): value
            for key, value in renamed.items()
            if key.startswith(f"{name}.")
        }
        for name in _MODULES
    ]


def published_names(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights or gradients, kept by our names, under "<state dict>.<published name>".

    Tensors are turned as published.
    """
    return to_theirs(values, _rules(options, separate_mappings=True))


def _options(opt: Mapping[str, object], n_parts: int) -> dict[str, object]:
    sides = {
        side: {
            "rnn": opt[f"{prefix}_rnn_size"],
            "kernels": opt[f"{prefix}_kernel_sizes"],
            "channels": opt[f"{prefix}_kernel_num"],
        }
        for side, (_, prefix) in _SIDES.items()
    }
    bag_words = (
        opt["bow_vocab_size"] if opt["bow_vocab_size"] != opt["vocab_size"] - SPECIAL else None
    )
    return {
        "space": opt.get("space", "hybrid") if n_parts == 4 else "latent",
        "levels": opt.get("concate", "full"),
        "gru_pool": opt.get("gru_pool", "mean"),
        "measure": opt["measure"],
        "concept_measure": opt.get("measure_2") or "jaccard",
        "text_norm": opt.get("text_norm", True),
        "video_norm": opt.get("visual_norm", True),
        "latent_dim": opt["visual_mapping_layers"][-1],
        "dropout": opt["dropout"],
        **IMPLIED,
        "video": sides["video"],
        "text": sides["text"] | {"word_dim": opt["word_dim"], "bag_words": bag_words},
        "loss": {
            "margin": opt["margin"],
            "concept_margin": opt.get("margin_2"),
            "direction": opt["direction"],
            "max_violation": opt["max_violation"],
            "cost": opt["cost_style"],
            "tag_cost": "sum",
        },
    }


def _rules(options: Options, separate_mappings: bool) -> list[Rule]:
    rules = [Rule("text_encoding.embed.", "words.", "weight")]
    for side, (prefix, long) in _SIDES.items():
        levels = getattr(options, side)
        encoding = f"{prefix}_encoding."
        rules.append(Rule(f"{encoding}rnn.", f"{side}.gru.", _GRU))
        for i in range(len(levels.kernels)):
            theirs, ours = f"{encoding}convs1.{i}.", f"{side}.convs.{i}."
            rules += [
                Rule(theirs, ours, "weight", _one_row_less, _one_row_more),
                Rule(theirs, ours, "bias"),
            ]
        width = 2 * levels.rnn + sum(levels.filters)
        turns = (partial(_last_first, width), partial(_first_last, width))
        mapping = (
            f"{prefix}_mapping.mapping." if separate_mappings else f"{encoding}{long}_mapping."
        )
        heads = {(f"{mapping}fc1.", f"{mapping}bn_1."): "latent"}
        if options.space == "hybrid":
            heads[f"{prefix}_mapping.tag_fc.", f"{prefix}_mapping.tag_fc_batch_norm."] = "concept"
        for (linear, norm), space in heads.items():
            rules.append(Rule(linear, f"{space}.{side}.linear.", "weight", *turns))
            rules.append(Rule(linear, f"{space}.{side}.linear.", "bias"))
            rules.append(Rule(norm, f"{space}.{side}.norm.", _NORM))
    return rules


def _one_row_less(weight: Tensor) -> Tensor:
    return weight.flatten(0, 1).transpose(1, 2).contiguous()


def _one_row_more(weight: Tensor) -> Tensor:
    return weight.transpose(1, 2).unsqueeze(1).contiguous()


def _last_first(width: int, weight: Tensor) -> Tensor:
    return torch.cat([weight[:, width:], weight[:, :width]], 1)


def _first_last(width: int, weight: Tensor) -> Tensor:
    return torch.cat([weight[:, -width:], weight[:, :-width]], 1)
