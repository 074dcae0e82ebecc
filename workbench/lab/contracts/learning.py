"""Learning a contract from a healthy pair: what it measures, with room for what other prompts measure.

What does not depend on the prompt (weights, settings, coverage) gets little room, what does (cells, logits) more. The
factors were measured on healthy pairs with other prompts, docs/contracts.md.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import yaml

from kernels.stages import Site
from store.text import printable
from workbench.bisect.verdict import EXIT_CODES
from workbench.cells.limit import LIMIT
from workbench.lab.contracts.reading import ContractError
from workbench.lab.contracts.subjects import NO_ANSWERS
from workbench.lab.measurements import Measurements
from workbench.lab.readings import FLOORS, KL, SETTINGS

_HEALTHY = ("alike", "numerics_only", "quantization_only")  # each allows those before it
_WEIGHTS = 1.25  # times what a role's worst tensor, or row, differs by
_CELLS = 4.0  # times the largest relative RMS of a stage
_LOGITS = _CELLS**2  # KL grows as the square
_NOTHING = 1e-6  # relative RMS of what was equal here, and may be rounded otherwise on another prompt
_DIGITS = 3
_MAX_NAME = 150  # characters of a tensor's name; a longer one no converter writes
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def learn(pair: Measurements, name: str) -> str:
    """Return the text of a contract that this pair meets; ContractError unless its bisection says it is healthy."""
    answer = pair.answer
    if isinstance(answer, str):
        raise ContractError(f"a contract is learnt from a healthy pair, and this one cannot be bisected: {answer}")
    verdict, culprit = answer.bisection.verdict, answer.bisection.culprit
    if EXIT_CODES[verdict]:
        why = "" if culprit is None else f" at {culprit.site} ({culprit.cause})"
        if verdict in NO_ANSWERS and answer.bisection.notes:
            why = f" ({answer.bisection.notes[0]})"
        raise ContractError(
            f"a contract is learnt from a healthy pair, and the bisection of this one is {verdict}{why}"
        )
    rules = [*_tensors(pair), *_settings(pair), *_cells(pair), *_logits(pair)]
    rules.append({"id": "verdict", "bisect": list(_HEALTHY[: _HEALTHY.index(verdict) + 1])})
    contract = {"contract": _id(name, ()), "version": 1, "rules": rules}
    head = "".join(f"# {line}\n" for line in _origin(pair))
    return head + str(yaml.safe_dump(contract, sort_keys=False, default_flow_style=None, width=120))


def _origin(pair: Measurements) -> Iterator[str]:
    """What the contract was learnt from."""
    facts = pair.provenance()
    yield "Learnt from a pair that its bisection found healthy; bounds leave room for other prompts."
    for side in ("a", "b"):
        path = f", path {facts[side]['numeric_path']}" if facts[side]["numeric_path"] else ""
        yield printable(f"{side.upper()} {facts[side]['path']} (sha256 {facts[side]['sha256']}{path})", 1000)
    if facts["tokens"] is not None:
        yield printable(f"tokens {','.join(map(str, facts['tokens']))}", 1000)


def _tensors(pair: Measurements) -> Iterator[dict[str, Any]]:
    """Bounds on the tensors of every role, layer numbers apart: on the whole, and on the worst row."""
    names = pair.tensor_names
    if isinstance(names, str):
        return
    roles: dict[str, list[str]] = {}
    for name in names:
        if len(name) <= _MAX_NAME:
            roles.setdefault(_LAYER.sub("*", _escaped(name)), []).append(name)
    equal, taken = list[str](), set[str]()
    for pattern, members in roles.items():
        for metric in ("rel_rms", "worst_row_rel_rms"):
            values = [pair.tensor(name, metric).value for name in members]
            if None in values:
                continue
            if not any(values):
                equal.append(pattern)
                break
            taken.add(id := _id(f"{metric}.{pattern.removeprefix('model.layers.*.')}", taken))
            yield {"id": id, "tensors": pattern, "metric": metric, "at_most": _up(_WEIGHTS * max(values))}
    if equal:
        yield {"id": "equal-tensors", "tensors": equal, "metric": "max_abs", "at_most": 0}
    for key in ("nonfinite_a", "nonfinite_b"):
        yield from _numbers(f"tensors.{key}", {"tensors": "*"}, key, [pair.tensor(name, key).value for name in names])
    if all(pair.compared_tensor(name).value for name in names):
        yield {"id": "tensors", "coverage": "tensors", "at_least": 1.0}


def _settings(pair: Measurements) -> Iterator[dict[str, Any]]:
    """The settings that both sides have alike."""
    known = [name for name in SETTINGS if not any(pair.setting(side, name).why for side in (0, 1))]
    if same := [name for name in known if pair.same_setting(name)]:
        yield {"id": "settings", "config": same, "equals": "both"}


def _cells(pair: Measurements) -> Iterator[dict[str, Any]]:
    """Bounds on how much every stage differs, and on how much any adds in multiples of its floor."""
    sites = pair.sites
    if isinstance(sites, str):
        return
    floored: list[str] = []
    for stage in dict.fromkeys(site.stage for site in sites):
        there = [site for site in sites if site.stage == stage]
        known = {metric: [s for s in there if pair.cell(s, metric).value is not None] for metric in ("rel_rms", FLOORS)}
        if found := known["rel_rms"]:
            most = max(pair.cell(site, "rel_rms").value for site in found)
            bound = _up(max(_CELLS * most, _NOTHING))
            yield {"id": f"rel_rms.{stage}", "cells": _some(stage, found, there), "metric": "rel_rms", "at_most": bound}
        if len(known[FLOORS]) == len(there):
            floored.append(stage)
    if floored:
        yield {"id": FLOORS, "cells": {"stage": floored}, "metric": FLOORS, "at_most": LIMIT}
    for key in ("nonfinite_a", "nonfinite_b"):
        yield from _numbers(f"cells.{key}", {"cells": {"stage": "*"}}, key, [pair.cell(s, key).value for s in sites])
    compared = sum(pair.compared_cell(site).value is True for site in sites)
    yield {"id": "coverage", "coverage": "cells", "at_least": _rounded(compared / len(sites), ROUND_FLOOR)}


def _numbers(id: str, subject: dict[str, Any], metric: str, counted: Sequence[int | None]) -> Iterator[dict[str, Any]]:
    """That every value is a number, where all of them are here."""
    if counted and all(count == 0 for count in counted):
        yield {"id": id, **subject, "metric": metric, "equals": 0}


def _some(stage: str, found: Sequence[Site], there: Sequence[Site]) -> dict[str, Any]:
    """A stage in all layers, or in those where it was measured."""
    layers = [site.layer for site in found]
    return {"stage": stage} if len(found) == len(there) else {"stage": stage, "layers": layers}


def _logits(pair: Measurements) -> Iterator[dict[str, Any]]:
    """A bound on the divergence of the next-token distributions."""
    positions = pair.logit_positions(last=False)
    if isinstance(positions, str):
        return
    values = [pair.logits(position, KL).value for position in positions]
    if None not in values:
        bound = _up(max(_LOGITS * max(values), _NOTHING**2))
        yield {"id": "logits", "logits": {"positions": "all"}, "metric": KL, "at_most": bound}


def _escaped(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return re.sub(r"[\[*?]", r"[\g<0>]", name)


def _id(text: str, taken: Iterable[str]) -> str:
    """An id made of a text, unlike those that are taken."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:56] or "contract"
    found, number = plain, 1
    while found in taken:
        number += 1
        found = f"{plain}-{number}"
    return found


def _up(value: float) -> float:
    return _rounded(value, ROUND_CEILING)


def _rounded(value: float, way: str) -> float:
    """A number of few digits, not below or not above the exact one."""
    exact = Decimal(value)
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1), rounding=way)) if value else 0.0
