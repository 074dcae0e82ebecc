"""GGUF files that are no language model by themselves, and what is known of those of other architectures."""

from collections.abc import Mapping

from kernels.errors import UnsupportedModelError
from store.files.fields import Fields
from store.files.model_file import ModelFile
from store.layout import interleaved_tensors
from store.stored_model import TensorInfo

# What llama.cpp's converters do to the tensors of an architecture (conversion/ of 2026-11).
_INTERLEAVED = "llama llama-embed mistral3 smollm3 arcee granite granitemoe deci internlm2 minicpm baichuan xverse olmo"
_ALSO_INTERLEAVED = "arctic bailingmoe deepseek llada nanbeige chameleon"  # rows of q and k, for adjacent pairs
_KINDS = {
    "adapter": "a LoRA adapter; merge it into its base model (`llama-export-lora`) and give the result",
    "imatrix": "an importance matrix, which guides quantization; give the model that it was made of",
    "mmproj": "the projector of a vision or audio model; give the GGUF of the language model that belongs to it",
}


def require_model(file: ModelFile, metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> None:
    """Raise UnsupportedModelError, saying what it is and what to give instead, for all but a whole language model."""
    fields = Fields(file.shown, metadata)
    kind = fields.text("general.type")
    if kind == "model" or kind is None:
        kind = "mmproj" if fields.text("general.architecture") == "clip" else None
    if kind in _KINDS:
        raise UnsupportedModelError(f"{file.shown} is {_KINDS[kind]}.")
    if not tensors and "tokenizer.ggml.tokens" in metadata:
        raise UnsupportedModelError(f"{file.shown} holds a vocabulary and no tensors; give the model itself.")


def interleaved_rows(metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Return the q and k tensors with rows in adjacent-pair order of any architecture, as far as heads are known."""
    architecture = metadata.get("general.architecture")
    if architecture not in (*_INTERLEAVED.split(), *_ALSO_INTERLEAVED.split()):
        return {}
    heads = metadata.get(f"{architecture}.attention.head_count")
    kv_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    counts = [count for count in (heads, kv_heads) if isinstance(count, int) and not isinstance(count, bool) and count]
    return interleaved_tensors(tensors, *counts) if len(counts) == 2 else {}
