"""Traces of other engines: one importer for each format, and one function that decides by content which it is."""

from pathlib import Path

from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.aprt import MAGIC as APRT_MAGIC
from store.traces.aprt import is_aprt_folder, open_aprt
from store.traces.arrays import as_store_error
from store.traces.hdf5 import open_trace
from store.traces.llama_cpp import is_llama_dump, trace_of_nodes
from store.traces.logits import is_logits_file, open_logits
from store.traces.npz_arrays import MAGIC as ZIP_MAGIC
from store.traces.npz_arrays import read_npz, read_text
from store.traces.own import store_of_trace, trace_of_store
from store.traces.safetensors_arrays import read_header, read_safetensors
from store.traces.stage_dump import KEY, trace_of_arrays
from store.traces.trace import ForeignStage, ForeignTrace

__all__ = ["ForeignStage", "ForeignTrace", "is_trace", "open_any_trace", "open_foreign", "store_of_trace"]

_LONGEST_NAME = 1 << 10
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_FORMATS = (
    "APRT folders, llama.cpp dumps (.npz), llama-debug logits (NAME.bin beside NAME-tokens.bin), stage dumps (.npz, "
    ".safetensors) and stores (.h5)"
)


def is_trace(path: Path | str) -> bool:
    """Tell by its content whether a path is a recorded trace of any kind, and so not a model."""
    path = Path(path)
    try:
        return (path.is_file() and _magic(path) == _HDF5_MAGIC) or _kind(path) is not None
    except StoreError:
        return False


def open_any_trace(path: Path | str) -> ForeignTrace:
    """Open a trace of ours or of another engine; StoreError, in one sentence, for anything else."""
    path = Path(path)
    if path.is_file() and _magic(path) == _HDF5_MAGIC:
        return trace_of_store(open_trace(path))
    return open_foreign(path)


def open_foreign(path: Path | str) -> ForeignTrace:
    """Open a trace that another engine wrote; its content decides the format.

    Nothing but headers is read; the tensors follow when they are asked for. StoreError, in one sentence, for what is
    no trace, is malformed, or contradicts itself.
    """
    path = Path(path)
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
    magic = _magic(path)
    if magic.startswith(APRT_MAGIC):
        return "aprt"
    if magic.startswith(ZIP_MAGIC):
        return None if _is_checkpoint(path) else "npz"
    if _has_stage_keys(file):
        return "safetensors"
    return "logits" if is_logits_file(file) else None


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HDF5_MAGIC))


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


def _open_npz(file: ModelFile) -> ForeignTrace:
    arrays = read_npz(file)
    meta = read_text(arrays, "__meta__", file)
    if is_llama_dump(arrays):
        return trace_of_nodes(file, arrays, meta, read_text(arrays, "__index__", file))
    return trace_of_arrays(file, arrays, meta)
