"""The ledger in words: the same in the terminal and on the screen."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from store.conventions import WORDS
from store.text import printable
from workbench.conventions.entry import Entry, Verdict, times_words
from workbench.conventions.ledger import Ledger, alike, counted

_MARKS: dict[Verdict, str] = {"otherwise": "✗", "differs": "≠"}


class Line(NamedTuple):
    """Tensors that are alike and of which one thing is said. tensors : their names."""

    mark: str
    name: str
    number: int
    done: str
    said: str
    shown: str
    figure: str
    tensors: tuple[str, ...]


def lines(found: Ledger, each: bool = False) -> Iterator[Line]:
    """The ledger line by line: tensors of all layers together, or each by itself."""
    groups: dict[tuple[str, str | None, int | None, str], list[tuple[str, Entry | None]]] = defaultdict(list)
    for name, entries in found.entries.items():
        called = name if each else alike(name)
        for entry in entries:
            groups[called, entry.convention, entry.said, _MARKS.get(entry.verdict, "")].append((name, entry))
        if not entries:
            groups[called, None, None, ""].append((name, None))
    for (called, convention, said, mark), of in groups.items():
        names = tuple(name for name, _ in of)
        known = [entry for _, entry in of if entry is not None]
        if convention is None:
            yield Line("", called, len(of), "nothing known", "", "", "", names)
            continue
        figure = known[0].figure + ("" if len(known) == 1 else "; ...")
        words = WORDS[convention], said_words(said), shown_words(known)
        yield Line(mark, called, len(of), *words, figure, names)


def said_words(times: int | None) -> str:
    """How often it should have been done."""
    return "not known" if times is None else times_words((times,))


def shown_words(entries: Sequence[Entry]) -> str:
    """How often the weights of alike tensors show it: once; once in 16, cannot tell in 2."""
    counts = counted(entries)
    texts = {"cannot tell" if times is None else times_words((times,)): count for times, count in counts.items()}
    if len(texts) == 1:
        return next(iter(texts))
    return ", ".join(f"{text} in {count}" for text, count in texts.items())


def summary(found: Ledger) -> list[str]:
    """What is wrong, one sentence each, then how many are as they should be."""
    lines = [f"✗ {printable(words, 1000)}." for words, _ in found.mistakes()]
    for words, _ in found.differences():
        lines.append(f"≠ {printable(words, 1000)}: one of both files is wrong, and the weights do not tell which.")
    counts = found.counts
    parts = [f"{counts['as_said']} as they should be", f"{counts['otherwise']} otherwise"]
    if counts["differs"]:
        parts.append(f"{counts['differs']} of which one file is wrong")
    parts.append(f"{counts['cannot_tell']} that cannot be told")
    if counts["not_said"]:
        parts.append(f"{counts['not_said']} of which it is not known how they should be")
    if found.other is not None and (
        theirs := sum(entry.verdict != "otherwise" and entry.theirs for entry in found.all())
    ):
        other = printable(found.other.path.name)
        lines.append(f"≠ {theirs} are otherwise than they should be in {other}, and nothing shows that here.")
    first = "" if lines else "✓ Nothing is shown to be otherwise than it should be. "
    return [*lines, f"{first}{sum(counts.values())} conventions: {', '.join(parts)}."]
