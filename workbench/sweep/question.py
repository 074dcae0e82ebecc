"""What a sweep asks, as data that any worker can be sent, and the two models that a worker opens for it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.traces.run import versions
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Source, open_source, side_of

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("kernels", "store", "workbench")
_SHOWING = {("workbench", folder) for folder in ("app", "cli", "report")}  # nothing below needs them
_LIBRARIES = ("numpy", "numba", "llvmlite")


@dataclass(frozen=True, slots=True)
class Named:
    """A model by its path, the SHA-256 of its files, and the numeric path that it runs on. size : in bytes."""

    path: str
    format: str
    sha256: str
    numeric_path: str
    size: int


@dataclass(frozen=True, slots=True)
class Question:
    """Two models, and the program that must answer. program : digest of all that decides the numbers."""

    a: Named
    b: Named
    program: str

    def identity(self, tokens: Sequence[int]) -> str:
        """Equal for two lines of results whose figures may stand side by side; where the files lie does not count."""
        decisive = [(side.sha256, side.numeric_path) for side in (self.a, self.b)]
        return hashlib.sha256(json.dumps([decisive, self.program, list(tokens)]).encode()).hexdigest()[:16]

    def run_of_a(self, tokens: Sequence[int], vocabulary: int) -> str:
        """A name for A's run over so many words of its vocabulary, with its floor; B has no part in it but its path."""
        return json.dumps([self.a.sha256, self.a.numeric_path, self.floor_path, self.program, vocabulary, list(tokens)])

    @property
    def floor_path(self) -> str:
        """The arithmetic of the floor: B's, or where both sides have the same, float64."""
        return self.b.numeric_path if self.b.numeric_path != self.a.numeric_path else "f64"


class Prompt(NamedTuple):
    """What a sweep runs. text : where the ids came from a text."""

    tokens: tuple[int, ...]
    text: str | None = None


class Opened(NamedTuple):
    """Both models of a question, over the tokens that both have."""

    a: Artifact
    b: Artifact

    def require_unchanged(self) -> None:
        """Raise WorkbenchError if a file was written to since it was opened."""
        for side in self:
            for file in side.sources:
                file.require_unchanged()

    def of_length(self, tokens: int) -> "Opened":
        """Both as they compute a text of so many tokens."""
        return Opened(*(model.for_length(tokens) for model in self))


@cache
def program_digest() -> str:
    """16 hexadecimal digits over the source of all that computes, and over the libraries that it computes with."""
    digest = hashlib.sha256()
    for source in sorted(source for package in _PACKAGES for source in (_ROOT / package).rglob("*.py")):
        name = source.relative_to(_ROOT)
        if name.parts[:2] not in _SHOWING:
            digest.update(name.as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    of = versions()
    digest.update(json.dumps([of[name] for name in _LIBRARIES]).encode())
    return digest.hexdigest()[:16]


def ask(
    paths: tuple[Path, Path],
    numeric: tuple[str | None, str | None],
    show: Callable[[int, int], None] = lambda *_: None,
) -> Question:
    """Say what is asked of two files; WorkbenchError for what is no model that can be run.

    numeric : the paths asked for, or None. show : is told of how many bytes of a file how many are hashed.
    """
    sides = []
    for path, asked in zip(paths, numeric, strict=True):
        model = _model(path)
        side = side_of(model, asked)
        sides.append(Named(side.path, model.format, sha256_of(model, show), side.numeric_path, model.size))
    return Question(sides[0], sides[1], program_digest())


@lru_cache(maxsize=1)
def opened(question: Question) -> Opened:
    """Open both models where this process runs; their weights are mapped, not read.

    WorkbenchError, which names this machine, if a file is not the one that is asked about, or if this program is.
    """
    from workbench.pair.comparable import require_same_sizes  # these two load the kernels
    from workbench.tensors.one_sided import of_common_vocabulary

    if question.program != program_digest():
        raise WorkbenchError(f"{_here()} has another version of workbench; install the same one on every machine")
    models = []
    for side in (question.a, question.b):
        model = _model(Path(side.path))
        if sha256_of(model) != side.sha256:
            name = printable(side.path, 1000)
            raise WorkbenchError(f"{name} on {_here()} is another file than the one asked about; copy that one there")
        models.append(model)
    a, b, _ = of_common_vocabulary(models[0], models[1])
    require_same_sizes(a.config, b.config)
    return Opened(a, b)


def _model(path: Path) -> Artifact:
    source: Source = open_source(path)
    if not isinstance(source, Artifact):
        raise WorkbenchError(f"{printable(str(path), 1000)} is a recorded trace, which has no weights; give two models")
    return source


def _here() -> str:
    import socket

    return printable(socket.gethostname(), 100)
