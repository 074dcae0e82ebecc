"""Evidence and history of a hypothesis in lines for readers."""

from collections.abc import Iterator, Mapping
from typing import Any

from store.text import printable
from workbench.cells.metrics import format_value
from workbench.lab.standing import Standing

_HASH = 12  # digits that readers compare


def evidence_lines(standing: Standing) -> Iterator[tuple[str, str]]:
    """Yield what was measured when a hypothesis was tested, on what, and its tests so far, each with a name."""
    evidence, hypothesis = standing.hypothesis.evidence, standing.hypothesis
    measured = evidence.get("measured")
    if hypothesis.last_test is not None and isinstance(measured, list):
        for each in measured:
            if isinstance(each, Mapping):
                yield "measured", _measured(each)
        for side in "ab":
            if isinstance(facts := evidence.get(side), Mapping):
                yield side.upper(), _side(facts)
        notes = evidence.get("notes")
        for note in notes if isinstance(notes, list) else ():
            yield "note", printable(str(note), 400)
    if standing.unchecked:
        yield "unchecked", f"not here to be compared: {printable(', '.join(standing.unchecked), 200)}"
    for test in hypothesis.history:
        yield "tested", _test(test)


def value_text(value: object) -> str:
    """A measured value as readers have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, int | float):
        return "no value" if value is None else printable(str(value), 80)
    return str(value) if isinstance(value, int) else format_value(value)


def _measured(each: Mapping[str, Any]) -> str:
    population = f", {printable(str(each['population']), 80)}" if each.get("population") else ""
    why = f" ({printable(str(each['why']), 300)})" if each.get("why") and each.get("value") is None else ""
    return f"{printable(str(each.get('what')), 200)} = {value_text(each.get('value'))}{population}{why}"


def _side(facts: Mapping[str, Any]) -> str:
    path = f", path {printable(str(facts['numeric_path']), 20)}" if facts.get("numeric_path") else ""
    return f"{printable(str(facts.get('file')), 120)}{path}, sha256 {printable(str(facts.get('sha256')), 80)[:_HASH]}…"


def _test(test: Mapping[str, Any]) -> str:
    verdict = test.get("status")
    said = f"{verdict}, {value_text(test.get('value'))}" if verdict else f"no answer: {test.get('why')}"
    return f"{printable(str(test.get('time')), 40)}  {printable(said, 300)}"
