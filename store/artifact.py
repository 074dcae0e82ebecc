"""A model on disk, whatever its format, seen in canonical terms."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.errors import MissingTensorError
from kernels.weight import BLOCKS, TensorType, Weight
from store.errors import ArtifactError
from store.model_file import ModelFile
from store.names import EMBEDDING, LM_HEAD
from store.text import printable
from store.vocabulary import Vocabulary

Format = Literal["gguf", "apr", "safetensors"]

_HASH_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a stored tensor lies: `shape` is [out, in] (or [n]), `nbytes` bytes at `offset` of `file`."""

    name: str  # canonical (Hugging Face)
    raw_name: str
    type: TensorType
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int


@dataclass
class Artifact:
    """A model whose every tensor that the forward needs is known to be there with the right shape.

    tensors
        Stored tensors by canonical name. With tied embeddings `lm_head.weight` is not among them, though
        `weight("lm_head.weight")` answers with the embedding.
    interleaved
        Tensors whose rows are stored for adjacent-pair rotation, with their number of heads; `weight` returns
        those rows in canonical order.
    problems
        Sentences about what is odd in the file, though it can be read.
    metadata
        What the file says about itself, as it says it; long arrays are LazyArray.
    sources
        The files that decide what the model computes, config.json included.
    """

    path: Path
    format: Format
    config: ModelConfig
    tensors: dict[str, TensorInfo]
    sources: tuple[ModelFile, ...]
    problems: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    interleaved: Mapping[str, int] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    _sha256: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files that decide what the model computes."""
        return tuple(source.path for source in self.sources)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Whatever may be read of this model: its path, which can be a folder, its files, and its tokenizer."""
        tokenizer = None if self.vocabulary is None else self.vocabulary.json_path
        return (self.path, *self.files, *(() if tokenizer is None else (tokenizer,)))

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(source.size for source in self.sources)

    def __contains__(self, name: object) -> bool:
        return self._stored_name(name) in self.tensors

    def weight(self, name: str) -> Weight:
        """Return a tensor by canonical name, mapped from the file when its bytes are touched.

        Raises MissingTensorError for a name that the artifact does not have.
        """
        info = self.tensors.get(str(self._stored_name(name)))
        if info is None:
            raise MissingTensorError(
                f"{printable(self.path.name)} has no tensor {printable(name)}; `workbench inspect` lists its tensors."
            )
        rows = self._map(info)
        heads = self.interleaved.get(info.name)
        order = _canonical_order(info.shape[0], heads) if heads else None
        if order is not None and len(info.shape) == 1:  # one row, whose elements stand for the rows of the matrix
            rows, order = rows.reshape(len(order), -1)[order].reshape(rows.shape), None
        return Weight(name, info.type, info.shape, rows, order)

    def stored_rows(self, name: str) -> NDArray[np.uint8]:
        """Return the rows of a stored tensor in the order of the file, as `weight` does without reordering."""
        return self._map(self.tensors[name])

    def require_unchanged(self) -> None:
        """Raise ArtifactError if a file of this model was replaced or written to since it was opened.

        To be called when the last of its bytes has been read, since what is mapped changes with the file.
        """
        for source in self.sources:
            source.require_unchanged()

    def permuted(self, name: str) -> bool:
        """Tell whether the rows of a tensor are stored in another order than the canonical one."""
        return name in self.interleaved

    def sha256(self, progress: Callable[[int, int], None] | None = None) -> str:
        """Return the SHA-256 of the file, or of the "name  sha256" lines of `files` when there are several.

        progress : called with bytes done and bytes in all.
        """
        if self._sha256 is None:
            self._sha256 = self._hash(progress)
        return self._sha256

    def _stored_name(self, name: object) -> object:
        return EMBEDDING if name == LM_HEAD and self.config.tie_word_embeddings else name

    @cached_property
    def _source_of(self) -> dict[Path, ModelFile]:
        return {source.path: source for source in self.sources}

    def _map(self, info: TensorInfo) -> NDArray[np.uint8]:
        data = self._source_of[info.file].map(info.offset, info.nbytes, f"tensor {printable(info.raw_name)}")
        element = BLOCKS[info.type]
        if element.elements == 1 and info.offset % element.bytes:
            data = data.copy()  # so that the rows can be viewed as numbers
        return data.reshape(info.shape[0] if len(info.shape) == 2 else 1, -1)

    def _hash(self, progress: Callable[[int, int], None] | None) -> str:
        done, digests = 0, list[str]()
        for source in self.sources:
            digest = hashlib.sha256()
            try:
                with source.path.open("rb") as file:
                    while chunk := file.read(_HASH_CHUNK):
                        digest.update(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, self.size)
            except OSError as error:
                raise ArtifactError(f"{printable(str(source.path))} cannot be read ({error.strerror}).") from None
            digests.append(digest.hexdigest())
        if len(digests) == 1:
            return digests[0]
        lines = (f"{path.name}  {digest}\n" for path, digest in zip(self.files, digests, strict=True))
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def open_artifact(path: Path | str) -> Artifact:
    """Open a model for reading; the content decides the format, never the name.

    path : an APR v2, GGUF or SafeTensors file, a SafeTensors index, or a Hugging Face folder.

    Raises ArtifactError for what cannot be read, UnsupportedModelError for what this program does not compute.
    """
    path = Path(path)
    if os.path.isdir(path):
        from store.safetensors_file import open_folder

        return open_folder(path)
    file = ModelFile.at(path)
    artifact = _open_file(file)
    named = path.suffix.lower().removeprefix(".")
    if named in get_args(Format) and named != artifact.format:
        artifact.problems += (
            f"{file.shown} is named .{named} but holds {artifact.format}; it is read as what it holds.",
        )
    return artifact


def _open_file(file: ModelFile) -> Artifact:
    start = file.read(0, min(file.size, 32), "its first bytes")
    if start[:4] == b"GGUF":
        from store.gguf_file import open_gguf

        return open_gguf(file)
    if start[:3] == b"APR":
        from store.apr_file import open_apr

        return open_apr(file)
    if start[7:9] == b"\0{" or start.lstrip()[:1] == b"{":
        from store.safetensors_file import open_safetensors

        return open_safetensors(file)
    raise ArtifactError(f"{file.shown} is {_guess(start)}; give an APR v2, GGUF or SafeTensors model.")


def _guess(start: bytes) -> str:
    known = {
        b"\x89HDF\r\n\x1a\n": "an HDF5 file, perhaps a recorded trace, and not a model",
        b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint, which is not read because it can run code",
        b"\x80": "a Python pickle, which is not read because it can run code",
        b"version https://git-lfs": "a Git LFS pointer instead of the model; run `git lfs pull`",
        b"FUGG": "a big-endian GGUF, which is not supported",
        b"lmgg": "an old GGML file, from before GGUF",
        b"tjgg": "an old GGML file, from before GGUF",
    }
    if not start:
        return "empty"
    return next((what for magic, what in known.items() if start.startswith(magic)), "of an unknown format")


def _canonical_order(rows: int, heads: int) -> NDArray[np.intp]:
    """Return where canonical rows are in llama GGUF files: row s*head_dim/2+i of every head is stored as row 2i+s."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
