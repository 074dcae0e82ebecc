"""Recorded traces: one reader for each format, and one function that decides by content which it is.

Telling a model from a trace, which every command does, loads no reader that it can do without.
"""

from pathlib import Path

from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces import magic
from store.traces.aprt import is_aprt_folder, open_aprt
from store.traces.arrays import as_store_error
from store.traces.logits import is_logits_file, open_logits
from store.traces.safetensors_arrays import read_header, read_safetensors
from store.traces.stage_dump import KEY, trace_of_arrays
from store.traces.trace import StoredStage, Trace

__all__ = ["StoredStage", "Trace", "is_trace", "open_trace"]

_LONGEST_NAME = 1 << 10
_LONGEST_MAGIC = 4  # bytes, of those but HDF5's
_FORMATS = (
    "APRT folders, llama.cpp dumps (.npz), llama-debug logits (NAME.bin beside NAME-tokens.bin), stage dumps (.npz, "
    ".safetensors) and stores (.h5)"
)


def is_trace(path: Path | str) -> bool:
    """Tell by its content whether a path is a recorded trace of any kind, and so not a model."""
    path = Path(path)
    try:
        return magic.is_hdf5(path) or _kind(path) is not None
    except StoreError:
        return False


def open_trace(path: Path | str, partial: bool = False) -> Trace:
    """Open a trace of ours or of another engine; its content decides the format.

    Nothing but headers is read; the tensors follow when they are asked for. StoreError, in one sentence, for what is
    no trace, is malformed, or contradicts itself. partial : whether an unfinished store is opened too.
    """
    path = Path(path)
    if magic.is_hdf5(path):
        from store.traces.hdf5 import open_store

        return open_store(path, partial)
    kind = _kind(path)
    with as_store_error():
        if kind == "aprt":
            return open_aprt(path)
        if kind == "logits":
            return open_logits(ModelFile.at(path))
        if kind == "npz":
            return _open_npz(ModelFile.at(path))
        if kind == "safetensors":
            arrays, metadata = read_safetensors(file := ModelFile.at(path))
            return trace_of_arrays(file, arrays, metadata.get("__meta__"))
    raise StoreError(f"{printable(str(path))} is no trace that can be read; those are {_FORMATS}.")


def _kind(path: Path) -> str | None:
    """Name the format of what lies at a path, None if it is no trace of another engine."""
    if path.is_dir():
        return "aprt" if is_aprt_folder(path) else None
    with as_store_error():
        file = ModelFile.at(path)
    start = _start(path)
    if start.startswith(magic.APRT):
        return "aprt"
    if start.startswith(magic.ZIP):
        return None if _is_checkpoint(path) else "npz"
    if _has_stage_keys(file):
        return "safetensors"
    return "logits" if is_logits_file(file) else None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_MAGIC)


def _is_checkpoint(path: Path) -> bool:
    """Tell a PyTorch checkpoint, whose first member is a pickle in a folder, from an archive of arrays."""
    with path.open("rb") as file:
        start = file.read(30 + _LONGEST_NAME)
    length = int.from_bytes(start[26:28], "little")
    return start[30 : 30 + length].endswith((b"/data.pkl", b"/.format_version"))


def _has_stage_keys(file: ModelFile) -> bool:
    """Tell whether a file has a SafeTensors header that names stages."""
    try:
        with as_store_error():
            return any(KEY.fullmatch(name) for name in read_header(file))
    except StoreError:
        return False


def _open_npz(file: ModelFile) -> Trace:
    from store.traces.llama_cpp import is_llama_dump, trace_of_nodes
    from store.traces.npz_arrays import read_npz, read_text

    arrays = read_npz(file)
    meta = read_text(arrays, "__meta__", file)
    if is_llama_dump(arrays):
        return trace_of_nodes(file, arrays, meta, read_text(arrays, "__index__", file))
    return trace_of_arrays(file, arrays, meta)
