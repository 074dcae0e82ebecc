"""Which tokens both sides run: those asked for, those of the prompt, or those that a trace was recorded with."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kernels.config import ModelConfig
from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.traces.trace import Trace
from workbench.pair.prompt import Prompt

NOTHING = "there is nothing to run; give --tokens 1,2,3 or --prompt TEXT"


class Tokens(NamedTuple):
    """The token ids that both sides run, and the prompt they came from, if any: of a conversation the rendered text.

    notes : sentences about how the prompt was fed.
    """

    ids: tuple[int, ...]
    prompt: str | None
    notes: tuple[str, ...] = ()


def shared_tokens(sources: Sequence[Artifact | Trace], tokens: tuple[int, ...] | None, prompt: Prompt | None) -> Tokens:
    """Decide on the token ids: those given, else the prompt's, else those of a recorded trace.

    Raises WorkbenchError where there are none, where the sides tokenize the prompt differently, or where an id is
    beyond a vocabulary.
    """
    if tokens is not None and prompt is not None:
        raise WorkbenchError("--tokens and a prompt were both given; give one of them")
    recorded = list(recorded_tokens(sources))
    found = Tokens(tokens or (), None)
    if tokens is None and prompt is not None:
        from workbench.pair.prompt_tokens import prompt_tokens

        found = Tokens(*prompt_tokens([source for source in sources if isinstance(source, Artifact)], prompt))
    elif tokens is None and recorded:
        found = recorded[0]
    if not found.ids:
        raise WorkbenchError(NOTHING)
    for source in sources:
        if source.config is not None:
            _check_vocabulary(source.path, source.config, found.ids)
    return found


def recorded_tokens(sources: Iterable[Artifact | Trace]) -> Iterator[Tokens]:
    """Yield what each recorded trace says it ran; some formats of other engines do not tell."""
    for source in sources:
        if isinstance(source, Trace) and source.tokens is not None:
            yield Tokens(source.tokens, None if source.record is None else source.record.prompt)


def _check_vocabulary(path: Path, config: ModelConfig, tokens: tuple[int, ...]) -> None:
    if max(tokens) >= config.vocab_size:
        raise WorkbenchError(
            f"token {max(tokens)} is beyond the vocabulary of {printable(path.name)}, whose ids end at "
            f"{config.vocab_size - 1}; give other --tokens"
        )
