"""Tokenizer "bert", WordPiece: words are cut at white space and signs, then each from the left into its longest tokens.

Read from llama.cpp of 2026-10 (`llm_tokenizer_wpm_session` in src/llama-vocab.cpp).
"""

import unicodedata

from store.vocabulary import Vocabulary
from workbench.pair.embedded_tokenizer import EmbeddedTokenizer, from_pieces, is_white, lowered

_DEFAULT_BOS, _DEFAULT_UNKNOWN, _DEFAULT_SEPARATOR = 101, 100, 102  # where the file names none
_WORD_START = "▁"  # converters put it before tokens that begin a word, and take ## from those that do not
_IDEOGRAPHS = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F)),
    *((0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


class WordPiece(EmbeddedTokenizer):
    """Tokenizer "bert", computed as llama.cpp does: BOS and separator go around every text, whatever the file says."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self.require_distinct()
        self._longest = max(map(len, self.ids), default=0)
        self._lowercase = vocabulary.lowercase is not False
        self._strips = self._lowercase if vocabulary.strip_accents is None else vocabulary.strip_accents

    def around(self) -> tuple[list[int], list[int]]:
        """Return the tokens that are put before and behind every text; ValueError where there are none."""
        bos = self.token_or(self._vocabulary.bos_id, _DEFAULT_BOS)
        separator = self.token_or(self._vocabulary.sep_id, _DEFAULT_SEPARATOR)
        if bos is None or separator is None:
            raise ValueError("the vocabulary has no token to put before or behind a text")
        return [bos], [separator]

    def encode_part(self, text: str, after_special: bool) -> list[int]:  # noqa: ARG002
        """Return the ids of text without special tokens; a word that tokens do not cover is one unknown token."""
        return [token for word in self._words(text) for token in self._pieces_of(_WORD_START + word)]

    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""
        return from_pieces(token)

    def _pieces_of(self, word: str) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(word):
            ends = range(min(len(word), at + self._longest), at, -1)
            end = next((end for end in ends if word[at:end] in self.ids), None)
            if end is None:
                return [self.unknown(_DEFAULT_UNKNOWN)]
            ids.append(self.ids[word[at:end]])
            at = end
        return ids

    def _words(self, text: str) -> list[str]:
        """Cut a text at white space and around signs and ideographs, without accents and in lower case if asked."""
        words = [""]
        for character in text:
            if is_white(character):
                words.append("")
                continue
            # Of what a character decomposes into, llama.cpp keeps the first.
            plain = unicodedata.normalize("NFD", character)[0] if self._strips else character
            kind = unicodedata.category(plain)
            if plain == "\ufffd" or kind in ("Cc", "Cf", "Co", "Cs") or (self._strips and kind[0] == "M"):
                continue
            shown = lowered(plain) if self._lowercase else plain
            if kind[0] == "P" or (kind[0] == "S" and plain < "\x7f") or _is_ideograph(plain):
                words += [shown, ""]
            else:
                words[-1] += shown
        return [word for word in words if word]


def _is_ideograph(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)
