"""Which of three sides is at fault: the copy's bytes, the types that were chosen for it, or the engine that runs it.

Two bisections answer for copy and engine. What the chosen types cost is told by float64, the arbiter: how far the copy
alone moves the logits of the source, beside how far the engine is from the copy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.graph import Array
from kernels.paths import numeric_path
from store.artifact import Artifact
from store.text import printable
from store.traces.trace import LOGITS, Trace
from workbench.bisect.headline import headline
from workbench.bisect.pair import Answer, bisect_pair
from workbench.bisect.traces.announced import Progress
from workbench.bisect.verdict import Culprit
from workbench.cells.limit import LIMIT
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Pair
from workbench.pair.tokens import Tokens
from workbench.sides.requantized import Tensors, tensors_of
from workbench.sweep.figures import Figures, Reference

Verdict = Literal["artifact", "recipe", "engine", "none", "undecided"]
EXIT_CODES: dict[Verdict, int] = {"artifact": 1, "engine": 1, "recipe": 0, "none": 0, "undecided": 2}
ARBITER = "f64"
_HEALTHY = ("alike", "numerics_only", "quantization_only")


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the output is moved: KL in nats, mean and largest over the tokens, and tokens with another successor.

    kl : None where logits are no numbers.
    """

    kl: float | None
    most: float | None
    flips: int
    tokens: int

    @classmethod
    def of(cls, logits: Array, reference: Array) -> "Moved":
        """Measure logits against others (tokens, vocabulary), over the tokens of the vocabulary that both have."""
        columns = min(logits.shape[1], reference.shape[1])
        right = Reference.of(np.ascontiguousarray(reference[:, :columns], dtype=np.float64))
        found = Figures.of(np.ascontiguousarray(logits[:, :columns], dtype=np.float64), right)
        known = bool(np.isfinite(found.kl).all())
        mean, most = (float(found.kl.mean()), float(found.kl.max())) if known else (None, None)
        return cls(mean, most, found.flips, len(logits))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"kl": self.kl, "max": self.most, "flips": self.flips, "tokens": self.tokens}


@dataclass(frozen=True, slots=True)
class Sides:
    """The answer.

    verdict : the side at fault. why : in one sentence. faults : all sides that are broken. artifact, engine : what the
    bisections say of the copy against the source, and of the trace against the copy. tensors : how the copy was made.
    copy_moves, engine_moves : the output, in float64 of the copy against the source, and of the engine against the
    copy in float64; None where the trace holds no logits.
    """

    verdict: Verdict
    why: str
    faults: tuple[Verdict, ...]
    artifact: Answer
    engine: Answer
    tensors: Tensors
    copy_moves: Moved
    engine_moves: Moved | None

    @property
    def exit_code(self) -> int:
        """0 nothing is broken, 1 the copy or the engine is, 2 no answer."""
        return EXIT_CODES[self.verdict]


def three_sides(source: Artifact, copy: Artifact, trace: Trace, tokens: Tokens, progress: Progress) -> Sides:
    """Say which side is at fault for what an engine computes with a copy of a model.

    trace : recorded with the copy. WorkbenchError where it names the source as its model.
    """
    recorded = trace.settings.get("model_sha256")
    if recorded is not None and recorded == sha256_of(source) != sha256_of(copy):
        raise WorkbenchError(
            f"{printable(trace.path.name)} was recorded with the source and not with the copy, of which it says "
            "nothing; record the copy, or bisect the source and the trace"
        )
    artifact = bisect_pair(Pair(source, copy, tokens, (ARBITER, ARBITER)), partial(_prefixed, progress, "copy"))
    engine = bisect_pair(Pair(copy, trace, tokens), partial(_prefixed, progress, "engine"))
    models = artifact.pair.models
    assert models is not None
    tensors = tensors_of(*models, set(_accused(artifact)))
    progress(0, 0, "run both models in float64")
    of_source, of_copy = (_logits(model, tokens.ids) for model in models)
    rows = _recorded(trace, copy, tokens)
    positions = list(range(len(tokens.ids))) if rows is None else rows[1]  # the same tokens for both
    copy_moves = Moved.of(of_copy[positions], of_source[positions])
    engine_moves = None if rows is None else Moved.of(rows[0], of_copy[positions])
    same_file = recorded is None or recorded == sha256_of(copy)
    verdict, why, faults = _verdict(artifact, engine, copy_moves, engine_moves, same_file)
    return Sides(verdict, why, faults, artifact, engine, tensors, copy_moves, engine_moves)


def _prefixed(progress: Progress, what: str, done: int, total: int, text: str) -> None:
    progress(done, total, f"{what}: {text}")


def _accused(answer: Answer) -> Iterator[str]:
    found = answer.bisection
    culprits: tuple[Culprit, ...] = (*(() if found.culprit is None else (found.culprit,)), *found.others)
    return (culprit.tensor for culprit in culprits if culprit.tensor is not None)


def _logits(model: Artifact, tokens: tuple[int, ...]) -> Array:
    with np.errstate(all="ignore"):  # damaged weights hold values of any size
        *_, (_, logits) = forward(model, tokens, numeric_path(ARBITER))
    return logits


def _recorded(trace: Trace, copy: Artifact, tokens: Tokens) -> tuple[Array, list[int]] | None:
    """The logits that a trace holds, and the positions of their tokens."""
    bound = trace.bind(tokens.ids, copy.config)
    positions = None if bound.status(LOGITS) != "ok" else bound.positions(LOGITS)
    return None if positions is None else (bound.read(LOGITS), list(positions))


def _verdict(
    artifact: Answer, engine: Answer, copy: Moved, run: Moved | None, same_file: bool
) -> tuple[Verdict, str, tuple[Verdict, ...]]:
    """The side at fault, why, and all that are broken. same_file : the trace was recorded with the copy's very file."""
    of_copy, of_run = headline(artifact.bisection), headline(engine.bisection)
    if engine.bisection.differs and not same_file:
        if artifact.bisection.differs:
            words = "the trace was recorded from another file and says nothing of the engine"
            return "artifact", f"the copy is not what a quantizer makes of the source: {of_copy} {words}", ("artifact",)
        why = "the trace was recorded from another file than the copy, so what is wrong in it may be that file's"
        return "undecided", f"{why}: {of_run}", ()
    broken = {"artifact": artifact.bisection.differs, "engine": engine.bisection.differs}
    if all(broken.values()):
        first = _further(copy, run)
        words = f"the copy: {of_copy} The engine: {of_run}"
        return first, words, ("artifact", "engine")
    if broken["artifact"]:
        return "artifact", f"the copy is not what a quantizer makes of the source: {of_copy}", ("artifact",)
    if broken["engine"]:
        return "engine", f"the engine does not compute what the copy says: {of_run}", ("engine",)
    for answer, words in ((artifact, f"the copy: {of_copy}"), (engine, f"the engine: {of_run}")):
        if answer.bisection.verdict not in _HEALTHY:
            return "undecided", words, ()
    return _of_healthy(copy, run)


def _further(copy: Moved, run: Moved | None) -> Verdict:
    """Of two sides that are broken the one that moves the output further; what is no number is moved furthest."""
    by_copy, by_run = (np.inf if moved is None or moved.kl is None else moved.kl for moved in (copy, run))
    return "engine" if by_run > by_copy and run is not None else "artifact"


def _of_healthy(copy: Moved, run: Moved | None) -> tuple[Verdict, str, tuple[Verdict, ...]]:
    """Whether the chosen types cost more than arithmetic does, where nothing is broken."""
    if run is None:
        why = "neither copy nor engine is broken, but the trace holds no logits to measure what the types cost beside"
        return "undecided", f"{why}; record them", ()
    if copy.kl is None or run.kl is None:
        return "undecided", "the logits are no numbers, so what the types cost cannot be measured", ()
    figures = f"{copy.kl:.4g} nats a token, where the engine's arithmetic moves it {run.kl:.4g}"
    if copy.kl > LIMIT * run.kl:
        return "recipe", f"nothing is broken; the types that were chosen for the copy move the output {figures}", ()
    return "none", f"nothing is broken; the copy moves the output {figures}", ()
