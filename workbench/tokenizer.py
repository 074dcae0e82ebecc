"""Token ids of a prompt, computed from the tokenizer that an artifact carries.

Three kinds exist: a Hugging Face tokenizer.json, and inside GGUF and APR files a byte-level BPE vocabulary
(tokenizer.ggml.model "gpt2") or a SentencePiece one ("llama").
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.vocabulary import Vocabulary
from workbench.embedded_tokenizer import ByteLevelBpe, SentencePiece, from_byte_alphabet


class TokenizerError(WorkbenchError, ValueError):
    """A prompt that cannot be turned into token ids; --tokens always can."""


class Tokenizer(Protocol):
    """Turns text into token ids, and a token id into the text it stands for."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, with the BOS and EOS tokens that the artifact asks for."""

    def piece(self, token: int) -> str:
        """Return the text of one token, "" if it has none."""


def encode(artifact: Artifact, prompt: str) -> list[int]:
    """Return the token ids of `prompt`; the text of a special token in it becomes that token.

    Raises TokenizerError where the artifact has no tokenizer, or one that cannot express the prompt.
    """
    tokenizer = load_tokenizer(artifact)
    try:
        ids = tokenizer.encode(prompt)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise _refusal(artifact, f"the prompt cannot be tokenized ({error})") from error
    if not ids:
        raise TokenizerError(f"the prompt {printable(prompt)!r} has no tokens; give a longer --prompt, or --tokens")
    return ids


def decode_tokens(artifact: Artifact, ids: Sequence[int]) -> list[str]:
    """Return the text of each token, safe to show; "token N" where the artifact has no text for it."""
    if artifact.vocabulary is None:
        return [f"token {token}" for token in ids]
    tokenizer = load_tokenizer(artifact)
    return [printable(tokenizer.piece(token)) or f"token {token}" for token in ids]


def load_tokenizer(artifact: Artifact) -> Tokenizer:
    """Build the tokenizer that an artifact carries; TokenizerError where it has none of a supported kind."""
    vocabulary = artifact.vocabulary
    if vocabulary is None:
        raise _refusal(artifact, "it carries no tokenizer")
    try:
        return _KINDS[vocabulary.kind](vocabulary)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise _refusal(artifact, f"its tokenizer cannot be used ({error})") from error


class _HuggingFace:
    """A tokenizer.json, read by the library that wrote it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        from tokenizers import Tokenizer as TokenizerFile

        self._file = TokenizerFile.from_file(str(vocabulary.json_path))
        self._file.no_truncation()
        self._file.no_padding()
        self._byte_level = "ByteLevel" in repr(self._file.pre_tokenizer)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._file.encode(text).ids
        return ids

    def piece(self, token: int) -> str:
        text: str = self._file.id_to_token(token) or ""
        return from_byte_alphabet(text) if self._byte_level else text.replace("▁", " ")


_KINDS: dict[str, Callable[[Vocabulary], Tokenizer]] = {
    "hf_json": _HuggingFace,
    "bpe": ByteLevelBpe,
    "spm": SentencePiece,
}


def _refusal(artifact: Artifact, why: str) -> TokenizerError:
    name = printable(artifact.path.name)
    return TokenizerError(f"{name}: {printable(why)}; give --tokens instead of --prompt")
