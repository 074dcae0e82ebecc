"""Read GGUF models in canonical terms: configuration, tensor names, q/k row order and vocabulary."""

from collections.abc import Mapping
from typing import Literal

from kernels.config import ARCHITECTURES, ModelConfig
from kernels.errors import UnsupportedModelError
from store import rope
from store.artifact import Artifact, TensorInfo
from store.errors import ArtifactError
from store.fields import Fields, shortest
from store.gguf_header import read_header, tensor_table
from store.gguf_kinds import family_names, interleaved_rows, norms_plus_one, require_model, whole_metadata
from store.layout import by_canonical_name, check_tensors, interleaved_tensors
from store.llama_cpp import refused_by_llama_cpp
from store.model_file import ModelFile
from store.names import EMBEDDING, LM_HEAD, ROPE_FREQS
from store.stored_model import StoredModel, runnable
from store.text import printable
from store.vocabulary import LazyArray, Vocabulary, token_id

MAX_LAYERS = 1 << 14

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
_OUTPUT_BIAS = "output.bias"
_VOCABULARIES: dict[str, Literal["bpe", "spm"]] = {"gpt2": "bpe", "llama": "spm"}


def open_gguf(file: ModelFile) -> StoredModel:
    """Open a GGUF file; see `store.open.open_model` for the errors."""
    header = read_header(file)
    stored, problems = tensor_table(file, header)
    tensors, wrapped = by_canonical_name(file.shown, stored)
    metadata = whole_metadata(file, header.metadata)
    found = StoredModel(
        path=file.path,
        format="gguf",
        tensors=family_names(metadata, tensors),
        sources=(file,),
        problems=(*problems, *wrapped),
        metadata=metadata,
        norms_plus_one=norms_plus_one(metadata),
    )
    return runnable(found, lambda: _artifact(file, found))


def _artifact(file: ModelFile, found: StoredModel) -> Artifact:
    """Make of a file what can be run; what is known before that fails is kept in `found`."""
    metadata = found.metadata
    found.vocabulary = _vocabulary(metadata, file.shown)
    found.interleaved = interleaved_rows(metadata, found.tensors)
    found.is_part = (Fields(file.shown, metadata).integer("split.count", low=0) or 0) > 1
    require_model(file, metadata, found.tensors)
    architecture = Fields(file.shown, metadata).needed_text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{file.shown} has the architecture {printable(architecture, 80)}; "
            f"supported are {', '.join(ARCHITECTURES)}."
        )
    tensors = dict(found.tensors)
    fields = Fields(file.shown, _uniform(file.shown, metadata), f"{architecture}.")
    fields.refuse(*_REFUSED)
    config = _config(file, architecture, fields, tensors)
    problems, unused = check_tensors(file.shown, tensors, config)
    problems += _odd_settings(file, fields, tensors, config)
    problems += refused_by_llama_cpp(file.shown, fields, found.tensors, config)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    return Artifact(
        path=found.path,
        format=found.format,
        config=config,
        unused=unused,
        tensors=tensors,
        sources=found.sources,
        problems=(*found.problems, *problems),
        metadata=metadata,
        interleaved=interleaved_tensors(tensors, heads, kv_heads) if architecture == "llama" else {},
        vocabulary=found.vocabulary,
    )


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


def _odd_settings(file: ModelFile, fields: Fields, tensors: Mapping[str, TensorInfo], config: ModelConfig) -> list[str]:
    """Refuse settings that change the computation; return sentences about those that only look like it."""
    if config.architecture == "qwen2" and _OUTPUT_BIAS in tensors:
        raise UnsupportedModelError(
            f"{file.shown} has the tensor {_OUTPUT_BIAS}, which llama.cpp adds to the logits of qwen2 and this program "
            "does not; use a model without it."
        )
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
