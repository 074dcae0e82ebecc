"""Choosing the experts of every token, and what each of them counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.config import Scoring
from kernels.graph import Arithmetic, Array, At, Inputs, Kind, Values
from kernels.kinds.activation import sigmoid
from kernels.kinds.rounding import UNIT, rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision

Experts = NDArray[np.int64]

LEAST = 2.0**-126  # that a chosen expert counts at least, so that it shows that it was chosen
_LEAST_SUM = 2.0**-14  # by which llama.cpp divides
_ADDED = 1e-6  # to the sum of a token's scores, by transformers in lfm2moe; others add less
_TINY = 1e-12  # no sum of scores is divided by less here
_NEAR = 16.0  # times what rounding makes of two scores, within which either may be the larger one


def chosen(weights: Array, used: int) -> Experts:
    """The experts of every token in ascending order, (tokens, used), from their weights, (tokens, experts).

    Where fewer than that have any weight, as in values that nobody computed, the first of the others join them.
    """
    best = np.argsort(-weights, axis=1, kind="stable")[:, :used]
    return np.sort(best, axis=1)


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """Weights of the experts that are chosen for each token, and 0 for all others, (tokens, experts).

    used : how many are chosen, those with the largest scores. scoring, renormalised, scale, groups, groups_used : as in
    ModelConfig. A tensor of the stage, if it has one, is added to the scores for the choice only.
    """

    used: int
    scoring: Scoring = "softmax"
    renormalised: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1
    group_best: int = 2
    roles: ClassVar[tuple[str, ...]] = ("x",)
    signed: ClassVar[bool] = True

    def evaluate(self, at: At, x: Inputs) -> Array:
        scores = self.scores(x["x"], at.path)
        return self.weights(at, scores, self.best(self.selection(at, scores)))

    def weights(self, at: At, scores: Array, experts: Experts) -> Array:
        """What chosen experts count."""
        values = np.take_along_axis(scores, experts, axis=1)
        single = values.dtype == at.path.dtype
        if self.scoring == "softmax of chosen":
            values = at.path.softmax(values) if single else shares_of(values)
        if self.scoring == "sigmoid of chosen":
            values = at.path.sigmoid(values) if single else inverse_of(values)
        if self.renormalised and at.path.engine == "ggml":  # it adds up in float64, and divides by so much at least
            total = values.sum(axis=1, keepdims=True, dtype=np.float64).astype(values.dtype)
            values = values / np.maximum(total, total.dtype.type(_LEAST_SUM))
        elif self.renormalised:
            values = values / values.sum(axis=1, keepdims=True)
        if self.scale != 1:
            values = values * values.dtype.type(self.scale)
        out = np.zeros_like(scores)
        np.put_along_axis(out, experts, np.maximum(values, values.dtype.type(LEAST)), axis=1)
        return out

    def scores(self, logits: Array, path: Arithmetic | None = None) -> Array:
        """What experts are compared by, before anything is added for the choice. path : that computes them."""
        if self.scoring == "softmax":
            return shares_of(logits) if path is None else path.softmax(logits)
        if self.scoring == "sigmoid":
            return inverse_of(logits) if path is None else path.sigmoid(logits)
        return logits

    def selection(self, at: At, scores: Array) -> Array:
        """What experts are chosen by: the scores and what is added to them, -inf in groups that are not looked at."""
        if at.stage.tensors:
            scores = np.asarray(scores + at.path.vector(at.model.weight(at.stage.tensors[0])))
        if self.groups == 1:
            return scores
        kept = np.argsort(-self.of_groups(scores), axis=1, kind="stable")[:, : self.groups_used]
        seen = np.zeros((len(scores), self.groups), dtype=bool)
        np.put_along_axis(seen, kept, True, axis=1)
        return np.where(np.repeat(seen, scores.shape[1] // self.groups, axis=1), scores, -np.inf).astype(scores.dtype)

    def of_groups(self, scores: Array) -> Array:
        """The sum of the best of each group, (tokens, groups)."""
        grouped = np.sort(scores.reshape(len(scores), self.groups, -1), axis=2)
        return np.asarray(grouped[:, :, -self.group_best :].sum(axis=2))

    def best(self, selection: Array) -> Experts:
        """The experts of every token, best first."""
        return np.argsort(-selection, axis=1, kind="stable")[:, : self.used]

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        logits = np.abs(np.asarray(x["x"], dtype=np.float64))
        added = self._added(x["x"], output) * output
        if at.path.dtype == np.float64:
            return float(np.hypot(rounding_error(at, x, output), norm(added)))
        decided = norm(self.either_way(at, x, FLOAT32))
        return float(np.hypot(norm(UNIT * _units(logits) * output + added), decided))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return np.asarray((max(kept.unit, FLOAT32.unit) * _units(np.abs(x["x"])) + self._added(x["x"], size)) * size)

    def _added(self, logits: Values, weights: Values) -> Values:
        """What weights may lose, in parts of them, by what an engine adds to their sum lest it be 0, (tokens, 1).

        weights : of all experts, 0 for those that were not chosen; the sum is that of the others' scores.
        """
        if not self.renormalised or not self.scoring.startswith("sigmoid"):
            return np.zeros((len(logits), 1))
        scores = sigmoid(np.asarray(logits, dtype=np.float64)) * (np.asarray(weights) != 0)
        return np.asarray(_ADDED / np.maximum(scores.sum(axis=1, keepdims=True), _TINY))

    def either_way(self, at: At, x: Inputs, kept: Precision) -> Values:
        """All that any expert counts, for tokens of which the last that is chosen is no better than the next.

        Better means by more than rounding makes of the scores.
        """
        logits = np.asarray(x["x"], dtype=np.float64)
        scores = np.asarray(self.scores(logits), dtype=np.float64)
        selection = np.asarray(self.selection(at, scores), dtype=np.float64)
        near = self._close(selection, self.used, logits, kept)
        if self.groups > 1:
            plain = (
                np.asarray(scores + at.path.vector(at.model.weight(at.stage.tensors[0])))
                if at.stage.tensors
                else scores
            )
            near |= self._close(self.of_groups(plain), self.groups_used, logits, kept)
        weights = np.asarray(self.weights(at, scores, self.best(selection)), dtype=np.float64)
        return np.where(near[:, None], weights.max(axis=1, keepdims=True), 0.0)

    def _close(self, selection: Values, used: int, logits: Values, kept: Precision) -> NDArray[np.bool_]:
        """Whether the last that is chosen and the next are so near that either may be the better one."""
        if used >= selection.shape[1]:
            return np.zeros(len(selection), dtype=bool)
        in_order = -np.sort(-selection, axis=1)
        last, following = in_order[:, used - 1], in_order[:, used]
        size = np.abs(np.where(np.isfinite(last), last, 0)) + np.abs(np.where(np.isfinite(following), following, 0))
        off = _NEAR * max(kept.unit, FLOAT32.unit) * _units(np.abs(logits))[:, 0] * size
        with np.errstate(invalid="ignore"):
            return np.asarray(~(last - following > off))

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """With the choice as it is: experts that are not chosen count nothing."""
        logits, change = x["x"], dx["x"]
        scores = self.scores(logits)
        best = self.best(self.selection(at, scores))
        picked = np.zeros_like(logits)
        np.put_along_axis(picked, best, 1.0, axis=1)
        if self.scoring.startswith("sigmoid"):
            values, slope = sigmoid(logits) * picked, sigmoid(logits) * (1 - sigmoid(logits)) * change * picked
        else:
            shares = shares_of(logits if self.scoring == "softmax" else np.where(picked > 0, logits, -np.inf))
            values = shares * picked
            slope = values * (change - (shares * change).sum(axis=1, keepdims=True))
        if self.renormalised:
            total = values.sum(axis=1, keepdims=True)
            slope = slope / total - values * slope.sum(axis=1, keepdims=True) / total**2
        return np.asarray(slope * self.scale)


def inverse_of(x: Array) -> Array:
    """1 / (1 + exp(-x)) in the dtype of x."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def shares_of(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis in the dtype of x, summed in float64."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        total = powers.sum(axis=-1, keepdims=True, dtype=np.float64)
        return np.asarray(powers * (1 / total).astype(x.dtype))


def _units(logits: Values) -> Values:
    """Relative rounding of scores, of magnitudes of logits, (tokens, 1): exponentials err by the size of theirs."""
    return np.asarray(8 + 2 * logits.max(axis=1, keepdims=True))
