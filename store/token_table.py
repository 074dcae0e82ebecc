"""Every token of a model's tokenizer by its id, whatever the container: what two tokenizers are compared by."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import ArtifactError
from store.stored_model import StoredModel
from store.text import printable
from store.tokenizer_json import read_tokenizer, split_rule
from store.vocabulary import LazyArray, Vocabulary

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5  # SentencePiece's kinds
BYTE_LEVEL = "byte-level BPE"
_KINDS = {"spm": "SentencePiece", "unigram": "Unigram", "wordpiece": "WordPiece", "whitespace": "BPE"}
_SPACE = "▁"  # SentencePiece's spelling of a space; converters spell some tokens with one and some with the other


@dataclass(frozen=True)
class TokenTable:
    """The tokens of a tokenizer, and how text is cut before they are looked for.

    texts
        The text of each id as it is stored, SentencePiece's spaces as spaces; None for an id that stands for nothing.
    whole
        Ids that are found in a text as they stand, before anything is merged: special and added tokens.
    kind
        "byte-level BPE", "SentencePiece", "Unigram", ...
    merges
        "left right" in the order in which they are made; None for a kind that has none.
    pre, normalizer
        How text is cut into words, by llama.cpp's name where it has one, and changed before; None for nothing.
    """

    texts: tuple[str | None, ...]
    whole: frozenset[int]
    kind: str
    merges: tuple[str, ...] | None = None
    pre: str | None = None
    normalizer: str | None = None

    @property
    def count(self) -> int:
        """The number of ids up to the last one that stands for something."""
        return next((n + 1 for n in reversed(range(len(self.texts))) if self.texts[n] is not None), 0)


def token_table(model: StoredModel) -> TokenTable | None:
    """Return the tokens of a model; None if it carries no tokenizer, ArtifactError if that cannot be read."""
    if model.vocabulary is None:
        return None
    path = model.vocabulary.json_path
    return _embedded(model.vocabulary) if path is None else _of_json(path)


def _embedded(vocabulary: Vocabulary) -> TokenTable:
    texts: list[str] = _decoded(vocabulary.tokens)
    kinds: list[int] = _decoded(vocabulary.token_types)
    kinds += [1] * (len(texts) - len(kinds))
    merges: list[str] | None = None if vocabulary.merges is None else vocabulary.merges.decode()
    return TokenTable(
        texts=tuple(
            None if kind == _UNUSED else _text(n, text)
            for n, (text, kind) in enumerate(zip(texts, kinds, strict=False))
        ),
        whole=frozenset(
            n for n, kind in enumerate(kinds) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and n < len(texts)
        ),
        kind=BYTE_LEVEL if vocabulary.byte_level else _KINDS.get(vocabulary.kind, "SentencePiece"),
        merges=tuple(merges) if merges is not None and vocabulary.byte_level else None,
        pre=(vocabulary.pre or "default") if vocabulary.byte_level else None,
    )


def _decoded(array: LazyArray | None) -> list[Any]:
    return [] if array is None else array.decode()


def _text(number: int, text: str) -> str | None:
    """The text of an id, None for the filler that converters write where an id stands for nothing."""
    return None if text == f"[PAD{number}]" else text.replace(_SPACE, " ")


def _of_json(path: Path) -> TokenTable:
    values = read_tokenizer(path)
    try:
        return _table(values)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        shown = printable(str(path))
        raise ArtifactError(f"{shown} is not laid out as the tokenizers library writes it; save it again.") from None


def _table(values: Mapping[str, Any]) -> TokenTable:
    model = values["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pairs of a token and its score
        vocabulary = {str(token): number for number, (token, _) in enumerate(vocabulary)}
    ids: dict[str, int] = dict(vocabulary)
    added = {str(token["content"]): int(token["id"]) for token in values.get("added_tokens") or []}
    ids |= added
    last = max(ids.values(), default=-1)
    if min(ids.values(), default=0) < 0 or last > 4 * len(ids):
        raise ValueError("ids are no numbers of tokens")
    texts: list[str | None] = [None] * (last + 1)
    for token, number in ids.items():
        if model.get("type") == "WordPiece" and token not in added:  # as converters spell them
            texts[number] = _text(number, token[2:] if token.startswith("##") else _SPACE + token)
        else:
            texts[number] = _text(number, token)
    merges = model.get("merges")
    kind = model.get("type") or ("BPE" if merges is not None else "unnamed")
    fallback = kind == "BPE" and bool(model.get("byte_fallback"))
    steps = (_steps(values.get("pre_tokenizer"), "pretokenizers"), _steps(values.get("normalizer"), "normalizers"))
    byte_level = kind == "BPE" and not fallback and any("ByteLevel" in (step or "") for step in steps)
    return TokenTable(
        texts=tuple(texts),
        whole=frozenset(added.values()),
        kind=BYTE_LEVEL if byte_level else "SentencePiece" if fallback else str(kind),
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in merges) if byte_level and merges else None,
        pre=_cut(values.get("pre_tokenizer")) if byte_level else None,
        normalizer=steps[1] if byte_level else None,
    )


def _cut(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """How words are cut: llama.cpp's name of the rule, else the steps that make it up."""
    if pre_tokenizer is None:
        return None
    try:
        named = split_rule(pre_tokenizer)
    except (IndexError, KeyError, TypeError):
        named = None
    return named or _steps(pre_tokenizer, "pretokenizers")


def _steps(value: dict[str, Any] | None, several: str) -> str | None:
    if value is None:
        return None
    return ", ".join(str(step["type"]) for step in value.get(several, [value])) or None
