"""What a file is, whether it can be run or not: a language model, one that embeds texts, an adapter, a projector ..."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from store.errors import ArtifactError
from store.files.safetensors import adapter_of
from store.stored_model import StoredModel

# Encoders by GGUF's names and by Hugging Face's.
_ENCODERS = frozenset(
    (
        *(
            "bert",
            "nomic-bert",
            "nomic-bert-moe",
            "jina-bert-v2",
            "jina-bert-v3",
            "modern-bert",
            "neo-bert",
            "eurobert",
        ),
        *("gemma-embedding", "llama-embed", "t5encoder"),
        *("roberta", "xlm-roberta", "distilbert", "mpnet", "modernbert", "nomic_bert", "deberta-v2", "electra"),
    )
)
_RANKS = 4  # a value of pooling_type: what comes out says how well a text answers another
_TOWERS = {
    "vision": re.compile(r"(?:^|.*\.)(?:vision_\w+|visual|vit|vis_\w+|image_\w+)\..*", re.DOTALL),
    "audio": re.compile(r"(?:^|.*\.)(?:audio_\w+|speech_\w+)\..*", re.DOTALL),
}
_LORA = re.compile(r".*\.lora_[abAB](?:\..*)?", re.DOTALL)
_FILES = {"imatrix": "an importance matrix, which guides quantization", "adapter": "a LoRA adapter"}


def kind_of(model: StoredModel) -> str:
    """What a file is, in words that follow "is"."""
    names, of = [info.raw_name for info in model.tensors.values()], model.metadata
    folder = model.path if os.path.isdir(model.path) else model.path.parent
    kind, name = of.get("general.type"), of.get("general.architecture", of.get("model_type"))
    if kind == "mmproj" or name == "clip":
        return f"the projector of a{_senses(of)} model, which belongs to a language model"
    if any(map(_LORA.fullmatch, names)) or kind == "adapter":
        return _adapter(folder) if model.format == "safetensors" else "a LoRA adapter, no model by itself"
    if isinstance(kind, str) and kind in _FILES:
        return _FILES[kind]
    pooling = of.get(f"{name}.pooling_type")
    if pooling == _RANKS:
        return "a reranker, which says how well one text answers another"
    embeds = model.format == "safetensors" and os.path.isfile(folder / "modules.json")
    embeds |= name == "gemma3_text" and of.get("use_bidirectional_attention") is True  # EmbeddingGemma by itself
    if (isinstance(name, str) and name in _ENCODERS) or embeds:
        return "an embedding model, which makes a vector of a text"
    if isinstance(pooling, int) and pooling > 0:
        return f"a language model that is set to make a vector of a text ({name}.pooling_type is {pooling})"
    if not names:
        return "no model: it has no tensors"
    towers = [f"{count} of a{_an(what)} {what} tower" for what, count in _towers(names)]
    part = "part of a language model" if model.is_part else "a language model"
    return f"{part} with tensors beside it, {' and '.join(towers)}" if towers else part


def _adapter(folder: Path) -> str:
    with suppress(ArtifactError):  # of its settings, without which it is an adapter all the same
        if (known := adapter_of(folder)) is not None:
            return known.partition(";")[0]
    return "a LoRA adapter, no model by itself"


def _towers(names: Iterable[str]) -> list[tuple[str, int]]:
    listed = list(names)
    counts = [(what, sum(pattern.fullmatch(name) is not None for name in listed)) for what, pattern in _TOWERS.items()]
    return [(what, count) for what, count in counts if count]


def _an(word: str) -> str:
    return "n" if word[0] in "aeiou" else ""


def _senses(of: Mapping[str, object]) -> str:
    """What a projector projects, with the end of its article: n audio, vision, vision and audio."""
    found = [what for what in _TOWERS if of.get(f"clip.has_{what}_encoder") is True]
    words = " and ".join(found) or "vision"
    return f"{_an(words)} {words}"
