"""What the two sides of a comparison are: which numeric path a format runs on, and which tokens both run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.config import ModelConfig
from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.open import open_artifact
from store.text import printable
from store.traces import ForeignTrace, open_foreign
from store.traces import is_trace as is_any_trace
from store.traces.hdf5 import Trace, open_trace
from workbench.pair.recorded import Source, recorded_sides
from workbench.pair.tokenizer import TokenizerError, decode_tokens, encode
from workbench.session.session import Side

# What the engine that a format belongs to would compute.
DEFAULT_PATH = {"safetensors": "f32", "gguf": "ggml", "apr": "apr"}
_NEAR = 8  # token ids that are shown before and after the first one that differs
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Tokens:
    """The token ids that both sides run, and the prompt they came from, if any."""

    ids: tuple[int, ...]
    prompt: str | None


def is_trace(path: Path) -> bool:
    """Tell by its content whether `path` is an HDF5 file, and so a recorded trace and not a model."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC


def open_side(path: Path) -> Source:
    """Open a model or a recorded trace, of ours or of another engine."""
    if is_trace(path):
        return open_trace(path)
    return open_foreign(path) if is_any_trace(path) else open_artifact(path)


def pair_sides(
    paths: tuple[Path, Path], asked: tuple[str | None, str | None], tokens: tuple[int, ...] | None, prompt: str | None
) -> tuple[Side, Side, Tokens]:
    """Decide what two paths are as sides, and which tokens both run; WorkbenchError says what does not fit."""
    opened = [open_side(path) for path in paths]
    shared = shared_tokens(opened, tokens, prompt)
    sources = recorded_sides(opened, asked, shared.ids, shared.prompt)
    a, b = (side_of(source, path) for source, path in zip(sources, asked, strict=True))
    return a, b, shared


def side_of(source: Artifact | Trace, numeric_path: str | None) -> Side:
    """Decide on the numeric path of a side: the one asked for, else that of its format, none for a trace."""
    path = str(source.path.absolute())  # a link keeps its name: what lies beside it belongs to it
    if isinstance(source, Trace):
        if numeric_path is not None:
            raise WorkbenchError(
                f"{printable(source.path.name)} is a recorded trace, computed on path {source.run.numeric_path}; "
                "leave out the option that asks for another path"
            )
        return Side(path, "")
    return Side(path, numeric_path or DEFAULT_PATH[source.format])


def shared_tokens(sources: Sequence[Source], tokens: tuple[int, ...] | None, prompt: str | None) -> Tokens:
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
        raise WorkbenchError("there is nothing to run; give --tokens 1,2,3 or --prompt TEXT")
    for source in sources:
        if not isinstance(source, ForeignTrace):  # which knows no vocabulary
            _check_vocabulary(source, tokens)
    return Tokens(tokens, prompt)


def recorded_tokens(sources: Iterable[Source]) -> Iterator[Tokens]:
    """Yield what each recorded trace says it ran; some formats of other engines do not tell."""
    for source in sources:
        if isinstance(source, Trace):
            yield Tokens(source.run.tokens, source.run.prompt)
        elif isinstance(source, ForeignTrace) and source.tokens is not None:
            yield Tokens(source.tokens, None)


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


def _check_vocabulary(source: Artifact | Trace, tokens: tuple[int, ...]) -> None:
    config: ModelConfig = source.run.config if isinstance(source, Trace) else source.config
    if max(tokens) >= config.vocab_size:
        raise WorkbenchError(
            f"token {max(tokens)} is beyond the vocabulary of {printable(source.path.name)}, whose ids end at "
            f"{config.vocab_size - 1}; give other --tokens"
        )
