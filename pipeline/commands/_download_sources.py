"""Where published files are to be had that pipelines name by path: weights, features, word vectors.
Fetches nothing.
"""

from pathlib import Path

_DUAL_ENCODING = {
    "resnext101-resnet152": (
        "http://8.210.46.84:8787/msrvtt10k-resnext101_resnet152.tar.gz (4.3 GB)"
    ),
    "word2vec": "http://lixirong.net/data/w2vv-tmm2018/word2vec.tar.gz (3 GB)",
}
_LSMDC = (
    "https://sites.google.com/site/describingmovies/download (after signing the agreement with"
    " MPII)"
)

_I3D = "https://eric-xw.github.io/vatex-website/download.html (I3D features, an .npy per video)"


def source_of(path: Path) -> str:
    """Return where to get the file or folder that a pipeline expects at `path`, "" if it is not a
    published one.
    """
    from models.clip.sizes import FILES
    from pipeline.cnn.networks import NETWORKS

    known = {f.name: f"{_fetch(name, path)} ({f.url})" for name, f in FILES.items()}
    for name, network in NETWORKS.items():
        urls = [f"https://download.pytorch.org/models/{file}" for file in network.files]
        known |= dict(zip(network.files, urls, strict=True))
        if network.files:
            known[network.files[0]] = f"{_fetch(name, path)} ({urls[0]})"
    if path.name in _DUAL_ENCODING:
        return f"{_DUAL_ENCODING[path.name]}; other places: README of danieljf24/hybrid_space"
    if path.parent.name == "imported":
        return (
            f"python cli.py import-checkpoint data/weights/ViT-B-32.pt --recipe {path.name} --out"
            f" {path}"
        )
    if path.name == "i3d":
        return _I3D
    return _LSMDC if path.name.endswith("_downloadLinks.txt") else known.get(path.name, "")


def _fetch(name: str, path: Path) -> str:
    """Return the command that brings published weights to `path`."""
    out = "" if path.parent == Path("data/weights") else f" --out {path.parent}"
    return f"python cli.py fetch weights {name}{out}"
