"""What is known about the networks of the features step without importing torch: sizes,
preprocessing, weight files.

The networks themselves are in `models/features/resnet.py` and `models/features/tiny_random.py`.
Weight files and their short sides:
pytorch/vision: torchvision/models/resnet.py (docs/specs/dual-encoding.md, section 12.6); the eight
digits in a file's name begin its SHA-256.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.cnn.preprocess import Preprocess

Profile = Literal["vcf", "torchvision", "torchvision-v2"]
NetworkName = Literal["resnext101_32x8d", "resnext101_64x4d", "resnet152", "tiny-random"]


@dataclass(frozen=True)
class Network:
    """dim: values per frame. files: published weight files, the better one first.

    short_side: of the profile torchvision. fixed: the one preprocessing of a network that was not
    trained on ImageNet.
    """

    dim: int
    files: tuple[str, ...] = ()
    short_side: int = 256
    fixed: Preprocess | None = None

    def preprocess(self, profile: Profile, ten_crops: bool) -> Preprocess:
        """Return how this network sees a frame."""
        if self.fixed:
            return self.fixed
        if profile == "vcf":
            return Preprocess("squash", 256, 224, ten_crops)
        return Preprocess(
            "short", 232 if profile == "torchvision-v2" else self.short_side, 224, ten_crops
        )


NETWORKS: dict[str, Network] = {
    "resnext101_32x8d": Network(
        2048, ("resnext101_32x8d-110c445d.pth", "resnext101_32x8d-8ba56ff5.pth")
    ),
    "resnext101_64x4d": Network(2048, ("resnext101_64x4d-173b62eb.pth",), short_side=232),
    "resnet152": Network(2048, ("resnet152-f82ba261.pth", "resnet152-394f9c45.pth")),
    # antialiased to 64 pixels, and no mirrored crops: it is there to tell left from right
    "tiny-random": Network(407, fixed=Preprocess("short", 64, 64)),
}


def how_to_get(*names: str) -> str:
    """Return what to do when the weights of these networks are missing."""
    files = {name: NETWORKS[name].files[0] for name in names}
    lines = [
        f"Run: python cli.py fetch weights {name}   (https://download.pytorch.org/models/{file})"
        for name, file in files.items()
    ]
    given = ", ".join(f"{name}: data/weights/{file}" for name, file in files.items())
    named = (
        f"Then name it: --weights '{{{given}}}' (in a pipeline: weights: {{{given}}} of the step)"
    )
    return "\n    ".join([*lines, named])


def digits(file: str) -> str:
    """Return the first digits of the SHA-256 of a published weight file, as its name tells them."""
    return file.removesuffix(".pth").rpartition("-")[2]
