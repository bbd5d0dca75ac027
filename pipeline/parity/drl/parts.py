"""Handlers of system "drl" for parts alone: every interaction with every decorrelation on given
features, and the temporal modules.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from models.base import Encoding
from models.clip.sizes import BACKBONES
from models.clip.towers import CLIP
from models.drl.model import Drl
from models.drl.published import arch_of, rules
from models.parts.keys import to_ours
from models.parts.temporal import Recurrent, Sequence
from pipeline.checkpoints.archive import read_archive
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, close
from pipeline.parity.drl.model import gradient_norms, loss_names, options_of, tolerance

_EPS = 1e-12


def interaction_heads(case: Case) -> Iterator[Comparison]:
    """Scores, weights, losses and gradients of 18 combinations from recorded features."""
    inputs = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
    for combo, settings in case.info["combos"].items():
        model = _head(case, settings, inputs)
        values = _scores(model, inputs, settings["eval_prefix"])
        values |= {
            f"{combo}__{name}": value for name, value in _losses(model, inputs, settings).items()
        }
        for name, value in values.items():
            if name in case.outputs:
                yield close(
                    f"{name}[{combo}]", value, case.outputs[name], _tolerance_of(case, name)
                )
    yield from _matched(case, inputs)


def aggregation(case: Case) -> Iterator[Comparison]:
    """Frames behind each temporal module, padded ones too, and the gradients that reach the
    frames.
    """
    options = case.info["options"]
    real, width = torch.from_numpy(case.inputs["video_mask"] > 0), options["D"]
    for name in options["agg_modules"]:
        frames = torch.from_numpy(case.inputs["frame_feat"]).requires_grad_()
        found = _aggregated(case, name, frames, real)
        (grad,) = torch.autograd.grad((found * torch.linspace(-1, 1, width)).sum(), frames)
        stated = {"video_feat": found.detach(), "grad_frame_norm": grad.norm(dim=-1)}
        for key, value in stated.items():
            kind = "grads" if key.startswith("grad") else "default"
            allowed = tolerance(case.info["tolerance"][kind])
            yield close(f"{name}__{key}", value, case.outputs[f"{name}__{key}"], allowed)


def _head(case: Case, settings: Mapping[str, object], inputs: Mapping[str, Tensor]) -> Drl:
    """Return a model around any small CLIP of the recorded width; only its head and its temperature
    are used.
    """
    (_, words, width), frames = inputs["text_feat"].shape, inputs["video_feat"].shape[1]
    name, sizes = next(
        (name, sizes) for name, sizes in BACKBONES.items() if sizes.patch and sizes.embed == width
    )
    options = options_of(
        dict(case.info["options"]) | dict(settings),
        backbone=name,
        words=words,
        frames=frames,
        aggregation="none",
    )
    model = Drl(options, CLIP(sizes)).train()
    file = case.info["checkpoint"].partition(":")[0].replace("<tag>", settings["eval_prefix"])
    published = read_archive(case.path(file))
    state = to_ours(published, rules(arch_of(published)))
    head = {key for key in model.state_dict() if not key.startswith("clip.")} | {"clip.logit_scale"}
    assert (
        {key for key in head if not key.startswith("cross.positions")}
        <= state.keys()
        <= model.state_dict().keys()
    )
    if "cross.positions.weight" in state:
        model.cross.positions = torch.nn.Embedding.from_pretrained(
            state["cross.positions.weight"], freeze=False
        )
        model.cross.dropout.p = 0.0
    model.load_state_dict(state, strict=False)
    return model


def _encodings(model: Drl, inputs: Mapping[str, Tensor]) -> tuple[Encoding, Encoding]:
    """As if the towers had given the recorded features; `draw` as recorded."""
    text, real = inputs["text_feat"], inputs["text_mask"] > 0
    rows = torch.arange(len(text))
    read = {"vector": text[rows, real.sum(1) - 1]}
    if model.options.interaction in ("ti", "wti"):
        read = {"features": text, "real": real, "draw": inputs["cdcr1_text_draw"]}
    video = {
        "features": inputs["video_feat"],
        "real": inputs["video_mask"] > 0,
        "draw": inputs["cdcr1_video_draw"],
    }
    return model.text_encoding(read), model.video_encoding(video)


@torch.no_grad()
def _scores(model: Drl, inputs: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    text, video = _encodings(model, inputs)
    scores = model.score(text, video)["similarity"]
    t2v, v2t, *_ = model.logits(text, video)
    values = {
        "eval_t2v": scores,
        "eval_v2t": scores.T,
        "train_t2v_logits": t2v,
        "train_v2t_logits": v2t,
    }
    if "weight" in text:
        values |= {"text_weight": text["weight"], "video_weight": video["weight"]}
    return {f"{prefix}__{name}": value for name, value in values.items()}


def _losses(
    model: Drl, inputs: Mapping[str, Tensor], settings: Mapping[str, object]
) -> dict[str, object]:
    leaves = {name: inputs[name].clone().requires_grad_() for name in ("text_feat", "video_feat")}
    terms = model.loss(*_encodings(model, dict(inputs) | leaves), {})
    terms["loss"].backward()
    return loss_names(model, terms) | {
        "grad_text_norm": leaves["text_feat"].grad.norm(dim=-1),
        "grad_video_norm": leaves["video_feat"].grad.norm(dim=-1),
        "grad_head_norm": gradient_norms(model, settings["head_params"]),
    }


def _matched(case: Case, inputs: Mapping[str, Tensor]) -> Iterator[Comparison]:
    """Cosines of all words with all frames, 0 at padding, and the best ones of each matching
    pair.
    """
    sides = []
    for side in ("text", "video"):
        directions = torch.nn.functional.normalize(inputs[f"{side}_feat"], dim=-1)
        sides.append(directions * (inputs[f"{side}_mask"] > 0)[..., None])
    each = torch.einsum("aid,bjd->abij", *sides)
    matched = each[torch.arange(len(each)), torch.arange(len(each))]
    yield close(
        "masked_cosine", each, case.outputs["masked_cosine"], _tolerance_of(case, "default")
    )
    for name, found in (
        ("argmax_frame_of_token", matched.argmax(2)),
        ("argmax_token_of_frame", matched.argmax(1)),
    ):
        yield close(name, found, case.outputs[name], EXACT)


def _aggregated(case: Case, name: str, frames: Tensor, real: Tensor) -> Tensor:
    options = case.info["options"]
    if name == "None":
        return frames
    file = case.info["checkpoint"].partition(":")[0].replace("<agg_module>", name)
    state = {
        k.removeprefix("temporal."): v
        for k, v in to_ours(read_archive(case.path(file)), rules(2)).items()
    }
    if name == "seqLSTM":
        unread = torch.zeros(frames.shape[1], options["D"])
        module = Recurrent(options["D"], state.get("positions.weight", unread))
        module.load_state_dict({"positions.weight": unread} | state)
        return module(frames, real)
    heads, layers = options["transformer_heads"], options["transformer_layers"]
    module = Sequence(options["D"], layers, len(state["positions.weight"]), _EPS)
    assert module.transformer.resblocks[0].attn.heads == heads
    module.load_state_dict(state)
    return module(frames, real)


def _tolerance_of(case: Case, name: str) -> object:
    return tolerance(case.info["tolerance"]["grads" if "grad_" in name else "default"])


HANDLERS = {"interaction_heads": interaction_heads, "aggregation": aggregation}
