"""Evaluating a prediction against measurements, in three values: true, false, and not known.

What was not measured is never taken for a number, and never for false. `and` and `or`, and chained comparisons, which
are `and`, are answered without it only where what was measured decides alone: false and unknown is false, true or
unknown is true. What then decides nothing is not even measured.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from store.text import printable
from workbench.lab.predictions.prediction import Expression, Step
from workbench.lab.predictions.questions import Question
from workbench.lab.predictions.syntax import Comparison, Node, Number, Operation, Term, Text


class Measured(NamedTuple):
    """The answer to a question: None where there is none, and why, in words.

    population : which values the number covers, in words. used : what it depends on, by name, with the hash of each.
    """

    value: Any
    why: str = ""
    population: str = ""
    used: Mapping[str, str] = {}


class Measuring(Protocol):
    """Whoever can be asked."""

    def answer(self, question: Question) -> Measured:
        """Measure; what cannot be measured is no error, but has no value and a sentence."""
        ...


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no value; why, in a sentence."""

    why: str


Value = bool | float | str
Outcome = Value | Unknown

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
_ARITHMETIC: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "neg": operator.neg,
    "abs": abs,
    "min": min,
    "max": max,
}
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # as JSON has them


@dataclass
class Evaluation:
    """The evaluation of expressions of one hypothesis; `answers` are those of the terms, by their text, in order."""

    measuring: Measuring
    answers: dict[str, Measured] = field(default_factory=dict)

    def of(self, expression: Expression) -> Outcome:
        """The value of an expression, or why it has none."""
        return _Walk(self, expression).value(expression.node)

    def takes(self, value: Outcome, step: Step) -> Outcome:
        """Whether a value takes a step of a ladder."""
        bound = self.of(step.bound)
        return _compare(value, step.sign, bound)

    def ask(self, term: Term, question: Question) -> Measured:
        """Ask once for every text."""
        if term.text not in self.answers:
            self.answers[term.text] = self.measuring.answer(question)
        return self.answers[term.text]


@dataclass(frozen=True)
class _Walk:
    evaluation: Evaluation
    expression: Expression

    def value(self, node: Node) -> Outcome:
        match node:
            case Number() | Text():
                return node.value
            case Term():
                return self._measured(node)
            case Comparison():
                return self._compared(node)
        if node.name in ("and", "or"):
            return self._decided(node)
        operands = [self.value(operand) for operand in node.operands]
        unknown = next((operand for operand in operands if isinstance(operand, Unknown)), None)
        if unknown is not None:
            return unknown
        if node.name == "not":
            return not operands[0] if isinstance(operands[0], bool) else _unlike(operands[0], "true or false")
        return _computed(node, operands)

    def _measured(self, term: Term) -> Outcome:
        found = self.evaluation.ask(term, self.expression.asked[term.at].question)
        value = found.value
        if isinstance(value, str) and value in _NOT_FINITE and self.expression.asked[term.at].kind.type == "any":
            value = _NOT_FINITE[value]
        if isinstance(value, bool | str):
            return value
        if isinstance(value, int | float) and not (isinstance(value, float) and math.isnan(value)):
            try:
                return float(value)
            except OverflowError:
                return Unknown(f"{printable(term.text, 120)} is larger than any number that is computed with")
        why = found.why or ("it is not a number" if value is not None else "it was not measured")
        return Unknown(f"{printable(term.text, 120)} has no value: {printable(why, 400)}")

    def _decided(self, node: Operation) -> Outcome:
        """`and` and `or`: the first operand that decides, else the first unknown one."""
        deciding = node.name == "or"
        unknown: Unknown | None = None
        for operand in node.operands:
            value = self.value(operand)
            if value is deciding:
                return deciding
            if not isinstance(value, bool | Unknown):
                value = _unlike(value, "true or false")
            if isinstance(value, Unknown):
                unknown = unknown or value
        return (not deciding) if unknown is None else unknown

    def _compared(self, node: Comparison) -> Outcome:
        unknown: Unknown | None = None
        left = self.value(node.operands[0])
        for (sign, _), operand in zip(node.signs, node.operands[1:], strict=True):
            right = self.value(operand)
            found = _compare(left, sign, right)
            if found is False:
                return False
            if isinstance(found, Unknown):
                unknown = unknown or found
            left = right
        return True if unknown is None else unknown


def _compare(left: Outcome, sign: str, right: Outcome) -> Outcome:
    for side in (left, right):
        if isinstance(side, Unknown):
            return side
    numbers = [isinstance(side, float) for side in (left, right)]
    if type(left) is not type(right) or (sign not in ("==", "!=") and not all(numbers)):
        shown = " and ".join(printable(repr(side), 60) for side in (left, right))
        return Unknown(f"{shown} cannot be compared with {sign}")
    return _SIGNS[sign](left, right)


def _computed(node: Operation, operands: list[Outcome]) -> Outcome:
    for operand in operands:
        if not isinstance(operand, float):
            return _unlike(operand, "a number")
    if node.name == "/" and operands[1] == 0:
        return Unknown("something is divided by zero")
    value = _ARITHMETIC[node.name](*operands)
    finite = all(isinstance(operand, float) and math.isfinite(operand) for operand in operands)
    if math.isnan(value) or (finite and math.isinf(value)):
        return Unknown(f"the result of {node.name} is no finite number")
    return value


def _unlike(value: Outcome, wanted: str) -> Unknown:
    return Unknown(f"{printable(repr(value), 60)} is not {wanted}")
