"""Two sessions about copies of one model side by side: what a fix has changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.text import printable
from store.traces.run import RunRecord
from workbench.bisect.verdict import EXIT_CODES, Bisection, Culprit
from workbench.cells.cell import logits_cost
from workbench.cells.decomposition import Checked, finite
from workbench.cells.metrics import format_value
from workbench.cells.sites import site_json
from workbench.jobs.bisected import standing_bisection
from workbench.lab.standing import Standing, board_of
from workbench.pair.comparable import require_same_sizes
from workbench.report.investigation import Investigation, Progress, investigate
from workbench.session.session import Session

_SIDES: tuple[Literal["a", "b"], ...] = ("a", "b")


@dataclass(frozen=True, eq=False)
class Seen:
    """What one of the two sessions has found. cost : KL(B‖A) in nats, tokens whose top-1 changes, tokens; or None."""

    found: Investigation
    bisection: Bisection
    cost: tuple[float, int, int] | None
    hypotheses: tuple[Standing, ...]

    @property
    def runs(self) -> dict[str, RunRecord]:
        """Both runs by side."""
        return self.found.runs

    @classmethod
    def of(cls, session: Session, progress: Progress) -> "Seen":
        """Read a session; WorkbenchError unless it has a verdict on the files that it captured."""
        found = investigate(session, progress)
        bisected = standing_bisection(session, found.runs)
        if bisected is None:
            where = printable(str(session.folder), 1000)
            raise WorkbenchError(
                f"{where} has no verdict on the files that it captured; run `workbench export` on it first"
            )
        cost = next((cost for cell in found.comparison.cells if (cost := logits_cost(cell)) is not None), None)
        return cls(found, bisected.found, cost, board_of(session).standings)


@dataclass(frozen=True, eq=False)
class Diff:
    """What has changed from one session to another over the same tokens."""

    then: Seen
    now: Seen

    @classmethod
    def of(cls, then: Session, now: Session, progress: Progress) -> "Diff":
        """Set two sessions side by side; WorkbenchError, in a sentence, where that would compare unlike things."""
        first, second = Seen.of(then, progress), Seen.of(now, progress)
        _require_same_tokens(first, second)
        for side in _SIDES:
            require_same_sizes(first.runs[side].config, second.runs[side].config)
        if not any(first.runs[side].sha256 == second.runs[side].sha256 for side in _SIDES):
            raise WorkbenchError(
                "the two sessions have no file in common on either side, so nothing ties what one found to the other; "
                "give two sessions of which A or B is the same file"
            )
        return cls(first, second)

    def exit_code(self) -> int:
        """That of the second session's verdict: 0 nothing is broken, 1 divergent, 2 not answered."""
        return EXIT_CODES[self.now.bisection.verdict]

    def reason(self) -> str | None:
        """Why the second session has no answer, in a sentence; None if it has one."""
        found = self.now.bisection
        if EXIT_CODES[found.verdict] != EXIT_CODES["undecided"]:
            return None
        return f"the second session is {found.verdict}" + (f": {found.notes[0]}" if found.notes else "")

    @property
    def culprit(self) -> str:
        """What became of the culprit, in a word."""
        before, after = self.then.bisection.culprit, self.now.bisection.culprit
        if before is None:
            return "none" if after is None else "new"
        if after is None:
            return "not known" if self.reason() else "gone"
        same = (before.site, before.cause, before.tensor) == (after.site, after.cause, after.tensor)
        return "stays" if same else "moved"

    @property
    def fell(self) -> list[tuple[Checked, Checked]]:
        """Cells that added more than rounding can cause and no longer do, as they were and are."""
        return [(a, b) for a, b in self._both() if a.beyond_floor and not b.beyond_floor]

    @property
    def rose(self) -> list[tuple[Checked, Checked]]:
        """Cells that did not, and do now."""
        return [(a, b) for a, b in self._both() if b.beyond_floor and not a.beyond_floor]

    @property
    def not_run(self) -> list[Site]:
        """Cells that added more than rounding can cause and were not run again in the second session."""
        local = self.now.found.local
        return [site for site, checked in self.then.found.local.items() if checked.beyond_floor and site not in local]

    def _both(self) -> Iterator[tuple[Checked, Checked]]:
        after = self.now.found.local
        return ((checked, after[site]) for site, checked in self.then.found.local.items() if site in after)

    @property
    def hypotheses(self) -> list[tuple[str, str | None, str | None]]:
        """Title, status then and status now of every hypothesis whose status changed; None where it is not there."""
        found = []
        for then, now in _same(self.then.hypotheses, self.now.hypotheses):
            before, after = (None if each is None else str(each.status) for each in (then, now))
            named = now or then
            if named is not None and before != after:
                found.append((named.hypothesis.title, before, after))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as `diff --json` prints it; contract: schemas/diff.schema.json."""
        return {
            "then": _seen_json(self.then),
            "now": _seen_json(self.now),
            "culprit": self.culprit,
            "fell": [_cell_json(*pair) for pair in self.fell],
            "rose": [_cell_json(*pair) for pair in self.rose],
            "not_run": [site_json(site) for site in self.not_run],
            "hypotheses": [{"title": title, "then": then, "now": now} for title, then, now in self.hypotheses],
            "files": {
                side: {
                    "then": _file_json(self.then.runs[side]),
                    "now": _file_json(self.now.runs[side]),
                    "changed": self.then.runs[side].sha256 != self.now.runs[side].sha256,
                }
                for side in _SIDES
            },
        }

    def lines(self) -> Iterator[str]:
        """Yield it for a reader."""
        for name, seen in (("then", self.then), ("now", self.now)):
            yield _row(name, f"{printable(seen.found.session.spec.name)}: {_verdict(seen.bisection)}")
        if self.then.bisection.culprit is not None:
            yield _row("culprit", f"{self.culprit}; it was {_named(self.then.bisection.culprit)}")
        elif self.now.bisection.culprit is not None:
            yield _row("culprit", self.culprit)
        for pair, words in ((self.fell, "no longer more than rounding can cause"), (self.rose, "more than it now")):
            for before, after in pair:
                yield _row("cell", f"{before.cell.site}: {_times(before)} to {_times(after)}, {words}")
        for site in self.not_run:
            yield _row("cell", f"{site}: what it adds now is not known")
        yield _row("logits", f"{_cost(self.then)}; now {_cost(self.now)}")
        for title, then, now in self.hypotheses:
            yield _row("claim", f"{printable(title)}: {then or 'not there'}, now {now or 'not there'}")
        for side in _SIDES:
            yield _row(side.upper(), _file(self.then.runs[side], self.now.runs[side]))


def _same(
    then: Sequence[Standing], now: Sequence[Standing]
) -> Iterator[tuple[Standing, Standing] | tuple[Standing, None] | tuple[None, Standing]]:
    """Pair the hypotheses of two sessions, of several alike one after the other.

    Those that say the same in every word come first, then those that predict the same, then those of one title.
    """
    left, rest = list(then), list(now)
    for key in (_words, _predicted, _title):
        for one in [*left]:
            other = next((each for each in rest if key(each) == key(one) and key(one)), None)
            if other is not None:
                yield one, other
                left.remove(one)
                rest.remove(other)
    yield from ((one, None) for one in left)
    yield from ((None, other) for other in rest)


def _words(standing: Standing) -> tuple[object, ...]:
    hypothesis = standing.hypothesis
    return (hypothesis.title, hypothesis.claim, hypothesis.prediction, hypothesis.ladder)


def _predicted(standing: Standing) -> tuple[object, ...]:
    hypothesis = standing.hypothesis
    return (hypothesis.prediction, hypothesis.ladder) if hypothesis.prediction or hypothesis.ladder else ()


def _title(standing: Standing) -> str:
    return standing.hypothesis.title


def _require_same_tokens(then: Seen, now: Seen) -> None:
    one, other = then.runs["a"].tokens, now.runs["a"].tokens
    if one != other:
        raise WorkbenchError(
            f"the two sessions ran different tokens ({len(one)} and {len(other)} of them); "
            "open both pairs with the same --tokens"
        )


def _verdict(found: Bisection) -> str:
    word = found.verdict.replace("_", " ").upper()
    return word if found.culprit is None else f"{word} at {_named(found.culprit)}"


def _named(culprit: Culprit) -> str:
    tensor = f", {printable(culprit.tensor)}" if culprit.tensor else ""
    return f"{culprit.site}: {culprit.cause} ({culprit.factor}{tensor})"


def _times(checked: Checked) -> str:
    return "beyond any multiple" if checked.floors is None else f"{format_value(checked.floors)} times"


def _cost(seen: Seen) -> str:
    if seen.cost is None:
        return "not captured on both sides"
    kl, changed, tokens = seen.cost
    return f"KL {format_value(kl)} nats, top-1 changed at {changed} of {tokens} tokens"


def _file(then: RunRecord, now: RunRecord) -> str:
    paths = "" if then.numeric_path == now.numeric_path else f"; path {then.numeric_path}, now {now.numeric_path}"
    if then.sha256 == now.sha256:
        return f"the same file, sha256 {then.sha256[:16]}…{paths}"
    return f"another file: sha256 {then.sha256[:16]}…, now {now.sha256[:16]}…{paths}"


def _seen_json(seen: Seen) -> dict[str, Any]:
    kl, changed, tokens = seen.cost or (None, None, None)
    culprit = seen.bisection.culprit
    return {
        "session": seen.found.session.spec.name,
        "verdict": seen.bisection.verdict,
        "culprit": None if culprit is None else culprit.to_json(),
        "kl_b_a_mean": finite(kl),
        "top1_changed": changed,
        "tokens": tokens,
    }


def _cell_json(then: Checked, now: Checked) -> dict[str, Any]:
    return site_json(then.cell.site) | {"then": finite(then.floors), "now": finite(now.floors)}


def _file_json(run: RunRecord) -> dict[str, str]:
    return {"sha256": run.sha256, "numeric_path": run.numeric_path}


def _row(name: str, text: str) -> str:
    return f"{name:<8} {text}"
