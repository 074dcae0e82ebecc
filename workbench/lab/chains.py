"""Chains of hypotheses, drawn: which follows which, and with which verdict."""

from collections.abc import Iterator, Sequence

from store.text import printable
from workbench.lab.standing import Standing, followers


def tree(standings: Sequence[Standing]) -> Iterator[tuple[str, Standing]]:
    """Yield every hypothesis, each below the one that it follows, with the branch that leads to it."""
    by_number = {standing.number: standing for standing in standings}
    below = followers([standing.hypothesis for standing in standings])
    shown: set[int] = set()
    roots = [each.number for each in below.get(None, [])]
    for root in [*roots, *(number for number in by_number if number not in roots)]:  # the latter are in a circle
        stack = [(root, "", "")]
        while stack:
            number, branch, indent = stack.pop()
            if number in shown:
                continue
            shown.add(number)
            yield branch, by_number[number]
            children = [each.number for each in below.get(number, []) if each.number not in shown]
            for place, child in reversed(list(enumerate(children))):
                last = place == len(children) - 1
                stack.append((child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  ")))


def lines(standings: Sequence[Standing], width: int = 110) -> Iterator[str]:
    """Yield the tree as text, a line for each hypothesis."""
    for branch, standing in tree(standings):
        hypothesis = standing.hypothesis
        after = "" if hypothesis.after is None or not branch else f"if {hypothesis.after.verdict}: "
        where = "" if hypothesis.site is None else f"{hypothesis.site}: "
        head = f"{branch}{after}{standing.number} {standing.words}  "
        yield head + printable(f"{where}{hypothesis.title}", max(width - len(head) - 1, 20))
