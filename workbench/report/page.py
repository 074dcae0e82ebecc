"""The findings as one self-contained page: no network, no script but its own, whatever the files say."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from kernels.errors import WorkbenchError
from kernels.models import all_stages, layer_stages
from kernels.stages import FIRST_STAGES, Site
from store.text import printable
from workbench import __version__
from workbench.cells.cell import Cell
from workbench.cells.decomposition import Checked
from workbench.cells.heat import LEGEND, Look
from workbench.cells.metrics import METRICS, format_value
from workbench.jobs.conclusion import Conclusion
from workbench.report.contracts import contracts
from workbench.report.exchanges import exchanges
from workbench.report.experiments import Told, lab_results
from workbench.report.findings import as_of, population, sides
from workbench.report.hypotheses import hypothesis_facts
from workbench.report.investigation import Investigation
from workbench.report.local_map import DEFINITION, LABEL, coverage, local_looks
from workbench.report.local_map import LEGEND as LOCAL_LEGEND
from workbench.report.summary import Summary

_MAX_BYTES = 32 << 20
_MAX_TEXT, _MAX_NOTES, _MAX_ROWS, _MAX_TOKENS = 4000, 200, 200, 512  # characters, hypotheses, rows of tables, tokens


def page_html(found: Investigation, concluded: Conclusion, summary: Summary, weights: Mapping[str, Any]) -> str:
    """Return the page; WorkbenchError if it were larger than a browser should be given.

    weights : as workbench.report.weight_facts has them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("workbench.report", ""),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (
        files("workbench.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    own = {"style": Markup(style), "script": Markup(script), "policy": _policy(style, script)}  # noqa: S704 (our files)
    looks = _looks(found)
    data = Markup(_json(_data(found, looks)))  # noqa: S704 (`_json` leaves no character of markup)
    shown = _facts(found, concluded, summary, looks) | _hypotheses(found) | _results(found)
    shown["weights"] = _weights(weights)
    page = environment.get_template("page.html.j2").render(**own, data=data, **shown)
    size = len(page.encode())
    if size > _MAX_BYTES:
        raise WorkbenchError(
            f"the page would have {size >> 20} MiB, and {_MAX_BYTES >> 20} are allowed; leave out --html"
        )
    return page


def _policy(style: str, script: str) -> str:
    """Allow nothing but the two texts that are on the page."""
    allowed = {"style-src": style, "script-src": script}
    hashes = (
        f"{name} 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for name, text in allowed.items()
    )
    return "; ".join(["default-src 'none'", *hashes, "base-uri 'none'", "form-action 'none'"])


def _json(value: object) -> str:
    """JSON that ends no element and begins none."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _looks(found: Investigation) -> list[Mapping[Site, Look]]:
    """The local view, then every metric over the tokens that the map shows."""
    return [
        local_looks(found.comparison, found.local),
        *(found.comparison.looks(metric) for metric in METRICS.values()),
    ]


def _data(found: Investigation, looks: list[Mapping[Site, Look]]) -> dict[str, Any]:
    cells = found.comparison.cells
    beyond = (n for n, cell in enumerate(cells) if looks[0][cell.site].outside)
    return {
        "metrics": _metrics(),
        "start": next(beyond, 0),
        "cells": [
            {
                "site": str(cell.site),
                "looks": [_look(of[cell.site]) for of in looks],
                "figures": list(_figures(cell, found.local.get(cell.site))),
            }
            for cell in cells
        ],
    }


def _metrics() -> list[dict[str, str]]:
    local = {"label": LABEL, "definition": DEFINITION}
    return [local, *({"label": metric.label, "definition": metric.definition} for metric in METRICS.values())]


def _look(look: Look) -> list[Any]:
    return [look.glyph, look.text, look.level, look.outside]


def _figures(cell: Cell, checked: Checked | None) -> Iterable[list[str]]:
    """What a cell has beside its metrics."""
    if cell.note:
        yield ["note", printable(cell.note, _MAX_TEXT)]
    if cell.shape is not None:
        yield ["tokens × channels", "×".join(map(str, cell.shape))]
    if checked is not None:
        known = checked.cell
        figures = ("observed", known.observed), ("local", known.local), ("inherited", known.inherited)
        yield from ([f"{name}, of B's norm", format_value(value)] for name, value in figures if value is not None)
        yield ["what rounding can cause, of B's norm", format_value(known.floor)]


def _facts(
    found: Investigation, concluded: Conclusion, summary: Summary, looks: list[Mapping[Site, Look]]
) -> dict[str, Any]:
    comparison, session = found.comparison, found.session
    tokens = comparison.a.tokens
    more = f" and {len(tokens) - _MAX_TOKENS} more" if len(tokens) > _MAX_TOKENS else ""
    return {
        "title": _text(f"Findings: {session.spec.name}"),
        "summary": summary,
        "rests_on": concluded.rests_on(),
        "as_of": as_of(found),
        "version": __version__,
        "coverage": coverage(comparison, found.local),
        "legend": f"{LABEL}: {LOCAL_LEGEND}. The metrics: {LEGEND}.".replace("   ", ", "),
        "metrics": _metrics(),
        "columns": [*(str(layer) for layer in comparison.layers)] or ["model"],
        "rows": list(_rows(found, looks[0])),
        "sides": _table(sides(found)),
        "tokens": ",".join(map(str, tokens[:_MAX_TOKENS])) + more,
        "prompt": None if comparison.a.prompt is None else _text(comparison.a.prompt),
        "population": _text(population(comparison)),
        "bisection": concluded.lines()[:_MAX_ROWS],
    }


def _hypotheses(found: Investigation) -> dict[str, Any]:
    """What was claimed, how it stands and on what, and what was taken back."""
    facts = hypothesis_facts(found.session)
    shown = facts["hypotheses"][:_MAX_NOTES]
    return {
        "chain": "\n".join(map(_text, facts["chain"][:_MAX_NOTES])),
        "hypotheses": [
            {
                "number": standing.number,
                "status": _text(standing.words),
                "because": _text(standing.stale_because or standing.not_due),
                "site": "" if hypothesis.site is None else f"{hypothesis.site}: ",
                **{name: _text(getattr(hypothesis, name)) for name in ("title", "claim", "prediction")},
                "graded": _text("; ".join(f"{name} {text}" for name, text in (hypothesis.ladder_json() or {}).items())),
                "evidence": [*map(_text, evidence[:_MAX_ROWS])],
                "body": "\n".join(map(_text, hypothesis.body.strip().splitlines()[:_MAX_ROWS])),
            }
            for standing, hypothesis, evidence in shown
        ],
        "retracted": [*map(_text, facts["retracted"][:_MAX_NOTES])],
        "left_out": [
            *map(_text, facts["problems"][:_MAX_NOTES]),
            *_rest(len(facts["hypotheses"]), _MAX_NOTES, "hypotheses"),
        ],
    }


def _results(found: Investigation) -> dict[str, Any]:
    """What was measured besides: ledger, contracts, exchanges, experiments."""
    session, runs = found.session, found.runs
    exchanged, lab, checked = exchanges(session, runs), lab_results(session, runs), contracts(session, runs)

    def told(results: list[Told]) -> list[dict[str, Any]]:
        return [
            {
                "heading": _text(each.heading),
                "found": [*map(_text, each.found[:_MAX_ROWS])],
                "series": "\n".join(map(_text, each.series[:_MAX_ROWS])),
                "hidden": [*map(_text, each.hidden[:_MAX_ROWS])],
            }
            for each in results[:_MAX_NOTES]
        ]

    return {
        "ledgers": told(lab.ledgers),
        "experiments": told(lab.experiments),
        "contracts": [
            {
                "headline": _text(each.headline),
                "rows": _table(each.rows),
                "broken": [*map(_text, each.broken[:_MAX_ROWS])],
                "checked": _text(each.checked),
            }
            for each in checked.tables[:_MAX_NOTES]
        ],
        "exchanges": _table(exchanged.rows),
        "exchanged": [*map(_text, exchanged.words[:_MAX_ROWS])],
        "stale": [*map(_text, [*checked.stale, *lab.stale][:_MAX_ROWS])],
    }


def _weights(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep over the tensors found."""
    outside = facts["outside"]
    more = _rest(len(outside), _MAX_ROWS, "tensors outside the band")
    return {
        "sentence": _text(facts["sentence"]),
        "groups": _table(facts["groups"]),
        "outside": _table(outside),
        "most": _table(facts["most"]),
        "findings": [*map(_text, facts["findings"][:_MAX_ROWS]), *more],
    }


def _table(rows: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[_text(value) for value in row] for row in rows[:_MAX_ROWS]]


def _rows(found: Investigation, looks: Mapping[Site, Look]) -> Iterable[tuple[str, list[dict[str, Any] | None]]]:
    """The stages of the map, each with a cell for every layer; whole-model stages at the first or the last."""
    numbers = {cell.site: n for n, cell in enumerate(found.comparison.cells)}
    layers: list[int | None] = [*found.comparison.layers] or [None]
    there = {site.stage for site in numbers}
    for stage in (stage for stage in all_stages() if stage in there):
        sites = [Site(layer, stage) for layer in layers]
        if stage not in layer_stages():
            own = 0 if stage in FIRST_STAGES else len(layers) - 1
            sites = [Site(None, stage) if n == own else Site(-1, stage) for n in range(len(layers))]
        yield stage, [_cell(numbers[site], site, looks[site]) if site in numbers else None for site in sites]


def _cell(index: int, site: Site, look: Look) -> dict[str, Any]:
    return {"index": index, "look": look, "label": f"{site}: {look.text}{', marked' if look.outside else ''}"}


def _rest(count: int, shown: int, what: str) -> list[str]:
    return [f"{count - shown} more {what}"] if count > shown else []


def _text(value: object) -> str:
    return printable(str(value), _MAX_TEXT)
