"""A contract and its rules, read."""

from dataclasses import dataclass
from pathlib import Path

from workbench.lab.contracts.bounds import Bound
from workbench.lab.contracts.subjects import Cells, Coverage, Logits, Subject, Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """One bound over some places of a pair. line : where it begins in its file, from 1."""

    id: str
    line: int
    subject: Subject
    bound: Bound

    @property
    def runs(self) -> bool:
        """Whether measuring it takes running, or reading, both sides on tokens."""
        subject = self.subject
        return isinstance(subject, Cells | Logits | Verdict) or (
            isinstance(subject, Coverage) and subject.of == "cells"
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """Rules that a pair must meet.

    file : where it was read, None for one that ships with the program. sha256 : of that file, empty if it was not read.
    """

    name: str
    rules: tuple[Rule, ...]
    file: Path | None = None
    sha256: str = ""

    @property
    def runs(self) -> bool:
        """Whether checking it takes running, or reading, both sides on tokens."""
        return any(rule.runs for rule in self.rules)
