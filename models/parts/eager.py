"""`eager`: a function whose number of rounds depends on the data stays outside of compiled graphs.

`torch.compiler.disable` says the same, and imports the whole compiler (dynamo and sympy: a second
of CPU time and 110 MB) where it is written. Most programs never compile, so here only the mark is
set that the compiler looks for.
"""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable)


def eager(function: Function) -> Function:
    """Mark `function`: a graph of torch.compile breaks there and runs it as plain Python."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function
