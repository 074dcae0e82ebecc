"""What a path holds: the format is decided by content, never by name.

A reader is loaded with the first file that it is for.
"""

import codecs
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from store.address import address_of
from store.artifact import Artifact
from store.errors import ArtifactError
from store.files.model_file import ModelFile
from store.stored_model import Format, StoredModel
from store.text import printable

_CODE = "which is not read because it can run code; save it as SafeTensors (`save_pretrained`)"
_OLD = "which llama.cpp no longer reads either; convert the original model to GGUF again"
_KNOWN: dict[bytes, str] = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, perhaps a recorded trace or a Keras model, and not a model that is read",
    b"PK\x03\x04": f"a zip archive, perhaps a PyTorch checkpoint, {_CODE}",
    b"\x80": f"a Python pickle, perhaps a PyTorch checkpoint, {_CODE}",
    **dict.fromkeys(
        (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
        "text in UTF-16, as > of PowerShell writes it, and no whole table of statistics",
    ),
    codecs.BOM_UTF8: "text in UTF-8 with a byte order mark, and no whole table of statistics",
    b"FUGG": "a GGUF whose magic number is the wrong way round, as no converter writes it; convert the model again",
    b"lmgg": f"a GGML file without version, from before GGUF, {_OLD}",
    b"fmgg": f"a GGMF file, from before GGUF, {_OLD}",
    b"tjgg": f"a GGJT file, from before GGUF, {_OLD}",
    b"algg": f"a GGLA file (a LoRA adapter from before GGUF), {_OLD} and merge the adapter into it",
}


def open_model(path: Path | str) -> StoredModel:
    """Locate the tensors and settings of a model: an Artifact where it can be run, else with `refusal` set.

    path : an APR v2, GGUF or SafeTensors file, an index or manifest of several, or a Hugging Face folder.

    Raises ArtifactError or UnsupportedModelError where not even the tensors can be located.
    """
    path = Path(path)
    if (address := address_of(path)) is not None:
        raise ArtifactError(f"{printable(address, 300)} is an address, which only `inspect` reads; download the file.")
    if os.path.isdir(path):
        from store.files.folder import open_folder

        return open_folder(path)
    file = ModelFile.at(path)
    model = _open_file(file)
    named = path.suffix.lower().removeprefix(".")
    if named in get_args(Format) and named != model.format:
        model.problems += (f"{file.shown} is named .{named} but holds {model.format}; it is read as what it holds.",)
    return model


def open_address(address: str, hosts: frozenset[str], size_is: Callable[[int], None]) -> StoredModel:
    """Locate the tensors of a model file behind an address, of which little more than its header is fetched.

    hosts : whose answers are taken beside that of the one that is asked. size_is : called with the bytes of the file
    before more than the first piece is asked for. The values of tensors are not to be had. Errors as `open_model`.
    """
    from store.files.remote import RemoteFile

    file = RemoteFile.of(address, hosts)
    size_is(file.size)
    return _open_file(file)


def open_artifact(path: Path | str) -> Artifact:
    """Open a model that is to be run; the content decides the format, never the name.

    path : an APR v2, GGUF or SafeTensors file, an index or manifest of several, or a Hugging Face folder.

    Raises ArtifactError for what cannot be read, UnsupportedModelError for what this program does not compute.
    """
    found = open_model(path)
    if isinstance(found, Artifact):
        return found
    assert found.refusal is not None
    raise found.refusal


def _open_file(file: ModelFile) -> StoredModel:
    file.require_content()
    start = file.read(0, min(file.size, 32), "its first bytes")
    if start[:4] == b"GGUF":
        from store.files.gguf import open_gguf

        return open_gguf(file)
    if start[:3] == b"APR":
        from store.files.apr import open_apr

        return open_apr(file)
    if start[7:9] == b"\0{" or start.lstrip()[:1] == b"{":
        return _open_json(file, start)
    raise ArtifactError(f"{file.shown} is {_guess(file, start)}; give an APR v2, GGUF or SafeTensors model.")


def _open_json(file: ModelFile, start: bytes) -> StoredModel:
    """A SafeTensors file, or an index or manifest of several files."""
    from store.files.apr_shards import is_manifest
    from store.files.safetensors import open_safetensors

    if start[7:9] != b"\0{" and is_manifest(file):
        from store.files.apr import open_apr_manifest

        return open_apr_manifest(file)
    return open_safetensors(file)


def _guess(file: ModelFile, start: bytes) -> str:
    if not start:
        return "empty"
    if start[:1] == b"\x08" and file.path.suffix.lower() == ".onnx":
        return "an ONNX graph, which is not read"
    return next((what for magic, what in _KNOWN.items() if start.startswith(magic)), "of an unknown format")
