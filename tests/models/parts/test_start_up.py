"""No model brings torch's compiler into a program that does not compile: it costs a second."""

import subprocess
import sys

import torch

from models.parts.eager import eager
from models.parts.unallocated import unallocated
from tests.models.clip.small_clip import RESNET, VIT, small_clip


def test_models_are_built_from_weights_without_the_compiler():
    code = """if True:
        import sys
        from models.features.resnet import build_resnet
        from models.parts.unallocated import unallocated
        from pipeline import registry
        from tests.models.centerclip import small_centerclip
        from tests.models.clip.small_clip import RESNET, small_clip
        small_centerclip.small()
        type(small_clip(RESNET)).from_state_dict(small_clip(RESNET).state_dict())
        with unallocated():
            build_resnet("resnet152")
        for name in registry.names("model"):
            registry.find("model", name)
        print(*(name for name in ("torch._dynamo", "sympy") if name in sys.modules))
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.stdout.strip(), found.stderr) == ("", "")


def test_an_unallocated_model_has_the_shapes_of_a_real_one_and_no_values():
    for sizes in (VIT, RESNET):
        real = small_clip(sizes)
        with unallocated():
            shapes = type(real)(sizes)
        wanted = real.state_dict()
        assert {name: value.shape for name, value in shapes.state_dict().items()} == {
            name: value.shape for name, value in wanted.items()
        }
        assert all(value.is_meta for value in shapes.parameters())
        assert torch.equal(shapes.visual.pixels.mean, real.visual.pixels.mean)


def test_a_compiled_graph_breaks_at_an_eager_function():
    seen = []

    @eager
    def rounds(x: torch.Tensor) -> torch.Tensor:
        seen.append(type(x))
        while x.sum() > 1:
            x = x / 2
        return x

    compiled = torch.compile(lambda x: rounds(x + 1) * 2, backend="eager")
    assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 0.5))
    assert compiled(torch.zeros(3)).tolist() == [0.5] * 3
    assert len(seen) == 2
