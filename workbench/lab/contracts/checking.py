"""Checking a pair against a contract: a verdict for every rule, and one for all."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from store.text import printable
from workbench.lab.contracts.bounds import BothSides
from workbench.lab.contracts.contract import Contract, Rule
from workbench.lab.contracts.subjects import Found
from workbench.lab.measurements import Measurements

RuleVerdict = Literal["met", "broken", "unmeasured", "unmatched"]
Verdict = Literal["met", "broken", "unanswerable"]
EXIT_CODES: dict[Verdict, int] = {"met": 0, "broken": 1, "unanswerable": 2}


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a rule.

    measured, where, words : value and place of the worst place; None and the first such place if it is unmeasured.
    note : what is to be said beside, empty for nothing. seconds : what measuring took that no rule before had measured.
    """

    rule: Rule
    verdict: RuleVerdict
    measured: Any = None
    where: Mapping[str, Any] | None = None
    words: str = ""
    compared: int = 0
    expected: int = 0
    note: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the row as `check --json` prints it."""
        value = self.measured
        if isinstance(value, BothSides):
            value = {"a": value.a, "b": value.b}
        return {
            "id": self.rule.id,
            "line": self.rule.line,
            "verdict": self.verdict,
            "measured": None if isinstance(value, float) and not isfinite(value) else value,
            "where": self.where,
            "bound": self.rule.bound.text,
            "compared": self.compared,
            "expected": self.expected,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """A contract and what became of its rules, in their order."""

    contract: Contract
    results: Sequence[Result]

    @property
    def counts(self) -> dict[RuleVerdict, int]:
        """Rules by verdict."""
        found = Counter(result.verdict for result in self.results)
        order: tuple[RuleVerdict, ...] = ("met", "broken", "unmeasured", "unmatched")
        return {verdict: found[verdict] for verdict in order}

    @property
    def verdict(self) -> Verdict:
        """Broken if a rule is; else unanswerable unless every rule is met."""
        counts = self.counts
        if counts["broken"]:
            return "broken"
        return "met" if counts["met"] == len(self.results) else "unanswerable"

    @property
    def reason(self) -> str | None:
        """Why there is no answer, in one sentence; None if there is one."""
        if self.verdict != "unanswerable":
            return None
        open_rules = [result for result in self.results if result.verdict != "met"]
        first = open_rules[0]
        return (
            f"contract {self.contract.name}: {len(open_rules)} of {len(self.results)} rules could not be answered, the "
            f"first is {first.rule.id} (line {first.rule.line}), {first.verdict}: {first.note}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the answer as `check --json` prints it; contract: schemas/check.schema.json."""
        return {
            "contract": self.contract.name,
            "verdict": self.verdict,
            "rules": [result.to_json() for result in self.results],
            **{str(verdict): number for verdict, number in self.counts.items()},
        }


def check(contract: Contract, pair: Measurements) -> Check:
    """Check every rule of a contract; what the rules need is measured, and nothing else."""
    results = []
    for rule in contract.rules:
        started = time.perf_counter()
        results.append(_judged(rule, rule.subject.find(pair), started))
    pair.require_unchanged()
    return Check(contract, results)


def _judged(rule: Rule, found: Found, started: float) -> Result:
    """The verdict on a rule: what is beyond its bound breaks it, what is missing leaves it open."""
    measured = [place for place in found.places if place.reading.value is not None]
    missing = [place for place in found.places if place.reading.value is None]
    excess = [rule.bound.excess(place.reading.value) for place in measured]
    worst = measured[excess.index(max(excess))] if measured else None
    note = found.unmatched or found.unknown
    if missing:
        first = missing[0]
        at = f", the first is {first.words}" if first.words else ""
        note = f"{len(missing)} of {found.expected} not measured{at}: {first.reading.why}"
        if len(found.places) == 1:
            note = first.reading.why
    verdict: RuleVerdict = "unmatched" if found.unmatched else "unmeasured"
    place = missing[0] if missing else None
    if worst is not None and max(excess) > 0:
        verdict, place = "broken", worst
        note = "; ".join(text for text in (worst.reading.why, note) if text)
    elif worst is not None and not missing:
        verdict, place = "met", worst
    return Result(
        rule,
        verdict,
        None if place is None else place.reading.value,
        None if place is None else place.where,
        "" if place is None else printable(place.words),
        found.compared,
        found.expected,
        printable(note.rstrip("."), 400),
        time.perf_counter() - started,
    )
