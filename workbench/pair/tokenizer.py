"""Token ids of a prompt, computed from the tokenizer that an artifact carries.

That is a Hugging Face tokenizer.json, or inside GGUF and APR files a vocabulary of which the tokenizer is rebuilt
("gpt2", "gemma4", "whitespace" of tokenizer.ggml.model are BPE, "llama" SentencePiece, "t5" Unigram, "bert" WordPiece).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from store.files.model_file import ModelFile
from store.stored_model import StoredModel
from store.text import printable
from store.vocabulary import GGUF_KINDS, Kind, Vocabulary
from workbench.machine.asking import ask
from workbench.pair.embedded_tokenizer import ByteLevelBpe, SentencePiece, WhitespaceBpe, from_byte_alphabet
from workbench.pair.prompt import TokenizerError
from workbench.pair.unigram import Unigram
from workbench.pair.wordpiece import WordPiece

_PATIENCE = 60.0  # seconds for one prompt
_NONE = ("none", "no_vocab")  # how GGUF says that there is no tokenizer


class Tokenizer(Protocol):
    """Turns text into token ids, and token ids into the texts they stand for."""

    def encode_all(self, texts: Sequence[str], around: bool) -> list[list[int]]:
        """Return the token ids of each text. around : with the BOS and EOS tokens that the artifact asks for."""

    def around(self) -> tuple[list[int], list[int]]:
        """Return the tokens that are put before and behind every text."""

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token, "" if it has none."""


def encode(model: StoredModel, prompt: str, around: bool = True) -> list[int]:
    """Return the token ids of `prompt`; the text of a special token in it becomes that token.

    around : with the BOS and EOS tokens that the model asks for. Raises TokenizerError where the model has no
    tokenizer, or one that cannot express the prompt.
    """
    ids = encode_all(model, [prompt], around)[0]
    if not ids:
        raise TokenizerError(f"the prompt {printable(prompt)!r} has no tokens; give a longer --prompt, or --tokens")
    return ids


def encode_all(model: StoredModel, texts: Sequence[str], around: bool) -> list[list[int]]:
    """Return the token ids of several texts; see `encode`."""
    with _told(model):
        return _load(model).encode_all(texts, around)


def put_around(model: StoredModel) -> tuple[list[int], list[int]]:
    """Return the tokens that a model's tokenizer puts before and behind every text; TokenizerError as in `encode`."""
    with _told(model):
        return _load(model).around()


@contextmanager
def _told(model: StoredModel) -> Iterator[None]:
    """Say in a sentence why a tokenizer fails: whatever the vocabulary of a malformed file leads to."""
    try:
        yield
    except TokenizerError:
        raise
    except Exception as error:
        why = printable(f"{model.path.name}: the prompt cannot be tokenized ({error})", 400)
        raise TokenizerError(f"{why}; give --tokens instead of --prompt") from error


def decode_tokens(artifact: StoredModel, ids: Sequence[int]) -> list[str]:
    """Return the text of each token, safe to show; "token N" where the artifact has no text for it."""
    try:
        pieces = _load(artifact).pieces(ids)
    except Exception:  # there is no usable tokenizer: ids can always be shown
        pieces = [""] * len(ids)
    return [printable(piece) or f"token {token}" for piece, token in zip(pieces, ids, strict=True)]


def _load(model: StoredModel) -> Tokenizer:
    if model.vocabulary is None:
        name = printable(model.path.name)
        kind = model.metadata.get("tokenizer.ggml.model")
        if isinstance(kind, str) and kind not in (*GGUF_KINDS, *_NONE):
            what = f"a tokenizer of the kind {printable(kind, 40)!r}, which is not read"
        else:
            what = "no tokenizer"
        raise TokenizerError(f"{name} carries {what}; give --tokens instead of --prompt")
    return _of_vocabulary(model.vocabulary)


@lru_cache(maxsize=2)  # a large vocabulary takes a second
def _of_vocabulary(vocabulary: Vocabulary) -> Tokenizer:
    return _KINDS[vocabulary.kind](vocabulary)


class _HuggingFace:
    """A tokenizer.json, read in a process of its own by the library that wrote it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._file = str(vocabulary.json_path)

    def encode_all(self, texts: Sequence[str], around: bool) -> list[list[int]]:
        ids: list[list[int]] = self._ask(texts=list(texts), around=around)["ids"]
        return ids

    def around(self) -> tuple[list[int], list[int]]:
        before, behind = self._ask()["around"]
        return before, behind

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        answer = self._ask(tokens=list(tokens))
        spelled: list[str] = answer["pieces"]
        return [from_byte_alphabet(piece) if answer["byte_level"] else piece.replace("▁", " ") for piece in spelled]

    def _ask(self, **job: Any) -> dict[str, Any]:  # noqa: ANN401
        ModelFile.at(Path(self._file)).require_content()
        asked = {"file": self._file, "texts": [], "around": True, "tokens": []} | job
        done = ask("workbench.pair.tokenizer_process", asked, _PATIENCE)
        if done.returncode != 0:
            raise ValueError("its tokenizer.json makes the tokenizers library fail")
        answer: dict[str, Any] = json.loads(done.stdout)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


_KINDS: dict[Kind, Callable[[Vocabulary], Tokenizer]] = {
    "hf_json": _HuggingFace,
    "bpe": ByteLevelBpe,
    "whitespace": WhitespaceBpe,
    "spm": SentencePiece,
    "unigram": Unigram,
    "wordpiece": WordPiece,
}
