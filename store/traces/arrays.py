"""Arrays inside a file that another program wrote: their shapes at once, their values when they are asked for."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import ArtifactError, StoreError

MAX_TEXT = 64 << 20  # bytes of a JSON text inside a dump
FLOATS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes of a value


class StoredArray(NamedTuple):
    """An array that has been located and whose size has been checked, but that is not read yet.

    dtype : numpy's name of the type as stored, or "bfloat16".
    load : reads the values; bfloat16 arrives as float32, which holds every bfloat16 exactly.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]]


def widened(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return stored floats as native float64 where they are that, else as float32, writable; neither step rounds."""
    if dtype == "bfloat16":
        return (values.view("<u2").astype(np.uint32) << 16).view(np.float32)
    native = np.float64 if dtype == "float64" else np.float32
    return np.require(values, dtype=native, requirements=["A", "C", "W"])


def parse_json(text: str, what: str) -> Any:  # noqa: ANN401
    """Return what a JSON text inside a dump says; StoreError, which calls the text `what`, if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(":")[0]
        raise StoreError(f"{what} is not valid JSON ({reason}); record the trace again.") from None


@contextmanager
def as_store_error() -> Iterator[None]:
    """Turn what reading a file within bounds may complain about into the error of a trace."""
    try:
        yield
    except ArtifactError as error:
        raise StoreError(str(error)) from error
