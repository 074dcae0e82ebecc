"""What a rule is about: which places of a pair it looks at, and what is measured there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from kernels.stages import Site
from store.nearest import did_you_mean
from store.text import printable
from workbench.cells.cell import LOGIT_FIGURES
from workbench.cells.sites import site_json
from workbench.lab.contracts.bounds import BothSides
from workbench.lab.measurements import Measurements
from workbench.lab.readings import SETTINGS, TOP1, Reading

NO_ANSWERS = ("undecided", "uncomparable")  # verdicts of a bisection


class Place(NamedTuple):
    """A place and what was measured there; `where` as JSON has it, `words` for readers."""

    where: Mapping[str, Any] | None
    words: str
    reading: Reading


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule's subject comes to in a pair.

    compared, expected : places, tokens or cells that were measured, and that should have been.
    unmatched : what the rule names and the pair does not have, in a sentence. unknown : why there are no places.
    """

    places: Sequence[Place] = ()
    compared: int = 0
    expected: int = 0
    unmatched: str = ""
    unknown: str = ""

    @classmethod
    def of(cls, places: Iterable[Place]) -> "Found":
        """Of places that each count."""
        found = list(places)
        return cls(found, sum(place.reading.value is not None for place in found), len(found))


class Subject(Protocol):
    """What a rule is about."""

    def find(self, pair: Measurements) -> Found:
        """Measure every place that the rule names."""
        ...


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of a rule: all, with what belongs to no layer, the last one, or those of these numbers."""

    kind: Literal["all", "last", "numbers"] = "all"
    numbers: range | tuple[int, ...] = ()

    def of(self, there: Sequence[int]) -> tuple[frozenset[int | None], str]:
        """The layers meant, None for what belongs to none; and a sentence where a pair of `there` has none such."""
        if self.kind == "all":
            return frozenset((None, *there)), ""
        chosen = list(there[-1:]) if self.kind == "last" else self.numbers
        missing = next((n for n in chosen if n not in there), None)
        if missing is not None or not chosen:
            has = f"the last one is {there[-1]}" if there else "the pair has none"
            return frozenset(), f"there is no layer {missing}; {has}"
        return frozenset(chosen), ""


@dataclass(frozen=True, slots=True)
class Cells:
    """A metric of the cells of some stages in some layers."""

    stages: tuple[str, ...]
    layers: Layers
    metric: str

    def find(self, pair: Measurements) -> Found:
        """Measure every cell."""
        sites = pair.sites
        if isinstance(sites, str):
            return Found(unknown=sites)
        layers, problem = self.layers.of(sorted({site.layer for site in sites if site.layer is not None}))
        if problem:
            return Found(unmatched=problem)
        among = [site for site in sites if site.layer in layers]
        chosen, problem = _matching(self.stages, [site.stage for site in among], "no stage there is called")
        if problem:
            return Found(unmatched=problem)
        return Found.of(
            Place(site_json(site), str(site), pair.cell(site, self.metric)) for site in among if site.stage in chosen
        )


@dataclass(frozen=True, slots=True)
class Tensors:
    """A metric of the tensors whose names match some patterns."""

    patterns: tuple[str, ...]
    metric: str

    def find(self, pair: Measurements) -> Found:
        """Compare every tensor."""
        names = pair.tensor_names
        if isinstance(names, str):
            return Found(unknown=names)
        chosen, problem = _matching(self.patterns, names, "no tensor is called")
        if problem:
            return Found(unmatched=problem)
        return Found.of(
            Place({"tensor": name}, name, pair.tensor(name, self.metric)) for name in names if name in chosen
        )


@dataclass(frozen=True, slots=True)
class Logits:
    """A metric of the logits, token by token; where it is one over tokens, the place is the worst of them."""

    last: bool
    metric: str

    def find(self, pair: Measurements) -> Found:
        """Measure every token."""
        positions = pair.logit_positions(self.last)
        if isinstance(positions, str):
            return Found(unknown=positions)
        figure = LOGIT_FIGURES.get("top1_agreement" if self.metric == TOP1 else self.metric)
        key = self.metric if figure is None else figure.column
        places = [Place({"token": n}, f"token {n}", pair.logits(n, key)) for n in positions]
        if figure is None:
            return Found.of(places)
        if missing := [place for place in places if place.reading.value is None]:
            return Found(missing, len(places) - len(missing), len(places))
        values = np.array([place.reading.value for place in places])
        worst = places[int(figure.worst(values))]
        return Found([worst._replace(reading=Reading(figure.over(values)))], len(places), len(places))


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings whose names match some patterns, on both sides."""

    patterns: tuple[str, ...]

    def find(self, pair: Measurements) -> Found:
        """Look at every setting."""
        chosen, problem = _matching(self.patterns, SETTINGS, "no setting is called")
        if problem:
            return Found(unmatched=problem)
        return Found.of(Place({"setting": name}, name, _on_both(pair, name)) for name in SETTINGS if name in chosen)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of cells, or of tensors, that could be compared."""

    of: Literal["cells", "tensors"]

    def find(self, pair: Measurements) -> Found:
        """Count what was compared; the place is the first that was not."""
        places = pair.sites if self.of == "cells" else pair.weightless or pair.tensor_names
        if isinstance(places, str):
            return Found(unknown=places)
        found: list[Place] = []
        for place in places:  # in the one metric that needs nothing but numbers on both sides
            if isinstance(place, Site):
                found.append(Place(site_json(place), str(place), pair.compared_cell(place)))
            else:
                found.append(Place({"tensor": place}, place, pair.compared_tensor(place)))
        if not found:
            return Found(unknown=f"there are no {self.of}")
        missing = [place for place in found if place.reading.value is None]
        compared = len(found) - len(missing)
        share = Reading(compared / len(found), missing[0].reading.why if missing else "")
        first = missing[0] if missing else Place(None, "", share)
        return Found([first._replace(reading=share)], compared, len(found))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a bisection of the pair answers."""

    def find(self, pair: Measurements) -> Found:
        """Bisect."""
        answer = pair.answer
        if isinstance(answer, str):
            return Found(unknown=answer)
        found = answer.bisection
        covered = found.covered if answer.compared is None else answer.compared
        site = found.first_divergent if found.culprit is None else found.culprit.site
        if found.verdict in NO_ANSWERS:
            reading = Reading(None, f"{found.verdict}: {found.notes[0]}" if found.notes else found.verdict)
        else:
            culprit = found.culprit
            why = "" if culprit is None else f"{culprit.cause} ({culprit.factor}): {culprit.explanation}"
            reading = Reading(found.verdict, why)
        place = Place(None if site is None else site_json(site), "" if site is None else str(site), reading)
        there = pair.sites if found.cells is None else []  # two traces say how many cells there are to compare
        expected = found.cells or max(covered, 0 if isinstance(there, str) else len(there))
        return Found([place], covered, expected)


def _on_both(pair: Measurements, name: str) -> Reading:
    sides = [pair.setting(side, name) for side in (0, 1)]
    why = next((side.why for side in sides if side.why), "")
    return Reading(None, why) if why else Reading(BothSides(sides[0].value, sides[1].value))


def _matching(patterns: Iterable[str], names: Iterable[str], nothing: str) -> tuple[frozenset[str], str]:
    """The names that any pattern matches; and a sentence where one of the patterns matches none."""
    different, chosen = dict.fromkeys(names), set[str]()
    for pattern in patterns:
        matched = {name for name in different if fnmatchcase(name, pattern)}
        if not matched:
            meant = did_you_mean(pattern, different)
            return frozenset(), f"{nothing} {printable(pattern, 80)}" + (f"; {meant}" if meant else "")
        chosen |= matched
    return frozenset(chosen), ""
