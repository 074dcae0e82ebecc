"""The first screenful of the findings: the verdict, three figures, how to mend it, and the commands that prove it."""

import math
from dataclasses import dataclass

from store.text import printable
from workbench.bisect.fixes import fix_of
from workbench.bisect.models.told_together import CONVENTIONS
from workbench.bisect.verdict import EXIT_CODES, Bisection, Culprit
from workbench.cells.cell import logits_cost
from workbench.cells.compared_cells import NOT_COMPARABLE
from workbench.cells.comparison import Comparison
from workbench.cells.decomposition import Checked
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import format_value
from workbench.jobs.conclusion import Conclusion
from workbench.jobs.patched import Part, Patched, accused_part, standing_patch
from workbench.report.commands import proof
from workbench.report.investigation import Investigation
from workbench.report.local_map import times


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a reader remembers, and the sentence that goes on from it."""

    number: str
    words: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What convinces.

    fix : sentences, empty where nothing is wrong. proof : what the commands do. lacking : what was not measured, why.
    """

    verdict: str
    figures: tuple[Figure, ...]
    fix: tuple[str, ...]
    proof: str
    commands: tuple[str, ...]
    lacking: tuple[str, ...]


def summarise(found: Investigation, concluded: Conclusion, lacking: tuple[str, ...]) -> Summary:
    """Put a session's conclusion into a few sentences and figures."""
    comparison, bisection = found.comparison, None if concluded.bisection is None else concluded.bisection.found
    part = None if bisection is None else accused_part(bisection)
    patched = None if part is None else standing_patch(found.session, part, found.runs)
    culprit = None if bisection is None else bisection.culprit
    commands = tuple(proof(found.session, comparison, part if patched is not None else None))
    answered = bisection is not None and EXIT_CODES[bisection.verdict] != NOT_COMPARABLE
    return Summary(
        _verdict(concluded),
        (_beyond_rounding(found, bisection), _cost(comparison), _removed(comparison, bisection, part, patched)),
        () if culprit is None else (fix_of(culprit), *_unexplained(culprit)),
        "Two commands prove it" if len(commands) > 1 else f"One command {'proves it' if answered else 'asks again'}",
        commands,
        tuple(f"{printable(sentence, 1000).rstrip('.')}." for sentence in lacking),
    )


def _verdict(concluded: Conclusion) -> str:
    found = None if concluded.bisection is None else concluded.bisection.found
    if found is None or found.culprit is None or found.first_divergent is None:
        return concluded.headline()
    told = found.culprit.cause if found.culprit.cause in CONVENTIONS else None  # in one sentence for all tensors
    more = len({(other.site, other.tensor, other.cause) for other in found.others if other.cause != told})
    listed = f" {more} more {'is' if more == 1 else 'are'} listed below." if more else ""
    return concluded.headline() + listed


def _beyond_rounding(found: Investigation, bisection: Bisection | None) -> Figure:
    """How many times what rounding can cause the culprit adds; where there is none, the most that any stage adds."""
    limit = f"beyond {LIMIT:g} times something is wrong"
    if bisection is None:
        return Figure(
            "Not measured", "by how much a stage exceeds what rounding can cause: nobody has bisected the pair"
        )
    if (culprit := bisection.culprit) is not None:
        checked = found.local.get(culprit.measured_at)
        if checked is None:
            return Figure("Not measured", f"by how much {culprit.measured_at} exceeds what rounding can cause")
        return Figure(
            f"{times(checked)} what rounding can cause",
            f"is what {culprit.measured_at} adds by itself ({format_value(checked.cell.local)} of B's norm; {limit})",
        )
    known = [checked for checked in found.local.values() if checked.floors is not None]
    if not known:
        return Figure("Not measured", "by how much a stage exceeds what rounding can cause: no stage was run again")
    worst: Checked = max(known, key=lambda checked: checked.floors or 0.0)
    if not worst.floors:
        return Figure("0 times what rounding can cause", f"is what each of {len(known)} cells adds by itself ({limit})")
    return Figure(
        f"{times(worst)} what rounding can cause",
        f"is the most that any of {len(known)} cells adds by itself, at {worst.cell.site} ({limit})",
    )


def _cost(comparison: Comparison) -> Figure:
    """What the whole difference costs at the logits, over all tokens that both sides have logits of."""
    cost = next((cost for cell in comparison.cells if (cost := logits_cost(cell)) is not None), None)
    if cost is None:
        return Figure("Not measured", "what the difference costs at the logits: they were not captured on both sides")
    kl, changed, tokens = cost
    over = "at the one token" if tokens == 1 else f"mean over {tokens} tokens"
    number = f"KL {format_value(kl)} nats" if math.isfinite(kl) else "KL not known"
    return Figure(
        f"{number}, top-1 changed at {changed} of {tokens} tokens",
        f"is what the whole difference costs at the logits (KL(B‖A), {over})",
    )


def _removed(comparison: Comparison, bisection: Bisection | None, part: Part | None, patched: Patched | None) -> Figure:
    """What exchanging the accused part takes away."""
    if bisection is None:
        return Figure("Not measured", "what swapping a part removes: nobody has bisected, so none is accused")
    if part is None:
        return Figure("No swap", "was made: no part is accused")
    if patched is None:
        return Figure("Not measured", "what swapping the accused part removes")
    what = printable(patched.part) if part.exchanged == "tensors" else f"value of {part.site}"
    what = f"settings ({printable(patched.part)})" if part.exchanged == "settings" else what
    if patched.left is None or patched.kl_left is None:
        return Figure("Not known", f"what swapping A's {what} into B removes: {printable(patched.conclusion, 1000)}")
    kl, top1 = format_value(patched.kl_left), f"{patched.top1_left} of {patched.tokens}"
    rest = f"left: KL {kl} nats, top-1 changed at {top1} tokens"
    paths = comparison.a.numeric_path, comparison.b.numeric_path
    if paths[0] != paths[1] and patched.kl_left:
        rest += f"; the paths, {paths[0]} and {paths[1]}, still differ"
    if patched.left > 1:
        return Figure(f"{patched.left - 1:.1%} more KL", f"is what swapping A's {what} into B leads to ({rest})")
    return Figure(f"{1 - patched.left:.1%} of that KL", f"is what swapping A's {what} into B removes ({rest})")


def _unexplained(culprit: Culprit) -> tuple[str, ...]:
    if culprit.residual is None or culprit.cause == "unknown":
        return ()
    return (f"Unexplained after the fix: {format_value(culprit.residual)} of the norm of the cell.",)
