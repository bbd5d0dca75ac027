"""CenterCLIP's `hparams_train.json` as a recipe, and our model options by its names.

The file holds all parsed options of mzhaoshuai/CenterCLIP: params.py and what the program added at
run time (docs/specs/centerclip.md, sections 11 and 12). CLIP4Clip writes none. Some options have no
effect there and are not read here: time_embedding, adaptive_cls, freeze_clip, cluster_inter_dim,
camoe_dsl, feature_framerate, slice_framepos, the frame orders, svd_correct_sign (signs change no
distance), and all that says where data lie.
"""

from collections.abc import Mapping

from models.base import Mismatch
from models.centerclip.options import STAYS, Options

_TEMPORAL = {"meanP": "mean", "seqTransf": "sequence", "seqLSTM": "lstm", "tightTransf": "tight"}
_METHODS = {
    "kmediods++": "kmedoids",  # spelt like this
    "spectral": "spectral",
    "pooling": "pooling",
    "sparse_sampling": "sparse",
    "temporal_shift": "temporal_shift",
    "token_shift": "token_shift",
}
_PRECISIONS = {
    "amp": "amp",
    "fp32": "float32",
    "fp16": "float32",  # of what the option half_weights does not keep in float16; no scaler
}
HALF = "fp16"  # CLIP's matrices and their moments in float16
_GRAPHS = {"KNN": "knn", "HeatKernel": "heat"}
_CLIP_RULE = r"^(clip|patches3d)\.|^reduce\.\d+\.embedding$"
_TRAINS_ALWAYS = (
    r"^clip\.(ln_final\.|text_projection$|logit_scale$|visual\.ln_post\.|visual\.proj$)"
)
_MOST_BLOCKS = 12  # of the towers that it accepts


# defaults of its parser, for files that an older version of the program wrote
MODEL_DEFAULTS: dict[str, object] = {
    "pretrained_clip_name": "ViT-B/32",
    "max_frames": 100,
    "max_words": 20,
    "sim_header": "meanP",
    "linear_patch": "2d",
    "cross_num_hidden_layers": 4,
    "temperature_new": 1.0,
    "deep_cluster": 0,
    "cluster_inter": 0,
    "cluster_algo": "kmediods++",
    "cluster_num_blocks": 0,
    "target_frames_blocks": [12] * 12,
    "cluster_distance": "euclidean",
    "minkowski_norm_p": 2.0,
    "cluster_iter_limit": 100,
    "cluster_threshold": 1e-5,
    "aggregation": None,
    "pre_norm": 0,
    "cluster_embedding": 0,
    "cluser_embed_from_clip": 1,
    "cluster_frame_embedding": 0,
    "spectral_graph": "HeatKernel",
    "spectral_sigma": 2.0,
    "spectral_knn_k": 1,
    "spectral_spg": 0,
}
TRAIN_DEFAULTS: dict[str, object] = {
    "optim": "BertAdam",
    "lr": 1e-4,
    "coef_lr": 1.0,
    "beta1": 0.9,
    "beta2": 0.98,
    "eps": 1e-6,
    "wd": 0.2,
    "epochs": 20,
    "batch_size": 256,
    "batch_size_val": 3500,
    "gradient_accumulation_steps": 1,
    "precision": "fp32",
    "seed": 42,
    "clip_grad_norm": 1.0,
    "warmup_proportion": 0.1,
    "freeze_layer_num": 0,
    "n_display": 100,
}


def recipe(settings: Mapping[str, object]) -> dict[str, dict]:
    """Return {"model", "options", "train"} as in recipes.yaml.

    A missing setting has the default of the published parser. There is no "train" if the settings
    say nothing of it. Raises Mismatch for values that are unknown.
    """
    try:
        found = {"model": "centerclip", "options": model_options(settings)}
        if says_training(settings):
            found["train"] = train_options(settings)
        return found
    except KeyError as error:
        raise Mismatch(
            f"{error.args[0]} is a value that is unknown here",
            "Is it the hparams_train.json of a CenterCLIP run?",
        ) from None


def says_training(settings: Mapping[str, object]) -> bool:
    """Return whether settings tell of a training run; those that `settings_of` writes do not."""
    return bool({"optim", "lr", "epochs", "batch_size"} & settings.keys())


def assumptions(settings: Mapping[str, object]) -> list[str]:
    """Return what was assumed where settings are missing or have no counterpart, one line each."""
    return missing(settings, MODEL_DEFAULTS, TRAIN_DEFAULTS)


def missing(
    settings: Mapping[str, object], model: Mapping[str, object], train: Mapping[str, object]
) -> list[str]:
    """Return "name value: reason" of each setting that is taken from the parser's defaults."""
    known = {**model, **train} if says_training(settings) else model
    return [
        f"{name} {value}: not in the settings, so its parser's default"
        for name, value in known.items()
        if name not in settings
    ]


def model_options(settings: Mapping[str, object]) -> dict[str, object]:
    """Return options of the model, with the parser's defaults for settings that are missing.

    Raises Mismatch for reductions that our options cannot say.
    """
    settings = {**MODEL_DEFAULTS, **settings}
    temporal = _TEMPORAL[settings["sim_header"]]
    options: dict[str, object] = {
        "backbone": settings["pretrained_clip_name"],
        "frames": settings["max_frames"],
        "words": settings["max_words"],
        "patches": settings["linear_patch"],
        "temporal": temporal,
        "reduce": _reduce(settings),
    }
    if temporal in ("sequence", "tight"):
        options["temporal_layers"] = settings["cross_num_hidden_layers"]
    if settings.get("precision") == HALF:
        options["half_weights"] = True
    if settings["temperature_new"] > 1.0:
        options["logit_scale"] = settings["temperature_new"]
    return options


def train_options(settings: Mapping[str, object]) -> dict[str, object]:
    """Return options of training that the settings state or that the program always uses."""
    settings = {**MODEL_DEFAULTS, **TRAIN_DEFAULTS, **settings}
    is_adamw = settings["optim"] == "AdamW"
    optimizer = {
        "name": "adamw" if is_adamw else "bertadam",
        "lr": settings["lr"],
        "betas": [settings["beta1"], settings["beta2"]],
        "eps": settings["eps"],
        "weight_decay": settings["wd"],
    }
    if not is_adamw:
        optimizer["clip_per_tensor"] = 1.0
    options: dict[str, object] = {
        "epochs": settings["epochs"],
        "batch_size": settings["batch_size"],
        "batch_scope": "per_process",
        "accumulation": settings["gradient_accumulation_steps"],
        "precision": _PRECISIONS[settings["precision"]],
        "seed": settings["seed"],
        "seed_scope": "same",
        "grad_clip": settings["clip_grad_norm"],
        "optimizer": optimizer,
        "schedule": {
            "name": "cosine" if is_adamw else "bert_cosine",
            "warmup": settings["warmup_proportion"],
            "floor": 1e-8 if is_adamw else 0.0,
        },
        "params": [
            {"match": "bias", "weight_decay": 0.0},
            {"match": _CLIP_RULE, "lr_scale": settings["coef_lr"]},
        ],
        "freeze": freeze_rule(settings["freeze_layer_num"], settings["linear_patch"]),
        "temperature": {"min": 0.1, "max": 4.6052},
        "frames": {
            "train": "segments-published",
            "evaluation": "centers",
            "fit": "center_crop",
            "fps": 3,
        },
        "distributed": {"gather": "local_gradient"},
        "selection_split": "test",
        "select": "t2v_r1",
        "tie": "last",
    }
    options["evaluation"] = {"ties": "expanded"}
    if settings.get("batch_size_val"):
        options["evaluation"] |= {"batch_size": settings["batch_size_val"]}
    if settings.get("n_display"):
        options["log_every"] = settings["n_display"]
    processes = settings.get("world_size") or 1
    if processes > 1:
        options["expected_processes"] = processes
    return options


def freeze_rule(layers: int, patches: str = "2d") -> dict[str, object] | None:
    """Return the `freeze` option for `freeze_layer_num`: all of CLIP below block `layers`.

    What stands in front of a frozen block is frozen with it, as it lies inside that block there.
    None freezes nothing: for -1, and for patches 3d (a test of the program that is always true).
    Source: docs/specs/centerclip.md, section 9.
    """
    if layers < 0 or patches == "3d":
        return None
    numbers = "|".join(str(n) for n in range(layers, _MOST_BLOCKS))
    blocks = rf"\.resblocks\.({numbers})\." if layers else r"\.resblocks\."
    below = "|".join(str(n) for n in range(layers))
    match = rf"^clip\.|^reduce\.({below})\." if layers else r"^clip\."
    return {"match": match, "except": [_TRAINS_ALWAYS, blocks]}


def settings_of(options: Options, blocks: int) -> dict[str, object]:
    """Return the published names and values of our model options.

    blocks: of the vision tower. Raises Mismatch for reductions that they cannot express.
    """
    temporal = {ours: theirs for theirs, ours in _TEMPORAL.items()}
    settings: dict[str, object] = {
        "pretrained_clip_name": options.backbone,
        "max_frames": options.frames,
        "max_words": options.words,
        "sim_header": temporal[options.temporal],
        "loose_type": options.temporal != "tight",
        "linear_patch": options.patches,
        "cross_num_hidden_layers": options.temporal_layers,
        "temperature_new": options.logit_scale or 1.0,
    }
    half = {"precision": HALF} if options.half_weights else {}
    return MODEL_DEFAULTS | settings | half | _reduce_settings(options, blocks)


def _reduce(settings: Mapping[str, object]) -> dict[int, dict[str, object]]:
    """Return what stands in front of which block, from 1 (docs/specs/centerclip.md, section 4)."""
    is_deep = bool(settings["deep_cluster"])
    if not (is_deep or settings["cluster_inter"]):
        return {}
    method = "deep" if is_deep else _METHODS[settings["cluster_algo"]]
    frames = settings["target_frames_blocks"]
    tokens = settings["cluster_num_blocks"]
    if not isinstance(tokens, list) and isinstance(frames, list):
        tokens = [tokens] * len(frames)
    if not isinstance(frames, list) or len(frames) != len(tokens):
        raise Mismatch(
            f"target_frames_blocks {frames} and cluster_num_blocks {tokens}: not a number of each"
            " for every block",
            "Is it the hparams_train.json of a CenterCLIP run?",
        )
    frames_before = frames[0] if is_deep else settings["max_frames"]
    tokens_before = tokens[0]
    found = {}
    for block, (n_frames, n_tokens) in enumerate(zip(frames, tokens, strict=True), 1):
        if n_tokens > 1 and (frames_before > n_frames or tokens_before > n_tokens):
            found[block] = _reduce_of_block(settings, method, n_frames, n_tokens)
        frames_before = n_frames
        tokens_before = n_tokens
    return found


def _reduce_of_block(
    settings: Mapping[str, object], method: str, frames: int, tokens: int
) -> dict[str, object]:
    if method in STAYS:
        return {"method": method}
    one: dict[str, object] = {"method": method, "frames": frames, "tokens": tokens}
    if method in ("kmedoids", "spectral"):
        one |= {
            "metric": settings["cluster_distance"],
            "p": settings["minkowski_norm_p"],
            "max_iter": settings["cluster_iter_limit"],
            "tol": settings["cluster_threshold"],
            "keep": "mean" if settings["aggregation"] == "mean" else "medoid",
            "embedding": bool(settings["cluster_embedding"]),
            "embedding_from_clip": bool(settings["cluser_embed_from_clip"]),
            "frame_embedding": bool(settings["cluster_frame_embedding"]),
        }
    if method == "kmedoids":
        one["pre_norm"] = bool(settings["pre_norm"])
    if method == "spectral":
        one |= {
            "graph": _GRAPHS[settings["spectral_graph"]],
            "sigma": settings["spectral_sigma"],
            "neighbours": settings["spectral_knn_k"],
            "space_time": bool(settings["spectral_spg"]),
        }
    return one


def _reduce_settings(options: Options, blocks: int) -> dict[str, object]:
    """Return the reductions as settings. Raises Mismatch for those that one setting cannot
    express.
    """
    if not options.reduce:
        return {
            "cluster_inter": 0,
            "deep_cluster": 0,
            "target_frames_blocks": [options.frames] * blocks,
            "cluster_num_blocks": 0,
        }
    kinds = [o.model_dump(exclude={"frames", "tokens"}) for o in options.reduce.values()]
    method = kinds[0]["method"]
    stays = method in STAYS
    if any(kind != kinds[0] for kind in kinds) or (stays and len(kinds) < blocks):
        raise Mismatch(
            "reductions that differ in more than frames and tokens, or shifts in some blocks only",
            "The published form has one setting for all blocks; keep this checkpoint in ours.",
        )
    frames, tokens = _switches(blocks) if stays else _steps(options, blocks)
    names = {ours: theirs for theirs, ours in _METHODS.items()}
    graphs = {ours: theirs for theirs, ours in _GRAPHS.items()}
    o = options.reduce[min(options.reduce)]
    settings = {
        "cluster_inter": int(method != "deep"),
        "deep_cluster": int(method == "deep"),
        "cluster_algo": names.get(method, "kmediods++"),
        "target_frames_blocks": frames,
        "cluster_num_blocks": tokens,
        "cluster_distance": o.metric,
        "minkowski_norm_p": o.p,
        "cluster_iter_limit": o.max_iter,
        "cluster_threshold": o.tol,
        "aggregation": "mean" if o.keep == "mean" else None,
        "pre_norm": int(o.pre_norm),
        "cluster_embedding": int(o.embedding),
        "cluser_embed_from_clip": int(o.embedding_from_clip),
        "cluster_frame_embedding": int(o.frame_embedding),
        "spectral_graph": graphs[o.graph],
        "spectral_sigma": o.sigma,
        "spectral_knn_k": o.neighbours,
        "spectral_spg": int(o.space_time),
    }
    if _reduce(settings | {"max_frames": options.frames}).keys() != options.reduce.keys():
        raise Mismatch(
            f"reductions in front of blocks {', '.join(map(str, sorted(options.reduce)))}",
            "The published form has them where frames or tokens become fewer; keep this checkpoint"
            " in ours.",
        )
    return settings


def _switches(blocks: int) -> tuple[list[int], list[int]]:
    """Numbers that mean nothing but switch a shift on in every block: they only have to fall."""
    return [1] * blocks, list(range(blocks + 1, 1, -1))


def _steps(options: Options, blocks: int) -> tuple[list[int], list[int]]:
    """Frames and tokens by block, so that a reduction stands where the options have one."""
    first = options.reduce[min(options.reduce)]
    n_frames = options.frames
    n_tokens = first.tokens
    if first.frames == options.frames:
        n_tokens += 1  # frames do not fall there: only a falling number switches a reduction on
    frames = []
    tokens = []
    for block in range(1, blocks + 1):
        if block in options.reduce:
            n_frames = options.reduce[block].frames
            n_tokens = options.reduce[block].tokens
        frames.append(n_frames)
        tokens.append(n_tokens)
    return frames, tokens
