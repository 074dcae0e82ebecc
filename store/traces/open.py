"""Recorded traces: one reader for each format, loaded when it is needed; the content decides which it is."""

from pathlib import Path

from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.arrays import as_store_error
from store.traces.kind import kind_of
from store.traces.trace import Trace

_FORMATS = (
    "APRT folders, llama.cpp dumps (.npz), llama-debug logits (NAME.bin beside NAME-tokens.bin), stage dumps (.npz, "
    ".safetensors) and stores (.h5)"
)


def open_trace(path: Path | str, partial: bool = False) -> Trace:
    """Open a trace of ours or of another engine; its content decides the format.

    Nothing but headers is read; the tensors follow when they are asked for. StoreError, in one sentence, for what is
    no trace, is malformed, or contradicts itself. partial : whether an unfinished store is opened too.
    """
    path = Path(path)
    with as_store_error():
        kind = kind_of(path)
        if kind == "hdf5":
            from store.traces.hdf5 import open_store

            return open_store(path, partial)
        if kind == "aprt":
            from store.traces.aprt import open_aprt

            return open_aprt(path)
        if kind == "logits":
            from store.traces.logits import open_logits

            return open_logits(ModelFile.at(path))
        if kind == "npz":
            return _open_npz(ModelFile.at(path))
        if kind == "safetensors":
            return _open_safetensors(ModelFile.at(path))
    raise StoreError(f"{printable(str(path))} is no trace that can be read; those are {_FORMATS}.")


def _open_npz(file: ModelFile) -> Trace:
    from store.traces.llama_cpp import is_llama_dump, trace_of_nodes
    from store.traces.npz_arrays import read_npz, read_text
    from store.traces.stage_dump import trace_of_arrays

    arrays = read_npz(file)
    meta = read_text(arrays, "__meta__", file)
    if is_llama_dump(arrays):
        return trace_of_nodes(file, arrays, meta, read_text(arrays, "__index__", file))
    return trace_of_arrays(file, arrays, meta)


def _open_safetensors(file: ModelFile) -> Trace:
    from store.traces.safetensors_arrays import read_safetensors
    from store.traces.stage_dump import trace_of_arrays

    arrays, metadata = read_safetensors(file)
    return trace_of_arrays(file, arrays, metadata.get("__meta__"))
