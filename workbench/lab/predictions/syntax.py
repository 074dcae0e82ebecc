"""The grammar of predictions: text to a tree, in one pass, within bounds of length, depth and size.

test        = and-test { "or" and-test }
and-test    = not-test { "and" not-test }
not-test    = "not" not-test | comparison
comparison  = sum { ( "<" | "<=" | "==" | "!=" | ">=" | ">" ) sum }
sum         = product { ( "+" | "-" ) product }
product     = factor { ( "*" | "/" ) factor }
factor      = "-" factor | NUMBER | STRING | "(" test ")" | ( "abs" | "min" | "max" ) "(" test { "," test } ")" | term
term        = NAME "(" [ argument { "," argument } ] ")" { "." NAME }
argument    = [ NAME "=" ] ( [ "-" ] NUMBER | STRING )
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from workbench.lab.predictions.errors import PredictionError

MAX_LENGTH = 4000  # characters
MAX_DEPTH = 60  # of the tree
MAX_SIZE = 400  # tokens
COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")
FUNCTIONS = ("abs", "min", "max")
_WORDS = ("and", "or", "not")

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<string>\"[^\"\n]*\"|'[^'\n]*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign><=|>=|==|!=|[<>()+\-*/,.=])",
    re.ASCII,
)
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    value: float
    at: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    value: str
    at: int
    depth: int = 1


class Argument(NamedTuple):
    """What a term is given: a number or a text, and where it stands."""

    value: int | float | str
    at: int


@dataclass(frozen=True, slots=True)
class Term:
    """A measurement asked for: `cell(3, "ffn_gate").rel_rms`. text : as it was written. path : with their places."""

    name: str
    arguments: tuple[Argument, ...]
    named: dict[str, Argument]
    path: tuple[tuple[str, int], ...]
    text: str
    at: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator or function with its operands: and, or, not, neg, + - * /, abs, min, max."""

    name: str
    operands: tuple["Node", ...]
    at: int
    depth: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more operands and the signs between them; true if every pair is."""

    operands: tuple["Node", ...]
    signs: tuple[tuple[str, int], ...]
    at: int
    depth: int


Node = Number | Text | Term | Operation | Comparison


class _Token(NamedTuple):
    kind: str  # number, string, name, sign, end
    text: str
    at: int


def parse(source: str) -> Node:
    """Read an expression; PredictionError points at the first character that does not fit."""
    reader = _Reader(source)
    return reader.whole(reader.test)


def parse_step(source: str) -> tuple[str, Node]:
    """Read a step of a ladder, `> 5`: the sign and what is compared with; PredictionError as above."""
    reader = _Reader(source)
    sign = reader.take()
    if sign.text not in COMPARISONS:
        reader.fail(f"a step of a ladder begins with one of {' '.join(COMPARISONS)}", sign)
    return sign.text, reader.whole(reader.sum)


@dataclass
class _Reader:
    source: str
    _tokens: list[_Token] = field(default_factory=list)
    _next: int = 0
    _open: int = 0  # calls of `factor` and `negation` under way

    def __post_init__(self) -> None:
        self._tokens = _tokens(self.source)

    # Tokens

    def peek(self) -> _Token:
        return self._tokens[self._next]

    def take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def expect(self, sign: str, what: str) -> _Token:
        token = self.take()
        if token.text != sign or token.kind != "sign":
            self.fail(f"{what} is expected here, not {_shown(token)}", token)
        return token

    def fail(self, what: str, token: _Token) -> NoReturn:
        raise PredictionError(what, self.source, token.at)

    def whole(self, rule: "Callable[[], Node]") -> Node:
        if self.peek().kind == "end":
            self.fail("there is nothing to read", self.peek())
        found = rule()
        if self.peek().kind != "end":
            if self.peek().text == "=":
                self.fail("one equals sign compares nothing; write ==", self.peek())
            self.fail(f"an operator is expected here, not {_shown(self.peek())}", self.peek())
        return found

    # Rules, from the loosest

    def test(self) -> Node:
        return self._several("or", lambda: self._several("and", self.negation))

    def _several(self, word: str, rule: "Callable[[], Node]") -> Node:
        operands, at = [rule()], self.peek().at
        while self.peek().kind == "name" and self.peek().text == word:
            self.take()
            operands.append(rule())
        return operands[0] if len(operands) == 1 else self._operation(word, operands, at)

    def negation(self) -> Node:
        token = self.peek()
        if token.kind != "name" or token.text != "not":
            return self.comparison()
        self.take()
        return self._nested(token, lambda: self._operation("not", [self.negation()], token.at))

    def comparison(self) -> Node:
        operands, signs, at = [self.sum()], [], self.peek().at
        while self.peek().kind == "sign" and self.peek().text in COMPARISONS:
            sign = self.take()
            signs.append((sign.text, sign.at))
            operands.append(self.sum())
        if not signs:
            return operands[0]
        return Comparison(tuple(operands), tuple(signs), at, self._depth(operands, at))

    def sum(self) -> Node:
        return self._chain("+-", lambda: self._chain("*/", self.factor))

    def _chain(self, signs: str, rule: "Callable[[], Node]") -> Node:
        found = rule()
        while self.peek().kind == "sign" and self.peek().text in signs:
            sign = self.take()
            found = self._operation(sign.text, [found, rule()], sign.at)
        return found

    def factor(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return Number(self._number(token), token.at)
        if token.kind == "string":
            return Text(token.text[1:-1], token.at)
        if token.kind == "name" and token.text not in _WORDS:
            return self._function(token) if token.text in FUNCTIONS else self._term(token)
        if token.text == "-":
            return self._nested(token, lambda: self._operation("neg", [self.factor()], token.at))
        if token.text != "(" or token.kind != "sign":
            self.fail(f"a number, a string or a measurement is expected here, not {_shown(token)}", token)
        found = self._nested(token, self.test)
        self.expect(")", "a closing bracket")
        return found

    def _function(self, name: _Token) -> Node:
        self.expect("(", f"an opening bracket after {name.text}")
        operands = [self._nested(name, self.test)]
        while self.peek().text == ",":
            self.take()
            operands.append(self._nested(name, self.test))
        self.expect(")", "a comma or a closing bracket")
        if name.text == "abs" and len(operands) != 1:
            self.fail(f"abs is of one number, and {len(operands)} are given", name)
        if name.text != "abs" and len(operands) < 2:
            self.fail(f"{name.text} is of two numbers or more, and one is given", name)
        return self._operation(name.text, operands, name.at)

    def _term(self, name: _Token) -> Term:
        self.expect("(", f"an opening bracket after {_shown(name)}")
        given: list[Argument] = []
        named: dict[str, Argument] = {}
        while self.peek().text != ")" or self.peek().kind != "sign":
            if given or named:
                self.expect(",", "a comma or a closing bracket")
            self._argument(given, named)
        end = self.take()
        path: list[tuple[str, int]] = []
        while self.peek().text == ".":
            self.take()
            key = self.take()
            if key.kind != "name":
                self.fail(f"the name of a figure is expected after the dot, not {_shown(key)}", key)
            path.append((key.text, key.at))
            end = key
        text = self.source[name.at : end.at + len(end.text)]
        return Term(name.text, tuple(given), named, tuple(path), " ".join(text.split()), name.at)

    def _argument(self, given: list[Argument], named: dict[str, Argument]) -> None:
        token = self.take()
        key = None
        if token.kind == "name":
            key = token
            self.expect("=", f"an equals sign after {_shown(token)}, or a number or a string in its place,")
            token = self.take()
        minus = token.text == "-" and token.kind == "sign"
        value = self.take() if minus else token
        if value.kind == "number":
            number = self._number(value)
            whole = int(number) if value.text.isdecimal() else number
            argument = Argument(-whole if minus else whole, token.at)
        elif value.kind == "string" and not minus:
            argument = Argument(value.text[1:-1], value.at)
        else:
            self.fail(f"a number or a string is expected here, not {_shown(value)}", value)
        if key is None and named:
            self.fail("what has no name comes before what has one", token)
        if key is not None and key.text in named:
            self.fail(f"{key.text} is given twice", key)
        if key is None:
            given.append(argument)
        else:
            named[key.text] = argument

    def _number(self, token: _Token) -> float:
        value = float(token.text)
        if not math.isfinite(value):
            self.fail("this number is larger than any that is computed with", token)
        return value

    # Bounds

    def _nested(self, token: _Token, rule: "Callable[[], Node]") -> Node:
        self._open += 1
        if self._open > MAX_DEPTH:
            self.fail(f"it is nested more than {MAX_DEPTH} deep", token)
        found = rule()
        self._open -= 1
        return found

    def _operation(self, name: str, operands: list[Node], at: int) -> Operation:
        return Operation(name, tuple(operands), at, self._depth(operands, at))

    def _depth(self, operands: list[Node], at: int) -> int:
        depth = 1 + max(operand.depth for operand in operands)
        if depth > MAX_DEPTH:
            raise PredictionError(f"it is more than {MAX_DEPTH} operations deep", self.source, at)
        return depth


def _tokens(source: str) -> list[_Token]:
    if len(source) > MAX_LENGTH:
        raise PredictionError(f"it has more than {MAX_LENGTH} characters", source, MAX_LENGTH)
    found: list[_Token] = []
    at = _skip(source, 0)
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            unclosed = source[at] in "\"'"
            raise PredictionError(
                "this string is not closed" if unclosed else "this character means nothing here", source, at
            )
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[0], at))
        if len(found) > MAX_SIZE:
            raise PredictionError(f"it has more than {MAX_SIZE} parts", source, at)
        if kind == "number" and re.match("[A-Za-z0-9_.]", source[match.end() : match.end() + 1]):
            raise PredictionError("a number ends here, and something else follows at once", source, match.end())
        at = _skip(source, match.end())
    found.append(_Token("end", "", len(source.rstrip(" \t\r\n"))))
    return found


def _skip(source: str, at: int) -> int:
    space = _SPACE.match(source, at)
    return at if space is None else space.end()


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else repr(token.text[:40])
