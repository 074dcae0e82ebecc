"""One line of the ledger: what should have been done to a tensor, and how often its weights show that it was."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from store.conventions import MINUS_EXP, PLUS_ONE, ROTARY_PAIRS, WORDS

Verdict = Literal["as_said", "otherwise", "differs", "cannot_tell", "not_said"]
_WORDS = {-1: "taken back once too often", 0: "never", 1: "once", 2: "twice"}
# What it is called to do it, how else that is said of some numbers of times, and a sentence for where and of how many.
_DONE: dict[str, tuple[str, dict[int, str], str]] = {
    PLUS_ONE: ("applied", {-1: "subtracted once", 0: "never applied"}, "+1 {}{} to {} norm {}"),
    ROTARY_PAIRS: ("put", {0: "not put"}, "rows {} into rotary pairs{} in {} {} of q and k"),
    MINUS_EXP: ("taken", {0: "never taken"}, "-exp {}{} of {} {}"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A convention and a tensor.

    said : how often it should have been done, None where that is not known.
    possible : how often it may have been done for all that the weights show; empty where they say nothing.
    figure : what that rests on. together : tensors that were judged together, 1 for one by itself.
    more : how often it was done more than in the other file, where there is one and it shows. theirs : whether that
    is a mistake of the other file.
    """

    tensor: str
    convention: str
    said: int | None
    possible: tuple[int, ...]
    figure: str
    together: int = 1
    more: int | None = None
    theirs: bool = False

    @property
    def times(self) -> int | None:
        """How often it was done; None where it cannot be told."""
        return self.possible[0] if len(self.possible) == 1 else None

    @property
    def by_number(self) -> bool:
        """Whether the numbers of times that are possible show a mistake, and not only the other file."""
        return self.said is not None and bool(self.possible) and self.said not in self.possible

    @property
    def verdict(self) -> Verdict:
        """Whether it was done as often as it should have been; "differs": one of both files is wrong, untold which."""
        if self.by_number:
            return "otherwise"
        if self.more and self.times is None and not self.theirs:
            return "differs"
        if self.said is None:
            return "not_said"
        return "as_said" if self.times == self.said else "cannot_tell"


def times_words(possible: tuple[int, ...]) -> str:
    """How often: never, once, twice, once or twice."""
    return " or ".join(_WORDS[times] for times in possible)


def more_words(more: int, other: str, where: str = "") -> str:
    """How often something was done beside another file: as often as in it, once more than in it."""
    if not more:
        return f"as often{where} as in {other}, as both are read"
    return f"{times_words((abs(more),))} {'more' if more > 0 else 'less'}{where} than in {other}, as both are read"


def mistake(entries: Iterable[Entry], other: str = "the other file", side: str | None = None) -> str:
    """What is wrong about tensors of which one thing is, in a sentence.

    other : what they are held against. side : what the file itself is called, where that is to be said.
    """
    found = list(entries)
    first, tensors, where = found[0], "tensor" if len(found) == 1 else "tensors", "" if side is None else f" in {side}"
    right = "" if first.said is None else f" ({times_words((first.said,))} is right)"
    if not first.by_number:
        how = more_words(first.more or 0, other, where)
        return f"{WORDS[first.convention]} {how}, in {len(found)} {tensors}, as {first.tensor}{right}"
    verb, words, sentence = _DONE.get(first.convention, ("", {}, f"{WORDS[first.convention]} {{}}{{}} in {{}} {{}}"))
    how = words.get(first.possible[0], "") if len(first.possible) == 1 else ""
    how = how or f"{verb} {times_words(first.possible)}".strip()
    return f"{sentence.format(how, where, len(found), tensors)}, as {first.tensor}{right}"
