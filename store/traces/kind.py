"""Which kind of trace lies at a path, told by how it begins and by its name.

Telling a model from a trace, which every command does, loads no reader.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from store.errors import ArtifactError, StoreError
from store.files.model_file import ModelFile
from store.text import printable

APRT, HDF5, ZIP = b"APRT", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
LOGITS, LOGITS_TOKENS = ".bin", "-tokens.bin"  # of llama-debug: only where both lie there are they known
STAGE_KEY = re.compile(r"stage\|(-?\d{1,9})\|(.*)", re.DOTALL)

_LAYER_FOLDER = re.compile(r"layer-(\d{1,6})")
_LONGEST_NAME = 1 << 10
_JSON_AT = 8  # a SafeTensors header begins there, after its length


def is_trace(path: Path | str) -> bool:
    """Tell by its content whether a path is a recorded trace of any kind, and so not a model."""
    try:
        return kind_of(Path(path)) is not None
    except (StoreError, ArtifactError):
        return False


def kind_of(path: Path) -> str | None:
    """Name the format of the trace that lies at a path: hdf5, aprt, npz, safetensors or logits; None if it is none.

    ArtifactError or StoreError if it cannot be looked at.
    """
    if is_hdf5(path):
        return "hdf5"
    if path.is_dir():
        return "aprt" if any(begins_as_aprt(file) for file, _ in aprt_files(path)) else None
    file = ModelFile.at(path)
    with path.open("rb") as opened:
        start = opened.read(_JSON_AT + 1)
    if start.startswith(APRT):
        return "aprt"
    if start.startswith(ZIP):
        return None if _is_checkpoint(path) else "npz"
    if start[_JSON_AT:] == b"{" and _has_stage_keys(file):
        return "safetensors"
    return "logits" if _is_of_logits(file) else None


def is_hdf5(path: Path) -> bool:
    """Tell whether a regular file starts as every HDF5 file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


def aprt_files(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Yield the .bin files of a folder and of its layer-N folders, with the layer; StoreError if it cannot be read."""
    try:
        for path in folder.iterdir():
            layer = aprt_layer(path)
            if path.suffix == ".bin" and path.is_file():
                yield path, None
            elif layer is not None and path.is_dir():
                yield from ((inner, layer) for inner in path.iterdir() if inner.suffix == ".bin" and inner.is_file())
    except OSError as error:
        raise StoreError(f"{printable(str(folder))} cannot be read ({error.strerror}); check the path.") from None


def aprt_layer(folder: Path) -> int | None:
    """The layer whose stages lie in a folder of that name, if any do."""
    match = _LAYER_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match is not None else None


def begins_as_aprt(path: Path) -> bool:
    """Tell whether a file begins as a stage of `apr trace --save-tensor` does."""
    try:
        with path.open("rb") as file:
            return file.read(len(APRT)) == APRT
    except OSError:
        return False


def _is_checkpoint(path: Path) -> bool:
    """Tell a PyTorch checkpoint, whose first member is a pickle in a folder, from an archive of arrays."""
    with path.open("rb") as file:
        start = file.read(30 + _LONGEST_NAME)
    length = int.from_bytes(start[26:28], "little")
    return start[30 : 30 + length].endswith((b"/data.pkl", b"/.format_version"))


def _has_stage_keys(file: ModelFile) -> bool:
    """Tell whether a file has a SafeTensors header that names stages."""
    from store.traces.safetensors_arrays import read_header

    try:
        return any(STAGE_KEY.fullmatch(name) for name in read_header(file))
    except (StoreError, ArtifactError):
        return False


def _is_of_logits(file: ModelFile) -> bool:
    """Tell whether a file is named as one of a pair of which both are there."""
    name = file.path.name
    if name.endswith(LOGITS_TOKENS):
        return file.path.with_name(name.removesuffix(LOGITS_TOKENS) + LOGITS).is_file()
    return name.endswith(LOGITS) and file.path.with_name(name.removesuffix(LOGITS) + LOGITS_TOKENS).is_file()
