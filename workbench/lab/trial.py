"""The trial of a hypothesis: its prediction evaluated, its ladder climbed, and the verdict that follows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from store.traces.run import now
from workbench.lab.hypothesis import VERDICTS, Hypothesis, Verdict
from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.evaluation import Evaluation, Measured, Measuring, Outcome, Unknown
from workbench.lab.predictions.prediction import Expression, Step, read_prediction, read_step, read_value
from workbench.session.plain import plain

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """What came out.

    verdict : None where there is no answer; why, in a sentence. value : of the ladder, else of the prediction.
    answers : what was measured, by the text that asked for it. pointed : the prediction with a caret, if it cannot be
    read.
    """

    hypothesis: Hypothesis
    verdict: Verdict | None
    value: Any
    why: str
    answers: Mapping[str, Measured]
    time: str
    pointed: tuple[str, ...] = ()

    @property
    def used(self) -> dict[str, str]:
        """All that the verdict depends on, with the hash of each."""
        return {key: digest for answer in self.answers.values() for key, digest in answer.used.items()}

    @property
    def notes(self) -> list[str]:
        """What a reader has to know about the numbers."""
        populations = {
            answer.population for answer in self.answers.values() if answer.population and _over_tokens(answer)
        }
        return [f"compares unlike populations: {', '.join(sorted(populations))}"] if len(populations) > 1 else []

    def record(self, captured: str | None) -> dict[str, Any]:
        """Return the trial as the history of its hypothesis keeps it. captured : which capture it used."""
        tested = self.hypothesis
        return {
            "time": self.time,
            "status": self.verdict,
            "value": plain(self.value),
            "why": self.why or None,
            "prediction": tested.prediction,
            "ladder": tested.ladder_json(),
            "measured": {text: plain(answer.value) for text, answer in self.answers.items()},
            "used": self.used,
            "captured": captured if "capture" in self.used else None,
        }


@dataclass(frozen=True)
class Predicted:
    """The expressions of a hypothesis, read. steps : of the ladder, by the verdict that they earn, best first."""

    prediction: Expression | None
    value: Expression | None
    steps: tuple[tuple[Verdict, Step], ...]

    @classmethod
    def of(cls, hypothesis: Hypothesis) -> "Predicted":
        """Read them; PredictionError says which one is wrong, and at which character."""
        ladder = hypothesis.ladder
        prediction = None
        if ladder is None or hypothesis.prediction.strip():
            prediction = _read("prediction", lambda: read_prediction(hypothesis.prediction))
        if ladder is None:
            return cls(prediction, None, ())
        value = _read("ladder, value", lambda: read_value(ladder.value))
        steps: list[tuple[Verdict, Step]] = []
        confirmed = _read("ladder, confirmed", lambda: read_step(ladder.confirmed, value))
        steps.append(("CONFIRMED", confirmed))
        if ladder.partial:
            steps.append(("PARTIAL", _read("ladder, partial", lambda: read_step(ladder.partial, value))))
        return cls(prediction, value, tuple(steps))


def is_testable(hypothesis: Hypothesis) -> bool:
    """Tell whether what a hypothesis predicts can be measured, and is no sentence that only a person can judge."""
    try:
        Predicted.of(hypothesis)
    except PredictionError:
        return False
    return True


def try_hypothesis(hypothesis: Hypothesis, measuring: Measuring) -> Trial:
    """Measure what a hypothesis predicts; with both a prediction and a ladder the lesser verdict of the two counts."""
    time = now()
    try:
        test = Predicted.of(hypothesis)
    except PredictionError as error:
        return Trial(hypothesis, None, None, str(error), {}, time, error.pointed)
    evaluation = Evaluation(measuring)
    found: list[Verdict] = []
    value: Outcome = Unknown("nothing is predicted")
    if test.prediction is not None:
        value = evaluation.of(test.prediction)
        if not isinstance(value, bool | Unknown):
            value = Unknown(f"the prediction comes to {value!r}, which is neither true nor false")
        if isinstance(value, Unknown):
            return Trial(hypothesis, None, None, value.why, evaluation.answers, time)
        found.append("CONFIRMED" if value else "FALSIFIED")
    if test.value is not None:
        value = evaluation.of(test.value)
        verdict = _climbed(evaluation, value, test.steps)
        if isinstance(verdict, Unknown):
            return Trial(hypothesis, None, None, verdict.why, evaluation.answers, time)
        found.append(verdict)
    return Trial(hypothesis, max(found, key=VERDICTS.index), value, "", evaluation.answers, time)


def _climbed(evaluation: Evaluation, value: Outcome, steps: tuple[tuple[Verdict, Step], ...]) -> Verdict | Unknown:
    for verdict, step in steps:
        taken = evaluation.takes(value, step)
        if isinstance(taken, Unknown):
            return taken
        if taken:
            return verdict
    return "FALSIFIED"


def _over_tokens(answer: Measured) -> bool:
    return "token" in answer.population and "pair" not in answer.population


def _read(what: str, reader: Callable[[], T]) -> T:
    try:
        return reader()
    except PredictionError as error:
        raise error.of(what) from None
