"""DGL's `hparams_train.json` as a recipe, and our model options by its names.

The file lies beside every checkpoint of knightyxp/DGL and holds all parsed options
(docs/specs/dgl.md, section 8). What training shares with CenterCLIP is read there.
"""

from collections.abc import Mapping

from models.base import Mismatch
from models.centerclip import published_settings as centerclip
from models.dgl.options import Options

MODEL_DEFAULTS: dict[str, object] = {  # of its parser
    "pretrained_clip_name": "ViT-B/32",
    "max_frames": 100,
    "max_words": 20,
    "shared_latent_space": "transformer",
    "text_prompt_length": 8,
    "local_each_frame_prompt_length": 4,
    "global_visual_prompt_length": 4,
    "unified_transformer_layers": 12,
    "visual_output_type": "global_prompt0",
    "linear_patch": "2d",
    "time_embedding": 0,
    "temperature_new": 1.0,
}
TRAIN_DEFAULTS: dict[str, object] = {
    name: value
    for name, value in centerclip.TRAIN_DEFAULTS.items()
    if name != "freeze_layer_num"  # parsed and ignored
} | {"freeze_clip": 0}
_OURS = {  # theirs: ours
    "pretrained_clip_name": "backbone",
    "max_frames": "frames",
    "max_words": "words",
    "shared_latent_space": "space",
    "text_prompt_length": "text_prompts",
    "local_each_frame_prompt_length": "frame_prompts",
    "global_visual_prompt_length": "global_prompts",
    "unified_transformer_layers": "layers",
    "visual_output_type": "feature",
    "linear_patch": "patches",
}
_CLIP = r"^(clip|patches3d)\."


def recipe(settings: Mapping[str, object]) -> dict[str, dict]:
    """Return {"model", "options", "train"} as in recipes.yaml.

    A missing setting has the default of the published parser. There is no "train" if the settings
    say nothing of it. Raises Mismatch for values that are unknown.
    """
    found = {"model": "dgl", "options": model_options(settings)}
    if centerclip.says_training(settings):
        found["train"] = train_options(settings)
    return found


def model_options(settings: Mapping[str, object]) -> dict[str, object]:
    """Return options of the model, with the parser's defaults for settings that are missing."""
    values = {**MODEL_DEFAULTS, **settings}
    options = {ours: values[theirs] for theirs, ours in _OURS.items()}
    if float(values["temperature_new"]) > 1.0:
        options["logit_scale"] = values["temperature_new"]
    if values["time_embedding"]:
        options["frame_embedding"] = True
    return options


def train_options(settings: Mapping[str, object]) -> dict[str, object]:
    """Return options of training. Raises Mismatch for a precision that is unknown."""
    values = {**MODEL_DEFAULTS, **TRAIN_DEFAULTS, **settings}
    try:
        options = centerclip.train_options({**values, "freeze_layer_num": -1})
    except KeyError as error:
        raise Mismatch(
            f"{error.args[0]} is a value that is unknown here",
            "Is it the hparams_train.json of a DGL run?",
        ) from None
    if values["precision"] == centerclip.HALF:
        options["precision"] = "amp"
    is_frozen = bool(values["freeze_clip"])
    scales = [] if is_frozen else [{"match": _CLIP, "lr_scale": values["coef_lr"]}]
    return options | {
        "params": [{"match": "bias", "weight_decay": 0.0}, *scales],
        "freeze": {"match": _CLIP} if is_frozen else None,
    }


def assumptions(settings: Mapping[str, object]) -> list[str]:
    """Return what was assumed where settings are missing or have no counterpart, one line each."""
    gone = centerclip.missing(settings, MODEL_DEFAULTS, TRAIN_DEFAULTS)
    if settings.get("precision") != centerclip.HALF:
        return gone
    return [
        *gone,
        "precision amp: the settings say fp16, with which the published program stops; here"
        " weights stay float32 and mixed precision scales the loss",
    ]


def settings_of(options: Options) -> dict[str, object]:
    """Return the published names and values of our model options."""
    values = options.model_dump(mode="json")
    named = {theirs: values[ours] for theirs, ours in _OURS.items()}
    return named | {
        "time_embedding": int(options.frame_embedding),
        "temperature_new": options.logit_scale or 1.0,
        "loose_type": True,
        "sim_header": "meanP",
    }
