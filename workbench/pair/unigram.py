"""Tokenizer "t5", SentencePiece's Unigram: of all ways to cut a text into tokens, that with the highest sum of scores.

Read from llama.cpp of 2026-10 (`llm_tokenizer_ugm_session` in src/llama-vocab.cpp).
"""

import math
import re

import numpy as np

from store.vocabulary import Vocabulary
from workbench.pair.embedded_tokenizer import EmbeddedTokenizer, from_pieces

_NORMAL, _USER_DEFINED, _UNUSED = 1, 4, 5  # kinds of tokens that texts are cut into
_PENALTY = np.float32(10)  # what no token covers scores this much below the worst token
_DEFAULT_EOS, _DEFAULT_UNKNOWN = 1, 2  # where the file names none
_SPACE = "▁".encode()
_MAX_CHARSMAP = 1 << 22  # bytes; that of T5 has 240 KB


class Unigram(EmbeddedTokenizer):
    """Tokenizer "t5", computed as llama.cpp does: scores are added in float64, of equal sums the first found counts."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self.require_distinct()
        scores = self.scores()
        kinds = vocabulary.token_types.decode() if vocabulary.token_types else [_NORMAL] * len(scores)
        if len(kinds) != len(scores):
            raise ValueError(f"{len(scores)} tokens have {len(kinds)} kinds")
        normal = [score for score, kind in zip(scores, kinds, strict=True) if kind == _NORMAL]
        if not normal:
            raise ValueError("the vocabulary has no normal token")
        self._unknown_score = float(np.float32(min(normal)) - _PENALTY)
        self._scored = {
            token.encode("utf-8", "surrogateescape"): (
                number,
                0.0 if kinds[number] == _USER_DEFINED else scores[number],
            )
            for token, number in self.ids.items()
            if kinds[number] in (_NORMAL, _USER_DEFINED, _UNUSED)
        }
        self._lengths = sorted({len(token) for token in self._scored})
        self._charsmap = CharacterMap(vocabulary.charsmap.decode()) if vocabulary.charsmap is not None else None
        self._merges_spaces = bool(vocabulary.remove_extra_whitespaces)
        self._prefix = bool(vocabulary.add_space_prefix)

    def around(self) -> tuple[list[int], list[int]]:
        """Return the tokens that are put before and behind every text: EOS unless the file says otherwise."""
        v = self._vocabulary
        eos = self.token_or(v.eos_id, _DEFAULT_EOS) if v.add_eos is not False else None
        return [v.bos_id] if v.add_bos and v.bos_id is not None else [], [eos] if eos is not None else []

    def encode_part(self, text: str, after_special: bool) -> list[int]:  # noqa: ARG002
        """Return the ids of text without special tokens; neighbouring characters of no token are one unknown token."""
        normal = self._normalized(re.sub("[\ud800-\udfff]", "\ufffd", text).encode())
        best = [-math.inf] * (len(normal) + 1)
        best[0] = 0.0
        came: list[tuple[int, int | None]] = [(0, None)] * (len(normal) + 1)  # from where, by which token
        start = 0
        while start < len(normal):
            width = min(_width(normal[start]), len(normal) - start)
            covered = False
            for length in self._lengths:
                if start + length > len(normal):
                    break
                token, score = self._scored.get(normal[start : start + length], (None, 0.0))
                if token is not None:
                    covered |= length == width
                    if best[start] + score > best[start + length]:
                        best[start + length], came[start + length] = best[start] + score, (start, token)
            if not covered and best[start] + self._unknown_score > best[start + width]:
                best[start + width], came[start + width] = best[start] + self._unknown_score, (start, None)
            start += width
        return self._ids(came)

    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""
        return from_pieces(token)

    def _ids(self, came: list[tuple[int, int | None]]) -> list[int]:
        """Follow the best way back from the end; None for what no token covers."""
        backwards: list[int | None] = []
        at = len(came) - 1
        while at > 0:
            at, token = came[at]
            if token is not None or not backwards or backwards[-1] is not None:
                backwards.append(token)
        return [self.unknown(_DEFAULT_UNKNOWN) if token is None else token for token in reversed(backwards)]

    def _normalized(self, text: bytes) -> bytes:
        """Replace characters as the file says, and spaces by SentencePiece's."""
        replaced = text if self._charsmap is None else self._charsmap.applied(text)
        if self._merges_spaces:
            return b"".join(_SPACE + word for word in replaced.split(b" ") if word)
        bare = replaced.lstrip(b" ")
        prefix = _SPACE if self._prefix and bare else b""
        return (replaced[: len(replaced) - len(bare)]).replace(b" ", _SPACE) + prefix + bare.replace(b" ", _SPACE)


class CharacterMap:
    """What characters are replaced by: a double array of 32-bit nodes (Kanda 2018), then texts that end with 0.

    values : the bytes as GGUF holds them, signed or not. Raises ValueError where they do not fit together.
    """

    def __init__(self, values: list[int]) -> None:
        if len(values) > _MAX_CHARSMAP:
            raise ValueError(f"precompiled_charsmap has {len(values)} bytes")
        data = bytes(value & 255 for value in values)
        size = int.from_bytes(data[:4], "little")
        if len(data) <= 4 + size:
            raise ValueError("precompiled_charsmap ends within its table")
        self._nodes: list[int] = np.frombuffer(data, "<u4", size // 4, 4).tolist()
        self._texts = data[4 + size :]

    def applied(self, text: bytes) -> bytes:
        """Return a text with the longest prefix that is in the table replaced again and again."""
        parts, at = [], 0
        while at < len(text):
            found = self._longest(text, at) if self._nodes else None
            length, part = found or (_width(text[at]), text[at : at + _width(text[at])])
            parts.append(part)
            at += length
        return b"".join(parts)

    def _longest(self, text: bytes, at: int) -> tuple[int, bytes] | None:
        """The length of what is replaced at a place, and by what."""
        found = None
        node = _base(self._node(0))
        for place in range(at, len(text)):
            node ^= text[place]
            packed = self._node(node)
            if not text[place] or packed & (1 << 31 | 255) != text[place]:
                break
            node ^= _base(packed)
            if packed >> 8 & 1:
                found = place + 1 - at, self._node(node) & (1 << 31) - 1
        return None if found is None else (found[0], self._text(found[1]))

    def _node(self, number: int) -> int:
        if number >= len(self._nodes):
            raise ValueError("precompiled_charsmap points outside its table")
        return self._nodes[number]

    def _text(self, start: int) -> bytes:
        end = self._texts.find(b"\0", start)
        if end < 0:
            raise ValueError("precompiled_charsmap points outside its texts")
        return self._texts[start:end]


def _base(packed: int) -> int:
    """Where the children of a node lie: bits 10 to 30, times 256 if bit 9 is set."""
    return (packed >> 10) << ((packed & 1 << 9) >> 6)


def _width(first: int) -> int:
    """The bytes of a character of UTF-8 by its first."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
