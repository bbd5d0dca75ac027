"""Checkpoints of dongYoun2/dual-encoding-system (`<name>.bin`) and ours, both ways.

A `.bin` is a torch archive {"args": constructor keywords, "state_dict": ...}
(docs/specs/dual-encoding.md, section 2.9). Reading it is the pipeline's work
(`pipeline/checkpoints/model_file.py`, published=True): weights only, with an allow-list of exactly
numpy's array reconstruction under both module paths (numpy.core.multiarray and
numpy._core.multiarray), ndarray, dtype and the float32 and float64 dtype classes, because
args["pretrained_weight"] is a numpy matrix. Here arrive its values.

What is ignored: args["pretrained_weight"], the word vectors before training (the state dict has the
trained ones). Files from before 2023-05-13 do not say whether the GRUs are bidirectional: the
presence of `_reverse` weights does. The order of keys carries no meaning (pruning changes it).
"""

from collections.abc import Mapping

from pydantic import ValidationError
from torch import Tensor

from models.base import Assets, Mismatch, RetrievalModel
from models.dual_encoding.options import Options, Side
from models.parts.keys import Rule, to_ours, to_theirs
from models.parts.pruning import recognise
from models.parts.wrappers import in_dictionary

# of pipelines.yaml: how such files were trained, and how captions are read
RECIPE = "dual_encoding_pp_published"
SUFFIX = ".bin"
SIDE_FILE = (  # behind the whole name: {"epoch", "best_<metric>", "patience", "optim_state_dict"}
    ".ckpt"
)
LOST = ("the optimizer's state (.bin.ckpt), which its program never reads back",)
IMPLIED = {
    "pooling": "padded",
    "scaling": "shifted_max",
}  # what the published program does without being told


def words_beside(name: str, published: Mapping[str, object]) -> dict[str, list[str]]:
    """Return where the files of words lie, relative to the checkpoint or a folder above it.

    That folder is the one its program worked in.
    """
    stem = name.removesuffix(SUFFIX)  # as `export-checkpoint` names them
    return {
        "vocab": [f"{stem}.vocab.json", "vocab.json"],
        "tags": [f"{stem}.tag_vocab.json", "tag_vocab.json"],
    }


_ANCHOR = "text_encoder.embedding.weight"
_GRU = r"(weight|bias)_(ih|hh)_l0(_reverse)?"
_PARAMETER = r"(weight|bias)"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_PUBLISHED_WORD_DIM = 500  # of an embedding that starts without word vectors
_PREFIXES = {"video": "vid", "text": "text"}
_ARGS = {
    "embed_dim_lat",
    "tag_vocab_size",
    "alpha",
    "frame_feature_dim",
    "vocab_size",
    *(
        f"{p}_{n}"
        for p in _PREFIXES.values()
        for n in (
            "rnn_hidden_size",
            "cnn_out_channels_list",
            "cnn_filter_size_list",
            "dp_rate_lat",
            "dp_rate_con",
        )
    ),
}


def _rules(n_convs: Mapping[str, int]) -> list[Rule]:
    rules = [Rule("text_encoder.embedding.", "words.", "weight")]
    for side, count in n_convs.items():
        rules.append(Rule(f"{side}_encoder.rnn_embedding.rnn.", f"{side}.gru.", _GRU))
        for i in range(count):
            rules.append(
                Rule(f"{side}_encoder.cnn_embedding.cnns.{i}.0.", f"{side}.convs.{i}.", _PARAMETER)
            )
        for space, name in (("space_lat", "latent"), ("space_con", "concept")):
            rules.append(
                Rule(f"{space}.{side}_projection.linear.", f"{name}.{side}.linear.", _PARAMETER)
            )
            rules.append(
                Rule(f"{space}.{side}_projection.batch_norm.", f"{name}.{side}.norm.", _NORM)
            )
    return rules


def as_published(value: object) -> object:
    """Return a file's content in the form its program writes, whatever it was wrapped in."""
    return in_dictionary(value, _ANCHOR)


def recognises(value: object) -> bool:
    """Return whether a file that was read is of this system."""
    return isinstance(value, Mapping) and {"args", "state_dict"} <= value.keys()


def training_facts(
    published: Mapping[str, object], side: Mapping[str, object]
) -> dict[str, object]:
    """Return epoch, patience and the best score by its published name. side: the side file."""
    return {
        key: value
        for key, value in side.items()
        if isinstance(key, str) and isinstance(value, (int, float))
    }


def pruned(model: RetrievalModel) -> dict[str, object] | None:
    """Return what its scripts/prune.py did to a model; the files do not say so."""
    return recognise(model)


def import_checkpoint(published: Mapping[str, object]) -> tuple[Options, Assets]:
    """Return what `build` needs: options, with the published pooling and scaling, and weights.

    published: {"args", "state_dict"} as read. Raises Mismatch naming what is missing, unknown or of
    another kind.
    """
    args, state = published.get("args"), published.get("state_dict")
    if not isinstance(args, Mapping) or not isinstance(state, Mapping):
        raise Mismatch(
            "no `args` and `state_dict` inside", "Give a .bin of dongYoun2/dual-encoding-system."
        )
    if missing := sorted(_ARGS - args.keys()):
        raise Mismatch(
            f"args lack {', '.join(missing)}", "Give a .bin of dongYoun2/dual-encoding-system."
        )
    try:
        options = Options.model_validate(
            {
                "latent_dim": args["embed_dim_lat"],
                "alpha": args["alpha"],
                **IMPLIED,
                "video": _side("video", args, state),
                "text": _side("text", args, state) | {"word_dim": _word_dim(state)},
            }
        )
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Mismatch(
            f"invalid args: {faults}", "The file is damaged or of another system."
        ) from None
    weights = to_ours(
        state, _rules({"video": len(options.video.kernels), "text": len(options.text.kernels)})
    )
    sizes = {
        "n_words": args["vocab_size"],
        "n_tags": args["tag_vocab_size"],
        "feature_dim": args["frame_feature_dim"],
    }
    if not all(isinstance(size, int) for size in sizes.values()):
        raise Mismatch(
            f"sizes that are not integers: {sizes}", "The file is damaged or of another system."
        )
    return options, Assets(**sizes, init=weights)


def export_checkpoint(options: Options, state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return {"args", "state_dict"} as the published program saves and reads them.

    args["pretrained_weight"] is None for 500-d word vectors, else the present ones as a tensor
    (never a pickled array):
    its constructor takes their size from it.
    """
    words = state["words.weight"]
    args: dict[str, object] = {
        "embed_dim_lat": options.latent_dim,
        "tag_vocab_size": len(state["concept.text.linear.bias"]),
        "alpha": options.alpha,
        "frame_feature_dim": state["video.gru.weight_ih_l0"].shape[1],
    }
    for side, prefix in _PREFIXES.items():
        args |= _side_args(prefix, getattr(options, side))
    args |= {
        "vocab_size": len(words),
        "pretrained_weight": None if words.shape[1] == _PUBLISHED_WORD_DIM else words,
    }
    return {"args": args, "state_dict": published_names(options, state)}


def export_file(
    options: Options, state: Mapping[str, Tensor], training: Mapping[str, object]
) -> dict[str, object]:
    """Return the whole content of a published file."""
    return export_checkpoint(options, state)


def published_names(options: Options, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights, gradients or masks, kept by our names, under the published names."""
    return to_theirs(
        values, _rules({"video": len(options.video.kernels), "text": len(options.text.kernels)})
    )


def _side(side: str, args: Mapping[str, object], state: Mapping[str, object]) -> dict[str, object]:
    prefix = _PREFIXES[side]
    has_reverse = f"{side}_encoder.rnn_embedding.rnn.weight_ih_l0_reverse" in state
    return {
        "rnn": args[f"{prefix}_rnn_hidden_size"],
        "bidirectional": args.get(f"{prefix}_rnn_bidirectional", has_reverse),
        "kernels": args[f"{prefix}_cnn_filter_size_list"],
        "channels": args[f"{prefix}_cnn_out_channels_list"],
        "dropout": args[f"{prefix}_dp_rate_lat"],
        "concept_dropout": args[f"{prefix}_dp_rate_con"],
    }


def _side_args(prefix: str, side: Side) -> dict[str, object]:
    latent, concept = side.dropouts
    return {
        f"{prefix}_rnn_hidden_size": side.rnn,
        f"{prefix}_rnn_bidirectional": side.bidirectional,
        f"{prefix}_cnn_out_channels_list": side.filters,
        f"{prefix}_cnn_filter_size_list": side.kernels,
        f"{prefix}_dp_rate_lat": latent,
        f"{prefix}_dp_rate_con": concept,
    }


def _word_dim(state: Mapping[str, object]) -> object:
    words = state.get("text_encoder.embedding.weight")
    return words.shape[1] if isinstance(words, Tensor) and words.ndim == 2 else None
