"""GGUF files that are no language model by themselves, and what is known of those of other architectures."""

import re
from collections.abc import Mapping

from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.gguf_header import read_header
from store.files.model_file import ModelFile
from store.layout import interleaved_tensors
from store.stored_model import TensorInfo
from store.text import printable

# What llama.cpp's converters do to the tensors of an architecture (conversion/ of 2026-11).
_INTERLEAVED = "llama llama-embed mistral3 smollm3 arcee granite granitemoe deci internlm2 minicpm baichuan xverse olmo"
_ALSO_INTERLEAVED = "arctic bailingmoe deepseek llada nanbeige chameleon"  # rows of q and k, for adjacent pairs
_KINDS = {
    "adapter": "a LoRA adapter; merge it into its base model (`llama-export-lora`) and give the result",
    "imatrix": "an importance matrix, which guides quantization; give the model that it was made of",
    "mmproj": "the projector of a vision or audio model; give the GGUF of the language model that belongs to it",
}
_PART = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL | re.ASCII)


def require_model(file: ModelFile, metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> None:
    """Raise UnsupportedModelError, saying what it is and what to give instead, for all but a whole language model."""
    fields = Fields(file.shown, metadata)
    parts = fields.integer("split.count", low=0)
    if parts is not None and parts > 1:
        number = (fields.integer("split.no", low=0) or 0) + 1
        raise UnsupportedModelError(
            f"{file.shown} is one of {parts} parts of a model, number {number}{_other_parts(file, parts)}; join them "
            "with `llama-gguf-split --merge FIRST_PART WHOLE.gguf` and give the result."
        )
    kind = fields.text("general.type")
    if kind == "model" or kind is None:
        kind = "mmproj" if fields.text("general.architecture") == "clip" else None
    if kind in _KINDS:
        raise UnsupportedModelError(f"{file.shown} is {_KINDS[kind]}.")
    if not tensors and "tokenizer.ggml.tokens" in metadata:
        raise UnsupportedModelError(f"{file.shown} holds a vocabulary and no tensors; give the model itself.")


def whole_metadata(file: ModelFile, metadata: dict[str, object]) -> dict[str, object]:
    """Return the metadata of a part with that of the first part, where all settings stand, if that lies beside it."""
    match = _PART.fullmatch(file.path.name)
    if match is None or "general.architecture" in metadata:
        return metadata
    first = file.path.with_name(f"{match[1]}-00001-of-{match[3]}.gguf")
    try:
        return read_header(ModelFile.at(first)).metadata | metadata
    except (ArtifactError, UnsupportedModelError):
        return metadata


def _other_parts(file: ModelFile, count: int) -> str:
    """Which other parts lie beside this one, by the names that llama.cpp gives them; empty for other names."""
    match = _PART.fullmatch(file.path.name)
    if match is None or count > 99_999:
        return ""
    names = [f"{match[1]}-{number:05d}-of-{count:05d}.gguf" for number in range(1, min(count, 1000) + 1)]
    others = [name for name in names if name != file.path.name]
    missing = [name for name in others if not (file.path.parent / name).is_file()]
    if not missing:
        return f" (the others lie beside it: {_listed(others)})"
    there = [name for name in others if name not in missing]
    return f" (beside it: {_listed(there) if there else 'none of the others'}; missing: {_listed(missing)})"


def _listed(names: list[str]) -> str:
    return ", ".join(printable(name, 120) for name in names[:3]) + (", …" if len(names) > 3 else "")


def interleaved_rows(metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Return the q and k tensors with rows in adjacent-pair order of any architecture, as far as heads are known."""
    architecture = metadata.get("general.architecture")
    if architecture not in (*_INTERLEAVED.split(), *_ALSO_INTERLEAVED.split()):
        return {}
    heads = metadata.get(f"{architecture}.attention.head_count")
    kv_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    counts = [count for count in (heads, kv_heads) if isinstance(count, int) and not isinstance(count, bool) and count]
    return interleaved_tensors(tensors, *counts) if len(counts) == 2 else {}
