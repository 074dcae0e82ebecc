"""A unit of work: A on a prompt, and A run on from where a part of B was put into it.

Nothing of a layer depends on layers behind it. So A is run once a prompt, what goes into every block of it is kept, and
of an exchange only what may have changed is computed. Everything here is a pure function of its arguments: a unit that
is lost with its worker is computed again, with the same bits.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from kernels.forward import evaluate, forward
from kernels.graph import Array, At, Model
from kernels.machine.compiler import compile_all
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from workbench.bisect.models.patch import Overlay
from workbench.bisect.models.substitution import Factors
from workbench.sweep.figures import Figures, Reference
from workbench.sweep.kept import Arrays, keep, kept
from workbench.sweep.parts import Part, blocks
from workbench.sweep.question import Opened, Prompt, Question, opened

_OF_OUTPUT = {"logits", "sums", "best", "floor", "flips"}  # names of what a base holds beside entries of blocks


@dataclass(frozen=True, slots=True)
class Base:
    """A on a prompt. entries : what blocks read of what is before them. floor : the floor of the two paths."""

    tokens: tuple[int, ...]
    entries: Mapping[Site, Array]
    reference: Reference
    floor: Figures

    @classmethod
    def of_arrays(cls, tokens: tuple[int, ...], arrays: Arrays) -> "Base":
        """Rebuild a base from `arrays`; KeyError if any is missing."""
        entries = {}
        for name in arrays.keys() - _OF_OUTPUT:
            layer, _, stage = name.partition(".")
            entries[Site(int(layer) if layer else None, stage)] = arrays[name]
        reference = Reference(arrays["logits"], arrays["sums"], arrays["best"])
        return cls(tokens, entries, reference, Figures(arrays["floor"], int(arrays["flips"])))

    def arrays(self) -> Arrays:
        """All of it but the tokens, by name."""
        entries = {f"{'' if site.layer is None else site.layer}.{site.stage}": y for site, y in self.entries.items()}
        of = self.reference
        output = {"logits": of.logits, "sums": of.sums, "best": of.best}
        return entries | output | {"floor": self.floor.kl, "flips": np.array(self.floor.flips)}


def base(question: Question, prompt: Prompt) -> Base:
    """A on a prompt, and once more on the path of the floor, which tells what arithmetic alone costs.

    It is run unless it was before, on this machine and with the same program.
    """
    pair, tokens = opened(question).of_length(len(prompt.tokens)), prompt.tokens
    name = question.run_of_a(tokens, pair.a.config.vocab_size)
    known = kept(name)
    if known is not None:
        with suppress(KeyError, ValueError):  # names of arrays have no checksum
            return Base.of_arrays(tokens, known)
    path, graph, layers = numeric_path(question.a.numeric_path), Graph.of(pair.a), pair.a.config.num_hidden_layers
    needed = {site for layer in range(layers + 1) for site in graph.needed(layer)}
    entries, logits = dict[Site, Array](), None
    for site, logits in forward(pair.a, tokens, path):
        if site in needed:
            entries[site] = logits
    assert logits is not None
    reference = Reference.of(logits)
    other = _last(forward(pair.a, tokens, numeric_path(question.floor_path)))
    found = Base(tokens, entries, reference, Figures.of(other, reference))
    pair.require_unchanged()
    keep(name, found.arrays())
    return found


def measured(question: Question, base: Base, part: Part) -> dict[str, Any]:
    """What a part of B in A makes of the output: a line of results but for the unit's name, JSON values."""
    started, used = time.perf_counter(), time.process_time()
    pair = opened(question).of_length(len(base.tokens))
    run = _Run(question, pair, base)
    logits = run.whole() if not part.tensors and part.site is None else run.exchanged(part)
    found = Figures.none(len(base.tokens)) if logits is None else Figures.of(logits, base.reference)
    pair.require_unchanged()
    figures = found.to_json() | {"kl_floor": base.floor.to_json()["kl"], "identical": logits is None}
    return figures | {
        "seconds": round(time.perf_counter() - started, 4),
        "processor_seconds": round(time.process_time() - used, 4),
    }


def prepare(question: Question) -> None:
    """Compile what is not compiled yet and open both models: once, before many processes do."""
    compile_all()
    opened(question)


def _last(stream: Iterator[tuple[Site, Array]]) -> Array:
    *_, (_, logits) = stream
    return logits


class _Run:
    """A with something of B in it, on the tokens of a base."""

    def __init__(self, question: Question, pair: Opened, base: Base) -> None:
        self.question, self.pair, self.base = question, pair, base
        self.path, self.path_b = (numeric_path(side.numeric_path) for side in (question.a, question.b))
        self.layers = pair.a.config.num_hidden_layers
        self.graph = Graph.of(pair.a)

    def whole(self) -> Array | None:
        """Logits of B; None if they are A's own, bit for bit."""
        logits = _last(forward(self.pair.b, self.base.tokens, self.path_b))
        return None if np.array_equal(logits, self.base.reference.logits) else logits

    def exchanged(self, part: Part) -> Array | None:
        """Logits of A with a part of B; None if nothing changes."""
        if part.site is not None:
            return self._with_stage(part.block, part.site)
        names = frozenset(name for name in part.tensors if not _same(self.question, name))
        return self._with_tensors(part.block, names) if names else None

    def _with_tensors(self, block: int, names: frozenset[str]) -> Array:
        model = Overlay(self.pair.a, self.pair.b, names)
        own, stages = blocks(self.graph, self.layers)[block], blocks(Graph.of(model), self.layers)[block]
        changed = (n for n, stage in enumerate(stages) if own[n : n + 1] != (stage,) or names & {*stage.tensors})
        return self._on(model, block, next(changed, 0), {})

    def _with_stage(self, block: int, site: Site) -> Array | None:
        stages, values = blocks(self.graph, self.layers)[block], self._values(block)
        number = next(n for n, stage in enumerate(stages) if stage.site == site)
        inputs = {role: values[place] for role, place in self.graph.reads(stages[number]).items()}
        y = Factors.of(self.pair.b, self.path_b).run(site, self.base.tokens, inputs)
        assert y is not None, "parts are of stages that both sides have"
        y = np.ascontiguousarray(y, dtype=self.path.dtype)
        if np.array_equal(y, values[site]):
            return None
        return self._on(self.pair.a, block, number, {site: y})

    def _on(self, model: Model, block: int, first: int, given: Mapping[Site, Array]) -> Array:
        """The logits of a model that has what A has up to a stage of a block. given : what it has there."""
        computed = {stage.site for stage in blocks(self.graph, self.layers)[block][first:]}
        known = {site: values for site, values in self._values(block).items() if site not in computed}
        return _last(forward(model, self.base.tokens, self.path, max(block - 1, 0), {**known, **given}))

    def _values(self, block: int) -> dict[Site, Array]:
        """What A has at every stage of a block, and what it and those behind it read of what is before."""
        key = self.question, self.base.tokens, block
        if getattr(_known, "key", None) == key:
            known: dict[Site, Array] = _known.values
            return known
        values = self._computed(block)
        _known.key, _known.values = key, values
        return values

    def _computed(self, block: int) -> dict[Site, Array]:
        before = self.graph.needed(block - 1) if block else ()
        values = {site: self.base.entries[site] for site in before}
        for stage in blocks(self.graph, self.layers)[block]:
            inputs = {role: values[place] for role, place in self.graph.reads(stage).items()}
            values[stage.site] = evaluate(At(self.pair.a, self.path, self.base.tokens, stage), inputs)
        return values


# The values of the block that was asked for last: parts of it follow one another. Of each thread, for a worker may have
# several, which measure different blocks at once.
_known = threading.local()


@cache
def _same(question: Question, name: str) -> bool:
    """Whether a tensor has the same type and bytes on both sides, or is on neither.

    One that no product multiplies has its values alone, whatever their type: norms and biases.
    """
    a, b = opened(question)
    if not (name in a and name in b):
        return (name in a) == (name in b)
    one, other = a.weight(name), b.weight(name)
    if len(one.shape) == len(other.shape) == 1:
        path = numeric_path(question.a.numeric_path)
        return np.array_equal(path.vector(one), path.vector(other))
    return one.equals(other)
