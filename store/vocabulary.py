"""The tokenizer data that an artifact carries, decoded only when asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from store.files.fields import Fields

MAX_LAYERS = 1 << 14
# Names of `pre` under which BPE spells tokens as text, with SentencePiece's spaces, and not as GPT-2 spells bytes.
SPELLED_AS_TEXT = frozenset({"gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"})
Kind = Literal["hf_json", "bpe", "whitespace", "spm", "unigram", "wordpiece"]
# What `tokenizer.ggml.model` calls the kinds.
GGUF_KINDS: dict[str, Kind] = {
    "gpt2": "bpe",
    "gemma4": "bpe",
    "whitespace": "whitespace",
    "llama": "spm",
    "t5": "unigram",
    "bert": "wordpiece",
}


@dataclass(frozen=True, slots=True)
class LazyArray:
    """An array in a file's metadata: its length and element type are known, its elements are read by `decode()`.

    Strings that are not valid UTF-8 keep their bytes as lone surrogates ("surrogateescape").
    """

    length: int
    element: str  # "string", "float32", "int32" ...
    decode: Callable[[], list[Any]]

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"[{self.length} × {self.element}]"


def with_lists(fields: Fields) -> Fields:
    """Return the settings with lists that may be of layers as lists."""
    values = (
        (key, value.decode() if isinstance(value, LazyArray) and len(value) <= MAX_LAYERS else value)
        for key, value in fields.values.items()
    )
    return Fields(fields.file, dict(values), fields.prefix)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is needed to turn a prompt into token ids.

    kind
        "hf_json": `json_path` is a Hugging Face tokenizer.json and nothing else is set;
        "bpe": BPE as GPT-2 has it (`tokens`, `merges`, and `pre`, llama.cpp's name of the split rule);
        "whitespace": the same of the words between white space, which is dropped (`lowercase` before);
        "spm": SentencePiece's BPE (`tokens`, `scores`, `token_types`);
        "unigram": SentencePiece's Unigram (the same, `charsmap`, `remove_extra_whitespaces`);
        "wordpiece": BERT's (`tokens`, where "▁" begins a word; `lowercase`, `strip_accents`).
    charsmap
        The bytes of SentencePiece's compiled table of what characters are replaced by.
    strips_behind_special
        Whether white space behind special tokens is dropped.
    token_types
        SentencePiece's kinds: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    """

    kind: Kind
    json_path: Path | None = None
    tokens: LazyArray | None = None
    merges: LazyArray | None = None
    scores: LazyArray | None = None
    token_types: LazyArray | None = None
    pre: str | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_space_prefix: bool | None = None
    sep_id: int | None = None
    charsmap: LazyArray | None = None
    remove_extra_whitespaces: bool | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    strips_behind_special: bool = False

    @property
    def byte_level(self) -> bool:
        """Whether its tokens are spelled by GPT-2's stand-ins for bytes."""
        return self.kind in ("bpe", "whitespace") and self.pre not in SPELLED_AS_TEXT


def token_id(fields: Fields, n_tokens: int, key: str) -> int | None:
    """Return a special token's id, None when the file gives none or one outside the vocabulary (often 2**32 - 1)."""
    token = fields.integer(key, low=-1, high=2**32 - 1)
    return token if token is not None and 0 <= token < n_tokens else None
