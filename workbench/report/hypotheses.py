"""The hypotheses of a session for a findings document: claims, and the evidence that was captured with them."""

from collections.abc import Mapping
from typing import Any

from workbench.lab.shelf import shelf_of
from workbench.session.session import Session


def hypothesis_facts(session: Session) -> dict[str, Any]:
    """Return what the template of the section shows: hypotheses with their evidence in lines, and files left out."""
    shelf = shelf_of(session)
    return {
        "hypotheses": [(hypothesis, evidence_lines(hypothesis.evidence)) for hypothesis in shelf.hypotheses],
        "problems": shelf.problems,
    }


def evidence_lines(evidence: Mapping[str, Any]) -> list[str]:
    """Return the figures of a hypothesis in one line, and a line for each group among them."""

    def figures(facts: Mapping[str, Any]) -> str:
        plain = {name: value for name, value in facts.items() if value is not None and not isinstance(value, Mapping)}
        return listed({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in plain.items()})

    groups = {name: value for name, value in evidence.items() if isinstance(value, Mapping)}
    lines = [f"evidence: {figures(evidence)}"] if evidence else []
    return lines + [f"{name}: {figures(group)}" for name, group in groups.items()]


def listed(facts: Mapping[str, object]) -> str:
    """Return named values in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "none"
