"""The hypotheses of a session for a findings document: how they stand, on what, and what was taken back."""

from collections.abc import Mapping
from typing import Any

from workbench.lab import chains
from workbench.lab.retractions import retractions
from workbench.lab.standing import Standing, board_of
from workbench.lab.wording import evidence_lines
from workbench.session.session import Session


def hypothesis_facts(session: Session) -> dict[str, Any]:
    """Return what the template of the section shows: chains, hypotheses, files left out, and what was taken back."""
    board = board_of(session)
    chained = any(standing.hypothesis.after for standing in board.standings)
    return {
        "chain": list(chains.lines(board.standings)) if chained else [],
        "hypotheses": [(standing, standing.hypothesis, _evidence(standing)) for standing in board.standings],
        "problems": board.problems,
        "retracted": [f"line {each.line} of the log: {each.words}" for each in retractions(session)],
    }


def _evidence(standing: Standing) -> list[str]:
    """Return what a hypothesis rests on: what its test measured, else what was noted, a line for each group of it."""
    evidence = standing.hypothesis.evidence
    tested = [f"{name}: {line}" for name, line in evidence_lines(standing)]
    if standing.hypothesis.last_test is not None:
        return tested

    def figures(facts: Mapping[str, Any]) -> str:
        plain = {name: value for name, value in facts.items() if value is not None and not isinstance(value, Mapping)}
        return listed({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in plain.items()})

    groups = {name: value for name, value in evidence.items() if isinstance(value, Mapping)}
    noted = [f"evidence: {figures(evidence)}"] if evidence else []
    return [*noted, *(f"{name}: {figures(group)}" for name, group in groups.items()), *tested]


def listed(facts: Mapping[str, object]) -> str:
    """Return named values in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "none"
