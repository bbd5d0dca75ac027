"""A small content of an archive, and whether two of them are equal."""

import torch


def content(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    tensors = {"w": torch.randn(30, 30, generator=generator), "n": torch.tensor(seed)}
    return {"weights": tensors, "groups": [{"betas": (0.9, 0.98), "name": "a"}], "best": None}


def same(a: dict, b: dict) -> bool:
    return (
        all(torch.equal(a["weights"][k], b["weights"][k]) for k in a["weights"])
        and a["groups"] == b["groups"]
    )
