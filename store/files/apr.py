"""Read APR v2 files as `apr import` writes them, and as converters write them that keep GGUF's names and type ids.

What those writers leave out or get wrong, such as checksums, is reported as a problem and not refused.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from kernels.config import FULL, SLIDING, ModelConfig, RopeType
from kernels.errors import UnsupportedModelError
from kernels.family import Keys
from kernels.models import ARCHITECTURES, family
from store import rope
from store.artifact import Artifact, TensorInfo
from store.errors import ArtifactError
from store.files import apr_format as apr
from store.files.fields import Fields, shortest
from store.files.json_text import parse_object
from store.files.model_file import ModelFile
from store.known_settings import table
from store.layout import (
    by_canonical_name,
    by_family,
    check_overlaps,
    check_rank,
    check_tensors,
    interleaved_tensors,
)
from store.names import EMBEDDING, LM_HEAD, ROPE_FREQS, is_gguf_name
from store.stored_model import StoredModel, runnable
from store.text import printable
from store.vocabulary import LazyArray, Vocabulary, token_id, with_lists

MAX_TENSORS = 1 << 16
MAX_CHECKED = 64 << 20  # the footer of a larger file is not verified when it is opened

_ADJACENT_PAIRS, _SPLIT_HALVES = 0, 2  # values of rope_type
_FAST = ("qwen2", "qwen3")  # whose rotary base aprender takes to be 1e6 where it is not said


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed header of an APR v2 file."""

    flags: int
    tensor_count: int
    metadata_offset: int
    metadata_size: int
    index_offset: int
    data_offset: int
    problems: list[str]


def open_apr(file: ModelFile) -> StoredModel:
    """Open an APR v2 file; see `store.open.open_model` for the errors."""
    header = _read_header(file)
    metadata = _read_metadata(file, header)
    _refuse_json_weights(file, header)
    stored = _read_index(file, header)
    problems = header.problems + _index_problems(file, stored) + _footer_problems(file, stored)
    tensors, wrapped = by_canonical_name(file.shown, stored, metadata.get("architecture"))
    found = StoredModel(
        path=file.path,
        format="apr",
        tensors=tensors,
        sources=(file,),
        problems=(*problems, *wrapped),
        metadata=metadata,
    )
    return runnable(found, lambda: _artifact(file, found))


def _artifact(file: ModelFile, found: StoredModel) -> Artifact:
    """Make of a file what can be run; what is known before that fails is kept in `found`."""
    fields = Fields(file.shown, found.metadata)
    found.vocabulary = _vocabulary(fields)
    _refuse_shards(fields)
    architecture = _architecture(fields)
    if not family(architecture).in_apr:
        raise UnsupportedModelError(
            f"{file.shown} is a {architecture}, which APR has no place for; give the model as SafeTensors or GGUF."
        )
    tensors = by_family(file.shown, found.tensors, family(architecture))
    named_as_gguf = any(is_gguf_name(info.raw_name) for info in tensors.values())
    found.less_one = family(architecture).less_one and not named_as_gguf
    interleaved, rope_type, doubts = _row_order(fields, architecture, tensors)
    config = _config(file, fields, architecture, rope_type, tensors, doubts)
    problems, unused = check_tensors(file.shown, tensors, config)
    problems += table("apr", family(architecture)).check(fields, architecture)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    interleaving = interleaved_tensors(tensors, heads, kv_heads) if interleaved else None
    return Artifact.of(found, config, tensors, unused, problems, interleaving, doubts)


def _read_header(file: ModelFile) -> Header:
    start = file.read(0, min(file.size, apr.HEADER.size), "the header")
    _refuse_relatives(file, start)
    file.require(0, apr.HEADER.size, "the header")
    _, major, minor, flags, count, metadata_offset, size, index_offset, data_offset, checksum = apr.HEADER.unpack(start)
    if major != 2:
        raise UnsupportedModelError(f"{file.shown} is APR version {major}.{minor}; only version 2 is read.")
    if flags & apr.FLAG_ENCRYPTED:
        raise UnsupportedModelError(f"{file.shown} is encrypted; decrypt it with the `apr` tool first.")
    if flags & apr.FLAG_COLUMN_MAJOR:
        raise UnsupportedModelError(
            f"{file.shown} stores its matrices by columns; only rows are read, convert it again."
        )
    if count > MAX_TENSORS:
        raise ArtifactError(f"{file.shown} is malformed: it claims {count} tensors; download or convert it again.")
    file.require(metadata_offset, size, "the metadata")
    file.require(index_offset, 0, "the tensor index")
    file.require(data_offset, 0, "the tensor data")
    problems = []
    expected = apr.header_checksum(start)
    if checksum == 0:
        problems.append(f"{file.shown} has no header checksum (0), so its header could not be verified.")
    elif checksum != expected:
        problems.append(
            f"{file.shown} has the header checksum {checksum:#010x} where {expected:#010x} is right; "
            "it may be damaged, convert or download it again."
        )
    return Header(flags, count, metadata_offset, size, index_offset, data_offset, problems)


def _refuse_relatives(file: ModelFile, start: bytes) -> None:
    """Refuse the other formats whose name starts with APR, each by what it is."""
    magic = start[:4]
    if magic in (apr.MAGIC, b"APR2"):
        return
    what = {
        b"APRN": "an APR version 1 file (a classical machine-learning model), recognised but not a language model",
        b"APR1": "a whisper.apr speech model, recognised but not a language model",
    }.get(magic, "of an unknown kind of APR")
    raise UnsupportedModelError(f"{file.shown} is {what}; give an APR version 2 language model.")


def _read_metadata(file: ModelFile, header: Header) -> dict[str, object]:
    data = file.read(header.metadata_offset, min(header.metadata_size, apr.MAX_METADATA + 1), "the metadata")
    if header.flags & (apr.FLAG_LZ4 | apr.FLAG_ZSTD) and not data.startswith(b"{"):
        raise UnsupportedModelError(f"{file.shown} is compressed; write it again without compression.")
    metadata = parse_object(data, f"the metadata of {file.shown}")
    return {key: _shortened(value) for key, value in metadata.items()}


def _shortened(value: object) -> object:
    """Return a list as the LazyArray that other formats have for it."""
    if not isinstance(value, list):
        return value
    kinds = {type(item) for item in value}
    names = {str: "string", int: "int64", float: "float64", bool: "bool"}
    return LazyArray(len(value), names.get(kinds.pop(), "object") if len(kinds) == 1 else "object", lambda: value)


def _refuse_json_weights(file: ModelFile, header: Header) -> None:
    start = file.read(header.index_offset, min(2, file.size - header.index_offset), "the tensor index")
    if start[:1] == b"[" and start[1:] != b"\0":  # read as the length of a name it would be too long
        raise UnsupportedModelError(
            f"{file.shown} keeps its weights as one JSON text (an early converter's dialect); convert the model again."
        )


def _read_index(file: ModelFile, header: Header) -> list[TensorInfo]:
    """Read the tensor index; every length is checked before it is used."""
    if header.index_offset > header.data_offset:
        raise ArtifactError(
            f"{file.shown} is malformed: its tensor data starts before its tensor index; convert it again."
        )
    longest = header.tensor_count * (2 + apr.MAX_NAME + 2 + 8 * apr.MAX_DIMS + 16)
    data = file.read(header.index_offset, min(header.data_offset - header.index_offset, longest), "the tensor index")
    stored, position = [], 0
    try:
        for _ in range(header.tensor_count):
            info, position = _entry(file, header, data, position)
            stored.append(info)
    except struct.error:
        raise ArtifactError(
            f"{file.shown} is truncated or malformed: its index ends after {len(stored)} of {header.tensor_count} "
            "tensors; download or convert it again."
        ) from None
    return stored


def _entry(file: ModelFile, header: Header, data: bytes, position: int) -> tuple[TensorInfo, int]:
    """Read one index entry; struct.error if the index ends within it."""
    (length,) = struct.unpack_from("<H", data, position)
    if length > apr.MAX_NAME:
        raise ArtifactError(
            f"{file.shown} is malformed: a tensor name has {length} bytes; download or convert it again."
        )
    (raw,) = struct.unpack_from(f"<{length}s", data, position + 2)
    name = raw.decode("utf-8", "surrogateescape")
    position += 2 + length
    code, n_dims = struct.unpack_from("<BB", data, position)
    if n_dims > apr.MAX_DIMS:
        raise ArtifactError(f"{file.shown} is malformed: tensor {printable(name, 80)} claims {n_dims} dimensions.")
    *dims, offset, size = struct.unpack_from(f"<{n_dims + 2}Q", data, position + 2)
    shape = tuple(dims)
    check_rank(file.shown, name, shape)
    file.require(header.data_offset + offset, size, f"tensor {printable(name, 80)}")
    kind = apr.tensor_type(file.shown, name, code, shape, size)
    info = TensorInfo(name, name, kind, shape, file.path, header.data_offset + offset, size)
    return info, position + 2 + 8 * (n_dims + 2)


def _index_problems(file: ModelFile, stored: list[TensorInfo]) -> list[str]:
    check_overlaps(file.shown, stored)
    names = [info.raw_name.encode("utf-8", "surrogateescape") for info in stored]
    if names == sorted(names):
        return []
    return [f"{file.shown} has an unsorted tensor index, which strict readers refuse."]


def _footer_problems(file: ModelFile, stored: list[TensorInfo]) -> list[str]:
    end = apr.padded(max((info.offset + info.nbytes for info in stored), default=0))
    if file.size < end + 4:
        return [f"{file.shown} has no footer checksum, so its content could not be verified."]
    if file.size > MAX_CHECKED:
        return [f"The footer checksum of {file.shown} was not verified, because the file is large."]
    checksum = int.from_bytes(file.read(file.size - 4, 4, "the footer"), "little")
    with file.mapped() as data:
        expected = zlib.crc32(memoryview(data)[:-4])
    if checksum == expected:
        return []
    return [
        f"{file.shown} has the footer checksum {checksum:#010x} where {expected:#010x} is right; "
        "it may be damaged, convert or download it again."
    ]


def _refuse_shards(fields: Fields) -> None:
    sharding = fields.find("sharding")[1]
    if isinstance(sharding, dict):
        count = Fields(fields.file, sharding).integer("shard_count")
        if count is not None and count > 1:
            raise UnsupportedModelError(
                f"{fields.file} is one of {count} shards; give a file that holds the whole model."
            )


def _architecture(fields: Fields) -> str:
    name = fields.text("architecture")
    if name is None or name.lower() == "auto":
        name = fields.needed_text("model_type")
    architecture = name.lower()
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{fields.file} has the architecture {printable(name, 80)}; supported are {', '.join(ARCHITECTURES)}."
        )
    return architecture


def _row_order(
    fields: Fields, architecture: str, tensors: Mapping[str, TensorInfo]
) -> tuple[bool, RopeType, list[str]]:
    """Decide which q/k channels rotate together.

    Returns whether the stored rows are in the adjacent-pair order of llama GGUF files and must be put back, the
    rope type of the rows after that, and sentences for what had to be guessed.
    """
    stated = fields.integer("rope_type", low=0)
    if stated not in (None, _ADJACENT_PAIRS, _SPLIT_HALVES):
        raise UnsupportedModelError(f"{fields.file} has the rope_type {stated}; supported are 0 and 2.")
    origin = fields.text("original_format")
    from_gguf = origin == "gguf" or any(is_gguf_name(info.raw_name) for info in tensors.values())
    of = family(architecture)
    if of.pairs == "norm":
        return False, *_of_adjacent_pairs(fields, architecture, stated)
    pairs = of.interleaved
    if pairs and from_gguf and stated != _SPLIT_HALVES:
        return True, "neox", []
    if stated != _ADJACENT_PAIRS or (pairs and origin == "safetensors"):
        return False, "neox", []
    doubt = f"{fields.file} says rope_type 0 (adjacent pairs)"
    if pairs:
        return False, "neox", [f"{doubt}, but its Hugging Face names are taken to mean split halves."]
    if origin == "safetensors":
        return False, "neox", [f"{doubt}, but its SafeTensors origin is taken to mean split halves."]
    doubt += f", though every other engine rotates {architecture} by split halves; the file is taken at its word."
    return False, "norm", [doubt]


def _of_adjacent_pairs(fields: Fields, architecture: str, stated: int | None) -> tuple[RopeType, list[str]]:
    """The rotation of a family that turns adjacent pairs in every container, and what is odd about it."""
    if stated != _SPLIT_HALVES:
        return "norm", []
    return "neox", [
        f"{fields.file} says rope_type 2 (split halves), though every other engine rotates adjacent pairs of "
        f"{architecture}; the file is taken at its word."
    ]


def _config(
    file: ModelFile,
    fields: Fields,
    architecture: str,
    rope_type: RopeType,
    tensors: Mapping[str, TensorInfo],
    doubts: list[str],
) -> ModelConfig:
    """Read the configuration; a sentence for each default that stands in for a missing key goes to `doubts`."""
    if EMBEDDING not in tensors:
        raise ArtifactError(f"{file.shown} lacks the tensor {EMBEDDING}, which the forward needs; convert it again.")

    def default(key: str, value: int | float) -> int | float:
        doubts.append(f"{file.shown} does not say {key}; {value:g} is used, which is a guess.")
        return value

    hidden = fields.needed_integer("hidden_size", "hidden_dim", "d_model", "n_embd")
    heads = fields.needed_integer("num_heads", "num_attention_heads", "n_heads", "n_head")
    size = rope.head_dim(fields, hidden, heads, "head_dim")
    theta = fields.number("rope_theta") or default("rope_theta", 1e6 if architecture in _FAST else 1e4)
    kv_heads = fields.integer("num_kv_heads", "num_key_value_heads", "n_kv_heads")
    own = family(architecture).key("rms_norm_eps")
    eps = fields.number("rms_norm_eps", own, "layer_norm_eps", "norm_eps", "eps")
    vocab_size = tensors[EMBEDDING].shape[0]
    if fields.integer("vocab_size", "n_vocab", low=0) not in (None, 0, vocab_size):
        doubts.append(f"{file.shown} claims another vocabulary size than the {vocab_size} rows of its embedding.")
    rotated = rope.hf_rotary_dim(family(architecture), fields, fields, size)
    scaling = _scaling(file, fields, architecture, tensors, theta, rotated or size)
    config = ModelConfig(
        architecture=architecture,
        num_hidden_layers=fields.needed_integer("num_layers", "num_hidden_layers", "n_layers", "n_layer"),
        hidden_size=hidden,
        intermediate_size=fields.needed_integer("intermediate_size", "intermediate_dim", "ffn_dim", "n_inner"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or int(default("num_kv_heads", heads)),
        head_dim=size,
        vocab_size=vocab_size,
        rms_norm_eps=shortest(eps or default("rms_norm_eps", 1e-6)),
        rope_theta=shortest(theta),
        rope_type=rope_type,
        tie_word_embeddings=LM_HEAD not in tensors,
        max_position_embeddings=fields.integer("max_position_embeddings", "context_length", "max_seq_len", "n_ctx"),
        rotary_dim=rotated,
        rope_factors=scaling.factors,
        rope_attention_factor=scaling.attention_factor,
        length_limit=scaling.limit,
        length_limit_key=scaling.limit_key,
    )
    rope.check_heads(file.shown, config)
    if fields.flag("use_sliding_window") and fields.integer("sliding_window") is None:
        raise fields.unsupported("sets use_sliding_window and does not say how many tokens sliding_window has.")
    untold = [key for key in family(architecture).told if key not in fields.values]
    if untold:
        raise ArtifactError(f"{fields.file} does not say {untold[0]}; add it, it is needed and cannot be guessed.")
    config = family(architecture).of_hugging_face(config, with_lists(fields))
    doubts += _unsaid(file, fields, config)
    return config


def _unsaid(file: ModelFile, fields: Fields, config: ModelConfig) -> list[str]:
    """Say so where a family has windows, or a scale of its own, unless a file says otherwise, and it is silent."""
    of = family(config.architecture)
    sentences = []
    if "query_pre_attn_scalar" in of.defaults and fields.number("query_pre_attn_scalar") is None:
        used = f"head_dim, {config.head_dim}, is used"
        sentences.append(f"{file.shown} does not say query_pre_attn_scalar; {used}, which is a guess.")
    switched = "use_sliding_window" in of.keys.get("safetensors", Keys()).used  # and off unless a file turns it on
    said = config.sliding_window is not None or config.layer_types is not None or "sliding_window" in fields.values
    if "sliding_window" in of.defaults and not switched and not said:
        used = f"{config.architecture} is run without windows in any layer"
        sentences.append(f"{file.shown} does not say sliding_window; {used}, which is a guess.")
    return sentences


def _scaling(
    file: ModelFile,
    fields: Fields,
    architecture: str,
    tensors: Mapping[str, TensorInfo],
    theta: float,
    head_dim: int,
) -> rope.Scaling:
    if ROPE_FREQS in tensors:
        return rope.Scaling(rope.stored_factors(file, tensors[ROPE_FREQS], head_dim))
    group, scaling = fields.find("rope_scaling", "rope_parameters")
    if scaling is None:
        return rope.Scaling()
    if not isinstance(scaling, dict) or {FULL, SLIDING} & scaling.keys():
        raise UnsupportedModelError(
            f"{fields.file} gives {group} as something else than an object for all layers, which is not read; correct "
            "the file."
        )
    return rope.hf_scaling(family(architecture), group, Fields(fields.file, scaling), fields, theta, head_dim)


def _vocabulary(fields: Fields) -> Vocabulary | None:
    tokenizer = Fields(fields.file, fields.values, "tokenizer.")
    tokens, merges, scores, token_types = (
        value if isinstance(value := tokenizer.find(key)[1], LazyArray) else None
        for key in ("vocabulary", "merges", "scores", "token_type")
    )
    model = (tokenizer.text("model", "model_type") or "").lower()
    is_bpe = model in ("gpt2", "bpe") or (not model and merges is not None)
    is_spm = model in ("llama", "spm", "sentencepiece") or (not model and scores is not None)
    if tokens is None or not (is_bpe or is_spm):
        return None
    return Vocabulary(
        kind="bpe" if is_bpe else "spm",
        tokens=tokens,
        merges=merges,
        scores=scores,
        token_types=token_types,
        pre=tokenizer.text("pre_type"),
        bos_id=token_id(tokenizer, len(tokens), "bos_token_id"),
        eos_id=token_id(tokenizer, len(tokens), "eos_token_id"),
        unk_id=token_id(tokenizer, len(tokens), "unknown_token_id"),
        add_bos=tokenizer.flag("add_bos_token"),
        add_eos=tokenizer.flag("add_eos_token"),
        add_space_prefix=tokenizer.flag("add_space_prefix"),
    )
