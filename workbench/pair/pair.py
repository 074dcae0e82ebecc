"""What the two sides of a question are: models or traces, how each computes, what both run, and whether they match.

What needs the compiler is imported where it is used, so that the screen is there at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.open import open_model
from store.stored_model import StoredModel
from store.text import printable
from store.traces.kind import is_trace
from store.traces.statistics import open_statistics
from store.traces.trace import LLAMA_CPP, Trace
from workbench.pair.contexts import in_context
from workbench.pair.prompt import Prompt
from workbench.pair.tokens import NOTHING, Tokens, shared_tokens
from workbench.session.session import Side

Source = Artifact | Trace
DEFAULT_PATH = {"safetensors": "f32", "gguf": "ggml", "apr": "apr"}  # what the engine of a format would compute


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sides, opened: each a model, or a trace of this program or of another engine.

    tokens : what both run; None where two traces do not say. asked : the numeric path asked for of each, or None.
    """

    a: Source
    b: Source
    tokens: Tokens | None
    asked: tuple[str | None, str | None] = (None, None)

    def __post_init__(self) -> None:
        """Give the models the settings that hold for what is run."""
        traces = [source for source in (self.a, self.b) if isinstance(source, Trace)]
        for side in ("a", "b") if self.tokens is not None else ():
            if isinstance(source := getattr(self, side), Artifact) and source.config.rope_long_factors is not None:
                object.__setattr__(self, side, in_context(source, traces, len(self.ids)))

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids that both run; WorkbenchError where nothing tells them."""
        if self.tokens is None:
            raise WorkbenchError(NOTHING)
        return self.tokens.ids

    @property
    def prompt(self) -> str | None:
        """The text that the tokens came from, if any."""
        return None if self.tokens is None else self.tokens.prompt

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sides by their paths and the names of their numeric paths, as a session and a job keep them."""
        return side_of(self.a, self.asked[0], self.b), side_of(self.b, self.asked[1], self.a)

    @property
    def traces(self) -> tuple[Trace, Trace] | None:
        """Both sides, if both are traces."""
        return (self.a, self.b) if isinstance(self.a, Trace) and isinstance(self.b, Trace) else None

    @property
    def models(self) -> tuple[Artifact, Artifact] | None:
        """Both sides, if both are models, with the tokens that both vocabularies have."""
        return None if self._common is None else self._common[:2]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was guessed of a model, and what one of two alone has and no figure covers."""
        models = (side for side in (self.a, self.b) if isinstance(side, Artifact))
        guesses = tuple(dict.fromkeys(guess for model in models for guess in model.guesses))
        if self._common is None:
            return guesses
        from workbench.tensors.one_sided import unused_tensors

        a, b, sentences = self._common
        return (*sentences, *unused_tensors(a, b), *guesses)

    @cached_property
    def _common(self) -> tuple[Artifact, Artifact, tuple[str, ...]] | None:
        """Two models over the tokens that both have, and sentences about the others."""
        if isinstance(self.a, Trace) or isinstance(self.b, Trace):
            return None
        from workbench.tensors.one_sided import of_common_vocabulary

        return of_common_vocabulary(self.a, self.b)

    def require_one_model(self) -> None:
        """Raise PopulationError, naming what differs, unless A and B are of one model, as far as they say of which.

        The vocabularies of a model and a trace may differ: one of them may be padded.
        """
        from workbench.pair.comparable import require_same_sizes

        a, b = (source.config for source in self.models or (self.a, self.b))
        if a is None or b is None:
            return
        if self.models is None:
            b = replace(b, vocab_size=a.vocab_size)
        require_same_sizes(a, b)

    def require_unchanged(self) -> None:
        """Raise WorkbenchError if a file of either side was written to since it was opened; to be called at the end."""
        for source in (self.a, self.b):
            for file in source.sources if isinstance(source, Artifact) else source.files:
                file.require_unchanged()


def open_pair(
    paths: tuple[Path, Path],
    asked: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: Prompt | None,
) -> Pair:
    """Open two models or traces, and decide on the tokens: those given, else the prompt's, else those of a trace.

    Raises WorkbenchError for what cannot be opened, has no tokens, or asks for another path of a recorded trace.
    """
    a = open_source(paths[0])
    same = paths[0] == paths[1] and isinstance(a, Artifact)  # a model beside itself, on two paths
    return paired((a, a if same else open_source(paths[1])), asked, tokens, prompt)


def paired(
    sources: tuple[Source, Source],
    asked: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: Prompt | None,
) -> Pair:
    """Pair two sides that are open; see `open_pair` for the tokens and the errors."""
    a, b = sources
    for source, option, path in zip((a, b), ("--path-a", "--path-b"), asked, strict=True):
        if isinstance(source, Trace) and path is not None:
            known = "" if source.record is None else f", computed on path {source.record.numeric_path}"
            raise WorkbenchError(f"{printable(source.path.name)} is a recorded trace{known}; leave out {option}")
    return Pair(a, b, _tokens((a, b), tokens, prompt), asked)


def open_source(path: Path) -> Source:
    """Open a model that can be run or a recorded trace, of ours or of another engine; see `open_side`."""
    return runnable(open_side(path))


def open_side(path: Path) -> StoredModel | Trace:
    """Open a model, also one that cannot be run, or a trace; WorkbenchError for statistics without tensors."""
    if is_trace(path):
        from store.traces.open import open_trace

        return open_trace(path)
    if open_statistics(path) is not None:
        name = printable(str(path), 1000)
        raise WorkbenchError(f"{name} holds statistics only, which inspect and compare take; give the model or a trace")
    return open_model(path)


def runnable(side: StoredModel | Trace) -> Source:
    """Return a side that can be run or read stage by stage; WorkbenchError says why a model cannot be run."""
    if isinstance(side, Artifact | Trace):
        return side
    assert side.refusal is not None
    raise side.refusal


def side_of(source: Source, asked: str | None, beside: Source | None = None) -> Side:
    """Decide on the numeric path of a side: the one asked for, else that of its format, none for a trace.

    beside : the other side; llama.cpp's own path computes with the settings that a trace of it was recorded with.
    """
    path = str(source.path.absolute())  # a link keeps its name: what lies beside it belongs to it
    if isinstance(source, Trace):
        return Side(path, "")
    own = DEFAULT_PATH[source.format]
    if own == "ggml" and isinstance(beside, Trace) and beside.engine == LLAMA_CPP:
        from workbench.pair.llama_settings import settings_of  # the first frame does without

        own = settings_of(beside).path
    return Side(path, asked or own)


def _tokens(sources: Sequence[Source], tokens: tuple[int, ...] | None, prompt: Prompt | None) -> Tokens | None:
    silent = all(isinstance(source, Trace) and source.tokens is None for source in sources)
    return None if silent and tokens is None and prompt is None else shared_tokens(sources, tokens, prompt)
