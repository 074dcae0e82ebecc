"""Read GGUF models in canonical terms: configuration, tensor names, q/k row order and vocabulary."""

import re
from collections.abc import Mapping

from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.family import Family
from kernels.models import called
from store.artifact import Artifact, TensorInfo
from store.errors import ArtifactError, not_run
from store.files.fields import Fields
from store.files.gguf_config import config_of
from store.files.gguf_header import read_header, tensor_table
from store.files.gguf_kinds import interleaved_rows, require_model
from store.files.gguf_parts import Part, all_parts, settings
from store.files.llama_cpp import refused_by_llama_cpp
from store.files.model_file import ModelFile
from store.layout import by_canonical_name, check_tensors, counted, interleaved_tensors
from store.names import layer_of
from store.stored_model import StoredModel, runnable
from store.vocabulary import GGUF_KINDS, LazyArray, Vocabulary, token_id

_LAYER = re.compile(r"blk\.\d{1,6}\.", re.ASCII)


def open_gguf(file: ModelFile) -> StoredModel:
    """Open a GGUF file, with the other parts of its model where it is one; see `store.open.open_model` for the errors.

    Where parts are missing, or are of another model, what this one holds is there, and the refusal says which.
    """
    header = read_header(file)
    refusal: ArtifactError | UnsupportedModelError | None = None
    try:
        parts = all_parts(file, header)
    except (ArtifactError, UnsupportedModelError) as error:
        parts, refusal = [Part(file, header)], error
    file, header = parts[0]
    metadata = header.metadata if refusal is None else settings(file, header.metadata)
    stored, problems = list[TensorInfo](), list[str]()
    for part in parts:
        located, odd = tensor_table(part.file, part.header)
        stored, problems = stored + located, problems + odd
    tensors, wrapped = by_canonical_name(file.shown, stored, metadata.get("general.architecture"))
    found = StoredModel(
        path=file.path,
        format="gguf",
        tensors=tensors,
        sources=tuple(part.file for part in parts),
        problems=(*problems, *wrapped),
        metadata=metadata,
        is_part=refusal is not None,
    )
    return runnable(found, lambda: _artifact(file, found, refusal))


def _artifact(file: ModelFile, found: StoredModel, refusal: WorkbenchError | None) -> Artifact:
    """Make of a file what can be run unless it is refused; what is known before that fails is kept in `found`."""
    metadata = found.metadata
    found.vocabulary = _vocabulary(metadata, file.shown)
    found.interleaved = interleaved_rows(metadata, found.tensors)
    if refusal is not None:
        raise refusal
    require_model(file, metadata, found.tensors)
    architecture = Fields(file.shown, metadata).needed_text("general.architecture")
    fields = Fields(file.shown, metadata, f"{architecture}.")
    of = called(architecture, lambda family: family.gguf == architecture and family.reads_gguf(fields))
    if of is None:
        raise not_run(file.shown, "architecture", architecture)
    tensors = dict(found.tensors)
    left_out = _left_out(file.shown, of, tensors)
    config, odd_settings = config_of(file, of, found, tensors)
    if of.predicts:
        left_out += _not_run(file.shown, tensors, config.num_hidden_layers)
    problems, unused = check_tensors(file.shown, tensors, config)
    problems += odd_settings + left_out
    problems += refused_by_llama_cpp(file.shown, fields, found.tensors, config)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    interleaving = interleaved_tensors(tensors, heads, kv_heads) if of.interleaved else None
    return Artifact.of(found, config, tensors, unused, problems, interleaving)


def _left_out(file: str, of: Family, tensors: dict[str, TensorInfo]) -> list[str]:
    """Remove the tensors that llama.cpp loads and does not compute with; say which."""
    unused = [name for name, info in tensors.items() if _LAYER.sub("", info.raw_name) in of.gguf_unused]
    names = [tensors.pop(name).raw_name for name in unused]
    if not names:
        return []
    return [
        f"{file} stores {counted(names)} that llama.cpp loads and does not use in {of.gguf}; nor does this program."
    ]


def _not_run(file: str, tensors: dict[str, TensorInfo], layers: int) -> list[str]:
    """Remove the tensors of layers behind those that are run; say so."""
    behind = {name: layer for name in tensors if (layer := layer_of(name)) is not None and layer >= layers}
    for name in behind:
        del tensors[name]
    count = len(set(behind.values()))
    if not count:
        return []
    return [
        f"{file} holds {count} layer{'s' * (count != 1)} behind those that are run, to predict further tokens with; "
        "llama.cpp leaves them out of its own forward, and so does this program."
    ]


def _vocabulary(metadata: Mapping[str, object], file: str) -> Vocabulary | None:
    model = Fields(file, metadata).text("tokenizer.ggml.model") or "none"
    kind = GGUF_KINDS.get(model)
    name = str(metadata.get("general.name")).lower()
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
        pre="gemma4" if model == "gemma4" else fields.text("pre"),
        bos_id=token_id(fields, len(tokens), "bos_token_id"),
        eos_id=token_id(fields, len(tokens), "eos_token_id"),
        unk_id=token_id(fields, len(tokens), "unknown_token_id"),
        add_bos=fields.flag("add_bos_token"),
        add_eos=fields.flag("add_eos_token"),
        add_space_prefix=fields.flag("add_space_prefix"),
        sep_id=token_id(fields, len(tokens), "seperator_token_id"),  # as GGUF spells it
        charsmap=_array_of(metadata, "precompiled_charsmap"),
        remove_extra_whitespaces=fields.flag("remove_extra_whitespaces"),
        lowercase=fields.flag("normalizer.lowercase"),
        strip_accents=fields.flag("normalizer.strip_accents"),
        strips_behind_special="phi-3" in name or "phi3" in name,  # llama.cpp goes by the name
    )


def _array_of(metadata: Mapping[str, object], key: str) -> LazyArray | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    return value if isinstance(value, LazyArray) else None
