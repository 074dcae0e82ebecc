"""How the tensors of a pair differ as a rule: one conversion treats all tensors of a type alike.

A tensor that differs within its steps is quantized otherwise, unless its like are equal on both sides: then it has
been touched. And BF16 values that were cut instead of rounded are a fault in one tensor, but the way of a converter
where all are.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kernels.formats.format import BlockFormat
from kernels.graph import Model
from kernels.models import Graph, execution_order
from kernels.rows.reach import BLOCK
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.names import settings_of
from workbench.bisect.weights.check import ROUNDED_ONCE, WeightCheck, check, check_weights
from workbench.bisect.weights.slopes import heads_of
from workbench.bisect.weights.steps import Flags, Stored

_LM_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_SAMPLE = 32  # rows of a tensor that tell how it differs
_FEW_VALUES = 32  # that a matrix has, of 5 bits
_FEWEST = 3  # other tensors that make a rule
_MOST = 2 / 3  # share of them that must agree
_CUT = 2.1  # steps that a value cut off at its last bit may be away, where rounding keeps within 1
_QUANTIZED = frozenset(type for type in TensorType if isinstance(type.format, BlockFormat))

_CARRIED = (
    "weights whose quantizer carried its errors over from value to value (GPTQ) are judged by how such errors are "
    "spread, in which a small fault does not show"
)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A tensor that both sides have: the check, whether it is wrong, whether only its like give it away."""

    name: str
    check: WeightCheck
    wrong: bool
    touched: bool = False
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Sample:
    types: tuple[TensorType | str, TensorType | str]
    equal: bool
    spread: float


def has(model: Model, name: str) -> bool:
    """Whether a model can answer for a tensor; a tied head is its embedding."""
    return name in model or (name == _LM_HEAD and model.config.tie_word_embeddings)


def stored_name(model: Model, name: str) -> str:
    """The tensor that a model really stores."""
    return _EMBEDDING if name == _LM_HEAD and model.config.tie_word_embeddings else name


class TensorPairs:
    """The tensors that two models have in common, judged one by one and by their like."""

    def __init__(self, a: Model, b: Model) -> None:
        self._a, self._b = a, b
        self._graphs = Graph.of(a), Graph.of(b)
        self._judged: dict[str, Judged] = {}

    @cached_property
    def sites(self) -> list[Site]:
        """The sites that either side has, in execution order."""
        found = {site for graph in self._graphs for site in graph.sites()}
        return [site for site in execution_order(self._a.config, self._b.config) if site in found]

    def tensors(self, site: Site) -> tuple[str, ...]:
        """Canonical names of the tensors that a stage uses on either side."""
        stages = (graph.stage(site) for graph in self._graphs)
        return tuple(dict.fromkeys(name for stage in stages if stage is not None for name in stage.tensors))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Canonical names of all tensors that both sides have, in the order of execution."""
        names = dict.fromkeys(name for site in self.sites for name in self.tensors(site))
        return tuple(name for name in names if has(self._a, name) and has(self._b, name))

    def judge(self, name: str) -> Judged:
        """Say whether the two sides' tensors are one tensor stored twice."""
        if name not in self._judged:
            self._judged[name] = self._judge(name)
        return self._judged[name]

    def glance(self, name: str) -> bool:
        """Whether some rows of a tensor already show that it is wrong; for tensors too large to be looked at whole."""
        a, b = self._pair(name)
        rows = _rows(a)
        return not check(Stored.of(a, rows), Stored.of(b, rows)).explained

    def repeats(self, name: str) -> bool:
        """Whether the values of a matrix are so few on one side that their rounding errors are no independent ones."""
        a, b = self._pair(name)
        rows = _rows(a)
        return len(a.shape) > 1 and min(np.unique(Stored.of(side, rows).values).size for side in (a, b)) <= _FEW_VALUES

    def _judge(self, name: str) -> Judged:
        a, b = self._pair(name)
        verdict = check_weights(a, b, heads_of(name, settings_of(self._a.config, name).head_dim))
        if verdict.equal:
            return Judged(name, verdict, wrong=False)
        if self._alike_elsewhere(name):
            return Judged(name, _marked(verdict, a, b), wrong=True, touched=True)
        if not verdict.explained and verdict.worst <= _CUT and verdict.slope is None and self._cut_elsewhere(name):
            kind = min(a.type, b.type, key=lambda type: type.name != "BF16").name
            note = f"values were cut off at the last bit of {kind} instead of rounded, in all tensors alike"
            return Judged(name, verdict, wrong=False, note=note)
        return Judged(name, verdict, wrong=not verdict.explained, note=_CARRIED if verdict.carried else None)

    def _pair(self, name: str) -> tuple[Weight, Weight]:
        return self._a.weight(name), self._b.weight(name)

    @cached_property
    def _samples(self) -> dict[str, _Sample]:
        return {name: self._sample(name) for name in self.names}

    def _sample(self, name: str) -> _Sample:
        a, b = self._pair(name)
        rows = _rows(a)
        types = a.stored_as, b.stored_as
        if a.shape != b.shape:
            return _Sample(types, equal=False, spread=np.inf)
        if a.type == b.type and np.array_equal(a.rows[rows], b.rows[rows]):
            return _Sample(types, equal=True, spread=0.0)
        found = check(Stored.of(a, rows), Stored.of(b, rows))
        return _Sample(types, found.equal, found.spread)

    def _like(self, name: str) -> list[_Sample]:
        """The other tensors stored as this one is; if they are few, all of one type that are quantized, or not."""
        own = self._samples[name]
        others = [sample for other, sample in self._samples.items() if other != name]
        like = [sample for sample in others if sample.types == own.types]
        if len(like) < _FEWEST and own.types[0] == own.types[1]:
            quantized = _is_quantized(own.types[0])
            same = [sample for sample in others if sample.types[0] == sample.types[1]]
            like = [sample for sample in same if _is_quantized(sample.types[0]) == quantized]
        return like

    def _alike_elsewhere(self, name: str) -> bool:
        types = self._samples[name].types
        like = self._like(name)
        return types[0] == types[1] and len(like) >= _FEWEST and _share([x.equal for x in like]) >= _MOST

    def _cut_elsewhere(self, name: str) -> bool:
        like = [sample for sample in self._like(name) if not sample.equal]
        return bool(like) and _share([sample.spread > ROUNDED_ONCE for sample in like]) >= _MOST


def _rows(weight: Weight) -> np.ndarray:
    return np.unique(np.linspace(0, len(weight.rows) - 1, _SAMPLE).astype(np.int64))


def _is_quantized(stored_as: TensorType | str) -> bool:
    return isinstance(stored_as, str) or stored_as in _QUANTIZED


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def _marked(verdict: WeightCheck, a: Weight, b: Weight) -> WeightCheck:
    """The check of a tensor known to be touched: every block that differs at all is affected."""
    from dataclasses import replace

    return replace(verdict, affected=_differing(a, b))


def _differing(a: Weight, b: Weight) -> Flags:
    x, y = (Stored.of(weight).values.view(np.uint32) for weight in (a, b))
    return np.asarray(np.logical_or.reduceat(x != y, np.arange(0, x.shape[1], BLOCK), axis=1))
