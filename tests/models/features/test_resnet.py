"""ResNet-152 and ResNeXt-101: published names, the function of the paper, folded batch norms."""

import copy
import json

import pytest
import torch
from torch.nn import functional as F

from models.features import resnet
from models.features.resnet import ResNet, fold_batch_norms

TOTALS = {"resnet152": 60_192_808, "resnext101_32x8d": 88_791_336, "resnext101_64x4d": 83_455_272}


def on_meta(name: str) -> ResNet:
    with torch.device("meta"):
        return resnet.build_resnet(name)


def small(groups: int = 1, width: int = 64) -> ResNet:
    """One block per layer, with statistics as training leaves them."""
    torch.manual_seed(0)
    network = ResNet((1, 1, 1, 1), groups, width).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network


def pictures(count: int = 2) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("name", resnet.LAYOUTS)
def test_names_shapes_and_totals_are_the_published_ones(shared, name):
    recorded = json.loads(
        (shared / f"golden/dual-encoding/full-size/torchvision_{name}/keys.json").read_text()
    )

    ours = {key: list(value.shape) for key, value in on_meta(name).state_dict().items()}

    assert ours == recorded["state_dict"]


@pytest.mark.parametrize("name", resnet.LAYOUTS)
def test_number_of_parameters_is_the_documented_one(name):
    assert sum(p.numel() for p in on_meta(name).parameters()) == TOTALS[name]


def reference(state: dict[str, torch.Tensor], images: torch.Tensor, groups: int) -> torch.Tensor:
    """The bottleneck network written out, one block per layer."""

    def conv(x, name, norm, **how):
        x = F.conv2d(x, state[f"{name}.weight"], **how)
        return F.batch_norm(
            x, *(state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        )

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    x = ((images / 255 - mean) / std).permute(0, 3, 1, 2)
    x = F.max_pool2d(conv(x, "conv1", "bn1", stride=2, padding=3).relu(), 3, 2, 1)
    for n in range(1, 5):
        p, stride = f"layer{n}.0", 1 if n == 1 else 2
        y = conv(x, f"{p}.conv1", f"{p}.bn1").relu()
        y = conv(y, f"{p}.conv2", f"{p}.bn2", stride=stride, padding=1, groups=groups).relu()
        x = conv(x, f"{p}.downsample.0", f"{p}.downsample.1", stride=stride)
        x = (x + conv(y, f"{p}.conv3", f"{p}.bn3")).relu()
    return x.mean((2, 3))


@pytest.mark.parametrize(("groups", "width"), [(1, 64), (32, 8)])
def test_features_are_those_of_the_paper(groups, width):
    network = small(groups, width)

    features = network(pictures())

    assert features.shape == (2, 2048)
    torch.testing.assert_close(
        features, reference(network.state_dict(), pictures(), groups), rtol=1e-4, atol=1e-5
    )


def test_folding_batch_norms_changes_nothing_but_rounding():
    network = small()

    folded = fold_batch_norms(copy.deepcopy(network))

    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(pictures()), network(pictures()), rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_images_one_by_one():
    network = small()

    together = network(pictures(3))

    torch.testing.assert_close(
        together, torch.cat([network(p[None]) for p in pictures(3)]), rtol=1e-4, atol=1e-5
    )


def test_a_classifier_and_batch_counters_may_be_absent():
    state = {
        k: v
        for k, v in on_meta("resnet152").state_dict().items()
        if "fc." not in k and "num_batches" not in k
    }

    network = resnet.load_resnet("resnet152", state)

    assert not network.training
    assert network.layer3[35].conv2.bias.shape == (256,)


def test_every_wrong_key_is_named_before_anything_is_loaded():
    state = on_meta("resnet152").state_dict()
    state["layer9.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.weight"] = torch.empty(3, device="meta")

    with pytest.raises(
        ValueError,
        match=r"missing: layer1\.0\.conv1\.weight; .*layer9\.weight; .*another shape: bn1\.w",
    ):
        resnet.load_resnet("resnet152", state)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="not the weights of resnet152"):
        resnet.load_resnet("resnet152", on_meta("resnext101_32x8d").state_dict())
