"""Read GGUF models in canonical terms: configuration, tensor names, q/k row order and vocabulary."""

from collections.abc import Mapping
from typing import Literal

from kernels.config import ARCHITECTURES
from kernels.errors import UnsupportedModelError
from store.artifact import Artifact
from store.fields import Fields
from store.gguf_config import config_of
from store.gguf_header import read_header, tensor_table
from store.layout import by_canonical_name, check_tensors, interleaved_tensors
from store.model_file import ModelFile
from store.text import printable
from store.vocabulary import LazyArray, Vocabulary, token_id

_VOCABULARIES: dict[str, Literal["bpe", "spm"]] = {"gpt2": "bpe", "llama": "spm"}


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
    stored, problems = tensor_table(file, header)
    tensors = by_canonical_name(file.shown, stored)
    config, odd_settings = config_of(file, architecture, metadata, tensors)
    problems += check_tensors(file.shown, tensors, config) + odd_settings
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
