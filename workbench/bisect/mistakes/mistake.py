"""A recorded stage that is wrong: what a candidate mistake may look at, what it predicts, and how it is chosen.

A recorded trace has no weights of its own, so a mistake is looked for in the operation, its configuration and in what
its weights would have to be. It is accepted only if its prediction reproduces the record within the noise.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import lgamma, log
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.graph import At, Kind, Stage, Values
from kernels.kinds.apart import ProductsApart
from kernels.kinds.embed import Embed
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.precision import FLOAT32, Precision
from kernels.stages import Site
from workbench.bisect.traces.averages import averaged_off
from workbench.bisect.verdict import Factor, Setting
from workbench.bisect.weights.tensor_pairs import has
from workbench.cells.limit import LIMIT

Flags = NDArray[np.bool_]
K = TypeVar("K", bound=Kind)

# What a rounding leaves of the gap it makes if the engine rounded a few values to the other side; docs/bisect.md.
_NEXT_LINE = 0.1
_SOME_LINES = 0.35  # the same where the values that were rounded are themselves not quite those of the model
_TINY = 1e-37
# Times what storing weights costs on average: the worst of thousands of channels, of which two roundings of a row make
# the same of tokens that are alike.
_OF_A_CHANNEL = 2.5

_ODDS = 1e-3  # below which that wrong weights show at some tokens only is no chance

# How much a mistake takes for granted: a named one nothing, a fitted number a little, several mistakes at once more,
# free values per channel much.
NAMED, FITTED, SEVERAL, FREE = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Mistake:
    """A mistake and the output it would have made (tokens, channels).

    rank : NAMED, FITTED, SEVERAL or FREE. exact : predicted with the engine's own arithmetic, 8-bit activations too.
    site : where the mistake was made, if not at the stage that shows it. rounded : it rounds values to a grid, where
    the engine's own arithmetic may have put a few of them on the next line. setting : what is wrong about a setting of
    the run, numbers and names, apart from where it shows. also : further settings that are wrong at the same place.
    """

    cause: str
    factor: Factor
    explanation: str
    predicted: NDArray[Any]
    tensor: str | None = None
    rank: int = NAMED
    exact: bool = False
    site: Site | None = None
    rounded: bool = False
    setting: Setting = ()
    also: tuple["Further", ...] = ()


@dataclass(frozen=True, slots=True)
class Further:
    """A setting that is wrong besides another one, which only both together reproduce."""

    cause: str
    factor: Factor
    explanation: str
    setting: Setting


@dataclass(frozen=True, eq=False)
class Question:
    """A stage whose recorded output y is not what it should be.

    x : its inputs by role. known : everything recorded or computed in its layer so far, by stage.
    right : the right output.
    noise : what float rounding may do to every element. rounding : root mean square of what 8-bit activations add.
    restored : what storing changed weights once more in their format may add to every element; None without weights.
    kept : how the engine keeps its numbers. most : norm that a mistake may leave, where the trace
    is one of the weights before they were rounded. rows : the token of every row, where some are missing. spanned : it
    is the end of a span, whose rounding averages do not take away.
    All arrays are float64 (tokens, channels).
    """

    at: At
    x: Mapping[str, Values]
    known: Mapping[str, Values]
    y: Values
    right: Values
    noise: Values
    rounding: float = 0.0
    restored: Values | None = None
    kept: Precision = FLOAT32
    most: float | None = None
    rows: NDArray[np.int64] | None = None
    spanned: bool = False

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens of some rows."""
        return rows if self.rows is None else self.rows[rows]

    @property
    def site(self) -> Site:
        """Where the stage is."""
        return self.at.stage.site

    def kind(self, kind: type[K]) -> K:
        """What the stage does, of which the kind is known."""
        assert isinstance(self.at.kind, kind)
        return self.at.kind

    @cached_property
    def graph(self) -> Graph:
        """All stages of the model."""
        return Graph.of(self.at.model)

    @cached_property
    def readers(self) -> list[Stage]:
        """The stages of its layer that read it."""
        stages = self.graph.last if self.at.layer is None else self.graph.layer(self.at.layer)
        return [stage for stage in stages if self.site.stage in stage.reads]

    def read(self, role: str) -> Stage | None:
        """The stage that is read in a role; None if the model does not have it."""
        return self.graph.stage(self.graph.reads(self.at.stage)[role])

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters of the model."""
        return self.at.config

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Canonical names of the stage's tensors that the model has."""
        return tuple(name for name in self.at.stage.tensors if has(self.at.model, name))

    @cached_property
    def gap(self) -> float:
        """‖y - right‖."""
        return float(np.linalg.norm(self.y - self.right))

    @cached_property
    def wrong_channels(self) -> Flags:
        """Channels that noise does not explain."""
        off = _rms((self.y - self.right) / self.noise, axis=0)
        wrong = ~(off <= LIMIT)
        return wrong if wrong.any() else np.ones_like(wrong)

    @property
    def wrong(self) -> bool:
        """Whether noise does not explain the record."""
        return not max(units_off(self.y - self.right, self.noise), self.averaged) <= LIMIT

    def is_right(self, channels: Flags) -> bool:
        """Whether there are such channels and they are well within noise, and not only less wrong than others."""
        off = ((self.y - self.right) / self.noise)[:, channels]
        return off.size > 0 and bool(_rms(off, axis=None) <= LIMIT / 3)

    @cached_property
    def parts(self) -> dict[str, Flags]:
        """The channels of every tensor that makes a part of the output, as those of Q, K and V, by name of the part."""
        heads, count = self.at.stage.heads, self.right.shape[1]
        if heads is None or len(heads.parts) < 2:
            return {"": np.ones(count, dtype=bool)}
        places = np.arange(count)
        columns = ((name, heads.columns(name)) for name, _ in heads.parts)
        return {name: (places >= part.start) & (places < part.stop) for name, part in columns}

    @cached_property
    def wrong_tensors(self) -> Flags:
        """All channels of the tensors that make a wrong channel: Q|K|V comes from three."""
        wrong = [part for part in self.parts.values() if (self.wrong_channels & part).any()]
        return np.asarray(np.logical_or.reduce(wrong))

    @cached_property
    def wrong_tokens(self) -> Flags:
        """Tokens that noise does not explain."""
        off = _rms((self.y - self.right) / self.noise, axis=1)
        wrong = ~(off <= LIMIT)
        return wrong if wrong.any() else np.ones_like(wrong)

    def wrong_channels_of(self, tokens: Flags) -> Flags:
        """Channels that noise does not explain for some tokens."""
        wrong = ~(_rms(((self.y - self.right) / self.noise)[tokens], axis=0) <= LIMIT)
        return wrong if wrong.any() else np.ones_like(wrong)

    @cached_property
    def spares_tokens(self) -> bool:
        """Whether tokens are right that wrong weights would show at as well, since their inputs are no smaller.

        A wrong weight adds to every token what its input makes of it. That this stays within the noise by chance has
        about the odds of the noise to what it does to the other tokens; the odds of all such tokens multiply.
        """
        wrong = self.wrong_tokens
        if not self.tensors or isinstance(self.at.kind, Embed | ProductsApart) or wrong.all():  # which have few tokens
            return False
        part = self.wrong_channels_of(wrong)
        off, noise = (np.linalg.norm(x[:, part], axis=1) for x in (self.y - self.right, self.noise))
        size = np.linalg.norm(self.x["x"], axis=1) if isinstance(self.at.kind, Product) else np.ones(len(wrong))
        effect = float(np.median(off[wrong] / np.maximum(size[wrong], _TINY))) * size[~wrong]
        odds = np.log(np.minimum(1, LIMIT * noise[~wrong] / np.maximum(effect, _TINY))).sum()
        count, spared = len(wrong), int((~wrong).sum())
        return bool(odds + lgamma(count + 1) - lgamma(spared + 1) - lgamma(count - spared + 1) < log(_ODDS))

    def with_channels(self, part: Flags, values: Values) -> Values:
        """The right output with other values in some channels."""
        predicted = self.right.copy()
        predicted[:, part] = values
        return predicted

    @cached_property
    def averaged(self) -> float:
        """How far averages are off that a mistake would change alike, in units of what rounding makes of them."""
        return self.averaged_from(self.right)

    def averaged_from(self, predicted: Values) -> float:
        """The same of the record beside a prediction."""
        if self.spanned:
            return 0.0
        return averaged_off(self.at, self.x, self.y, predicted, self.noise, self.kept)

    def _closer(self, mistake: Mistake, size: float) -> bool:
        """Whether a prediction takes away most of what is wrong: of the averages, where they show it, or of the gap."""
        if self.averaged <= LIMIT:
            return size <= 0.5 * self.gap
        most = max(LIMIT, _NEXT_LINE * self.averaged if mistake.rounded else 0)
        return self.averaged_from(mistake.predicted) <= most

    def reproduces(self, mistake: Mistake) -> bool:
        """Whether a prediction leaves nothing but noise, and takes away most of the gap."""
        left = self.y - mistake.predicted
        size = float(np.linalg.norm(left))
        if not np.isfinite(size) or not self._closer(mistake, size):
            return False
        if mistake.rounded and size <= (_NEXT_LINE if self.most is None else _SOME_LINES) * self.gap:
            return True
        larger = np.maximum(1, _of_rows(mistake.predicted) / np.maximum(_of_rows(self.right), _TINY))
        if self.most is not None and size > self.most * float(larger.max()):
            return False
        allowed = self.noise * larger
        allowed = allowed + self.kept.unit * (4 * np.abs(mistake.predicted) + 2 * _of_rows(mistake.predicted))
        if not mistake.exact:
            allowed = allowed + 1.5 * self.rounding / LIMIT
        if within(left, allowed):
            return True
        if self.restored is None or mistake.factor != "weights" or size > 0.3 * self.gap:
            return False
        whole = float(_rms(left / (allowed + self.restored / LIMIT), axis=None))
        return whole <= LIMIT and within(left, allowed + _OF_A_CHANNEL / LIMIT * self.restored)


def _of_rows(values: Values) -> Values:
    """Root mean square of every row."""
    return np.asarray(np.sqrt(np.square(values, dtype=np.float64).mean(axis=1, keepdims=True)))


def within(left: Values, noise: Values) -> bool:
    """Whether a difference stays within LIMIT units of noise: over all, in every channel and for every token."""
    off = left / noise
    parts = (_rms(off, axis=None), _rms(off, axis=0).max(), _rms(off, axis=1).max())
    return all(bool(part <= LIMIT) for part in parts)


def units_off(left: Values, noise: Values) -> float:
    """Root mean square of a difference in units of noise: the largest of the whole, the channels and the tokens."""
    off = left / noise
    worst = max(float(_rms(off, axis=None)), float(_rms(off, axis=0).max()), float(_rms(off, axis=1).max()))
    return worst if np.isfinite(worst) else float("inf")


def _rms(values: Values, axis: int | None) -> Any:  # noqa: ANN401 - a number or an array
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt(np.square(values).mean(axis=axis))


def ranked(
    question: Question, tried: Iterator[Mistake], known: Callable[[Mistake], bool] = lambda _: False
) -> list[tuple[bool, float, Mistake]]:
    """Every mistake with whether it reproduces the record and the norm it leaves, the most convincing first.

    Among those that reproduce it, one that takes less for granted comes first, then one that comes closer, in the
    averages where those show what is wrong. Weights reproduce nothing where they are right for other tokens. known :
    mistakes that were made before; if one of these reproduces the record too, nothing else is tried.
    """
    found = []
    for mistake in tried:
        with np.errstate(invalid="ignore", over="ignore"):
            left = float(np.linalg.norm(question.y - mistake.predicted))
        if np.isfinite(left):
            blamed = mistake.factor != "weights" or not question.spares_tokens
            found.append((blamed and question.reproduces(mistake), left, mistake))
            if found[-1][0] and known(mistake):
                return found[-1:]

    def key(entry: tuple[bool, float, Mistake]) -> tuple[bool, int, float]:
        reproduces, left, mistake = entry
        if not reproduces:
            return True, 0, left
        return False, mistake.rank, question.averaged_from(mistake.predicted) if question.averaged > LIMIT else left

    return sorted(found, key=key)


def least_squares(columns: Values, values: Values, smallest: float | None = None) -> Values | None:
    """Shares of the columns that come closest to the values; None where they are no numbers or are too large for it.

    smallest : relative size of a singular value that counts as none.
    """
    if not (np.isfinite(columns).all() and np.isfinite(values).all()):
        return None  # LAPACK would say so on standard output
    try:
        found = np.linalg.lstsq(columns, values, rcond=smallest)[0]
    except np.linalg.LinAlgError:
        return None
    return np.asarray(found) if np.isfinite(found).all() else None
