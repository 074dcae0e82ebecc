"""Testing the hypotheses of a session: measuring what they predict, and keeping the verdicts with what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.bisect.traces.announced import Progress
from workbench.jobs.bisected import standing_answer
from workbench.jobs.examining import bisect_session, pair_of
from workbench.lab.bindings import Bindings
from workbench.lab.hypothesis import Hypothesis, HypothesisError, Verdict
from workbench.lab.measuring import PairMeasuring
from workbench.lab.session_measurements import SessionMeasurements
from workbench.lab.shelf import keep_test
from workbench.lab.standing import board_of
from workbench.lab.trial import Trial, try_hypothesis
from workbench.session.plain import plain
from workbench.session.session import Session

_MOST_TOKENS = 256  # that evidence lists; of more it keeps the first ones, and all by their hash


@dataclass(frozen=True, slots=True)
class Tested:
    """What became of a test: the verdict, or why there is none. skipped : it is not due, and was not tested."""

    number: int
    verdict: Verdict | None
    why: str = ""
    pointed: tuple[str, ...] = ()
    skipped: bool = False


def try_session(session: Session, number: int | None, progress: Progress) -> list[Tested]:
    """Test one hypothesis, or all in the order of their chains, of which those that are not due are left out.

    HypothesisError if there is none of that number, if it is not due, or if a verdict cannot be kept.
    """
    board = board_of(session, progress)
    if number is None:
        chosen = _in_order([standing.hypothesis for standing in board.standings])
    elif (standing := board.of(number)) is None:
        problem = next((text for text in board.problems if text.startswith(f"hypotheses/{number:02d}-")), None)
        raise HypothesisError(problem or f"the session has no hypothesis {number}")
    else:
        chosen = [standing.hypothesis]
        if standing.not_due:
            raise HypothesisError(f"hypothesis {number} is not tested: {standing.not_due}.")
    tester = _Tester(session, progress)
    return [tester.test(hypothesis.number) for hypothesis in chosen]


def tested_text(tested: Sequence[Tested]) -> str:
    """Say in one line for each test what became of it."""
    return "\n".join(
        f"hypothesis {each.number}: {each.verdict or ('not tested' if each.skipped else 'no answer')}"
        + (f"; {each.why}" if each.why else "")
        for each in tested
    )


class _Tester:
    """Tests one hypothesis after the other on one set of measurements."""

    def __init__(self, session: Session, progress: Progress) -> None:
        self._session, self._progress = session, progress
        self._pair = SessionMeasurements(session, progress)
        self._measuring = PairMeasuring(session, self._pair, self._bisection, progress)

    def test(self, number: int) -> Tested:
        """Test a hypothesis as it is now, unless it is not due."""
        standing = board_of(self._session, self._progress).of(number)
        if standing is None:
            raise HypothesisError(f"hypothesis {number} was taken away while others were tested.")
        if standing.not_due:
            return Tested(number, None, standing.not_due, skipped=True)
        trial = try_hypothesis(standing.hypothesis, self._measuring)
        self._pair.require_unchanged()
        captured = self._measuring.bindings.captured if trial.used else None
        evidence = _evidence(self._session, trial, self._measuring.bindings)
        keep_test(self._session, standing.hypothesis, trial.verdict, evidence, trial.record(captured))
        return Tested(number, trial.verdict, trial.why, trial.pointed)

    def _bisection(self) -> tuple[Mapping[str, Any], int]:
        """The standing bisection of the session, or a new one."""
        standing = standing_answer(self._session, self._measuring.bindings)
        if standing is None:
            from kernels.machine.compiler import compile_all

            compile_all(lambda done, total, name: self._progress(done, total, f"compile {name}"))
            bisect_session(self._session, pair_of(self._session), partial(_bisecting, self._progress))
            standing = standing_answer(self._session, self._measuring.bindings)
        if standing is None:
            raise WorkbenchError("the bisection is not about the files that the session has now")
        return standing


def _bisecting(progress: Progress, done: int, total: int, text: str) -> None:
    progress(done, total, f"bisect {text}")


def _in_order(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Hypotheses, each behind the one that it follows."""
    left, found = {each.number: each for each in hypotheses}, list[Hypothesis]()
    while left:
        free = [n for n, each in left.items() if each.after is None or each.after.hypothesis not in left]
        for number in free or list(left):  # in a circle none is free
            found.append(left.pop(number))
    return found


def _evidence(session: Session, trial: Trial, bindings: Bindings) -> dict[str, Any]:
    """What was measured, over which values, and on what."""
    spec, used = session.spec, trial.used
    record: dict[str, Any] = {
        "tested": trial.time,
        "value": plain(trial.value),
        "measured": [
            {
                "what": text,
                "value": plain(answer.value),
                **({"population": answer.population} if answer.population else {}),
                **({"why": printable(answer.why, 400)} if answer.why else {}),
            }
            for text, answer in trial.answers.items()
        ],
    }
    if trial.notes:
        record["notes"] = trial.notes
    for side, given in (("a", spec.a), ("b", spec.b)):
        if side in used:
            record[side] = {"file": _name(given.path), "sha256": used[side], "numeric_path": given.numeric_path or None}
    if "tokens" in used:
        record["tokens"] = _tokens(spec.tokens)
    return record | {"used": used} | ({"captured": bindings.captured} if "capture" in used else {})


def _tokens(tokens: tuple[int, ...]) -> Any:  # noqa: ANN401
    if len(tokens) <= _MOST_TOKENS:
        return list(tokens)
    return {"number": len(tokens), "first": list(tokens[:_MOST_TOKENS])}


def _name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
