"""The ledger of a file: every tensor, what should have been done to it, and how often its weights show that it was."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from store import conventions
from store.conventions import PLUS_ONE, ROTARY_PAIRS, Said
from store.stored_model import FLOATS, StoredModel, floats
from store.text import printable
from workbench.conventions.against import more
from workbench.conventions.entry import Entry, Verdict, mistake, more_words
from workbench.conventions.forms import by_form
from workbench.conventions.heads import Heads
from workbench.conventions.plus_one import FIRST, LAST, Shown, plus_one
from workbench.conventions.rotary_order import Order, likeness, orders
from workbench.tensors.sweep import tensor_names

Progress = Callable[[int, int, str], object]
_LAYER = re.compile(r"(?<=\.)[0-9]+(?=\.)")


def alike(name: str) -> str:
    """The name that tensors of all layers share: layers.*.input_layernorm.weight."""
    return _LAYER.sub("*", name)


@dataclass(frozen=True, slots=True)
class Ledger:
    """model : the file. other : that it is held against. entries : by tensor, in the order of a forward."""

    model: StoredModel
    other: StoredModel | None
    entries: dict[str, tuple[Entry, ...]]

    def all(self) -> Iterator[Entry]:
        """Every entry."""
        for entries in self.entries.values():
            yield from entries

    @property
    def counts(self) -> dict[Verdict, int]:
        """Entries by what they come to."""
        counts: dict[Verdict, int] = {"as_said": 0, "otherwise": 0, "differs": 0, "cannot_tell": 0, "not_said": 0}
        for entry in self.all():
            counts[entry.verdict] += 1
        return counts

    def mistakes(self) -> list[tuple[str, list[Entry]]]:
        """What was done otherwise than it should have been, in sentences, each with its entries; most tensors first."""
        return self._said("otherwise")

    def differences(self) -> list[tuple[str, list[Entry]]]:
        """What was done more or less often than in the other file, and neither tells which of them is right."""
        return self._said("differs")

    def _said(self, verdict: Verdict) -> list[tuple[str, list[Entry]]]:
        groups: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
        for entry in self.all():
            if entry.verdict == verdict:
                how = entry.possible if entry.by_number else (entry.more,)
                groups[entry.convention, entry.said, entry.by_number, how].append(entry)
        beside = "" if self.other is None else printable(self.other.path.name)
        found = sorted(groups.values(), key=len, reverse=True)
        return [(mistake(entries, beside), entries) for entries in found]


def ledger(
    model: StoredModel, progress: Progress = lambda *_: None, only: Collection[str] = tuple(conventions.WORDS)
) -> Ledger:
    """Look at every tensor of a model. only : the conventions that are looked at."""
    entries = _Reading(model, progress, only).entries()
    model.require_unchanged()
    return Ledger(model, None, entries)


def ledgers(
    a: StoredModel,
    b: StoredModel,
    progress: Progress = lambda *_: None,
    only: Collection[str] = tuple(conventions.WORDS),
) -> tuple[Ledger, Ledger]:
    """Look at every tensor of two files of one model, each also beside the other."""
    alone = ledger(a, progress, only), ledger(b, progress, only)
    return _held_against(*alone), _held_against(*alone[::-1])


def _held_against(of: Ledger, other: Ledger) -> Ledger:
    x, y = of.model, other.model
    entries = {
        name: tuple(_beside(x, y, entry, other.entries) for entry in entries) for name, entries in of.entries.items()
    }
    for model in (x, y):
        model.require_unchanged()
    return Ledger(x, y, entries)


class _Reading:
    """What one file shows by itself."""

    def __init__(self, model: StoredModel, progress: Progress, only: Collection[str]) -> None:
        self._model, self._progress = model, progress
        self._heads = Heads.of(model)
        self._parts = Counter(info.raw_name for info in model.tensors.values())
        self._names = [name for name in tensor_names(model, model) if name in model.tensors]
        said = {name: conventions.said(model, name) for name in self._names}
        self._said = {name: tuple(one for one in of if one.convention in only) for name, of in said.items()}

    def entries(self) -> dict[str, tuple[Entry, ...]]:
        """Every tensor with what it should be and what it shows."""
        norms, pairs = self._norms(), self._pairs()

        def entry(name: str, said: Said) -> Entry:
            if said.convention == PLUS_ONE:
                return replace(norms[name], said=said.times)
            if said.convention == ROTARY_PAIRS:
                what = "a vector does" if len(self._model.tensors[name].shape) == 1 else "queries without keys do"
                return replace(pairs.get(name, _untold(name, said, f"{what} not show it")), said=said.times)
            info = self._model.tensors[name]
            possible, figure = by_form(self._model, info, said, self._parts[info.raw_name])
            return Entry(name, said.convention, said.times, possible, figure)

        return {name: tuple(entry(name, said) for said in self._said[name]) for name in self._names}

    def _of(self, convention: str) -> list[str]:
        return [name for name in self._names if convention in (said.convention for said in self._said[name])]

    def _norms(self) -> dict[str, Entry]:
        """Norms one by one, and those that tell nothing alone together with their like."""
        names, found, stored = self._of(PLUS_ONE), dict[str, Entry](), dict[str, np.ndarray]()
        for done, name in enumerate(names):
            self._progress(done, len(names), f"norms {printable(name)}")
            info = self._model.tensors[name]
            if info.unread is not None or info.type not in FLOATS:
                found[name] = Entry(
                    name, PLUS_ONE, None, (), info.unread or f"its type, {info.type.name}, is too coarse"
                )
            else:
                stored[name] = floats(self._model.stored_rows(name), info.type).ravel()
                found[name] = _norm_entry(name, plus_one([stored[name]], info.type.name), 1)
        for kind in dict.fromkeys((alike(name), self._model.tensors[name].type) for name in stored):
            untold = [n for n in stored if (alike(n), self._model.tensors[n].type) == kind and found[n].times is None]
            if len(untold) > 1:
                shown = plus_one([stored[name] for name in untold], kind[1].name)
                if len(shown.possible) == 1:
                    found |= {name: _norm_entry(name, shown, len(untold)) for name in untold}
        return found

    def _pairs(self) -> dict[str, Entry]:
        """The weights of q and k layer by layer, and layers that tell nothing alone together."""
        read, found = dict[tuple[str, str], np.ndarray](), dict[str, Entry]()
        layers = list(self._heads.layers(self._of(ROTARY_PAIRS)))
        for done, (q, k) in enumerate(layers):
            self._progress(done, len(layers), f"rows of {printable(q)}")
            heads = self._heads.in_layer_of(q)
            if (rows := heads.rows(q, k)) is None:
                found |= {name: _untold(name, None, "its values, or its heads, are not known") for name in (q, k)}
                continue
            read[q, k] = likeness(*rows, heads.q, heads.k)[:, : heads.rotated, : heads.rotated]
            found |= _pair_entries((q, k), orders([read[q, k]]), 1)
        untold = [pair for pair in read if None in (found[name].times for name in pair)]
        for size in {read[pair].shape for pair in untold}:
            alike = [pair for pair in untold if read[pair].shape == size]
            together = orders([read[pair] for pair in alike])
            if len(alike) > 1 and all(len(order.possible) == 1 for order in together):
                for pair in alike:
                    found |= _pair_entries(pair, together, len(alike))
        return found


def _norm_entry(name: str, shown: Shown, together: int) -> Entry:
    beside = "" if together == 1 else f"together with {together - 1} alike, "
    return Entry(name, PLUS_ONE, None, shown.possible, beside + shown.words, together)


def _pair_entries(pair: tuple[str, str], found: tuple[Order, Order], together: int) -> dict[str, Entry]:
    beside = "" if together == 1 else f"together with {together - 1} alike layers, "
    return {
        name: Entry(name, ROTARY_PAIRS, None, order.possible, beside + order.words, together)
        for name, order in zip(pair, found, strict=True)
    }


def _untold(name: str, said: Said | None, why: str) -> Entry:
    return Entry(name, ROTARY_PAIRS, said and said.times, (), why)


def _beside(x: StoredModel, y: StoredModel, entry: Entry, theirs: dict[str, tuple[Entry, ...]]) -> Entry:
    """An entry with what the other file shows of it."""
    if entry.convention not in (PLUS_ONE, ROTARY_PAIRS):
        return entry
    other = next((e for e in theirs.get(entry.tensor, ()) if e.convention == entry.convention), None)
    found = (
        None
        if other is None
        else more(x, y, entry.convention, entry.tensor, Heads.of(x).in_layer_of(entry.tensor).size)
    )
    name = printable(y.path.name)
    if other is None or found is None:
        return replace(entry, figure=f"{entry.figure}; beside {name} it does not show how often more")
    shift = found + _undone(x, entry) - _undone(y, entry)
    mine, yours = (one.possible or tuple(range(FIRST, LAST + 1)) for one in (entry, other))
    possible = tuple(times for times in mine if times - shift in yours)
    told = bool(entry.possible or other.possible)
    figure = f"{entry.figure}; {more_words(found, name)}"
    return replace(
        entry,
        figure=figure,
        more=found,
        possible=possible if told and possible else entry.possible,
        theirs=told and bool(possible) and other.said is not None and other.said + shift not in possible,
    )


def _undone(model: StoredModel, entry: Entry) -> int:
    """How often who reads a file takes a convention back."""
    if entry.convention == PLUS_ONE:
        return -int(model.adds_one(entry.tensor))
    return int(model.permuted(entry.tensor))


def counted(entries: Sequence[Entry]) -> dict[int | None, int]:
    """How many entries show which number of times; None for those that do not tell."""
    counts: dict[int | None, int] = {}
    for entry in entries:
        counts[entry.times] = counts.get(entry.times, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (item[0] is None, item[0] or 0)))
