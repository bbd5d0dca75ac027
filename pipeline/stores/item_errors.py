"""What is missing or damaged in a store, said of the one video it belongs to."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import DataError, ItemError


@contextmanager
def as_item_error() -> Iterator[None]:
    """Within this context a damaged or missing value costs its video, not the step.

    KeyError and DataError become ItemError.
    """
    try:
        yield
    except KeyError as error:
        raise ItemError("missing", str(error.args[0])) from error
    except DataError as error:
        if isinstance(error.__cause__, ItemError):
            raise error.__cause__ from error
        raise ItemError("bad_value", str(error)) from error
