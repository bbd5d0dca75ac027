"""Handlers of system "diffusionret" for the second stage: schedules, both denoisers, sampling
chains, training.

Every intermediate is computed on the plain path of `models/diffusion_ret/denoiser.py`; what the
fast path of evaluation gives is compared with the same recorded numbers (rows that end in [fast]).
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.base import Encoding, Mismatch
from models.diffusion_ret.denoiser import Denoiser, classification_loss
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.model import DRAWS, DiffusionRet, candidates
from models.diffusion_ret.noising import NoiseSchedule, named_betas, schedule
from pipeline.checkpoints.archive import read_archive
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.parity.diffusionret.model import (
    CHECKPOINT,
    TrainingCase,
    batch_of,
    forward_values,
    opened,
    same_sizes,
    tolerance_of,
)

_TABLE = "diffusion_model.sequence_pos_encoder.pe"


def schedules(case: Case) -> Iterator[Comparison]:
    """Yield the tables of every schedule, and which are refused."""
    case.info["checkpoint"]
    allowed = Tolerance.parse(case.info["tolerance"]["default"])
    tried, refused = case.info["options"]["schedules"], []
    yield equal(
        "inputs.diffusion_steps", [steps for _, steps in tried], case.inputs["diffusion_steps"]
    )
    for name, steps in tried:
        try:
            tables = _tables(name, steps)
        except Mismatch:
            refused.append([name, steps])
            continue
        for key, table in tables.items():
            yield close(
                f"{name}{steps}/{key}", table, case.outputs[f"{name}{steps}/{key}"], allowed
            )
    yield equal("rejected_by_reference", refused, case.info["rejected_by_reference"])


def _tables(name: str, steps: int) -> dict[str, np.ndarray]:
    """Return what the published diffusion keeps; all of it follows from betas and A, and sampling
    needs only those.
    """
    if (name, steps) == (
        "linear",
        20,
    ):  # published: accepted, and its last step back divides by zero; ours refuses it
        named = np.linspace(0.1 / steps, 20 / steps, steps)
        a = np.cumprod(1 - named)
        before = np.append(1.0, a[:-1])
        timesteps, betas = np.arange(steps), 1 - a / before
    else:
        named, plan = named_betas(name, steps), schedule(name, steps)
        a, before, betas, timesteps = (
            plan.alphas_cumprod,
            plan.alphas_cumprod_prev,
            plan.betas,
            plan.timesteps,
        )
    return _derived(a, before, betas) | {"betas_named": named, "timestep_map": timesteps}


def _derived(a: np.ndarray, before: np.ndarray, betas: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore"):
        roots = {
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / a),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / a - 1),
        }
    variance = betas * (1 - before) / (1 - a)
    return roots | {
        "betas": betas,
        "alphas_cumprod": a,
        "alphas_cumprod_prev": before,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(
            np.append(variance[1:2], variance[1:])
        ),  # the first variance is 0
        "posterior_mean_coef1": betas * np.sqrt(before) / (1 - a),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - betas) / (1 - a),
    }


def training(case: Case) -> Iterator[Comparison]:
    """Candidates, noised vectors, both denoisers, all losses, gradients and some steps of the
    training loop.
    """
    model = opened(case)
    yield from same_sizes(case, model)
    yield from table_rows(case)
    batches = _batches(case)
    values: dict[str, object] = dict(forward_values(model, batches[0]))
    values |= _first_step(model, batches[0])
    trained = TrainingCase(case, model, batches)
    yield trained.parameters_row()
    values |= trained.values
    for name, expected in case.outputs.items():
        yield close(
            name,
            values[name],
            expected,
            EXACT if name.startswith("cand_") else tolerance_of(case, name),
        )


def table_rows(case: Case) -> Iterator[Comparison]:
    """Yield how many rows of the sinusoid table the file kept, where the case says it; any number
    may be read.
    """
    if "pe_max_len" in case.info:
        yield equal(
            "pe_max_len",
            len(read_archive(case.path(CHECKPOINT))[_TABLE]),
            case.info["pe_max_len"],
        )


def _batches(case: Case) -> list[dict[str, Tensor]]:
    """Return the recorded batch with the recorded draws of each step."""
    batch = batch_of(case.inputs)
    draws = [torch.from_numpy(case.inputs[name]) for name in ("t", "noise_t2v", "noise_v2t")]
    return [batch | dict(zip(DRAWS, step, strict=True)) for step in zip(*draws, strict=True)]


@torch.no_grad()
def _first_step(model: DiffusionRet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    text, video = model.eval().encode_text(batch), model.encode_video(batch)
    similarity = model.score(text, video)["similarity"]
    losses = model.denoise(text, video, similarity, batch, slice(0, len(similarity)))
    of_text = candidates(similarity, batch["video_index"], 0, model.options.negatives)
    of_video = candidates(similarity.T, batch["video_index"], 0, model.options.negatives)
    t, clean = batch["diffusion_t"], model.clean_answer(of_text)
    _, noise_t2v, noise_v2t = DRAWS
    x_t2v = model.diffusion.add_noise(clean, t, batch[noise_t2v])
    x_v2t = model.diffusion.add_noise(clean, t, batch[noise_v2t])
    query, seen = _seen_videos(model.denoise_t2v, text["sentence"], *_videos(video, of_text))
    seen_query, sentences = _seen_query(
        model.denoise_v2t, text["sentence"][of_video], *_videos(video)
    )
    values = {
        "cand_t2v": of_text[:, 1:],
        "cand_v2t": of_video[:, 1:],
        "x_start": clean,
        "x_t_t2v": x_t2v,
        "x_t_v2t": x_v2t,
        "kl_t2v": losses["denoise_t2v"],
        "kl_v2t": losses["denoise_v2t"],
        "t2v/pooled_or_text": seen,
        "v2t/pooled_or_text": sentences,
    }
    for name, found in (
        ("t2v", inside(model.denoise_t2v, x_t2v, t, query, seen)),
        ("v2t", inside(model.denoise_v2t, x_v2t, t, seen_query, sentences)),
    ):
        values |= {f"{name}/{key}": value for key, value in found.items()}
    factor = model.options.logit_factor
    plain = {
        f"kl_{name}": classification_loss(values[f"{name}/x0_pred"], factor)
        for name in ("t2v", "v2t")
    }
    assert all(torch.allclose(values[name], value, atol=1e-4) for name, value in plain.items())
    return values


def _videos(video: Encoding, chosen: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
    return video["features"][chosen], video["real"][chosen]


def _seen_videos(
    denoiser: Denoiser, text: Tensor, frames: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """Query (B, 1, D) and candidates (B, K, D) of text -> video, from frames (B, K, T, D), pair by
    pair.
    """
    weight = denoiser.frame_weights(torch.einsum("bd,bktd->bkt", text, frames), real)
    return text[:, None], torch.einsum("bkt,bktd->bkd", weight, frames)


def _seen_query(
    denoiser: Denoiser, text: Tensor, frames: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """Queries (B, K, D) and candidates (B, K, D) of video -> text, from frames (B, T, D)."""
    weight = denoiser.frame_weights(torch.einsum("bkd,btd->bkt", text, frames), real[:, None])
    return torch.einsum("bkt,btd->bkd", weight, frames), text


@torch.no_grad()
def inside(
    denoiser: Denoiser, x: Tensor, t: Tensor, query: Tensor, candidate: Tensor
) -> dict[str, Tensor]:
    """Return what a denoiser computes on its way, and its prediction."""
    condition = denoiser.embed_timestep(t)
    step = condition[:, None]
    q, k, v = (
        denoiser.q_proj(query + step),
        denoiser.k_proj(candidate + step),
        denoiser.v_proj(candidate + step),
    )
    attention = ((q * k).sum(2) + x).softmax(1)
    return {
        "cond": condition,
        "q": q.squeeze(1),
        "attn_out": denoiser.proj(torch.einsum("bk,bkd->bd", attention, v)),
        "x0_pred": denoiser(x, t, query, candidate),
    }


def sampling(case: Case) -> Iterator[Comparison]:
    """Single evaluations, and every step of whole chains, plainly and by the fast path."""
    model = opened(case)
    yield from same_sizes(case, model)
    yield from table_rows(case)
    given = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
    with torch.no_grad():
        sides = {
            "t2v": (
                model.denoise_t2v,
                *_seen_videos(model.denoise_t2v, given["query_text"], *_given(given, "cand")),
            ),
            "v2t": (
                model.denoise_v2t,
                *_seen_query(model.denoise_v2t, given["cand_text"], *_given(given, "query")),
            ),
        }
    values: dict[str, object] = {}
    for name, (denoiser, query, candidate) in sides.items():
        found = inside(denoiser, given["single_x"], given["single_t"], query, candidate)
        values |= {f"single/{name}/{key}": value for key, value in found.items()}
    for chain in case.info["chains"]:
        plan, label = (
            schedule(chain["noise_schedule"], chain["diffusion_steps"]),
            "{noise_schedule}{diffusion_steps}",
        )
        label = label.format(**chain)
        for name, (denoiser, query, candidate) in sides.items():
            place, noise = f"{label}/{name}", given[f"noise/{label}/{name}"]
            values |= _chain(
                denoiser, plan, noise=noise, query=query, candidate=candidate, place=place
            )
            values[f"x/{place}[fast]"] = _FAST[name](denoiser, plan, given, noise)
    for name, value in values.items():
        plain = name.partition("[")[0]
        expected = case.outputs[plain][-1] if name != plain else case.outputs[plain]
        yield close(name, value, expected, tolerance_of(case, plain))


def _given(given: Mapping[str, Tensor], side: str) -> tuple[Tensor, Tensor]:
    return given[f"{side}_video"], given[f"{side}_video_mask"] > 0


@torch.no_grad()
def _chain(
    denoiser: Denoiser,
    plan: NoiseSchedule,
    noise: Tensor,
    query: Tensor,
    candidate: Tensor,
    place: str,
) -> dict[str, Tensor]:
    """As `denoising.sample`, keeping every step."""
    x, after, predicted = noise, [], []
    for step in reversed(range(len(plan))):
        t = torch.full((len(x),), int(plan.timesteps[step]))
        predicted.append(denoiser(x, t, query, candidate).clamp(-1, 1))
        x = plan.step_back(x, predicted[-1], step)
        after.append(x)
    return {
        f"x/{place}": torch.stack(after),
        f"x0/{place}": torch.stack(predicted),
        f"score/{place}": x.softmax(1),
    }


@torch.no_grad()
def _fast_t2v(
    denoiser: Denoiser, plan: NoiseSchedule, given: Mapping[str, Tensor], noise: Tensor
) -> Tensor:
    """Return the recorded candidates as a gallery of their own."""
    frames, real = _given(given, "cand")
    n, k = noise.shape
    seen = Features(given["query_text"], frames.flatten(0, 1), real.flatten(0, 1))
    sampler = denoiser.sampler("t2v", plan, seen, n_pairs=n * k)
    return sampler(torch.arange(n), torch.arange(n * k).view(n, k), noise)


@torch.no_grad()
def _fast_v2t(
    denoiser: Denoiser, plan: NoiseSchedule, given: Mapping[str, Tensor], noise: Tensor
) -> Tensor:
    n, k = noise.shape
    text = given["cand_text"].flatten(0, 1)
    seen = Features(text, *_given(given, "query"))
    sampler = denoiser.sampler("v2t", plan, seen, n_pairs=n * k)
    return sampler(torch.arange(n), torch.arange(n * k).view(n, k), noise)


_FAST = {"t2v": _fast_t2v, "v2t": _fast_v2t}

HANDLERS = {"schedules": schedules, "generation-train": training, "sampling": sampling}
