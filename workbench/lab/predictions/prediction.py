"""A prediction, read and typed: what must be measured if a claim is true."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.kinds import ANY, PLAIN, STRING, TRUTH, Kind, Unit, product, same_unit
from workbench.lab.predictions.questions import Asked, ask
from workbench.lab.predictions.syntax import Comparison, Node, Number, Operation, Term, Text, parse, parse_step


@dataclass(frozen=True)
class Expression:
    """An expression whose types and units fit. asked : by the place of a term, what it asks for."""

    source: str
    node: Node
    kind: Kind
    asked: Mapping[int, Asked]


@dataclass(frozen=True)
class Step:
    """A step of a ladder: the sign, and what the value is compared with."""

    sign: str
    bound: Expression


def read_prediction(source: str) -> Expression:
    """Read a test, which is true or false; PredictionError points at the character that is wrong."""
    found = _read(source, parse(source))
    if found.kind.type not in ("truth", "any"):
        what = f"this is {found.kind.words}, neither true nor false; compare it with something"
        raise PredictionError(what, source, _begin(found.node))
    return found


def read_value(source: str) -> Expression:
    """Read the value of a ladder, which is a number; PredictionError as above."""
    found = _read(source, parse(source))
    if found.kind.type not in ("number", "any"):
        raise PredictionError(f"a ladder grades a number, and this is {found.kind.words}", source, _begin(found.node))
    return found


def read_step(source: str, value: Expression) -> Step:
    """Read a step of a ladder whose value is known; PredictionError as above."""
    sign, node = parse_step(source)
    bound = _read(source, node)
    if bound.kind.type not in ("number", "any"):
        raise PredictionError(f"a number is compared with {bound.kind.words}", source, _begin(node))
    if not same_unit(value.kind.unit, bound.kind.unit):
        raise PredictionError(f"the value is {value.kind.words}, and this is {bound.kind.words}", source, _begin(node))
    return Step(sign, bound)


def _read(source: str, node: Node) -> Expression:
    typing = _Typing(source, {})
    return Expression(source, node, typing.of(node), typing.asked)


def _begin(node: Node) -> int:
    """Where the text of a node begins."""
    first = node
    while isinstance(first, Comparison) or (isinstance(first, Operation) and first.name in ("and", "or", *"+-*/")):
        first = first.operands[0]
    return first.at


@dataclass(frozen=True)
class _Typing:
    source: str
    asked: dict[int, Asked]

    def of(self, node: Node) -> Kind:
        """The kind of a node; PredictionError where its operands do not fit together."""
        match node:
            case Number():
                return PLAIN
            case Text():
                return STRING
            case Term():
                self.asked[node.at] = ask(node, self.source)
                return self.asked[node.at].kind
            case Comparison():
                return self._compared(node)
        if node.name in ("and", "or", "not"):
            for operand in node.operands:
                self._require(operand, TRUTH, f"what {node.name} stands with is true or false")
            return TRUTH
        kinds = [self._require(operand, PLAIN, f"{_named(node.name)} is of numbers") for operand in node.operands]
        if node.name in ("*", "/"):
            return Kind("number", product(kinds[0].unit, kinds[1].unit, 1 if node.name == "*" else -1))
        return Kind("number", self._alike(node, kinds))

    def _alike(self, node: Operation, kinds: list[Kind]) -> Unit | None:
        """The unit that all numbers have."""
        unit = kinds[0].unit
        for kind, operand in zip(kinds[1:], node.operands[1:], strict=True):
            if not same_unit(unit, kind.unit):
                known = Kind("number", unit)
                self._fail(
                    f"{_named(node.name)} is of like units; this is {kind.words}, the other {known.words}", operand
                )
            unit = kind.unit if unit is None else unit
        return unit

    def _compared(self, node: Comparison) -> Kind:
        kinds = [self.of(operand) for operand in node.operands]
        for (sign, at), one, other, operand in zip(node.signs, kinds[:-1], kinds[1:], node.operands[1:], strict=True):
            if ANY in (one, other):
                continue
            if one.type != other.type:
                self._fail(f"this is {other.words}, and is compared with {one.words}", operand)
            if one.type != "number" and sign not in ("==", "!="):
                raise PredictionError(f"{sign} is of numbers, and these are {one.words} each", self.source, at)
            if one.type == "number" and not same_unit(one.unit, other.unit):
                words = f"{other.words}, and is compared with {one.words}"
                self._fail(f"this is {words}; only like units can be compared", operand)
        return TRUTH

    def _require(self, node: Node, wanted: Kind, what: str) -> Kind:
        found = self.of(node)
        if found.type not in (wanted.type, "any"):
            self._fail(f"{what}, and this is {found.words}", node)
        return found

    def _fail(self, what: str, node: Node) -> NoReturn:
        raise PredictionError(what, self.source, _begin(node))


def _named(name: str) -> str:
    return "a minus sign" if name == "neg" else name
