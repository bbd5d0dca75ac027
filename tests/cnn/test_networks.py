"""What is said about networks without torch must be what torch finds."""

import torch

from models.features import resnet
from models.features.tiny_random import TinyRandom
from pipeline.cnn.networks import NETWORKS, how_to_get


def test_sizes_are_those_of_the_networks():
    with torch.device("meta"):
        dims = {name: resnet.build_resnet(name).dim for name in resnet.LAYOUTS} | {
            "tiny-random": TinyRandom.dim
        }

    assert {name: network.dim for name, network in NETWORKS.items()} == dims
    assert NETWORKS["tiny-random"].fixed.crop == TinyRandom.side


def test_short_sides_are_those_of_the_weights():
    sides = {n: NETWORKS[n].preprocess("torchvision", False).side for n in resnet.LAYOUTS}

    assert sides == {"resnet152": 256, "resnext101_32x8d": 256, "resnext101_64x4d": 232}
    assert {NETWORKS[n].preprocess("torchvision-v2", False).side for n in resnet.LAYOUTS} == {232}


def test_the_demo_network_sees_whole_frames_unmirrored_whatever_the_profile():
    assert not NETWORKS["tiny-random"].preprocess("vcf", True).ten


def test_missing_weights_are_explained_with_file_and_option():
    assert "resnet152-f82ba261.pth" in how_to_get("resnet152")
    assert "--weights" in how_to_get("resnet152")
