"""Sizes of the published CLIPs, and what else one must know to rebuild them. Torch-free.

Source: openai/CLIP: clip/clip.py and the weight files it names; docs/specs/clip-backbone.md,
sections 1 and 2.
"""

from dataclasses import dataclass
from typing import Literal

HEAD_WIDTH = 64  # of the text tower always, of the vision tower in everything OpenAI published
PREFIX = "clip."  # of the CLIP inside the state dict of a system


@dataclass(frozen=True)
class Sizes:
    """The sizes of both towers.

    The vision tower is a ViT with patches of `patch` pixels, or a ResNet of four stages (patch 0).
    """

    embed: int  # of the joint space
    pixels: int  # side of a frame
    vision_width: int  # of a ViT's tokens, or of what a ResNet's stem hands on
    vision_layers: int | tuple[int, int, int, int]
    patch: int
    text_width: int
    text_layers: int = 12
    context: int = 77  # longest text
    vocabulary: int = 49408

    @property
    def grid(self) -> int:
        """Tokens along one side of a frame, without the class token."""
        return self.pixels // (self.patch or 32)


@dataclass(frozen=True)
class Variant:
    """What the shapes of weights do not tell; the defaults are OpenAI's.

    activation: most weights that open_clip trained itself need "gelu", except those whose names end
    in -quickgelu.
    head_width: of a ViT's attention; 80, 88 and 104 in open_clip's ViT-H, -g and -bigG.
    mean, std: of the pixels, red, green, blue, 0 to 1; a few later weights need 0.5 everywhere.
    """

    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    head_width: int = HEAD_WIDTH
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


OPENAI = Variant()

_TABLE = {  # embed, pixels, vision width, vision layers, patch, text width
    "ViT-B/32": (512, 224, 768, 12, 32, 512),
    "ViT-B/16": (512, 224, 768, 12, 16, 512),
    "ViT-L/14": (768, 224, 1024, 24, 14, 768),
    "ViT-L/14@336px": (768, 336, 1024, 24, 14, 768),
    "RN50": (1024, 224, 64, (3, 4, 6, 3), 0, 512),
    "RN101": (512, 224, 64, (3, 4, 23, 3), 0, 512),
    "RN50x4": (640, 288, 80, (4, 6, 10, 6), 0, 640),
    "RN50x16": (768, 384, 96, (6, 8, 18, 8), 0, 768),
    "RN50x64": (1024, 448, 128, (3, 15, 36, 10), 0, 1024),
    "tiny": (64, 64, 64, 4, 16, 64, 2, 32),  # the demo's: also text layers and context
}
BACKBONES = {name: Sizes(*row) for name, row in _TABLE.items()}


def name_of(sizes: Sizes) -> str:
    """Return the backbone that has these sizes, or "given" if none of them has."""
    for name, known in BACKBONES.items():
        if known == sizes:
            return name
    return "given"


@dataclass(frozen=True)
class WeightFile:
    """A weight file that OpenAI publishes: its name and the SHA-256 of its bytes."""

    name: str
    sha256: str

    @property
    def url(self) -> str:
        """Where the file can be downloaded."""
        return f"https://openaipublic.azureedge.net/clip/models/{self.sha256}/{self.name}"


FILES = {
    "RN50": WeightFile(
        "RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
    ),
    "RN101": WeightFile(
        "RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"
    ),
    "RN50x4": WeightFile(
        "RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"
    ),
    "RN50x16": WeightFile(
        "RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"
    ),
    "RN50x64": WeightFile(
        "RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"
    ),
    "ViT-B/32": WeightFile(
        "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "ViT-B/16": WeightFile(
        "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "ViT-L/14": WeightFile(
        "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
    "ViT-L/14@336px": WeightFile(
        "ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
}
