"""Which tokens both sides run: those asked for, those of the prompt, or those that a trace was recorded with."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.config import ModelConfig
from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.traces import Trace
from workbench.pair.tokenizer import TokenizerError, decode_tokens, encode

NOTHING = "there is nothing to run; give --tokens 1,2,3 or --prompt TEXT"
_NEAR = 8  # token ids that are shown before and after the first one that differs


@dataclass(frozen=True)
class Tokens:
    """The token ids that both sides run, and the prompt they came from, if any."""

    ids: tuple[int, ...]
    prompt: str | None


def shared_tokens(sources: Sequence[Artifact | Trace], tokens: tuple[int, ...] | None, prompt: str | None) -> Tokens:
    """Decide on the token ids: those given, else the prompt's, else those of a recorded trace.

    Raises WorkbenchError where there are none, where the sides tokenize the prompt differently, or where an id is
    beyond a vocabulary.
    """
    if tokens is not None and prompt is not None:
        raise WorkbenchError("--tokens and --prompt were both given; give one of them")
    recorded = list(recorded_tokens(sources))
    if tokens is None and prompt is not None:
        tokens = _prompt_tokens([source for source in sources if isinstance(source, Artifact)], prompt)
    elif tokens is None and recorded:
        tokens, prompt = recorded[0].ids, recorded[0].prompt
    if not tokens:
        raise WorkbenchError(NOTHING)
    for source in sources:
        if source.config is not None:
            _check_vocabulary(source.path, source.config, tokens)
    return Tokens(tokens, prompt)


def recorded_tokens(sources: Iterable[Artifact | Trace]) -> Iterator[Tokens]:
    """Yield what each recorded trace says it ran; some formats of other engines do not tell."""
    for source in sources:
        if isinstance(source, Trace) and source.tokens is not None:
            yield Tokens(source.tokens, None if source.record is None else source.record.prompt)


def _prompt_tokens(artifacts: list[Artifact], prompt: str) -> tuple[int, ...]:
    able = [artifact for artifact in artifacts if artifact.vocabulary is not None]
    if not able:
        names = " and ".join(printable(artifact.path.name) for artifact in artifacts) or "a recorded trace"
        have = "have" if len(artifacts) > 1 else "has"
        raise TokenizerError(f"{names} {have} no tokenizer; give --tokens instead of --prompt")
    found = [encode(artifact, prompt) for artifact in able]
    if len(found) == 2 and found[0] != found[1]:
        a, b = ({"path": str(artifact.path), "tokens": ids} for artifact, ids in zip(able, found, strict=True))
        raise TokenizerError(_how_they_differ(able, found), facts={"verdict": "uncomparable", "a": a, "b": b})
    return tuple(found[0])


def _how_they_differ(artifacts: list[Artifact], found: list[list[int]]) -> str:
    first = next((n for n, (x, y) in enumerate(zip(*found, strict=False)) if x != y), min(map(len, found)))
    words = []
    for side, artifact, ids in zip("AB", artifacts, found, strict=True):
        token = ids[first] if first < len(ids) else None
        what = "nothing more" if token is None else f"{token} {decode_tokens(artifact, [token])[0]!r}"
        near = ",".join(map(str, ids[max(first - _NEAR, 0) : first + _NEAR + 1]))
        words.append(f"{side} has {what} (of {len(ids)} tokens, from {max(first - _NEAR, 0)} on: {near})")
    return (
        f"the two sides tokenize the prompt differently, a finding in itself: at token {first} {' and '.join(words)}; "
        "give --tokens to run both on the same ids"
    )


def _check_vocabulary(path: Path, config: ModelConfig, tokens: tuple[int, ...]) -> None:
    if max(tokens) >= config.vocab_size:
        raise WorkbenchError(
            f"token {max(tokens)} is beyond the vocabulary of {printable(path.name)}, whose ids end at "
            f"{config.vocab_size - 1}; give other --tokens"
        )
