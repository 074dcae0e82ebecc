"""Tokenizers made of the vocabulary inside a GGUF or APR file, giving the ids that llama.cpp gives."""

import heapq
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cache

from store.text import printable
from store.vocabulary import Vocabulary
from workbench.pair.word_splits import SPLITS

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # kinds of tokens that are found in the text before any merging
_SPACE = "▁"  # stands for a space in SentencePiece vocabularies
_ASCII = 0x80
_WHITE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
# What llama.cpp takes for special by its text alone, whatever the file says (llama-vocab.cpp, 2026-10).
_BY_TEXT = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
        *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
        *("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"),
    )
)
_NEVER_STRIP = ("<unk>", "<s>", "<|endoftext|>")  # where other special tokens take white space behind them along
_END, _PLAIN_END = "</s>", "<|tool_response>"  # the first is plain, whatever the file says, where the second is


class EmbeddedTokenizer(ABC):
    """What all kinds share: special tokens cut the text into parts, and BOS and EOS go around it.

    adds_bos : whether text starts with the BOS token where the file does not say.
    """

    adds_bos = False

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.tokens: list[str] = vocabulary.tokens.decode() if vocabulary.tokens else []
        self.ids = {token or f"[EMPTY_{number}]": number for number, token in enumerate(self.tokens)}
        kinds = vocabulary.token_types.decode() if vocabulary.token_types else []
        special = {
            t for t, kind in zip(self.tokens, kinds, strict=False) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        }
        special |= special_by_text(self.ids)
        plain = {"", _END} if _PLAIN_END in self.ids else {""}
        longest_first = sorted(special - plain, key=len, reverse=True)
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
        strips = False
        for place, part in enumerate(self._special.split(text)):
            if place % 2:
                ids.append(self.ids[part])
                after_special = True
                strips = self._vocabulary.strips_behind_special and part not in _NEVER_STRIP
            elif part := part.lstrip(" \t\n\v\f\r") if strips else part:
                ids += self.encode_part(part, after_special)
                after_special = False
        before, behind = self.around() if around else ([], [])
        return [*before, *ids, *behind]

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token, "" if it has none."""
        return [self.shown(self.tokens[token]) if 0 <= token < len(self.tokens) else "" for token in tokens]

    def require_distinct(self) -> None:
        """Raise ValueError if two tokens are the same, with which llama.cpp ends."""
        for number, token in enumerate(self.tokens):
            if token and self.ids[token] != number:
                raise ValueError(f"tokens {number} and {self.ids[token]} are both {printable(token, 40)!r}")

    def scores(self) -> list[float]:
        """Return the score of every token; ValueError unless each has one that is a number."""
        scores: list[float] = self._vocabulary.scores.decode() if self._vocabulary.scores else []
        if len(scores) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens have {len(scores)} scores")
        odd = next((number for number, score in enumerate(scores) if not math.isfinite(score)), None)
        if odd is not None:
            raise ValueError(f"the score of token {odd} is {scores[odd]}")
        return scores

    def token_or(self, said: int | None, default: int) -> int | None:
        """Return a special token: the one that the file names, else llama.cpp's for the kind if there is one."""
        return said if said is not None else default if default < len(self.tokens) else None

    def unknown(self, default: int) -> int:
        """Return the token of what no other covers; ValueError if there is none."""
        token = self.token_or(self._vocabulary.unk_id, default)
        if token is None:
            raise ValueError("the vocabulary has no unknown token, and no other covers all of the text")
        return token

    @abstractmethod
    def encode_part(self, text: str, after_special: bool) -> list[int]:
        """Return the ids of text without special tokens; `after_special` at the start and behind a special token."""

    @abstractmethod
    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""


class ByteLevelBpe(EmbeddedTokenizer):
    """Tokenizer "gpt2": words are cut by regular expressions, their bytes merged by rank."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from tokenizers import Regex, pre_tokenizers

        super().__init__(vocabulary)
        split = SPLITS.get(vocabulary.pre or "default")
        if split is not None and vocabulary.pre == "whitespace" and vocabulary.kind == "bpe":
            raise ValueError("pre-tokenizer whitespace goes with tokenizer.ggml.model = whitespace alone")
        if split is None:
            raise ValueError(f"unknown pre-tokenizer {printable(str(vocabulary.pre))}; {len(SPLITS)} names are known")
        lines: list[str] = vocabulary.merges.decode() if vocabulary.merges else []
        # "left right", where the left part may itself start with a space; of equal lines the first counts
        pairs = ((line[:at], line[at + 1 :]) for line in lines if (at := line.find(" ", 1)) > 0)
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(pairs)))}
        self._split, self._spelled_as_text = split, not vocabulary.byte_level
        self._drops_bytes = vocabulary.pre == "whitespace"  # vocabularies under that name have no tokens of bytes
        self.adds_bos = split.adds_bos is not False
        self._words = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
        )

    def around(self) -> tuple[list[int], list[int]]:
        """Return the tokens that are put before and behind every text."""
        before, behind = super().around()
        bos = self._vocabulary.bos_id
        return ([bos] if self._split.adds_bos is None and bos is not None else before), behind

    def encode_part(self, text: str, after_special: bool) -> list[int]:  # noqa: ARG002
        """Return the ids of text without special tokens; what no token covers becomes one token per byte."""
        ids: list[int] = []
        for word, _ in self._words.pre_tokenize_str(text):
            spelled = word.replace(" ", _SPACE) if self._spelled_as_text else to_byte_alphabet(word)
            whole = spelled in self.ids and (
                self._split.whole_words or (self._split.whole_newlines and not word.strip("\n"))
            )
            for piece in [spelled] if whole else merged(list(spelled), lambda a, b: self._ranks.get((a, b))):
                ids += [self.ids[piece]] if piece in self.ids else self._bytes(piece)
        return ids

    def shown(self, token: str) -> str:
        """Return the text that a token of the vocabulary stands for."""
        return from_pieces(token) if self._spelled_as_text else from_byte_alphabet(token)

    def _bytes(self, piece: str) -> list[int]:
        """The token of each byte of a piece that is none itself."""
        if self._spelled_as_text:
            names = ((f"<0x{byte:02X}>", byte) for byte in piece.encode("utf-8", "surrogateescape"))
            return [self._byte(name, byte) for name, byte in names if name in self.ids or not self._drops_bytes]
        return [self._byte(character, byte_alphabet()[character]) for character in piece]

    def _byte(self, name: str, byte: int) -> int:
        if name not in self.ids:
            raise ValueError(f"the vocabulary has no token for the byte 0x{byte:02X}")
        return self.ids[name]


class WhitespaceBpe(ByteLevelBpe):
    """Tokenizer "whitespace": white space only parts what is then cut and merged as above."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._lowercase = vocabulary.pre != "whitespace" if vocabulary.lowercase is None else vocabulary.lowercase

    def encode_part(self, text: str, after_special: bool) -> list[int]:
        """Return the ids of text without special tokens and white space."""
        ids: list[int] = []
        for word in "".join(" " if is_white(c) else c for c in text).split(" "):
            small = "".join(map(lowered, word)) if self._lowercase else word
            ids += super().encode_part(small, after_special) if small else []
        return ids


class SentencePiece(EmbeddedTokenizer):
    """Tokenizer "llama": of all neighbours, those whose joined piece scores highest are merged first."""

    adds_bos = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._scores = self.scores()
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
        return from_pieces(token)

    def _order(self, left: str, right: str) -> float | None:
        token = self.ids.get(left + right)
        return None if token is None else -self._scores[token]

    def _byte(self, byte: int) -> int:
        for name in (f"<0x{byte:02X}>", chr(byte)) if byte < _ASCII else (f"<0x{byte:02X}>",):
            if name in self.ids:
                return self.ids[name]
        raise ValueError(f"the vocabulary has no token for the byte 0x{byte:02X}, without which llama.cpp ends")


def special_by_text(tokens: Collection[str | None]) -> frozenset[str]:
    """Return the tokens of a vocabulary that llama.cpp takes for special, whatever the file says."""
    found = frozenset(token for token in _BY_TEXT if token in tokens)
    return found - {_END} if _PLAIN_END in found else found


def is_white(character: str) -> bool:
    """Return whether a character is white space to Unicode."""
    return character in _WHITE


def lowered(character: str) -> str:
    """Return the lower case of a character, as one character."""
    return character.lower()[0]


def from_pieces(token: str) -> str:
    """Return the text of a SentencePiece token; a byte that is not UTF-8 by itself becomes a lone surrogate."""
    if re.fullmatch("<0x[0-9A-F]{2}>", token):
        return bytes.fromhex(token[3:5]).decode("utf-8", "surrogateescape")
    return token.replace(_SPACE, " ")


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
