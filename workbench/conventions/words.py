"""The ledger in words: the same in the terminal and on the screen."""

from collections.abc import Sequence

from store.text import printable
from workbench.conventions.entry import Entry, times_words
from workbench.conventions.ledger import Ledger, counted


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
    counts = found.counts
    parts = [f"{counts['as_said']} as they should be", f"{counts['otherwise']} otherwise"]
    parts.append(f"{counts['cannot_tell']} that cannot be told")
    if counts["not_said"]:
        parts.append(f"{counts['not_said']} of which it is not known how they should be")
    if found.other is not None and (
        differ := sum(entry.verdict == "as_said" and bool(entry.more) for entry in found.all())
    ):
        lines.append(f"≠ {differ} are as they should be here and otherwise in {printable(found.other.path.name)}.")
    first = "" if lines else "✓ Nothing is shown to be otherwise than it should be. "
    return [*lines, f"{first}{sum(counts.values())} conventions: {', '.join(parts)}."]
