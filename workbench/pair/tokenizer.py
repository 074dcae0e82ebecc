"""Token ids of a prompt, computed from the tokenizer that an artifact carries.

Three kinds exist: a Hugging Face tokenizer.json, and inside GGUF and APR files a byte-level BPE vocabulary
(tokenizer.ggml.model "gpt2") or a SentencePiece one ("llama").
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.files.model_file import ModelFile
from store.text import printable
from store.vocabulary import Vocabulary
from workbench.pair.embedded_tokenizer import ByteLevelBpe, SentencePiece, from_byte_alphabet

_PATIENCE = 60.0  # seconds for one prompt


class TokenizerError(WorkbenchError, ValueError):
    """A prompt that cannot be turned into token ids; --tokens always can.

    facts : what a program may want to know of it beside the sentence, as JSON values.
    """

    def __init__(self, sentence: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.facts = dict(facts or {})


class Tokenizer(Protocol):
    """Turns text into token ids, and token ids into the texts they stand for."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, with the BOS and EOS tokens that the artifact asks for."""

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text of each token, "" if it has none."""


def encode(artifact: Artifact, prompt: str) -> list[int]:
    """Return the token ids of `prompt`; the text of a special token in it becomes that token.

    Raises TokenizerError where the artifact has no tokenizer, or one that cannot express the prompt.
    """
    try:
        ids = _load(artifact).encode(prompt)
    except TokenizerError:
        raise
    except Exception as error:  # whatever the vocabulary of a malformed file leads to
        why = printable(f"{artifact.path.name}: the prompt cannot be tokenized ({error})", 400)
        raise TokenizerError(f"{why}; give --tokens instead of --prompt") from error
    if not ids:
        raise TokenizerError(f"the prompt {printable(prompt)!r} has no tokens; give a longer --prompt, or --tokens")
    return ids


def decode_tokens(artifact: Artifact, ids: Sequence[int]) -> list[str]:
    """Return the text of each token, safe to show; "token N" where the artifact has no text for it."""
    try:
        pieces = _load(artifact).pieces(ids)
    except Exception:  # there is no usable tokenizer: ids can always be shown
        pieces = [""] * len(ids)
    return [printable(piece) or f"token {token}" for piece, token in zip(pieces, ids, strict=True)]


def _load(artifact: Artifact) -> Tokenizer:
    if artifact.vocabulary is None:
        name = printable(artifact.path.name)
        raise TokenizerError(f"{name} carries no tokenizer; give --tokens instead of --prompt")
    return _KINDS[artifact.vocabulary.kind](artifact.vocabulary)


class _HuggingFace:
    """A tokenizer.json, read in a process of its own by the library that wrote it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._file = str(vocabulary.json_path)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._ask(text, [])["ids"]
        return ids

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        answer = self._ask("", tokens)
        spelled: list[str] = answer["pieces"]
        return [from_byte_alphabet(piece) if answer["byte_level"] else piece.replace("▁", " ") for piece in spelled]

    def _ask(self, text: str, tokens: Sequence[int]) -> dict[str, Any]:
        ModelFile.at(Path(self._file)).require_content()
        root = str(Path(__file__).resolve().parents[2])
        others = os.environ.get("PYTHONPATH")
        done = subprocess.run(  # -P: modules in the working directory are none of ours
            [sys.executable, "-P", "-m", "workbench.pair.tokenizer_process"],
            input=json.dumps({"file": self._file, "text": text, "tokens": list(tokens)}),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([root, others] if others else [root])},
            check=False,
        )
        if done.returncode != 0:
            raise ValueError("its tokenizer.json makes the tokenizers library fail")
        answer: dict[str, Any] = json.loads(done.stdout)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


_KINDS: dict[str, Callable[[Vocabulary], Tokenizer]] = {
    "hf_json": _HuggingFace,
    "bpe": ByteLevelBpe,
    "spm": SentencePiece,
}
