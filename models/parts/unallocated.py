"""A model of shapes alone: to name what weights do not fit, to take them over, to count parameters.

`torch.device("meta")` builds one too, but every random draw on it imports torch's compiler (dynamo
and sympy: a second of CPU time and 110 MB), and so does arithmetic; both are left out here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWN = {torch.rand: torch.empty, torch.randn: torch.empty}
_SAME_SHAPE = {Tensor.normal_, Tensor.uniform_, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}


@contextmanager
def unallocated() -> Iterator[None]:
    """Within: parameters have a shape and a dtype, no memory and no values (device "meta").

    A tensor for which a device is named is real.
    """
    with torch.device("meta"), _NoValues():
        yield


class _NoValues(TorchFunctionMode):
    """Draw nothing and scale nothing: what would be filled or multiplied is returned as it is."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        is_initialiser = getattr(func, "__module__", None) == "torch.nn.init"
        if is_initialiser or func in _SAME_SHAPE:
            given = kwargs["tensor"] if "tensor" in kwargs else args[0]
            with_another = any(isinstance(value, Tensor) for value in args[1:])
            if given.is_meta and not with_another:
                return given
        return _DRAWN.get(func, func)(*args, **kwargs)
