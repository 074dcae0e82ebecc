"""The vocabulary of a Hugging Face tokenizer.json in the form that GGUF and APR files embed."""

from pathlib import Path
from typing import Any

from store.files.json_text import read_object
from store.files.model_file import ModelFile
from store.vocabulary import LazyArray, Vocabulary

MAX_TOKENIZER = 64 << 20  # bytes; that of 262,144 tokens has 33 MB
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT_RULES = {_WORDS % r"\p{N}": "qwen2", _WORDS % r"\p{N}{1,3}": "llama-bpe"}


def read_tokenizer(path: Path) -> dict[str, Any]:
    """Return what a tokenizer.json holds; ArtifactError if it is no JSON object, or larger than any known one."""
    return read_object(ModelFile.at(path), MAX_TOKENIZER)


def read_vocabulary(path: Path) -> Vocabulary | None:
    """Return the vocabulary of a byte-level BPE tokenizer, None if the file describes any other kind.

    Raises ArtifactError if the file is no JSON object.
    """
    values = read_tokenizer(path)
    try:
        return _byte_level_bpe(values)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None  # not laid out as the tokenizers library writes it


def _byte_level_bpe(values: dict[str, Any]) -> Vocabulary | None:
    model = values["model"]
    pre = split_rule(values["pre_tokenizer"])
    if model["type"] != "BPE" or model.get("byte_fallback") or pre is None:
        return None
    ids: dict[str, int] = dict(model["vocab"])
    added = {token["content"]: token for token in values.get("added_tokens", [])}
    ids.update({content: token["id"] for content, token in added.items()})
    if min(ids.values()) < 0 or max(ids.values()) > 4 * len(ids):
        return None
    tokens = [f"[PAD{number}]" for number in range(max(ids.values()) + 1)]
    types = [_UNUSED] * len(tokens)
    for token, number in ids.items():
        tokens[number] = token
        types[number] = _NORMAL if token not in added else _CONTROL if added[token]["special"] else _USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    start = _start_token(values.get("post_processor"))
    return Vocabulary(
        kind="bpe",
        tokens=_array(tokens, "string"),
        merges=_array(merges, "string"),
        token_types=_array(types, "int32"),
        pre=pre,
        bos_id=ids[start] if start else None,
        add_bos=start is not None,
    )


def _array(values: list[Any], element: str) -> LazyArray:
    return LazyArray(len(values), element, lambda: values)


def split_rule(pre_tokenizer: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of the rule that cuts text into words, None if it has none or it is unknown."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return "gpt-2" if steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space") else None
    if [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    return _SPLIT_RULES.get(steps[0]["pattern"]["Regex"])


def _start_token(post_processor: dict[str, Any] | None) -> str | None:
    """Return the special token that the post-processor puts before every text."""
    if post_processor is None:
        return None
    for step in post_processor.get("processors", [post_processor]):
        if step["type"] == "TemplateProcessing" and "SpecialToken" in step["single"][0]:
            return str(step["single"][0]["SpecialToken"]["id"])
    return None
