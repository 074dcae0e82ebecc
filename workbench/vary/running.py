"""Every change on every prompt: who runs it, and what is found."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kernels.errors import WorkbenchError
from kernels.paths import F32Path
from store.artifact import Artifact
from workbench.bisect.traces.announced import Progress
from workbench.record.jobs import record_model
from workbench.vary import computed, recorded
from workbench.vary.change import Change
from workbench.vary.engines import base_settings, engine_change
from workbench.vary.finding import Finding, Verdict
from workbench.vary.own import OwnRun, own_change

Tokens = tuple[int, ...]
_HEALTHY: dict[Verdict, str] = {
    "alike": "every stage is what the file says.",
    "numerics_only": "every stage is what the file says, but for rounding.",
}


class Base(NamedTuple):
    """What a bisection says of the run that nothing is changed of."""

    verdict: Verdict
    words: str


class Runner(Protocol):
    """Who runs a model with one setting changed."""

    def base(self, tokens: Tokens, progress: Progress) -> Base | None:
        """What the run without a change is worth by itself; None where it is this program's own."""

    def find(self, change: Change, prompt: int, tokens: Tokens, progress: Progress) -> Finding:
        """Run with the change; WorkbenchError says in one sentence why it cannot be done."""


@dataclass(frozen=True, slots=True)
class OnPath:
    """A numeric path of this program. of : the model as it is run on so many tokens."""

    of: Callable[[Tokens], Artifact]
    path: F32Path

    @property
    def words(self) -> str:
        """Who runs."""
        return f"on path {self.path.name} of this program"

    def to_json(self) -> dict[str, Any]:
        """Who runs, as JSON values."""
        return {"engine": None, "engine_version": None, "numeric_path": self.path.name}

    def base(self, tokens: Tokens, progress: Progress) -> Base | None:
        del tokens, progress
        return None

    def find(self, change: Change, prompt: int, tokens: Tokens, progress: Progress) -> Finding:
        model = self.of(tokens)
        changed = own_change(model, self.path, change, len(tokens))
        return computed.judged(change, prompt, model, tokens, OwnRun(self.path), changed, progress)


@dataclass(slots=True)
class InEngine:
    """An engine that is recorded. folder : for recordings. version : of the engine, as it says."""

    engine: str
    model: Artifact
    python: str
    folder: Path
    version: str | None = None
    _kept: dict[tuple[Tokens, str], recorded.Recording] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Who runs."""
        return f"in {self.engine}" + ("" if self.version is None else f" ({self.version})")

    def to_json(self) -> dict[str, Any]:
        """Who runs, as JSON values."""
        return {"engine": self.engine, "engine_version": self.version, "numeric_path": None}

    def base(self, tokens: Tokens, progress: Progress) -> Base | None:
        found = self._run(tokens, base_settings(self.engine), progress, keep=True)
        known: dict[str, Verdict] = {"alike": "alike", "divergent": "divergent"}
        verdict = known.get(found.found.verdict, "numerics_only" if found.healthy else "undecided")
        return Base(verdict, _HEALTHY.get(verdict, found.words))

    def find(self, change: Change, prompt: int, tokens: Tokens, progress: Progress) -> Finding:
        how = engine_change(self.engine, change, len(tokens))
        base = self._run(tokens, how.base, progress, keep=True)
        changed = self._run(tokens, how.changed, progress)
        finding = recorded.judged(change, prompt, (how.before, how.after), base, changed)
        if all(changed is not kept for kept in self._kept.values()):
            changed.trace.path.unlink()
        return finding

    def _run(
        self, tokens: Tokens, settings: dict[str, Any], progress: Progress, keep: bool = False
    ) -> recorded.Recording:
        """Record and check; a run that others are set beside is kept."""
        key = tokens, json.dumps(settings, sort_keys=True)
        if key in self._kept:
            return self._kept[key]
        if keep:
            self._forget_other_prompts(tokens)
        output = self.folder / f"{len(self._kept)}-{'base' if keep else 'changed'}.npz"
        trace = record_model(self.engine, self.model, tokens, settings, output, self.python, progress)
        said = trace.settings.get("engine_version")
        self.version = None if said is None else str(said)
        found = recorded.Recording.checked(self.model, trace, tokens, progress)
        if keep:
            self._kept[key] = found
        return found

    def _forget_other_prompts(self, tokens: Tokens) -> None:
        for key in [key for key in self._kept if key[0] != tokens]:
            self._kept.pop(key).trace.path.unlink()


def findings(
    runner: Runner, prompts: Sequence[Tokens], asked: Sequence[Change], progress: Progress
) -> Iterator[tuple[int, Base | None, list[Finding]]]:
    """The number of every prompt, what its base is worth, and what every change makes of it."""
    for number, tokens in enumerate(prompts):
        base = runner.base(tokens, progress)
        yield number, base, [_found(runner, change, number, tokens, progress) for change in asked]


def _found(runner: Runner, change: Change, prompt: int, tokens: Tokens, progress: Progress) -> Finding:
    try:
        return runner.find(change, prompt, tokens, lambda done, total, text: progress(done, total, f"{change}: {text}"))
    except WorkbenchError as error:
        return Finding(change, prompt, "undecided", why=str(error))
