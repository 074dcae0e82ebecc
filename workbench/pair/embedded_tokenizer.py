"""Tokenizers made of the vocabulary inside a GGUF or APR file, giving the ids that llama.cpp gives."""

import heapq
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from store.text import printable
from store.vocabulary import Vocabulary

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # kinds of tokens that are found in the text before any merging
_SPACE = "▁"  # stands for a space in SentencePiece vocabularies


class EmbeddedTokenizer(ABC):
    """What both kinds share: special tokens cut the text into parts, and BOS and EOS go around it.

    adds_bos : whether text starts with the BOS token where the file does not say.
    """

    adds_bos = False

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.tokens: list[str] = vocabulary.tokens.decode() if vocabulary.tokens else []
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        kinds = vocabulary.token_types.decode() if vocabulary.token_types else []
        special = {
            t for t, kind in zip(self.tokens, kinds, strict=False) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        }
        longest_first = sorted(special - {""}, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")

    def encode_all(self, texts: Sequence[str], around: bool) -> list[list[int]]:
        """Return the token ids of each text. around : with the BOS and EOS tokens that the file asks for."""
        return [self.encode(text, around) for text in texts]

    def around(self) -> tuple[list[int], list[int]]:
        """Return the tokens that are put before and behind every text."""
        v = self._vocabulary
        bos = [v.bos_id] if (self.adds_bos if v.add_bos is None else v.add_bos) and v.bos_id is not None else []
        return bos, [v.eos_id] if v.add_eos and v.eos_id is not None else []

    def encode(self, text: str, around: bool = True) -> list[int]:
        """Return the token ids of `text`. around : with the BOS and EOS tokens that the file asks for."""
        ids: list[int] = []
        after_special = True
        for place, part in enumerate(self._special.split(text)):
            if place % 2:
                ids.append(self.ids[part])
                after_special = True
            elif part:
                ids += self.encode_part(part, after_special)
                after_special = False
        before, behind = self.around() if around else ([], [])
        return [*before, *ids, *behind]

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token, "" if it has none."""
        return [self.shown(self.tokens[token]) if 0 <= token < len(self.tokens) else "" for token in tokens]

    @abstractmethod
    def encode_part(self, text: str, after_special: bool) -> list[int]:
        """Return the ids of text without special tokens; `after_special` at the start and behind a special token."""

    @abstractmethod
    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""


class _Split(NamedTuple):
    """One rule for cutting text into words.

    patterns : regular expressions applied one after the other, each isolating what it matches.
    whole_words : a word that is itself in the vocabulary is taken without merging.
    adds_bos : text starts with the BOS token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SUFFIX = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_SUFFIX}|{_WORD}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"  # as llama.cpp has it; combining marks are left out
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How words are cut, by the name in `tokenizer.ggml.pre`.
_SPLITS: dict[str, _Split] = {
    "default": _Split((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    **dict.fromkeys(("gpt-2", "phi-2", "olmo"), _Split((_GPT2,))),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell"), _Split((r"\p{N}", _GPT2))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), _Split((_QWEN2,))),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _Split((_LLAMA3,), True, True)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _Split((_LLAMA3,))),
    "tekken": _Split((_TEKKEN,), True, True),
}


class ByteLevelBpe(EmbeddedTokenizer):
    """Tokenizer "gpt2": words are cut by regular expressions, their bytes merged by rank."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from tokenizers import Regex, pre_tokenizers

        super().__init__(vocabulary)
        split = _SPLITS.get(vocabulary.pre or "default")
        if split is None:
            known = ", ".join(_SPLITS)
            raise ValueError(f"unknown pre-tokenizer {printable(str(vocabulary.pre))}, known are {known}")
        lines: list[str] = vocabulary.merges.decode() if vocabulary.merges else []
        # "left right", where the left part may itself start with a space; of equal lines the first counts
        pairs = ((line[:at], line[at + 1 :]) for line in lines if (at := line.find(" ", 1)) > 0)
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(pairs)))}
        self.adds_bos = split.adds_bos
        self._whole_words = split.whole_words
        self._words = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
        )

    def encode_part(self, text: str, after_special: bool) -> list[int]:  # noqa: ARG002
        """Return the ids of text without special tokens; what no token covers becomes one token per byte."""
        ids: list[int] = []
        for word, _ in self._words.pre_tokenize_str(text):
            spelled = to_byte_alphabet(word)
            whole = self._whole_words and spelled in self.ids
            for piece in [spelled] if whole else merged(list(spelled), lambda a, b: self._ranks.get((a, b))):
                ids += [self.ids[piece]] if piece in self.ids else [self._byte(character) for character in piece]
        return ids

    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""
        return from_byte_alphabet(token)

    def _byte(self, character: str) -> int:
        if character not in self.ids:
            raise ValueError(f"the vocabulary has no token for the byte 0x{byte_alphabet()[character]:02X}")
        return self.ids[character]


class SentencePiece(EmbeddedTokenizer):
    """Tokenizer "llama": of all neighbours, those whose joined piece scores highest are merged first."""

    adds_bos = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._scores: list[float] = vocabulary.scores.decode() if vocabulary.scores else []
        if len(self._scores) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens have {len(self._scores)} scores")
        self._prefix = "" if vocabulary.add_space_prefix is False else _SPACE

    def encode_part(self, text: str, after_special: bool) -> list[int]:
        """Return the ids of text without special tokens; what no token covers becomes one token per UTF-8 byte."""
        marked = (self._prefix if after_special else "") + text.replace(" ", _SPACE)
        ids: list[int] = []
        for piece in merged(list(marked), self._order):
            bytes_of_piece = piece.encode("utf-8", "surrogateescape")
            ids += [self.ids[piece]] if piece in self.ids else [self._byte(byte) for byte in bytes_of_piece]
        return ids

    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5]).decode("utf-8", "surrogateescape")
        return token.replace(_SPACE, " ")

    def _order(self, left: str, right: str) -> float | None:
        token = self.ids.get(left + right)
        return None if token is None else -self._scores[token]

    def _byte(self, byte: int) -> int:
        token = self.ids.get(f"<0x{byte:02X}>", self._vocabulary.unk_id)
        if token is None:
            raise ValueError(f"the vocabulary has no token for the byte 0x{byte:02X}")
        return token


def merged(pieces: list[str], order: Callable[[str, str], float | None]) -> list[str]:
    """Merge neighbours until no pair is left that may be: the lowest order first, of equals the leftmost.

    order : of a pair of neighbours; None if they are never merged.
    """
    before, behind = list(range(-1, len(pieces) - 1)), [*range(1, len(pieces)), -1]
    waiting: list[tuple[float, int, int, str]] = []

    def consider(left: int, right: int) -> None:
        if left >= 0 and right >= 0 and (place := order(pieces[left], pieces[right])) is not None:
            heapq.heappush(waiting, (place, left, right, pieces[left] + pieces[right]))

    for left in range(len(pieces) - 1):
        consider(left, left + 1)
    while waiting:
        _, left, right, joined = heapq.heappop(waiting)
        if not pieces[left] or not pieces[right] or pieces[left] + pieces[right] != joined:
            continue  # one of the two has been merged with another since
        pieces[left], pieces[right] = joined, ""
        behind[left] = behind[right]
        if behind[left] >= 0:
            before[behind[left]] = left
        consider(before[left], left)
        consider(left, behind[left])
    return [piece for piece in pieces if piece]


@cache
def byte_alphabet() -> dict[str, int]:
    """Return GPT-2's printable stand-in characters for the 256 byte values."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


@cache
def _stand_ins() -> dict[int, str]:
    return {byte: character for character, byte in byte_alphabet().items()}


def to_byte_alphabet(text: str) -> str:
    """Return the stand-in characters of the UTF-8 bytes of a text."""
    return "".join(_stand_ins()[byte] for byte in text.encode("utf-8"))


def from_byte_alphabet(token: str) -> str:
    """Return the text of a byte-level token; bytes that are not UTF-8 become lone surrogates."""
    alphabet = byte_alphabet()
    if any(character not in alphabet for character in token):
        return token  # a special token, stored as plain text
    return bytes(alphabet[character] for character in token).decode("utf-8", "surrogateescape")
