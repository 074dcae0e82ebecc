"""The results of a check for readers: a table, sentences, and the annotations of a build on GitHub."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from store.text import inert, printable
from workbench.cells.metrics import format_value
from workbench.lab.contracts.bounds import Alike, BothSides, scalar_text
from workbench.lab.contracts.checking import Check, Result

HEAD = ("verdict", "rule", "measured", "where", "bound", "compared", "line")
# What is cut to fit a narrow terminal, one after the other, and to how many columns.
_CUTS = (("where", 20), ("bound", 20), ("rule", 20), ("where", 13), ("measured", 9), ("bound", 16), ("rule", 13))
_GAP = 2  # columns between two


def headline(check: Check) -> str:
    """Return the verdict on the contract and how many rules have which."""
    counts = ", ".join(f"{number} {verdict}" for verdict, number in check.counts.items() if number)
    return f"{check.contract.name}: {check.verdict.upper()} ({counts})"


def table(check: Check, width: int) -> list[tuple[str, ...]]:
    """Return a head and a row for every rule; names are cut in their middle where `width` columns are too few."""
    lines = [HEAD, *_rows(check)]
    widths = dict(zip(HEAD, (max(map(len, column)) for column in zip(*lines, strict=True)), strict=True))
    over = sum(widths.values()) + _GAP * (len(HEAD) - 1) - width
    for name, least in _CUTS:
        spared = min(max(over, 0), max(widths[name] - least, 0))
        widths[name] -= spared
        over -= spared
    return [tuple(_cut(text, widths[name]) for name, text in zip(HEAD, line, strict=True)) for line in lines]


def _rows(check: Check) -> Iterator[tuple[str, ...]]:
    for result in check.results:
        rule = result.rule
        yield (
            result.verdict if result.verdict == "met" else result.verdict.upper(),
            rule.id,
            measured_text(result),
            inert(place_text(result)) or "-",
            inert(rule.bound.text),
            f"{result.compared}/{result.expected}",
            str(rule.line),
        )


def sentences(check: Check) -> Iterator[str]:
    """Return a sentence for every rule that is not met."""
    for result in check.results:
        if result.verdict != "met":
            yield inert(f"{message(result)}.")


def measured_text(result: Result) -> str:
    """The value at the worst place, in words."""
    alike = result.verdict == "met" and isinstance(result.rule.bound, Alike)
    return "alike" if alike else value_text(result.measured)


def place_text(result: Result) -> str:
    """The worst place; a cell as options name it, 3:ffn_gate."""
    where = result.where or {}
    return f"{where['layer']}:{where['stage']}" if where.get("layer") is not None else result.words


def _cut(text: str, width: int) -> str:
    """Cut the middle out of a text that is too long."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - tail - 1]}…{text[-tail:]}"


def value_text(value: object) -> str:
    """A measured value with the digits that a reader compares."""
    if isinstance(value, BothSides):
        a, b = map(scalar_text, value)
        return a if a == b else f"{a} / {b}"
    if isinstance(value, float) and math.isinf(value):
        return "no bound"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else printable(str(value), 40)
    if 0.99 < value < 1:
        return f"{value:.7g}"  # a cosine, of which the last digits count
    return format_value(value)


def message(result: Result) -> str:
    """A rule that is not met in one sentence."""
    words = f"{result.rule.id} is {result.verdict}: {result.rule.bound.text}"
    if result.measured is not None:
        at = f" at {result.words}" if result.words else ""
        words += f", measured {value_text(result.measured)}{at}"
    note = f"; {result.note}" if result.note else ""
    return f"{words}; compared {result.compared} of {result.expected}{note}"


def annotations(check: Check, file: Path | None) -> Iterable[str]:
    """Return a workflow command of GitHub for every rule that is not met, at its line of the contract."""
    for result in check.results:
        if result.verdict != "met":
            place = {} if file is None else {"file": str(file), "line": str(result.rule.line)}
            facts = place | {"title": f"{check.contract.name}: {result.rule.id} {result.verdict}"}
            listed = ",".join(f"{name}={_property(value)}" for name, value in facts.items())
            yield f"::error {listed}::{_data(message(result))}"


def _data(text: str) -> str:
    """A text as the message of a workflow command."""
    return inert(printable(text, 1000)).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A text as a property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
