"""Handlers of system "centerclip" that need no model: kinds "metrics-and-sampling" and
"cluster-ops".
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from models.centerclip.kmedoids import kmedoids
from models.centerclip.options import Reduce
from models.centerclip.reduction import Sparse, TokenShape, build_reducer
from models.centerclip.spectral import affinity, laplacian, space_time_neighbours, spectral
from models.centerclip.tokens import pool_frames, spread_ids
from pipeline.evaluation.metrics import count, count_v2t, group_best
from pipeline.parity.case import Case
from pipeline.parity.centerclip.model import published_metrics
from pipeline.parity.compare import EXACT, Comparison, Tolerance, between, close, close_tree, equal
from pipeline.video.sampling import choose_frames

_METHODS = {"kmediods++": "kmedoids", "sparse_sampling": "sparse"}
_PARAMETERS = {  # theirs: ours
    "cluster_embed": "embedding",
    "cluster_frame_embed": "frame_embedding",
    "cls_multiplier": "class_weight",
}
_NO_SHIFT = "segments_no_shift"


def metrics_and_sampling(case: Case) -> Iterator[Comparison]:
    """Ranks with every tie entered, metrics of one and of several captions per video, and which
    frames are chosen.
    """
    tolerance = Tolerance(case.info["tolerance"]["default_max_abs_diff"])
    for name, wanted in case.info["metrics"].items():
        scores = case.inputs[name]
        owner = case.inputs["multi_owner"] if name.startswith("multi") else np.arange(len(scores))
        yield from _metric_rows(f"metrics.{name}", scores, owner, wanted, tolerance)
    owner = case.inputs["multi_owner"]
    yield equal("multi_cut_points", np.cumsum(np.bincount(owner)), case.info["multi_cut_points"])
    groups = group_best(case.inputs["multi"].T, owner)
    yield close(
        "multi_video_to_text_similarity",
        groups,
        case.outputs["multi_video_to_text_similarity"],
        tolerance,
    )
    yield equal("placeholder", case.outputs["placeholder"].shape, (1,))
    for n, entry in enumerate(case.info["frame_sampling"]):
        yield from _frame_rows(f"frame_sampling[{n}]", entry)


def _metric_rows(
    name: str, scores: np.ndarray, owner: np.ndarray, wanted: Mapping, tolerance: Tolerance
) -> Iterator[Comparison]:
    """Yield one caption per video: ties lengthen both lists. Several: v2t over groups like that,
    t2v by a sort of its own.
    """
    several = len(scores) > scores.shape[1]
    t2v, v2t = count(scores, owner), count_v2t(scores.T, owner, "groups")[0]
    yield from close_tree(
        f"{name}.v2t", published_metrics(v2t.ranks("expanded")), wanted["v2t"], tolerance
    )
    if not several:
        yield from close_tree(
            f"{name}.t2v", published_metrics(t2v.ranks("expanded")), wanted["t2v"], tolerance
        )
        return
    ends = [
        published_metrics(t2v.ranks(policy), "lower") for policy in ("optimistic", "pessimistic")
    ]
    for key, value in wanted["t2v"].items():
        # the deviation of ranks is not bounded by its values for the extreme orders of ties
        if key != "Std_Rank" or not t2v.n_tied:
            yield between(f"{name}.t2v.{key}", value, (ends[0][key], ends[1][key]), Tolerance(1e-5))


def _frame_rows(name: str, entry: Mapping) -> Iterator[Comparison]:
    n, m = entry["num_frames"], entry["clip_length"]
    yield equal(f"{name}.uniform", choose_frames(n, m, "centers")[0], entry["uniform"])
    yield equal(f"{name}.{_NO_SHIFT}", choose_frames(n, m, "centers")[0], entry[_NO_SHIFT])
    for key in (key for key in entry if key.startswith("segments_random")):
        rng = np.random.RandomState(int(key.rpartition("_")[2]))
        yield equal(f"{name}.{key}", choose_frames(n, m, "segments-published", rng)[0], entry[key])


def cluster_ops(case: Case) -> Iterator[Comparison]:
    """Clusterings of arrays, graphs, modules that reduce tokens, and token sampling."""
    for name, about in case.info["cases"].items():
        if "constructor" in about:
            yield from _module_rows(name, about, case)
        elif "spectral" in about["function"]:
            yield from _spectral_rows(name, about, case)
        else:
            yield from _kmedoids_rows(name, about, case)
    yield from _graph_rows(case)
    for n, entry in enumerate(case.info["token_sparse_sampling"]):
        yield from _sampling_rows(f"token_sparse_sampling[{n}]", entry)


def _kmedoids_rows(name: str, about: Mapping, case: Case) -> Iterator[Comparison]:
    tokens, o = _tokens(name, case), about["options"]
    one = kmedoids(tokens, o["K"], pre_norm=bool(o.get("pre_norm")), chunk_bytes=1, **_shared(o))
    made = kmedoids(tokens, o["K"], pre_norm=bool(o.get("pre_norm")), **_shared(o))
    yield equal(f"{name}[one row at a time]", [t.tolist() for t in one], [t.tolist() for t in made])
    if f"{name}__medoids" in case.outputs:
        yield close(f"{name}__medoids", made.medoids, case.outputs[f"{name}__medoids"], EXACT)
        yield close(f"{name}__assign", made.assign, case.outputs[f"{name}__assign"], EXACT)
        return
    pairs = made.medoids % o["K"]  # the case fixes only which pair a medoid is of (about["note"])
    yield close(
        f"{name}__medoid_pair", pairs.sort(1).values, case.outputs[f"{name}__medoid_pair"], EXACT
    )
    yield close(
        f"{name}__assign_pair",
        pairs.gather(1, made.assign),
        case.outputs[f"{name}__assign_pair"],
        EXACT,
    )


def _spectral_rows(name: str, about: Mapping, case: Case) -> Iterator[Comparison]:
    tokens, o, near = _tokens(name, case), about["options"], None
    if graph := about.get("spatial_temporal_graph"):
        near = space_time_neighbours(graph["n"], graph["N"] // graph["n"], graph["s"], graph["t"])
    neighbours = o["knn_k"] if o["mode"] == "KNN" else None
    made = spectral(
        tokens, o["K"], sigma=o["sigma"], neighbours=neighbours, near=near, **_shared(o)
    )
    weights = affinity(tokens, o["sigma"], neighbours, near)
    values, vectors = torch.linalg.eigh(laplacian(weights))
    rows = vectors[..., : o["K"]]
    rows = rows / (rows.norm(dim=-1, keepdim=True) + 1e-6)
    ours = {
        "medoids": made.medoids, "assign": made.assign, "W": weights, "eigenvalues": values,
        "embedding_gram": rows @ rows.transpose(1, 2),
    }  # fmt: skip
    stated = case.info["tolerance"]
    wide = Tolerance(stated["embedding_gram / eigenvalues"])
    allowed = {"medoids": EXACT, "assign": EXACT, "W": Tolerance(stated["floats"])}
    for key, value in ours.items():
        expected = case.outputs[f"{name}__{key}"]
        if key == "eigenvalues":
            value = value[..., : expected.shape[-1]]
        yield close(f"{name}__{key}", value, expected, allowed.get(key, wide))


def _module_rows(name: str, about: Mapping, case: Case) -> Iterator[Comparison]:
    """Yield a reduction module on tokens as recorded: [1+n, B*T, D]."""
    c = about["constructor"]
    x = torch.from_numpy(case.inputs[f"{name}__x"]).transpose(0, 1)
    options = Reduce(
        method=_METHODS.get(c["algorithm"], c["algorithm"]),
        frames=c["after_block_frames"],
        tokens=c["cluster_num"],
        metric=c["distance"],
        p=c["norm_p"],
        max_iter=c["iter_limit"],
        tol=c["threshold"],
        keep="mean" if c.get("aggregation") == "mean" else "medoid",
        embedding=bool(c.get("cluster_embedding", False)),
        frame_embedding=bool(c.get("cluster_frame_embedding", False)),
        class_weights=bool(c.get("adaptive_cls", False)),
        pre_norm=bool(c.get("pre_norm", False)),
        graph="knn" if c.get("spectral_graph", "HeatKernel") == "KNN" else "heat",
        sigma=c.get("spectral_sigma", 2.0),
        neighbours=c.get("spectral_knn_k", 1),
        space_time=bool(c.get("spectral_spg", False)),
    )
    module = build_reducer(
        options,
        TokenShape(c["before_block_frames"], c["before_cluster_num"], c["transformer_width"]),
    )
    prefix = f"{name}__param_"
    state = {
        _PARAMETERS[key.removeprefix(prefix)]: torch.from_numpy(value)
        for key, value in case.inputs.items()
        if key.startswith(prefix)
    }
    module.load_state_dict(state)
    module.train(about["train_mode"])
    if isinstance(module, Sparse) and about["train_mode"]:
        module.rng = np.random.RandomState(about["numpy_seed_set_before_call"])
    with torch.no_grad():
        made = module(x).transpose(0, 1)
    tolerance = Tolerance(case.info["tolerance"]["floats"])
    yield close(f"{name}__y", made, case.outputs[f"{name}__y"], tolerance)
    if f"{name}__residual" in case.outputs:  # the mean of the frames, which nothing reads there
        mean = pool_frames(x, c["before_block_frames"] // c["after_block_frames"]).transpose(0, 1)
        yield close(f"{name}__residual", mean, case.outputs[f"{name}__residual"], tolerance)


def _graph_rows(case: Case) -> Iterator[Comparison]:
    for graph in case.info["spatial_temporal_graph"]["graphs"]:
        n = graph["N"]
        per_frame = graph["tokens_per_frame"]
        s = graph["s_kernel"]
        t = graph["t_kernel"]
        near, name = (
            space_time_neighbours(per_frame, n // per_frame, s, t),
            f"spg_N{n}_n{per_frame}_s{s}_t{t}",
        )
        yield equal(f"{name}[row sums]", near.sum(1)[:10].tolist(), graph["row_sums_first_10"])
        yield close(name, np.packbits(near.numpy()), case.outputs[name].ravel(), EXACT)


def _sampling_rows(name: str, entry: Mapping) -> Iterator[Comparison]:
    n, k = entry["total"], entry["target"]
    if k > n:  # the published code then repeats an id beyond the last token; ours refuses
        yield equal(f"{name}[{k} of {n}]", _refuses(n, k), True)
        return
    yield equal(f"{name}.uniform", spread_ids(n, k), entry["uniform"])
    for key in (key for key in entry if key.startswith("random_numpy_seed_")):
        rng = np.random.RandomState(int(key.rpartition("_")[2]))
        yield equal(f"{name}.{key}", spread_ids(n, k, rng), entry[key])


def _refuses(n: int, k: int) -> bool:
    try:
        spread_ids(n, k)
    except ValueError:
        return True
    return False


def _tokens(name: str, case: Case) -> Tensor:
    return torch.from_numpy(case.inputs[f"{name}__X"])


def _shared(options: Mapping) -> dict[str, object]:
    return {
        "metric": options.get("distance", options.get("metric", "euclidean")),
        "p": options["norm_p"],
        "max_iter": options.get("iter_limit", 100),
        "tol": options.get("threshold", 1e-6),
    }


HANDLERS = {"metrics-and-sampling": metrics_and_sampling, "cluster-ops": cluster_ops}
