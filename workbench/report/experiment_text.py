"""What an experiment found, in lines: the claim, the number, the whole series with its plot, what it hides."""

import csv
import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from store.text import printable
from workbench.lab.experiment import Plot
from workbench.report.terminal_plot import terminal_plot

if TYPE_CHECKING:
    from workbench.lab.experiment import Experiment

Record = Mapping[str, Any]  # of a result, as its JSON

_ROWS, _HEIGHT = 12, 14  # of the table that is shown, and lines of the plot
_RUNS_ON = {"made": "published input", "either": "published input, A, A B", "model": "A, A B"}
_REPRODUCED = {True: "reproduced", False: "NOT REPRODUCED", None: "not about these inputs"}


def list_text(found: "tuple[Experiment, ...]", width: int) -> str:
    """Every experiment with its question, what it runs on, and its parameters."""
    lines = list[str]()
    for experiment in found:
        names = experiment.id if experiment.id == experiment.word else f"{experiment.id} {experiment.word}"
        published = f"; published {experiment.published}" if experiment.published else ""
        lines += [f"{names:<21}{experiment.question}", f"{'':<21}on {_RUNS_ON[experiment.on]}{published}"]
        settings = (f"{known.name}={_shown(known.default)}" for known in experiment.parameters)
        lines += _wrapped(" ".join(settings), width, 21) if experiment.parameters else []
    return "\n".join([*lines, "", "workbench lab NAME runs one; --set KEY=VALUE changes a parameter."])


def name_of(record: Record) -> str:
    """The number and the word of an experiment, once if they are the same."""
    return " ".join(dict.fromkeys([str(record["experiment"]), str(record["name"])]))


def cell_of(record: Record) -> str:
    """Where it was measured: a cell, the models, or what was published."""
    inputs = record["inputs"]
    words = [f"layer {inputs['layer']}"] if inputs.get("layer") is not None else []
    words += [str(inputs["stage"])] if inputs.get("stage") is not None else []
    models = " and ".join(side.upper() for side in ("a", "b") if side in inputs)
    return printable(" ".join(words), 100) or models or "published input"


def result_text(record: Record, width: int) -> str:
    """All of a result in lines of a width, its series cut after some rows."""
    plot = terminal_plot(record["series"], Plot(**record["plot"]), width, _HEIGHT)
    title = _wrapped(f"{name_of(record)}: {record['question']}", width)
    table = table_lines(record["series"], width, _ROWS)
    parts = [title, found_lines(record, width), plot, table, hidden_lines(record, width)]
    return "\n\n".join("\n".join(part) for part in parts)


def found_lines(record: Record, width: int) -> list[str]:
    """What `found_facts` are, in lines."""
    return [line for name, text in found_facts(record) for line in _hung(name, text, width)]


def hidden_lines(record: Record, width: int) -> list[str]:
    """What `hidden_facts` are, in lines."""
    return [line for name, text in hidden_facts(record) for line in _hung(name, text, width)]


def found_facts(record: Record) -> Iterator[tuple[str, str]]:
    """What is claimed, the number beside the published one, and what it was measured on, each with a name."""
    says = f" ({record['says']})" if record["says"] else ""
    yield "claim", record["claim"]
    yield "verdict", f"{record['verdict'] or 'none'}{says}"
    yield "value", f"{_shown(record['value'])}   {record['shows']}"
    if record["published"] is not None:
        yield "published", f"{record['published']}   {_REPRODUCED[record['reproduced']]}"
    if beside := {name: record[name] for name in record["figures"] if name != "warnings"}:
        yield "beside", _listed(beside)
    yield "input", _inputs(record["inputs"])


def hidden_facts(record: Record) -> Iterator[tuple[str, str]]:
    """What the number hides, in words and in figures, each with a name."""
    yield "hides", record["hides"]
    if against := {name: value for name, value in record["against"].items() if value is not None}:
        yield "against", _listed(against)
    for note in record["notes"]:
        yield "note", note


def table_lines(rows: Sequence[Mapping[str, Any]], width: int, most: int | None = None) -> list[str]:
    """The series in columns, as many as fit; of a long one the first rows. What is left out is named."""
    if not rows:
        return ["(no rows)"]
    shown = rows if most is None or len(rows) <= most else rows[: most - 2]
    texts = [[*rows[0]], *([_shown(value, 4) for value in row.values()] for row in shown)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    count = max(n for n in range(1, len(widths) + 1) if n == 1 or sum(widths[:n]) + 2 * (n - 1) <= width)
    left = {n for n, value in enumerate(rows[0].values()) if isinstance(value, str)}
    lines = []
    for row in texts:
        cells = [text.ljust(widths[n]) if n in left else text.rjust(widths[n]) for n, text in enumerate(row[:count])]
        lines.append("  ".join(cells).rstrip())
    more = [f"{len(rows)} rows in all"] if len(shown) < len(rows) else []
    more += [f"also {', '.join(list(rows[0])[count:])}"] if count < len(widths) else []
    return lines + (_wrapped(f"... {', '.join(more)}: --json or --csv FILE has them", width) if more else [])


def series_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The series as comma-separated values: a head, then a line for every row, floats with all digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _inputs(inputs: Mapping[str, Any]) -> str:
    population = inputs.get("population")
    rest = {name: value for name, value in inputs.items() if name != "population" and value is not None}
    return "; ".join(filter(None, [_listed(rest), population]))


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: Any, digits: int = 5) -> str:  # noqa: ANN401
    if value is None:
        return "not known"
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}" if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        some = ",".join(_shown(item) for item in value[:8])
        return f"{some},… ({len(value)})" if len(value) > 8 else some or "none"
    return printable(str(value), 200)


def _hung(name: str, text: str, width: int) -> list[str]:
    first, *rest = _wrapped(text, width - 11) or [""]
    return [f"{name:<11}{first}", *(f"{'':<11}{line}" for line in rest)]


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    lines = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False)
    return [" " * indent + line for line in lines]
