"""Bisecting two artifacts: every stage on A's own input, factor by factor, until one is really wrong.

Both sides run the same graph, so a stage can differ by its weights, its configuration, its numeric path and its
input. The path's part is bounded by the floor; weights are explained by the formats they are stored in or they are
not; configuration is judged by its effect in float64. What is left over is a mistake, and the first one is the culprit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from kernels.forward import At, Model, activation_codes, forward, inputs_of
from kernels.paths import Array, F32Path
from kernels.stages import Site
from workbench.bisect.config_causes import config_cause
from workbench.bisect.floor import predicted_error
from workbench.bisect.substitution import Factors, relative, share
from workbench.bisect.verdict import Bisection, Culprit, Decomposition
from workbench.bisect.weight_causes import weight_causes
from workbench.bisect.weight_check import WeightCheck, check_weights
from workbench.stage_tensors import stage_tensors

# A difference in float64 below this share of the output cannot be seen through float32 arithmetic.
VISIBLE = 1e-6


@dataclass(frozen=True, slots=True)
class Side:
    """One artifact as the bisection runs it."""

    model: Model
    path: F32Path


@dataclass(slots=True)
class _Cell:
    """Everything known about one stage while it is judged."""

    site: Site
    a: Factors
    b: Factors
    tokens: tuple[int, ...]
    inputs_a: Mapping[str, Array]
    inputs_b: Mapping[str, Array]
    y_a: Array
    y_b: Array

    def run(self, factors: Factors, inputs: Mapping[str, Array] | None = None) -> Array:
        """The stage on A's input (or another) with the given factors; a stage it does not have passes on its input."""
        inputs = self.inputs_a if inputs is None else inputs
        result = factors.run(self.site.stage, self.site.layer, self.tokens, inputs)
        return result if result is not None else np.asarray(inputs["qkv_matmul"])


def bisect_artifacts(a: Side, b: Side, tokens: tuple[int, ...]) -> Bisection:
    """Walk two artifacts in execution order up to the first stage that is really wrong.

    Raises WorkbenchError where a stage cannot be run with the other side's factors (shapes that do not fit).
    """
    checked: list[Decomposition] = []
    notes: list[str] = []
    explained, numerics = False, a.path.name != b.path.name
    for cell in walk(a, b, tokens):
        decomposition = decompose(cell, a, b)
        checked.append(decomposition)
        differing = list(_differing(cell))
        explained |= any(verdict.rel_rms != 0 for _, verdict in differing)
        culprit = _culprit(cell, differing, notes)
        if culprit is not None:
            others = _others(a.model, b.model, culprit)
            return Bisection("divergent", cell.site, culprit, others, decomposition.floor, tuple(checked), tuple(notes))
    verdict = "quantization_only" if explained else "numerics_only" if numerics else "alike"
    floor = max((cell.floor for cell in checked), default=None)
    return Bisection(verdict, None, None, (), floor, tuple(checked), tuple(notes))


def walk(a: Side, b: Side, tokens: tuple[int, ...]) -> Iterator[_Cell]:
    """Both forwards in step; a stage that one side does not have is there as what its readers read instead."""
    sides = {"a": Factors.of(a.model, a.path), "b": Factors.of(b.model, b.path)}
    streams = {name: _complete(forward(f.weights, tokens, f.path)) for name, f in sides.items()}
    values: dict[str, dict[str, Array]] = {"a": {}, "b": {}}
    for (site, y_a, has_a), (_, y_b, has_b) in zip(streams["a"], streams["b"], strict=False):
        for name in values:
            if site.stage == "attn_norm":
                last = values[name].get("layer_output", values[name].get("embedding"))
                values[name] = {} if last is None else {"layer_input": last}
        if has_a or has_b:
            inputs = {name: {stage: values[name][stage] for stage in inputs_of(site.stage)} for name in values}
            yield _Cell(site, sides["a"], sides["b"], tokens, inputs["a"], inputs["b"], y_a, y_b)
        values["a"][site.stage], values["b"][site.stage] = y_a, y_b


def _complete(stream: Iterator[tuple[Site, Array]]) -> Iterator[tuple[Site, Array, bool]]:
    """The stream with qkv_bias filled in where a model has none; the flag tells the real ones."""
    before = None
    for site, value in stream:
        if before is not None and before[0].stage == "qkv_matmul" and site.stage == "q_post_rope":
            yield Site(site.layer, "qkv_bias"), before[1], False
        yield site, value, True
        before = (site, value)


def decompose(cell: _Cell, a: Side, b: Side) -> Decomposition:
    """Observed, local and inherited difference of a cell, its floor, and each side's distance from float64."""
    crossed = cell.run(cell.b)
    exact = {name: cell.run(f.exact()) for name, f in (("a", cell.a), ("b", cell.b))}
    errors = {}
    for name, factors, y in (("a", cell.a, cell.run(cell.a)), ("b", cell.b, crossed)):
        at = At(factors.weights, factors.path, cell.tokens, cell.site.layer)
        expected = predicted_error(cell.site.stage, at, cell.inputs_a, exact[name])
        actual = float(np.linalg.norm(y.astype(np.float64) - exact[name]))
        errors[name] = (expected, actual / expected if expected else 0.0)
    norm = float(np.linalg.norm(cell.y_b.astype(np.float64)))
    return Decomposition(
        cell.site,
        observed=relative(cell.y_b - cell.y_a, cell.y_b),
        local=relative(crossed - cell.y_a, cell.y_b),
        inherited=relative(cell.y_b - crossed, cell.y_b),
        floor=(errors["a"][0] ** 2 + errors["b"][0] ** 2) ** 0.5 / norm if norm else 0.0,
        a_off=errors["a"][1],
        b_off=errors["b"][1],
        flipped=_flipped(cell, a, b),
    )


def _flipped(cell: _Cell, a: Side, b: Side) -> tuple[int, int] | None:
    codes = []
    for side, y in ((a, cell.y_a), (b, cell.y_b)):
        at = At(side.model, side.path, cell.tokens, cell.site.layer)
        codes.append(activation_codes(at, cell.site.stage, np.ascontiguousarray(y)))
    if codes[0] is None or codes[1] is None or codes[0].rule != codes[1].rule:
        return None
    return int((codes[0].codes != codes[1].codes).sum()), codes[0].codes.size


def _differing(cell: _Cell) -> Iterator[tuple[str, WeightCheck]]:
    """The tensors of this stage that both sides have and that are not the same, with the verdict on each."""
    for name in stage_tensors(cell.site):
        if name in cell.a.weights and name in cell.b.weights:
            verdict = check_weights(cell.a.weights.weight(name), cell.b.weights.weight(name))
            if verdict.worst > 0:
                yield name, verdict


def _culprit(cell: _Cell, differing: list[tuple[str, WeightCheck]], notes: list[str]) -> Culprit | None:
    """The mistake at this cell, if there is one that shows at this prompt."""
    base = cell.run(cell.a.exact())
    found: Culprit | None = None
    missing = [
        n for n in stage_tensors(cell.site) if n.endswith(".bias") and (n in cell.a.weights) != (n in cell.b.weights)
    ]
    if missing:
        side = "B" if missing[0] in cell.a.weights else "A"
        found = Culprit(cell.site, "weights", "bias_missing", f"{side} has no {missing[0]}", missing[0], 0.0)
    for name, verdict in differing:
        if verdict.explained or found is not None:
            continue
        effect = relative(cell.run(replace(cell.a.exact(), weights=cell.b.weights)) - base, base)
        if effect is not None and effect <= VISIBLE:
            notes.append(f"{name} differs by more than its format explains, but not for these tokens")
            continue
        found = judge_tensor(cell.site, name, cell.a.weights, cell.b.weights)
    if found is None:
        found = config_cause(cell.site, cell.a, cell.b, cell.run, base)
    return None if found is None else replace(found, shares=_shares(cell))


def judge_tensor(site: Site, name: str, a: Model, b: Model) -> Culprit:
    """The culprit that an unexplained tensor is, with the mistake that reproduces it and the next best one."""
    causes = weight_causes(name, a, b)
    best, rest = causes[0], causes[1:]
    if not best.explained:
        unknown = causes[-1]
        runner = None if best is unknown else {"cause": best.cause, "residual": best.residual, "reproduces": False}
        return Culprit(site, "weights", "unknown", unknown.explanation, name, unknown.residual, runner_up=runner)
    factor = (
        "config"
        if best.cause == "tied_embedding" and a.config.tie_word_embeddings != b.config.tie_word_embeddings
        else "weights"
    )
    runner_up = {"cause": rest[0].cause, "residual": rest[0].residual, "reproduces": rest[0].explained}
    return Culprit(site, factor, best.cause, best.explanation, name, best.residual, runner_up=runner_up)


def _shares(cell: _Cell) -> dict[str, float | None]:
    """Each factor alone, swapped into A's run: its share of the observed difference; they need not add up to 1."""
    observed = (cell.y_b - cell.y_a).astype(np.float64)
    base = cell.run(cell.a)
    swapped = {
        "input": cell.run(cell.a, cell.inputs_b),
        "weights": cell.run(replace(cell.a, weights=cell.b.weights)),
        "numerics": cell.run(replace(cell.a, path=cell.b.path)),
        "config": cell.run(replace(cell.a, config=cell.b.config)),
    }
    shares = {name: share((y - base).astype(np.float64), observed) for name, y in swapped.items()}
    known = [value for value in shares.values() if value is not None]
    return shares | {"graph": 0.0, "remainder": 1.0 - sum(known) if known else None}


def _others(a: Model, b: Model, first: Culprit) -> tuple[Culprit, ...]:
    """Further tensors, in execution order, whose difference their formats do not explain."""
    from kernels.stages import execution_order

    found: list[Culprit] = []
    for site in execution_order(a.config.num_hidden_layers):
        for name in stage_tensors(site):
            if name == first.tensor or name not in a or name not in b or a.weight(name).shape != b.weight(name).shape:
                continue
            if not check_weights(a.weight(name), b.weight(name)).explained:
                found.append(judge_tensor(site, name, a, b))
    return tuple(found)
