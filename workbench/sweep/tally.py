"""What many lines of results say together: of every part over all prompts, and of every prompt over all parts.

Lines are added one by one and forgotten; what is kept of a part does not grow with the number of its units.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kernels.errors import WorkbenchError
from workbench.sweep.figures import TAIL, middle
from workbench.sweep.results import Line

METRICS = ("kl", "p99", "max", "flips")
TIMES = 8.0  # a prompt shows a fault where B is this many times further from A than arithmetic alone


@dataclass(slots=True)
class Row:
    """A part over the prompts that are done.

    name : as in the lines. broken : prompts whose logits are no numbers. over, unknown : prompts where it moves the
    output further than the floor, and where it does move it but no floor is known.
    """

    name: dict[str, Any]
    stored: dict[str, Any] | None = None
    prompts: int = 0
    tokens: int = 0
    flips: int = 0
    broken: int = 0
    worst: tuple[float, int] = (0.0, -1)  # the largest KL of a token, and the prompt it is in
    over: int = 0
    unknown: int = 0
    _kl: float = 0.0
    _floor: float | None = 0.0
    _bins: Counter[str] = field(default_factory=Counter)

    def add(self, line: Line) -> None:
        """Take in a line."""
        tokens, kl = line["tokens"], line["kl"]
        self.stored = line.get("stored", self.stored)
        self.prompts, self.tokens, self.flips = self.prompts + 1, self.tokens + tokens, self.flips + line["flips"]
        floor = line["kl_floor"]
        self._floor = None if floor is None or self._floor is None else self._floor + floor * tokens
        if kl is None:
            self.broken += 1
            return
        self.over += floor is not None and kl > floor
        self.unknown += floor is None and kl > 0
        self._kl += kl * tokens
        self.worst = max(self.worst, (line["max"], line["unit"]["prompt"]))
        self._bins.update(line["bins"])

    @property
    def kl(self) -> float | None:
        """Mean KL of a token; None where logits are no numbers."""
        return None if self.broken else self._kl / self.tokens

    @property
    def floor(self) -> float | None:
        """The same of the floor; None where A's second run gave logits that are no numbers, so that none is known."""
        return None if self._floor is None else self._floor / self.tokens

    @property
    def times(self) -> float | None:
        """KL over the floor, infinite where arithmetic alone costs nothing; None where either is not known."""
        return _times(self.kl, self.floor)

    def tail(self, share: float) -> float | None:
        """A percentile of the KL of tokens, at most 2.2 % off; None where logits are no numbers."""
        if self.broken:
            return None
        rank, seen = share * (self.tokens - 1), 0
        for value, count in sorted((middle(bin), count) for bin, count in list(self._bins.items())):
            seen += count
            if seen > rank:
                return min(value, self.worst[0])
        return self.worst[0]

    def figure(self, metric: str) -> float:
        """A figure by its name in METRICS, to order by; infinite where logits are no numbers."""
        if self.broken:
            return float("inf")
        values = {"kl": self.kl, "max": self.worst[0], "flips": float(self.flips)}
        found = values[metric] if metric in values else self.tail(TAIL[metric])
        assert found is not None
        return found

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        found = self.name | {"prompts": self.prompts, "tokens": self.tokens, "kl": self.kl, "kl_floor": self.floor}
        found |= {name: self.tail(share) for name, share in TAIL.items()}
        found |= {"max": self.worst[0], "worst_prompt": self.worst[1], "flips": self.flips, "broken": self.broken}
        return found | ({} if self.stored is None else {"stored": self.stored})


@dataclass(slots=True)
class PromptRow:
    """A prompt: the whole of B, and the part that costs most. line : that of the whole; None until it is there."""

    number: int
    line: Line | None = None
    done: int = 0
    worst: tuple[float, dict[str, Any]] = (0.0, {})

    @property
    def times(self) -> float | None:
        """KL of B over the floor, infinite where arithmetic alone costs nothing; None where either is not known."""
        return None if self.line is None else _times(self.line["kl"], self.line["kl_floor"])

    @property
    def shows(self) -> bool | None:
        """Whether the output of B is further from A's than arithmetic explains, or no number; None if not known."""
        if self.line is None or self.line["kl"] is None:
            return self.line is not None
        return None if self.times is None else self.times > TIMES

    @property
    def order(self) -> tuple[bool, float]:
        """What the prompts that show most are found first by: no numbers and unknown floors before all others."""
        return self.line is not None and self.times is None, self.times or 0.0

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        found: dict[str, Any] = {"prompt": self.number, "units": self.done, "shows": self.shows}
        if self.line is not None:
            keys = ("text", "ids", "kl", "kl_floor", *TAIL, "max", "worst_token", "flips", "tokens")
            found |= {key: self.line.get(key) for key in keys}
        worst = self.worst[0] if math.isfinite(self.worst[0]) else None
        return found | {"worst_part": self.worst[1] or None, "worst_part_kl": worst}


class Tally:
    """Everything that the lines of a file say together."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.rows: dict[tuple[Any, ...], Row] = {}
        self.prompts: dict[int, PromptRow] = {}
        self.whole = Row({})
        self.head: Line | None = None
        self.planned = 0  # prompts of the sweep
        self._units = 0  # of each
        self._seen: set[int] = set()
        for line in lines:
            self.add(line)

    def expect(self, units: int, prompts: int) -> None:
        """Take in how large the sweep is; the largest counts, for prompts may have been added."""
        self._units, self.planned = max(self._units, units), max(self.planned, prompts)

    def add(self, line: Line) -> None:
        """Take in a line; one of a unit that is known already, as of two files put together, changes nothing.

        WorkbenchError if two lines are of sweeps by different parts.
        """
        name = {key: value for key, value in line["unit"].items() if key != "prompt"}
        if not name:
            if self.head is not None and line["by"] != self.head["by"]:
                raise WorkbenchError("these are results of two sweeps --by different parts; give those of one")
            self.expect(line["units"], line["prompts"])
        number = line["unit"]["prompt"]
        if self.knows(name, number):
            return
        self._seen.add(_mark(name, number))
        prompt = self.prompts.setdefault(number, PromptRow(number))
        prompt.done += 1
        if not name:
            self.head, prompt.line = self.head or line, line
            self.whole.add(line)
            return
        self.rows.setdefault(tuple(name.values()), Row(name)).add(line)
        worst = float("inf") if line["kl"] is None else line["kl"]
        prompt.worst = max(prompt.worst, (worst, name), key=lambda known: known[0])

    def knows(self, name: dict[str, Any], prompt: int) -> bool:
        """Whether a unit is done."""
        return _mark(name, prompt) in self._seen

    @property
    def done(self) -> int:
        """Units."""
        return len(self._seen)

    @property
    def expected(self) -> int | None:
        """Units of the whole sweep; None as long as no line says it."""
        return self._units * self.planned or None

    def ordered(self, metric: str) -> list[Row]:
        """Parts, the one that costs most first."""
        return sorted(self.rows.values(), key=lambda row: row.figure(metric), reverse=True)

    def require_some(self) -> Line:
        """The line of the first prompt that is done; WorkbenchError if there is none."""
        if self.head is None:
            raise WorkbenchError("no prompt is finished in this file yet; give A B, the prompts and --resume to go on")
        return self.head

    @property
    def different(self) -> bool:
        """Whether the output of B, or with any part of B, is further from A's than the floor on any prompt."""
        return any(row.over or row.broken for row in (self.whole, *self.rows.values()))

    @property
    def unknown(self) -> int:
        """Prompts on which the output moves, but nothing tells how far arithmetic alone moves it."""
        return max(row.unknown for row in (self.whole, *self.rows.values()))


def _times(kl: float | None, floor: float | None) -> float | None:
    if kl is None or (floor is None and kl):
        return None
    if not kl:
        return 0.0
    return kl / floor if floor else float("inf")


def _mark(name: dict[str, Any], prompt: int) -> int:
    """A number for a unit: there may be a million of them."""
    return hash((tuple(name.items()), prompt))
