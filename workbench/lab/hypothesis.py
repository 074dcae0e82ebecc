"""A hypothesis: a claim that a measurement can contradict, its test, and the history of its tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.traces.run import now
from workbench.session.plain import plain

Verdict = Literal["CONFIRMED", "PARTIAL", "FALSIFIED"]
Status = Literal["UNTESTED", "CONFIRMED", "PARTIAL", "FALSIFIED", "STALE"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
STATUSES: tuple[Status, ...] = get_args(Status)


class HypothesisError(WorkbenchError, ValueError):
    """A hypothesis that cannot be read, written or tested."""


class After(NamedTuple):
    """The hypothesis that this one follows, and the verdict on it with which it does."""

    hypothesis: int
    verdict: Verdict


class Ladder(NamedTuple):
    """What is measured, and from where on the claim is confirmed, or partly so; below, it is falsified. As written."""

    value: str
    confirmed: str
    partial: str = ""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A claim about a cell, or about none, that a measurement can contradict.

    number, slug : from the file's name; number 0 is not written yet.
    prediction : what must be measured if the claim is true, an expression; or a sentence for a person to judge.
    ladder : grades a number instead, or beside it. after : another hypothesis that it follows.
    evidence : what was measured, with population, numeric paths and hashes. history : its tests, oldest first.
    metric : key of the metric of the cell it was written about. created : UTC, ISO 8601. body : free text.
    source : the file as it was read; empty if not written yet.
    """

    title: str
    site: Site | None
    claim: str
    prediction: str = ""
    status: Status = "UNTESTED"
    ladder: Ladder | None = None
    after: After | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    metric: str = ""
    created: str = field(default_factory=now)
    body: str = ""
    number: int = 0
    slug: str = ""
    source: str = field(default="", repr=False, compare=False)

    @property
    def filename(self) -> str:
        """Name of its file."""
        return f"{self.number:02d}-{self.slug}.md"

    @property
    def last_test(self) -> Mapping[str, Any] | None:
        """The last test that had an answer."""
        return next((test for test in reversed(self.history) if test.get("status") in VERDICTS), None)

    def front(self) -> dict[str, Any]:
        """Return the front matter, in the order of the file; None for what need not be there."""
        site = self.site
        return {
            "title": self.title,
            "claim": self.claim,
            "status": self.status,
            "layer": None if site is None else site.layer,
            "stage": None if site is None else site.stage,
            "prediction": self.prediction,
            "ladder": self.ladder_json(),
            "after": None if self.after is None else self.after._asdict(),
            "metric": self.metric,
            "created": self.created,
            "evidence": plain(self.evidence),
            "history": plain(self.history) or None,
        }

    def ladder_json(self) -> dict[str, str] | None:
        """Return the ladder as JSON has it."""
        if self.ladder is None:
            return None
        return {name: text for name, text in self.ladder._asdict().items() if text or name != "partial"}
