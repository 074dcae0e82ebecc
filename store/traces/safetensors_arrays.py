"""SafeTensors files that hold stage tensors instead of weights."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import StoreError
from store.files.json_text import MAX_JSON, parse_object
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.arrays import FLOATS, StoredArray

_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_STORED = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}


def read_header(file: ModelFile) -> dict[str, Any]:
    """Return the JSON header of a .safetensors file; ArtifactError if it has none."""
    length = int.from_bytes(file.read(0, 8, "the header length"), "little")
    file.require(8, length, "the header")
    if length > MAX_JSON:
        raise StoreError(f"{file.shown} has a header of {length} bytes; at most {MAX_JSON} are read.")
    return parse_object(file.read(8, length, "the header"), f"the header of {file.shown}", unique_keys=True)


def read_safetensors(file: ModelFile) -> tuple[dict[str, StoredArray], dict[str, str]]:
    """Locate every tensor of the file; returns them with the texts of the header's `__metadata__`."""
    header = read_header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise StoreError(f"{file.shown}: __metadata__ is not an object of texts; record the trace again.")
    start = 8 + int.from_bytes(file.read(0, 8, "the header length"), "little")
    return {name: _located(file, start, name, entry) for name, entry in header.items()}, metadata


def _located(file: ModelFile, start: int, name: str, entry: object) -> StoredArray:
    what = f"tensor {printable(name, 80)}"
    fields = entry if isinstance(entry, dict) else {}
    shape, place = _whole(fields.get("shape")), _whole(fields.get("data_offsets"))
    if shape is None or place is None or len(place) != 2:
        raise StoreError(f"{file.shown}: the header gives {what} no shape or no place; record the trace again.")
    dtype = _TYPES.get(str(fields.get("dtype")))
    if dtype is None:
        found = printable(str(fields.get("dtype")), 40)
        raise StoreError(f"{file.shown}: {what} is {found}; stage tensors are {', '.join(_TYPES)}.")
    count, (begin, end) = math.prod(shape), place
    if end - begin != count * FLOATS[dtype]:
        raise StoreError(f"{file.shown}: {what} has {end - begin} bytes where its shape needs {count * FLOATS[dtype]}.")
    file.require(start + begin, end - begin, what)

    def load() -> NDArray[Any]:
        raw = file.map(start + begin, end - begin, what)
        return np.frombuffer(raw, _STORED[dtype]).reshape(shape)

    return StoredArray(tuple(shape), dtype, load)


def _whole(values: object) -> list[int] | None:
    """Return a list of whole numbers, or None if it is none."""
    if isinstance(values, list) and all(type(value) is int and value >= 0 for value in values):
        return values
    return None
