"""What one side's files say about how it is fed, each part read when it is asked for and kept."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

from kernels.config import ModelConfig
from store.artifact import Artifact
from store.names import EMBEDDING
from store.stored_model import StoredModel
from store.text import printable
from store.token_table import BYTE_LEVEL, TokenTable, token_table
from store.tokenizer_config import TokenizerConfig, tokenizer_config
from workbench.pair.embedded_tokenizer import from_byte_alphabet, special_by_text
from workbench.pair.prompt import TokenizerError
from workbench.pair.tokenizer import decode_tokens, encode_all, put_around

T = TypeVar("T")


class Fed:
    """One side: `name` is A or B."""

    def __init__(self, name: str, model: StoredModel) -> None:
        self.name, self.model = name, model

    @cached_property
    def table(self) -> TokenTable:
        """Its tokens; WorkbenchError where it has no tokenizer, or one that cannot be read."""
        found = token_table(self.model)
        if found is None:
            raise TokenizerError(f"{self.name} has no tokenizer")
        return found

    @cached_property
    def config(self) -> TokenizerConfig:
        """Special tokens, EOS and chat template."""
        return tokenizer_config(self.model)

    @cached_property
    def settings(self) -> ModelConfig | None:
        """What its forward computes with; None where it cannot be run."""
        return self.model.config if isinstance(self.model, Artifact) else None

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The tokens that its tokenizer puts before and behind every text."""
        return put_around(self.model)

    @cached_property
    def taken_for_special(self) -> tuple[int, ...]:
        """Tokens that llama.cpp takes for special by their text, though the file does not say that they are."""
        if self.model.format == "safetensors":
            return ()
        texts, whole = self.table.texts, self.table.whole
        special = special_by_text(frozenset(texts))
        return tuple(n for n, text in enumerate(texts) if text in special and n not in whole)

    @cached_property
    def rows(self) -> int | None:
        """The rows of its embedding."""
        info = self.model.tensors.get(EMBEDDING)
        return None if info is None or not info.shape else info.shape[0]

    @cached_property
    def bos(self) -> int | None:
        """The token that begins a text."""
        return self._id("bos_token") if "bos_token" in self.config.special else self.config.bos_id

    @cached_property
    def eos(self) -> int | None:
        """The token that ends a text, as the tokenizer names it, else the first of those that end a generation."""
        if "eos_token" in self.config.special:
            return self._id("eos_token")
        return next(iter(self.config.eos_ids), None)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, with nothing put around them."""
        return encode_all(self.model, texts, around=False)

    def shown(self, token: int | None) -> str:
        """Return a token as `1 '<s>'`."""
        if token is None:
            return "none"
        texts = self.table.texts
        text = texts[token] if 0 <= token < len(texts) else None
        if text is None:
            return str(token)
        spelled = from_byte_alphabet(text) if self.table.kind == BYTE_LEVEL else text
        return f"{token} '{printable(spelled, 40)}'"

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the texts of tokens, safe to show."""
        return decode_tokens(self.model, ids)

    def _id(self, name: str) -> int | None:
        text = self.config.special[name]
        places = [n for n, token in enumerate(self.table.texts) if token == text]
        return next((n for n in places if n in self.table.whole), next(iter(places), None))


def each(a: Fed, b: Fed, of: Callable[[Fed], T]) -> tuple[T, T]:
    """Return what a function gives for A and for B."""
    return of(a), of(b)


def first_unlike(a: Sequence[object], b: Sequence[object]) -> int:
    """Return the first place where two sequences differ; the length of the shorter one where it begins the other."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(a), len(b)))


def token_unlike(a: Fed, b: Fed, ids: tuple[Sequence[int], Sequence[int]]) -> str:
    """Say at which token two lists of ids part, and what stands there."""
    at = first_unlike(*ids)
    one, other = (
        side.shown(its[at]) if at < len(its) else "nothing more" for side, its in zip((a, b), ids, strict=True)
    )
    return f"token {at} is {one} in A and {other} in B"
