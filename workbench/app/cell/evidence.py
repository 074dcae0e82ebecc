"""Why the verdict holds, in a few short sections: cause, place, proof, cost and remedy."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from store.text import printable
from workbench.bisect.fixes import fix_of
from workbench.bisect.headline import in_short
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.cell import Cell, logits_cost
from workbench.cells.decomposition import Checked
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import format_value

if TYPE_CHECKING:
    from workbench.jobs.known import Known
    from workbench.jobs.patched import Patched

_FIRST = 3  # further culprits that are named


class Section(NamedTuple):
    """A heading of one word, and sentences."""

    title: str
    lines: tuple[str, ...]


def evidence(known: "Known", logits: Cell | None) -> tuple[Section, ...]:
    """Return what there is to say for the verdict; nothing without one.

    logits : the cell of the output, if it was captured.
    """
    if known.bisected is None:
        return ()
    found = known.bisected.found
    culprit = found.culprit
    cost = Section("COST", (_cost(logits),))
    if culprit is None:
        checked = tuple(_coverage(found, known))
        return (Section("WHERE", checked), cost) if checked else (cost,)
    sections = (
        Section("WHY", tuple(_why(culprit))),
        Section("WHERE", tuple(_where(found, culprit, known))),
        Section("PROOF", tuple(_proof(known.patched))),
        cost,
        Section("FIX", (fix_of(culprit),)),
    )
    return tuple(section for section in sections if section.lines)


def _why(culprit: Culprit) -> Iterator[str]:
    left = culprit.residual
    if culprit.cause == "unknown":
        yield "unknown: no known mistake makes this difference"
    elif left is None:
        yield culprit.cause
    else:
        exactly = "reproduces B exactly" if left == 0 else f"{format_value(left)} of the norm unexplained after the fix"
        yield f"{culprit.cause}: {exactly}"
    yield f"{in_short(culprit)}."
    runner = culprit.runner_up
    if runner is not None and runner.reproduces:
        yield f"{runner.cause} would explain it as well."


def _where(found: Bisection, culprit: Culprit, known: "Known") -> Iterator[str]:
    checked = known.checked.get(culprit.measured_at)
    if checked is not None:
        yield f"its own error is {_times(checked)} what rounding can cause (limit {LIMIT:g})"
        if checked.cell.inherited is not None:
            yield f"{format_value(checked.cell.inherited)} of B's norm came in with the input"
    shares = sorted(
        ((name, share) for name, share in culprit.shares.items() if share is not None and abs(share) >= 0.005),
        key=lambda pair: -abs(pair[1]),
    )
    if shares:
        yield "due to " + ", ".join(f"{name} {share:.0%}" for name, share in shares)
    yield from _coverage(found, known)
    others = dict.fromkeys(
        f"{other.site} {other.cause}" + (f" ({_last(other.tensor)})" if other.tensor else "") for other in found.others
    )
    listed = list(others)[:_FIRST] + ([f"{len(others) - _FIRST} more"] if len(others) > _FIRST else [])
    if listed:
        yield "further: " + "; ".join(listed)


def _coverage(found: Bisection, known: "Known") -> Iterator[str]:
    if not found.checked:
        return
    wrong = sum(cell.beyond_floor for cell in known.checked.values())
    of = "" if found.cells is None else f" of {found.cells}"
    ran = f"{len(known.checked)}{of} cells run again"
    inside = f", {found.cells_in_spans} more between recorded ones" if found.cells_in_spans else ""
    yield f"{ran}{inside}: {wrong or 'none'} add{'s' * (wrong < 2)} more than rounding can cause"


def _proof(patched: "Patched | None") -> Iterator[str]:
    if patched is None:
        yield "not made yet: P exchanges this part between A and B"
        return
    part = printable(patched.part, 200)
    if patched.left is None or patched.kl is None or patched.kl_left is None:
        yield printable(patched.conclusion, 1000)
        return
    change = f"{format_value(patched.kl)} → {format_value(patched.kl_left)} nats"
    falls = f"KL falls by {1 - patched.left:.1%}" if patched.left <= 1 else f"KL grows by {patched.left - 1:.1%}"
    yield f"A's {part} put into B: {falls}, {change}"
    if patched.brought is not None:
        yield f"B's put into A: brings {patched.brought:.1%} of it"


def _cost(logits: Cell | None) -> str:
    cost = None if logits is None else logits_cost(logits)
    if cost is None:
        return "not measured: the logits were not captured on both sides"
    kl, changed, tokens = cost
    number = f"KL(B‖A) {format_value(kl)} nats" if math.isfinite(kl) else "KL not known"
    return f"{number}, top-1 changed at {changed} of {tokens} tokens"


def _times(checked: Checked) -> str:
    return "more than any multiple of" if checked.floors is None else f"{format_value(checked.floors)} times"


def _last(tensor: str) -> str:
    return printable(tensor.removesuffix(".weight").rpartition(".")[2], 60)
