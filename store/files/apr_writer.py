"""Write APR v2 files, and convert other artifacts to them.

The layout is that of `apr import`: header, metadata and index, each padded to 64 bytes, tensors in the order of
their names, each padded to 64 bytes, and the CRC-32 of everything as a footer.
"""

import json
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import UnsupportedModelError
from kernels.models import family
from kernels.weight import TensorType
from store.artifact import Artifact, TensorInfo
from store.encodings import AprQ4, AprQ8, Padded
from store.errors import ArtifactError
from store.files import apr_format as apr
from store.layout import Shape
from store.names import ROPE_FREQS
from store.rope import hf_share
from store.text import printable
from store.tokenizer_config import tokenizer_config
from store.vocabulary import LazyArray, Vocabulary
from store.whole_files import give_name, temporary_beside

Progress = Callable[[int, int], None]

_CHUNK = 1 << 24
_MODELS = {"bpe": "gpt2", "spm": "llama"}  # what APR calls the kinds of tokenizers that it can hold


@dataclass(frozen=True, slots=True)
class AprTensor:
    """A tensor to be written: its raw bytes and the shape [out, in] or [n] that they have.

    code : APR's number for what only APR has; None for that of the type.
    """

    name: str
    type: TensorType
    shape: Shape
    data: NDArray[np.uint8]
    code: int | None = None


def write_apr(
    path: Path,
    metadata: Mapping[str, object],
    tensors: Iterable[AprTensor],
    progress: Progress | None = None,
    *,
    replace: bool = True,
    checked: Callable[[], None] | None = None,
) -> None:
    """Write an APR v2 file; it appears at `path` complete or not at all.

    metadata : written as one JSON object in this order.
    progress : called with the bytes written and the bytes in all.
    replace : whether a file that is there is replaced.
    checked : called when all is written, before the file appears; what it raises keeps the file from appearing.

    Raises ArtifactError if it cannot be written.
    """
    in_order = sorted(tensors, key=lambda tensor: tensor.name.encode())
    head = _head(path, metadata, in_order)
    total = len(head) + sum(apr.padded(tensor.data.nbytes) for tensor in in_order) + 4
    try:
        with temporary_beside(path) as (temporary, file):
            done = checksum = 0
            for part in _parts(head, in_order):
                checksum = zlib.crc32(part, checksum)
                done += file.write(part)
                if progress is not None:
                    progress(done, total)
            file.write(checksum.to_bytes(4, "little"))
            if checked is not None:
                checked()
            give_name(file, temporary, path, replace)
    except OSError as error:
        raise ArtifactError(
            f"{printable(str(path))} cannot be written ({error.strerror}); choose another place."
        ) from None


def convert_to_apr(
    artifact: Artifact, path: Path, progress: Progress | None = None, replace: bool = True
) -> tuple[str, ...]:
    """Write an artifact as APR v2: the stored bytes unchanged, the configuration and the tokenizer in its metadata.

    replace : whether a file that is there is replaced. ArtifactError if the artifact changes while it is read.

    What GGUF stores otherwise than Hugging Face keeps GGUF's names, which say so, as `apr import` leaves llama models:
    q and k rows for adjacent pairs, with rope_type 0, and norm weights with 1 added. Everything else gets Hugging Face
    names, and so do pieces of a tensor, as experts that are stacked.

    Returns sentences about what APR readers may stumble over. Raises UnsupportedModelError for a setting that APR has
    no place for.
    """
    notes, as_stored = _unwritten(artifact), _keeps_names(artifact)
    tensors, left_out = list[AprTensor](), list[str]()
    pieces = Counter(info.raw_name for info in artifact.tensors.values())
    for info in artifact.tensors.values():
        if not isinstance(info.type, TensorType) or not info.shape or not info.nbytes:
            left_out.append(info.raw_name)
        elif info.name != ROPE_FREQS:
            name = info.raw_name if as_stored and pieces[info.raw_name] == 1 else info.name
            tensors.append(_as_stored(artifact, info, info.type, name))
    if artifact.config.rope_factors is not None:
        factors = np.array(artifact.config.rope_factors, "<f4")
        tensors.append(AprTensor(ROPE_FREQS, TensorType["F32"], factors.shape, factors.view(np.uint8)))
    vocabulary, without = _embeddable(artifact)
    metadata = _metadata(artifact, tensors) | _tokenizer_metadata(vocabulary)
    write_apr(path, metadata, tensors, progress, replace=replace, checked=artifact.require_unchanged)
    if left_out:
        first = printable(left_out[0], 80)
        notes.append(f"{len(left_out)} tensors that no forward uses were left out, the first is {first}.")
    return (*notes, *without, *_type_notes(path, tensors))


def _as_stored(artifact: Artifact, info: TensorInfo, type: TensorType, name: str) -> AprTensor:
    """Return a tensor with its bytes as they are, where APR has a code for them."""
    encoding = info.encoding
    if isinstance(encoding, AprQ4):
        return AprTensor(name, type, info.shape, artifact.undecoded(info.name), apr.APR_Q4_CODES[0])
    if isinstance(encoding, AprQ8):
        scale, values = np.array([encoding.scale], "<f4").view(np.uint8), artifact.undecoded(info.name)
        return AprTensor(name, type, info.shape, np.concatenate([scale, values]), apr.APR_Q8_CODES[0])
    if isinstance(encoding, Padded):
        return AprTensor(name, encoding.blocks, info.shape, artifact.undecoded(info.name))
    return AprTensor(name, type, info.shape, artifact.stored_rows(info.name).reshape(-1))


def _keeps_names(artifact: Artifact) -> bool:
    """Whether tensors are stored as GGUF stores them and not as Hugging Face does."""
    of = family(artifact.config.architecture)
    return bool(artifact.interleaved) or (of.less_one and not artifact.less_one)


def _unwritten(artifact: Artifact) -> list[str]:
    """Refuse what an APR file would lose; return a sentence for a setting that matters to long texts only."""
    config, shown = artifact.config, printable(artifact.path.name)
    if (packed := next((info for info in artifact.tensors.values() if info.packing is not None), None)) is not None:
        raise UnsupportedModelError(
            f"{shown} stores {printable(packed.name, 80)} in parts ({packed.type.name}), for which APR has no type; "
            "convert the model that it was quantized from."
        )
    usual: dict[str, float | None] = {"rope_attention_factor": 1.0, "causal": family(config.architecture).causal}
    usual["temperature"] = None
    if family(config.architecture).partly is None:
        usual["rotary_dim"] = None
    lost = [name for name, value in usual.items() if getattr(config, name) != value]
    lost += [] if config.rms_norm_eps else ["rms_norm_eps"]
    if lost:
        raise UnsupportedModelError(
            f"{shown} has {lost[0]} {getattr(config, lost[0])}, which APR has no place for; it cannot be converted."
        )
    if not family(config.architecture).in_apr:
        raise UnsupportedModelError(
            f"{shown} is a {config.architecture}; APR has no place for what its layers are made of, and it cannot be "
            "converted."
        )
    if not family(config.architecture).model_types and (config.num_experts or config.layer_types is not None):
        what = "experts" if config.num_experts else "kinds of layers"
        raise UnsupportedModelError(
            f"{shown} is a {config.architecture}, of whose {what} APR has no place for the settings; it cannot be "
            "converted."
        )
    if config.length_limit is None:
        return []
    return [
        f"APR has no place for {config.length_limit_key}, so beyond {config.length_limit} tokens the copy computes "
        f"something else than {shown}."
    ]


def _head(path: Path, metadata: Mapping[str, object], tensors: list[AprTensor]) -> bytes:
    """Everything before the tensor data."""
    # A lone surrogate, a byte of a token that is not UTF-8, becomes the JSON escape of the same spelling.
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) > apr.MAX_METADATA:
        raise ArtifactError(
            f"{printable(path.name)} cannot be written: its metadata has {len(encoded)} bytes, and APR allows "
            f"{apr.MAX_METADATA}."
        )
    index = b"".join(_entries(path, tensors))
    index_offset = apr.HEADER.size + apr.padded(len(encoded))
    data_offset = index_offset + apr.padded(len(index))
    flags = apr.FLAG_ROW_MAJOR
    if any(tensor.type.block.elements > 1 or tensor.code is not None for tensor in tensors):
        flags |= apr.FLAG_QUANTIZED
    if "tokenizer.vocabulary" in metadata:
        flags |= apr.FLAG_VOCABULARY
    fields = (apr.MAGIC, 2, 0, flags, len(tensors), apr.HEADER.size, len(encoded), index_offset, data_offset)
    header = apr.HEADER.pack(*fields, apr.header_checksum(apr.HEADER.pack(*fields, 0)))
    return header + _pad(encoded) + _pad(index)


def _entries(path: Path, tensors: list[AprTensor]) -> Iterator[bytes]:
    sizes = [tensor.data.nbytes for tensor in tensors]
    offsets = accumulate(map(apr.padded, sizes), initial=0)
    for tensor, size, offset in zip(tensors, sizes, offsets, strict=False):
        name = tensor.name.encode()
        if len(name) > apr.MAX_NAME:
            raise ArtifactError(
                f"{printable(path.name)} cannot be written: the tensor name {printable(tensor.name, 80)} has "
                f"{len(name)} bytes, and APR allows {apr.MAX_NAME}."
            )
        place = struct.pack(f"<BB{len(tensor.shape)}QQQ", _code(tensor), len(tensor.shape), *tensor.shape, offset, size)
        yield len(name).to_bytes(2, "little") + name + place


def _code(tensor: AprTensor) -> int:
    return int(tensor.type) if tensor.code is None else tensor.code


def _parts(head: bytes, tensors: list[AprTensor]) -> Iterator[bytes | memoryview]:
    """Yield the file, without its footer, in pieces of bounded size."""
    yield head
    for tensor in tensors:
        data = tensor.data.data
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]
        yield bytes(apr.padded(len(data)) - len(data))


def _pad(data: bytes) -> bytes:
    return data.ljust(apr.padded(len(data)), b"\0")


def _metadata(artifact: Artifact, tensors: list[AprTensor]) -> dict[str, object]:
    config, of = artifact.config, family(artifact.config.architecture)
    split_halves = config.rope_type == "neox" and not artifact.interleaved
    origin = artifact.metadata.get("original_format") if artifact.format == "apr" else artifact.format
    optional = {
        "max_position_embeddings": config.max_position_embeddings,
        "tokenizer.chat_template": tokenizer_config(artifact).chat_template,
        "tied_embeddings": config.tie_word_embeddings or None,
    }
    return {
        "model_type": config.architecture,
        "name": printable(artifact.path.stem),
        "license": None,
        "data_source": None,
        "data_license": None,
        "original_format": origin,
        "total_size": sum(tensor.data.nbytes for tensor in tensors),
        "param_count": sum(int(np.prod(tensor.shape)) for tensor in tensors),
        "architecture": config.architecture,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "num_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "intermediate_size": config.intermediate_size,
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "rope_type": 2 if split_halves else 0,
        "rms_norm_eps": config.rms_norm_eps,
        **hf_share(of, config),
        **of.to_hugging_face(config),
        **_given(optional),
    }


def _embeddable(artifact: Artifact) -> tuple[Vocabulary | None, list[str]]:
    """Return the vocabulary in a form that APR metadata can hold, and a sentence if that is not possible."""
    vocabulary = artifact.vocabulary
    if vocabulary is None or vocabulary.kind in _MODELS:
        return vocabulary, []
    if vocabulary.json_path is not None:
        from store.tokenizer_json import read_vocabulary

        embedded = read_vocabulary(vocabulary.json_path)
        if embedded is not None:
            return _with_special(embedded, artifact), []
    return None, [
        f"The tokenizer of {printable(artifact.path.name)} is not of a kind that APR can hold, so it was left out; "
        "give token ids instead of a prompt."
    ]


def _with_special(vocabulary: Vocabulary, artifact: Artifact) -> Vocabulary:
    """Return a vocabulary with the BOS and EOS that other files than its tokenizer.json name."""
    said = tokenizer_config(artifact)
    ids = {token: number for number, token in enumerate(_decoded(vocabulary.tokens) or [])}
    bos, eos = (ids.get(said.special.get(name)) for name in ("bos_token", "eos_token"))
    return replace(
        vocabulary,
        bos_id=next((number for number in (vocabulary.bos_id, bos, said.bos_id) if number is not None), None),
        eos_id=next((number for number in (eos, *said.eos_ids) if number is not None), None),
    )


def _tokenizer_metadata(vocabulary: Vocabulary | None) -> dict[str, object]:
    if vocabulary is None:
        return {}
    values = {
        "model": _MODELS[vocabulary.kind],
        "pre_type": vocabulary.pre,
        "vocab_size": len(vocabulary.tokens or ()),
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "unknown_token_id": vocabulary.unk_id,
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "add_space_prefix": vocabulary.add_space_prefix,
        "vocabulary": _decoded(vocabulary.tokens),
        "merges": _decoded(vocabulary.merges),
        "scores": _decoded(vocabulary.scores),
        "token_type": _decoded(vocabulary.token_types),
    }
    return {f"tokenizer.{key}": value for key, value in _given(values).items()}


def _decoded(array: LazyArray | None) -> list[object] | None:
    return None if array is None else array.decode()


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _type_notes(path: Path, tensors: list[AprTensor]) -> list[str]:
    others = [tensor.type for tensor in tensors if tensor.code is None and not tensor.type.format.in_apr]
    if not others:
        return []
    names = ", ".join(sorted({other.name for other in others}))
    return [
        f"{printable(path.name)} holds {len(others)} tensors of type {names}, for which APR has no code of its own; "
        "they carry ggml's, which realizar's reader and this program understand."
    ]
