"""How hypotheses stand now: which verdicts still hold, which are stale and why, and which are to be tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kernels.stages import Site
from store.text import printable
from workbench.lab.bindings import CAPTURE, Bindings, Show, changed
from workbench.lab.hypothesis import VERDICTS, Hypothesis, Status
from workbench.lab.retractions import Retraction, retractions
from workbench.lab.shelf import shelf_of
from workbench.session.plain import plain
from workbench.session.session import Session


@dataclass(frozen=True, slots=True)
class Standing:
    """A hypothesis and how it stands.

    status : STALE where the verdict no longer holds, else that of its file. stale_because : why, in a sentence.
    unchecked : what the verdict depends on and is not here. due : whether the hypothesis that it follows, if any, has
    the verdict that it waits for. not_due : why not, in a sentence.
    """

    hypothesis: Hypothesis
    status: Status
    stale_because: str | None = None
    unchecked: tuple[str, ...] = ()
    not_due: str = ""

    @property
    def number(self) -> int:
        """Number of the hypothesis."""
        return self.hypothesis.number

    @property
    def by(self) -> Literal["test", "hand"] | None:
        """Who gave it its status; None if it has none."""
        hypothesis, test = self.hypothesis, self.hypothesis.last_test
        if test is not None and hypothesis.status == test.get("status"):
            return "test"
        return None if hypothesis.status == "UNTESTED" and test is None else "hand"

    @property
    def words(self) -> str:
        """The status in words, with what is to be known of it."""
        test = self.hypothesis.last_test
        if self.by == "hand" and self.status in VERDICTS:
            said = "" if test is None else f"; its test said {test.get('status')}"
            return f"{self.status} (by hand{said})"
        return self.status

    @property
    def value(self) -> Any:  # noqa: ANN401
        """What the last test with an answer found; None without one."""
        test = self.hypothesis.last_test
        return None if test is None or self.by != "test" else test.get("value")

    def to_json(self) -> dict[str, Any]:
        """Return it as `hypotheses --json` prints it."""
        hypothesis = self.hypothesis
        site: Site | None = hypothesis.site
        return {
            "number": hypothesis.number,
            "title": hypothesis.title,
            "claim": hypothesis.claim,
            "status": self.status,
            "by": self.by,
            "layer": None if site is None else site.layer,
            "stage": None if site is None else site.stage,
            "prediction": hypothesis.prediction,
            "ladder": hypothesis.ladder_json(),
            "after": None if hypothesis.after is None else hypothesis.after._asdict(),
            "due": not self.not_due,
            "value": plain(self.value),
            "evidence": plain(hypothesis.evidence),
            "stale_because": self.stale_because,
            "unchecked": list(self.unchecked),
            "history": plain(hypothesis.history),
            "file": f"hypotheses/{hypothesis.filename}",
        }


@dataclass(frozen=True, slots=True)
class Board:
    """All hypotheses of a session by number, and a sentence for every file that cannot be read."""

    standings: tuple[Standing, ...]
    problems: tuple[str, ...]

    def of(self, number: int) -> Standing | None:
        """How hypothesis `number` stands; None if there is none."""
        return next((standing for standing in self.standings if standing.number == number), None)


def board_of(session: Session, show: Show = lambda *_: None) -> Board:
    """Return how the hypotheses of a session stand. show : is told how far the files of its sides are hashed."""
    shelf = shelf_of(session)
    judge = _Judge({each.number: each for each in shelf.hypotheses}, Bindings(session, show), retractions(session))
    return Board(tuple(judge.standing(each.number) for each in shelf.hypotheses), tuple(shelf.problems))


def followers(hypotheses: Sequence[Hypothesis]) -> dict[int | None, list[Hypothesis]]:
    """Return hypotheses by the number of the one that they follow; None for those that follow none that is there."""
    numbers = {each.number for each in hypotheses}
    found: dict[int | None, list[Hypothesis]] = {}
    for each in hypotheses:
        first = None if each.after is None or each.after.hypothesis not in numbers else each.after.hypothesis
        found.setdefault(first, []).append(each)
    return found


class _Judge:
    def __init__(
        self, hypotheses: Mapping[int, Hypothesis], bindings: Bindings, retracted: Sequence[Retraction]
    ) -> None:
        self._hypotheses, self._bindings, self._retracted = hypotheses, bindings, retracted
        self._known: dict[int, Standing] = {}

    def standing(self, number: int) -> Standing:
        """How a hypothesis stands; those that it follows come first, one after the other."""
        order, seen = [number], {number}
        while (after := self._hypotheses[order[-1]].after) is not None and after.hypothesis in self._hypotheses:
            if after.hypothesis in seen or after.hypothesis in self._known:
                break
            order.append(after.hypothesis)
            seen.add(after.hypothesis)
        for each in reversed(order):
            if each not in self._known:
                self._known[each] = self._judged(self._hypotheses[each])
        return self._known[number]

    def _judged(self, hypothesis: Hypothesis) -> Standing:
        not_due = self._not_due(hypothesis)
        if hypothesis.last_test is None:
            return Standing(hypothesis, hypothesis.status, not_due=not_due)
        because = self._changed_since(hypothesis) or self._taken_back(hypothesis)
        if because is None and not_due:
            because = not_due
        missing = [key for key in _used(hypothesis) if self._bindings.of(key) is None]
        status: Status = hypothesis.status if because is None else "STALE"
        return Standing(hypothesis, status, because, tuple(missing), not_due)

    def _not_due(self, hypothesis: Hypothesis) -> str:
        after = hypothesis.after
        if after is None:
            return ""
        if after.hypothesis not in self._hypotheses:
            return f"it follows hypothesis {after.hypothesis}, which is not there"
        if after.hypothesis not in self._known:
            return f"it follows hypothesis {after.hypothesis}, which follows it in a circle"
        first = self._known[after.hypothesis]
        if first.status == after.verdict:
            return ""
        return f"hypothesis {after.hypothesis}, which it follows if {after.verdict}, is {first.status}"

    def _changed_since(self, hypothesis: Hypothesis) -> str | None:
        test = hypothesis.last_test or {}
        if test.get("prediction", "") != hypothesis.prediction or test.get("ladder") != hypothesis.ladder_json():
            return "what it predicts was changed since it was tested"
        for key, digest in _used(hypothesis).items():
            if (now := self._bindings.of(key)) is not None and now != digest:
                return changed(printable(key, 80))
        return None

    def _taken_back(self, hypothesis: Hypothesis) -> str | None:
        test, used = hypothesis.last_test or {}, _used(hypothesis)
        for retraction in self._retracted:
            if retraction.meant == f"hypothesis {hypothesis.number}":
                meant = retraction.mark == test.get("time")
            elif retraction.meant == CAPTURE:
                meant = CAPTURE in used and retraction.mark == test.get("captured")
            else:
                meant = retraction.meant in used
            if meant:
                return retraction.words
        return None


def _used(hypothesis: Hypothesis) -> Mapping[str, Any]:
    """What the last verdict depends on, with the hash that each had."""
    used = (hypothesis.last_test or {}).get("used")
    return {str(key): digest for key, digest in used.items()} if isinstance(used, Mapping) else {}
