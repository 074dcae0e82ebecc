"""Read GGUF files, versions 2 and 3 (ggml/docs/gguf.md of llama.cpp).

The header is read in one pass over its bytes; arrays, such as a vocabulary of 152 000 strings, are skipped and
remembered by their place in the file.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.config import ARCHITECTURES, ModelConfig
from kernels.errors import UnsupportedModelError
from kernels.weight import BLOCKS, TensorType
from store import rope
from store.artifact import Artifact, TensorInfo
from store.errors import ArtifactError
from store.fields import Fields, shortest
from store.layout import (
    by_canonical_name,
    check_blocks,
    check_overlaps,
    check_tensors,
    interleaved_tensors,
    unsupported_type,
)
from store.model_file import ModelFile
from store.names import EMBEDDING, LM_HEAD, ROPE_FREQS
from store.text import printable
from store.vocabulary import LazyArray, Vocabulary, token_id

MAX_TENSORS = 1 << 16
MAX_KEYS = 1 << 14
MAX_LAYERS = 1 << 14
MAX_STRINGS = 1 << 22  # in all arrays of a file together
MAX_ELEMENTS = 1 << 24  # in one array of numbers
MAX_TEXT = 1 << 26  # bytes of all strings of a file together

_STRING, _ARRAY = 8, 9
_SCALARS: dict[int, tuple[str, str]] = {  # value type -> struct and numpy code, name
    0: ("B", "uint8"),
    1: ("b", "int8"),
    2: ("H", "uint16"),
    3: ("h", "int16"),
    4: ("I", "uint32"),
    5: ("i", "int32"),
    6: ("f", "float32"),
    7: ("?", "bool"),
    10: ("Q", "uint64"),
    11: ("q", "int64"),
    12: ("d", "float64"),
}
_PER_LAYER = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
_REFUSED = (
    "expert_count",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
)
_VOCABULARIES: dict[str, Literal["bpe", "spm"]] = {"gpt2": "bpe", "llama": "spm"}

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class _Cursor:
    """Walks through a mapped header; nothing is read or allocated before its length is known to lie in the file."""

    def __init__(self, file: ModelFile, data: mmap.mmap) -> None:
        self.file = file
        self.data = data
        self.position = 0
        self.strings = 0
        self.text = 0

    def unpack(self, layout: struct.Struct, what: str) -> int | float | bool:
        start = self.skip(layout.size, what)
        value: int | float | bool = layout.unpack_from(self.data, start)[0]
        return value

    def u32(self, what: str) -> int:
        return int(self.unpack(_U32, what))

    def u64(self, what: str) -> int:
        return int(self.unpack(_U64, what))

    def skip(self, length: int, what: str) -> int:
        """Step over `length` bytes and return where they start."""
        start = self.position
        self.file.require(start, length, what)
        self.position = start + length
        return start

    def count(self, limit: int, what: str) -> int:
        value = self.u64(f"the number of {what}")
        if value > limit:
            raise ArtifactError(
                f"{self.file.shown} is malformed: it claims {value} {what}, more than {limit}; download it again."
            )
        return value

    def string(self, what: str) -> str:
        length = self.u64(f"the length of {what}")
        start = self.skip(length, what)
        self._spend(length, what)
        return self.data[start : start + length].decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        self.strings += count
        if self.strings > MAX_STRINGS:
            raise ArtifactError(
                f"{self.file.shown} is malformed: it claims more than {MAX_STRINGS} strings; download it again."
            )
        unpack, data, position = _U64.unpack_from, self.data, self.position
        try:
            for _ in range(count):
                position += 8 + unpack(data, position)[0]
        except (struct.error, OverflowError):
            position = max(position, self.file.size + 1)
        self.file.require(self.position, position - self.position, what)
        self._spend(position - self.position, what)
        self.position = position

    def _spend(self, length: int, what: str) -> None:
        self.text += length
        if self.text > MAX_TEXT:
            raise ArtifactError(
                f"{self.file.shown} is malformed: with {what} its strings exceed {MAX_TEXT} bytes; download it again."
            )


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the tensor data of a GGUF file."""

    version: int
    metadata: dict[str, object]
    tensors: list[TensorInfo]  # names as stored, shapes as [out, in]
    problems: list[str]


def open_gguf(file: ModelFile) -> Artifact:
    """Open a GGUF file as an artifact; see `store.artifact.open_artifact` for the errors."""
    header = read_header(file)
    metadata = header.metadata
    split = Fields(file.shown, metadata).integer("split.count", low=0)
    if split is not None and split > 1:
        raise UnsupportedModelError(
            f"{file.shown} is one of {split} parts; join them with `llama-gguf-split --merge` first."
        )
    architecture = Fields(file.shown, metadata).needed_text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{file.shown} has the architecture {printable(architecture, 80)}; "
            f"supported are {', '.join(ARCHITECTURES)}."
        )
    tensors = by_canonical_name(file.shown, header.tensors)
    fields = Fields(file.shown, _uniform(file.shown, metadata), f"{architecture}.")
    config = _config(file, architecture, fields, tensors)
    problems = header.problems + check_tensors(file.shown, tensors, config) + _odd_settings(file, fields, config)
    return Artifact(
        path=file.path,
        format="gguf",
        config=config,
        tensors=tensors,
        sources=(file,),
        problems=tuple(problems),
        metadata=metadata,
        interleaved=interleaved_tensors(tensors, config) if architecture == "llama" else {},
        vocabulary=_vocabulary(metadata, file.shown),
    )


def read_header(file: ModelFile) -> Header:
    """Read metadata and tensor table; ArtifactError for anything that does not lie within the file."""
    file.require(0, 24, "the GGUF header")
    with file.mapped() as data:
        cursor = _Cursor(file, data)
        cursor.skip(4, "the magic number")
        version = _version(cursor)
        n_tensors = cursor.count(MAX_TENSORS, "tensors")
        n_keys = cursor.count(MAX_KEYS, "metadata entries")
        metadata = _metadata(cursor, n_keys)
        entries = [_entry(cursor) for _ in range(n_tensors)]
        alignment = Fields(file.shown, metadata).integer("general.alignment") or 32
        if alignment & (alignment - 1):
            raise ArtifactError(
                f"{file.shown} is malformed: general.alignment is {alignment}, not a power of two; convert it again."
            )
        start = -(-cursor.position // alignment) * alignment
    tensors = [_located(file, start, *entry) for entry in entries]
    check_overlaps(file.shown, tensors)
    return Header(version, metadata, tensors, _unaligned(file, tensors, start, alignment))


def _unaligned(file: ModelFile, tensors: list[TensorInfo], start: int, alignment: int) -> list[str]:
    names = [info.raw_name for info in tensors if (info.offset - start) % alignment]
    if not names:
        return []
    return [
        f"{file.shown} places {len(names)} tensors off its alignment of {alignment} bytes, the first is "
        f"{printable(names[0], 80)}; llama.cpp refuses such a file."
    ]


def _version(cursor: _Cursor) -> int:
    version = cursor.u32("the version")
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0:
        raise UnsupportedModelError(f"{cursor.file.shown} is a big-endian GGUF; only little-endian files are read.")
    raise UnsupportedModelError(f"{cursor.file.shown} is GGUF version {version}; supported are versions 2 and 3.")


def _metadata(cursor: _Cursor, n_keys: int) -> dict[str, object]:
    metadata: dict[str, object] = {}
    for _ in range(n_keys):
        key = cursor.string("a metadata key")
        if key in metadata:
            raise ArtifactError(
                f"{cursor.file.shown} is malformed: metadata key {printable(key, 80)} stands there twice; "
                "convert it again."
            )
        metadata[key] = _value(cursor, cursor.u32("a metadata type"), f"metadata {printable(key, 80)}")
    return metadata


def _value(cursor: _Cursor, type: int, what: str) -> object:
    if type == _STRING:
        return cursor.string(what)
    if type == _ARRAY:
        return _array(cursor, what)
    if type not in _SCALARS:
        raise ArtifactError(f"{cursor.file.shown} is malformed: {what} has the unknown type {type}; convert it again.")
    return cursor.unpack(struct.Struct("<" + _SCALARS[type][0]), what)


def _array(cursor: _Cursor, what: str) -> LazyArray:
    element, length = cursor.u32(what), cursor.u64(what)
    start = cursor.position
    file = cursor.file
    if element == _STRING:
        cursor.skip_strings(length, what)
        nbytes = cursor.position - start
        return LazyArray(length, "string", lambda: _strings(file.read(start, nbytes, what), length))
    if element not in _SCALARS or length > MAX_ELEMENTS:
        raise ArtifactError(
            f"{file.shown} is malformed: {what} is an array of {length} elements of type {element}; convert it again."
        )
    code, name = _SCALARS[element]
    dtype = np.dtype("<" + code)
    nbytes = length * dtype.itemsize
    cursor.skip(nbytes, what)
    return LazyArray(length, name, lambda: np.frombuffer(file.read(start, nbytes, what), dtype).tolist())


def _strings(data: bytes, count: int) -> list[str]:
    strings, position = [], 0
    for _ in range(count):
        start = position + 8
        position = start + _U64.unpack_from(data, position)[0]
        strings.append(data[start:position].decode("utf-8", "surrogateescape"))
    return strings


def _entry(cursor: _Cursor) -> tuple[str, list[int], int, int]:
    name = cursor.string("a tensor name")
    what = f"the entry of tensor {printable(name, 80)}"
    n_dims = cursor.u32(what)
    if not 1 <= n_dims <= 4:
        raise ArtifactError(f"{cursor.file.shown} is malformed: {what} claims {n_dims} dimensions; download it again.")
    dims = [cursor.u64(what) for _ in range(n_dims)]
    return name, dims, cursor.u32(what), cursor.u64(what)


def _located(file: ModelFile, start: int, name: str, dims: list[int], code: int, offset: int) -> TensorInfo:
    if code not in BLOCKS:
        raise unsupported_type(file.shown, name, _type_name(code))
    while len(dims) > 2 and dims[-1] == 1:
        dims = dims[:-1]
    shape = tuple(reversed(dims))  # the file names the fastest axis first
    tensor_type = TensorType(code)
    nbytes = check_blocks(file.shown, name, tensor_type, shape)
    file.require(start + offset, nbytes, f"tensor {printable(name, 80)}")
    return TensorInfo(name, name, tensor_type, shape, file.path, start + offset, nbytes)


def _type_name(code: int) -> str:
    import gguf

    try:
        return gguf.GGMLQuantizationType(code).name
    except ValueError:
        return f"number {code}"


def _config(file: ModelFile, architecture: str, fields: Fields, tensors: Mapping[str, TensorInfo]) -> ModelConfig:
    if EMBEDDING not in tensors:
        raise ArtifactError(f"{file.shown} lacks the tensor token_embd.weight; convert the model again.")
    hidden = fields.needed_integer("embedding_length")
    heads = fields.needed_integer("attention.head_count")
    size = rope.head_dim(fields, hidden, heads, "attention.key_length")
    rope.check_whole_head(fields, "rope.dimension_count", size)
    rope.check_whole_head(fields, "attention.value_length", size)
    factors = rope.linear(_linear_factor(fields), size)
    if ROPE_FREQS in tensors and architecture == "llama":  # llama.cpp does not look for it in qwen2
        stored = rope.stored_factors(file, tensors[ROPE_FREQS], size)
        factors = tuple(a * b for a, b in zip(stored, factors or (1.0,) * len(stored), strict=True))
    config = ModelConfig(
        architecture=architecture,
        num_hidden_layers=fields.needed_integer("block_count"),
        hidden_size=hidden,
        intermediate_size=fields.needed_integer("feed_forward_length"),
        num_attention_heads=heads,
        num_key_value_heads=fields.integer("attention.head_count_kv") or heads,
        head_dim=size,
        vocab_size=tensors[EMBEDDING].shape[0],
        rms_norm_eps=shortest(fields.needed_number("attention.layer_norm_rms_epsilon")),
        rope_theta=shortest(fields.number("rope.freq_base") or 10000.0),
        rope_type="neox",  # of the canonical rows, see `interleaved_tensors`
        tie_word_embeddings=LM_HEAD not in tensors,
        max_position_embeddings=fields.integer("context_length"),
        rope_factors=factors,
    )
    rope.check_heads(file.shown, config)
    return config


def _linear_factor(fields: Fields) -> float:
    kind = fields.text("rope.scaling.type") or "linear"
    if kind == "none":
        return 1.0
    if kind != "linear":
        raise UnsupportedModelError(
            f"{fields.file} scales its rotary embedding by {printable(kind, 80)}; supported are none, linear and the "
            "frequency tensor of llama3."
        )
    key, value = fields.find("rope.scaling.factor", "rope.scale_linear")
    return 1.0 if value in (None, 0) else shortest(fields.needed_number(key.removeprefix(fields.prefix)))


def _uniform(file: str, metadata: Mapping[str, object]) -> dict[str, object]:
    """Return the metadata with each per-layer setting that is the same in all layers as a single value."""
    return {
        key: _single(file, key, value) if key.endswith(_PER_LAYER) and isinstance(value, LazyArray) else value
        for key, value in metadata.items()
    }


def _single(file: str, key: str, values: LazyArray) -> object:
    distinct = set(values.decode()) if len(values) <= MAX_LAYERS else set()
    if len(distinct) != 1:
        raise UnsupportedModelError(
            f"{file} gives {printable(key, 80)} for each layer; only models with the same in all layers are supported."
        )
    return distinct.pop()


def _odd_settings(file: ModelFile, fields: Fields, config: ModelConfig) -> list[str]:
    """Refuse settings that change the computation; return sentences about those that only look like it."""
    fields.refuse(*_REFUSED)
    scale = fields.number("attention.scale") if fields.find("attention.scale")[1] else None
    if scale is not None and abs(scale * config.head_dim**0.5 - 1) > 1e-6:
        raise UnsupportedModelError(
            f"{file.shown} sets attention.scale to {scale}; only 1/sqrt(head_dim) is supported."
        )
    problems = []
    stated = fields.integer("vocab_size")
    if stated not in (None, config.vocab_size):
        problems.append(
            f"{file.shown} claims a vocabulary of {stated}, but its embedding has {config.vocab_size} rows; "
            "the rows are used."
        )
    window = fields.integer("attention.sliding_window", low=0)
    if window:
        problems.append(
            f"{file.shown} sets a sliding window of {window} tokens, which llama.cpp ignores for "
            f"{config.architecture}; so does this program."
        )
    return problems


def _vocabulary(metadata: Mapping[str, object], file: str) -> Vocabulary | None:
    kind = _VOCABULARIES.get(Fields(file, metadata).text("tokenizer.ggml.model") or "none")
    fields = Fields(file, metadata, "tokenizer.ggml.")
    tokens = _array_of(metadata, "tokens")
    if kind is None or tokens is None:
        return None
    return Vocabulary(
        kind=kind,
        tokens=tokens,
        merges=_array_of(metadata, "merges"),
        scores=_array_of(metadata, "scores"),
        token_types=_array_of(metadata, "token_type"),
        pre=fields.text("pre"),
        bos_id=token_id(fields, len(tokens), "bos_token_id"),
        eos_id=token_id(fields, len(tokens), "eos_token_id"),
        unk_id=token_id(fields, len(tokens), "unknown_token_id"),
        add_bos=fields.flag("add_bos_token"),
        add_eos=fields.flag("add_eos_token"),
        add_space_prefix=fields.flag("add_space_prefix"),
    )


def _array_of(metadata: Mapping[str, object], key: str) -> LazyArray | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    return value if isinstance(value, LazyArray) else None
