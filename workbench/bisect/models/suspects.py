"""Which factor of a stage is a mistake: a tensor that its formats do not explain, a bias, a setting.

A mistake counts where it changes something: a damaged embedding row that no token asks for is reported, not blamed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property

import numpy as np

from kernels.config import ModelConfig
from kernels.graph import BIAS, Array, Inputs, Model, Stage
from kernels.kinds.apart import ProductsApart
from kernels.kinds.embed import Embed
from kernels.kinds.product import Product
from kernels.numbers import norm
from kernels.rows.dequantize import dequantize_rows
from kernels.rows.reach import BLOCK
from kernels.stages import Site
from kernels.weight import Weight
from workbench.bisect.models.settings import (
    CAUSE_OF_FIELD,
    config_cause,
    differing_fields,
    first_changed,
    setting_words,
    units,
)
from workbench.bisect.models.substitution import ORACLE, Factors, difference
from workbench.bisect.traces.announced import Progress
from workbench.bisect.verdict import Culprit, Factor, RunnerUp
from workbench.bisect.weights.causes import weight_causes
from workbench.bisect.weights.one_source import not_one_source
from workbench.bisect.weights.tensor_pairs import Judged, TensorPairs, has, stored_name
from workbench.tensors.nonfinite import nonfinite, overflow_words

# A change below this share of the output flips at most a few last bits of float32.
_VISIBLE = 2.0**-26
_LARGE = 1 << 28  # elements that are looked at one by one for further mistakes; beyond, some rows of each tensor

Run = Callable[[Factors], Array]


class Suspects:
    """The mistakes of a pair, found stage by stage."""

    def __init__(self, pairs: TensorPairs, a: Model, b: Model) -> None:
        self._pairs, self._a, self._b = pairs, a, b
        self._causes: dict[str, None] = {}  # of wrong tensors, in the order in which they were found
        self.notes: list[str] = []
        self.requantized = False  # some tensor differs as its formats allow
        self._unused: list[tuple[Site, Judged]] = []  # wrong tensors that do not show at this prompt

    def culprit(
        self, stage: Stage, a: Factors, b: Factors, run: Run, inputs: Inputs, tokens: tuple[int, ...]
    ) -> Culprit | None:
        """The mistake at a stage, if there is one that shows at this prompt; inputs are A's, by role."""
        site = stage.site

        @cache
        def base() -> Array:
            return run(a.exact())

        missing = self._missing(site)
        if missing:
            change = difference(run(Factors.of(b.weights, ORACLE, a.config)), base())
            if self._shows(change, base()):
                return self._bias_culprit(site, missing)
            self.notes.append(f"only one side has {missing[0]}, which changes nothing for these tokens")
        for judged in self._differing(site):
            if not judged.wrong:
                if self._same_type(judged.name) and self._strangers is not None:
                    return self._named(site, judged)
                self.requantized = True
            elif self._visible(stage, judged, inputs, tokens, base):
                return self._named(site, judged)
            else:
                self._unused.append((site, judged))
                self.notes.append(f"{judged.name} is changed, but in no place that these tokens use")
        return config_cause(site, a, b, run, base)

    def unused(self) -> Culprit | None:
        """The first wrong tensor that other tokens would show, though these do not."""
        return self._named(*self._unused[0]) if self._unused else None

    def _named(self, site: Site, judged: Judged) -> Culprit:
        """A wrong tensor by its mistake; one that others have too keeps its name."""
        if self._strangers is not None:
            return Culprit(site, "weights", "unknown", self._strangers, judged.name, judged.check.rel_rms)
        culprit = tensor_culprit(site, judged, self._a, self._b, tuple(self._causes))
        self._causes[culprit.cause] = None
        return culprit

    @cached_property
    def _strangers(self) -> str | None:
        """That the two were not made from one source, in a sentence; None where they were."""
        return not_one_source(self._pairs, self._a, self._b)

    def _same_type(self, name: str) -> bool:
        return self._a.weight(name).stored_as == self._b.weight(name).stored_as

    def _differing(self, site: Site) -> Iterator[Judged]:
        for name in self._pairs.tensors(site):
            if has(self._a, name) and has(self._b, name):
                judged = self._pairs.judge(name)
                if judged.note is not None and judged.note not in self.notes:
                    self.notes.append(judged.note)
                if not judged.check.equal:
                    yield judged

    def _visible(
        self, stage: Stage, judged: Judged, inputs: Inputs, tokens: tuple[int, ...], base: Callable[[], Array]
    ) -> bool:
        """Whether the places that are wrong change the stage for these tokens."""
        affected = judged.check.affected
        if isinstance(stage.kind, Embed):
            wrong = _by_column(affected[list(tokens)], self._a.weight(judged.name).shape[1])
            return bool(stage.kind.part(wrong).any())
        x = inputs["x"] if "x" in inputs else base()
        if isinstance(stage.kind, ProductsApart):
            x = stage.kind.seen_by(stage, judged.name, inputs)
            if not len(x):
                return False
        if not isinstance(stage.kind, Product | ProductsApart) or judged.name not in stage.weights:
            return True
        x = x.astype(np.float64)
        rows = np.flatnonzero(affected.any(axis=1))[:4096]
        a, b = (_values(model, judged.name, rows) for model in (self._a, self._b))
        change = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, b - a)
        wrong = _by_column(affected[rows], change.shape[1])
        return self._shows(x @ np.where(wrong, change, 0).T, base())

    def _shows(self, change: Array, base: Array) -> bool:
        moved, size = float(np.linalg.norm(change)), norm(base)
        return not (moved <= _VISIBLE * size and np.isfinite(moved))  # what is not finite shows

    def others(self, first: Culprit, progress: Progress = lambda *_: None) -> tuple[Culprit, ...]:
        """Further mistakes, in execution order: tensors, biases, settings; whether they show is not asked."""
        found: list[Culprit] = []
        order = self._pairs.sites
        large = sum(_elements(self._a.weight(name)) for name in self._pairs.names) > _LARGE
        if large:
            self.notes.append("the model is large: further mistakes were looked for in some rows of every tensor only")
        biases = {(first.site.stage, side) for side in self._sides_without(first)}
        for done, site in enumerate(order):
            progress(done, len(order), f"further mistakes, tensors of {site}")
            for name in self._pairs.tensors(site):
                known = name == first.tensor or not (has(self._a, name) and has(self._b, name))
                if not known and (not large or self._pairs.glance(name)) and self._pairs.judge(name).wrong:
                    culprit = self._named(site, self._pairs.judge(name))
                    told = any(other.explanation == self._strangers for other in (first, *found))
                    if not told or culprit.explanation != self._strangers:
                        found.append(culprit)
            for side, missing in self._missing_by_side(site).items():
                if (site.stage, side) not in biases:
                    biases.add((site.stage, side))
                    found.append(self._bias_culprit(site, missing))
        return (*found, *self._other_settings(first))

    def _other_settings(self, first: Culprit) -> Iterator[Culprit]:
        for unit in units(list(differing_fields(self._a.config, self._b.config)), self._a.config, self._b.config):
            words = ", ".join(setting_words(self._a.config, self._b.config, name) for name in unit)
            if words != first.explanation:
                yield Culprit(first_changed(self._a, self._b, unit), "config", CAUSE_OF_FIELD[unit[0]], words)

    def _missing(self, site: Site) -> list[str]:
        """Biases of a stage that one side only has."""
        names = self._pairs.tensors(site)
        return [name for name in names if name.endswith(BIAS) and has(self._a, name) != has(self._b, name)]

    def _missing_by_side(self, site: Site) -> dict[str, list[str]]:
        """The biases of a stage that a side lacks, by the side that lacks them."""
        found: dict[str, list[str]] = {}
        for name in self._missing(site):
            found.setdefault("B" if has(self._a, name) else "A", []).append(name)
        return found

    def _sides_without(self, first: Culprit) -> Iterator[str]:
        """The side whose biases the first culprit has told of."""
        if first.cause == "bias_missing":
            yield next(iter(self._missing_by_side(first.site)))

    def _bias_culprit(self, site: Site, missing: list[str]) -> Culprit:
        """All biases of one stage that one side lacks, in whichever layers."""
        side = "B" if has(self._a, missing[0]) else "A"
        sites = [other for other in self._pairs.sites if other.stage == site.stage]
        lacking = [names for names in (self._missing_by_side(other).get(side, []) for other in sites) if names]
        kinds = dict.fromkeys(name.split(".", 3)[3] for names in lacking for name in names)
        which = [int(names[0].split(".")[2]) for names in lacking]
        where = f"in {len(lacking)} of {len(sites)} layers"
        words = f"{side} has no {' and '.join(kinds)} {where}" + (f" (from layer {which[0]} on)" if which[0] else "")
        return Culprit(site, "weights", "bias_missing", words, missing[0], 0.0)

    def lost_on_both(self) -> Iterator[str]:
        """Sentences on tensors that hold NaN or infinity on both sides, which no comparison of the two shows."""
        for name in self._pairs.names:
            a = nonfinite(self._a.weight(name))
            b = a if self._pairs.judge(name).check.stored_alike else nonfinite(self._b.weight(name))
            if a is not None and b is not None:
                same = "the same in B" if a == b else f"of B, {b.words}"
                yield f"{name} is broken in both: of A, {a.words}; {same}"

    def unseen(self) -> Iterator[str]:
        """Sentences on settings that differ and never showed."""
        for name in differing_fields(self._a.config, self._b.config):
            yield f"{name} differs between A and B, but changes nothing for these tokens"


def _elements(weight: Weight) -> int:
    return int(np.prod(weight.shape))


def _by_column(blocks: np.ndarray, columns: int) -> np.ndarray:
    """Flags of blocks of BLOCK columns, the last of which may be narrower, for each column."""
    return np.repeat(blocks, BLOCK, axis=1)[:, :columns]


def _values(model: Model, name: str, rows: np.ndarray) -> np.ndarray:
    weight = model.weight(name)
    return dequantize_rows(weight.type, np.ascontiguousarray(weight.rows[rows]), weight.shape[-1]).astype(np.float64)


def tensor_culprit(site: Site, judged: Judged, a: Model, b: Model, known: Sequence[str] = ()) -> Culprit:
    """The culprit that a wrong tensor is, with the mistake that reproduces it and the next best one.

    known : causes of other tensors, which are preferred.
    """
    causes = weight_causes(judged.name, a, b, judged.check, judged.touched, known)
    best = causes[0] if causes[0].explained else causes[-1]
    runner = next((cause for cause in causes if cause.cause != best.cause), None)
    runner_up = None
    if runner is not None and runner is not causes[-1]:
        runner_up = RunnerUp(runner.cause, runner.residual, runner.explained)
    cause, factor, words = best.cause, _factor_of(best.cause, a.config, b.config), best.explanation
    if judged.name == "lm_head.weight" and a.config.tie_word_embeddings != b.config.tie_word_embeddings:
        cause, factor = "tied_embedding", "config"
        words = f"the output head is the embedding matrix in {'A' if a.config.tie_word_embeddings else 'B'} only"
    if runner_up is not None and runner_up.reproduces:
        words += f"; {runner_up.cause} would explain it as well"
    words += "".join(f"; {sentence}" for sentence in not_numbers(judged.name, a, b))
    tensor = stored_name(a, judged.name) if stored_name(a, judged.name) == stored_name(b, judged.name) else judged.name
    return Culprit(site, factor, cause, words, tensor, best.residual, runner_up=runner_up)


def _factor_of(cause: str, a: ModelConfig, b: ModelConfig) -> Factor:
    return "config" if cause == "tied_embedding" and a.tie_word_embeddings != b.tie_word_embeddings else "weights"


def not_numbers(name: str, a: Model, b: Model) -> Iterator[str]:
    """What of a tensor is NaN or infinite, on either side."""
    weights = a.weight(name), b.weight(name)
    for side, weight, other in (("A", *weights), ("B", *weights[::-1])):
        if (found := nonfinite(weight)) is not None:
            yield f"of {side}, {found.words}{overflow_words(found, weight, other)}"
