"""Bisecting two artifacts: every stage on A's own input, factor by factor, until one is really wrong.

Both sides run the same graph, so a stage can differ by its weights, its configuration, its numeric path and its
input. The path's part is bounded by the floor; weights are explained by the formats they are stored in or they are
not; configuration is judged by its effect in float64. What is left over is a mistake, and the first one is the culprit.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from kernels.experts import CHOICE, PAIRS
from kernels.forward import steps
from kernels.graph import Array, Stage
from kernels.kinds.choice import Choice, Experts
from kernels.stages import Site
from workbench.bisect.models.cell import Cell, Side
from workbench.bisect.models.decompose import decompose
from workbench.bisect.models.moved_factors import with_factors_moved
from workbench.bisect.models.rerouted import Rerouted
from workbench.bisect.models.substitution import Factors, difference, share
from workbench.bisect.models.suspects import Suspects
from workbench.bisect.models.told_together import told_together
from workbench.bisect.traces.announced import Progress
from workbench.bisect.verdict import Bisection, Culprit, Verdict
from workbench.bisect.weights.tensor_pairs import TensorPairs
from workbench.cells.decomposition import Decomposition
from workbench.cells.routing import Common, experts_of
from workbench.pair.comparable import require_same_sizes


def bisect_artifacts(a: Side, b: Side, tokens: tuple[int, ...], progress: Progress = lambda *_: None) -> Bisection:
    """Walk two artifacts in execution order up to the first stage that is really wrong.

    progress : called with cells run, cells in all and the cell at work; then with tensors looked at for further
    mistakes. Raises PopulationError for models of different sizes.
    """
    require_same_sizes(a.model.config, b.model.config)
    one, other, moved = with_factors_moved(a.model, b.model)
    if moved is not None:
        found = bisect_artifacts(replace(a, model=one), replace(b, model=other), tokens, progress)
        return replace(found, notes=(*found.notes, moved))
    pairs = TensorPairs(a.model, b.model)
    suspects = Suspects(pairs, a.model, b.model)
    checked: list[Decomposition] = []
    differ, lost, rerouted = False, list[Site](), Rerouted()
    cells = len(pairs.sites)
    for cell in walk(a, b, tokens):
        progress(len(checked), cells, str(cell.site))
        decomposition = decompose(cell, a, b, pairs)
        if isinstance(cell.stage.kind, Choice):
            rerouted.see(cell.site, *cell.scores(), cell.y_a, cell.y_b)
        inputs = cell.inputs_of_both()
        culprit = suspects.culprit(cell.stage, cell.a, cell.b, partial(cell.run, inputs=inputs), inputs, tokens)
        if culprit is None and decomposition.beyond_floor:
            culprit = unexplained(cell, decomposition, pairs)
        if culprit is None and not cell.judged.any():
            lost.append(cell.site)
        else:
            checked.append(decomposition)
        differ |= decomposition.observed != 0
        if culprit is not None:
            culprit = replace(culprit, shares=_shares(cell))
            others = suspects.others(culprit, progress)
            notes = (*suspects.notes, *rerouted.words(), *suspects.lost_on_both())
            culprit = told_together(culprit, others, a.model, b.model)
            own = decomposition.floor
            return Bisection("divergent", cell.site, culprit, others, own, tuple(checked), notes, cells)
    if (unused := suspects.unused()) is not None:
        others, notes = suspects.others(unused, progress), (*suspects.notes, *suspects.lost_on_both())
        unused = told_together(unused, others, a.model, b.model)
        return Bisection("divergent", None, unused, others, None, tuple(checked), notes, cells)
    verdict: Verdict = "quantization_only" if suspects.requantized else "numerics_only"
    floor = max((cell.floor for cell in checked), default=None)
    notes = (*suspects.lost_on_both(), *suspects.notes, *rerouted.words(), *suspects.unseen())
    if differ and lost:
        words = f"{len(lost)} of {cells} cells, the first is {lost[0]}, read no token that is all numbers on both sides"
        verdict, notes = "undecided", (f"{words}; what is wrong there does not show", *notes)
    return Bisection(verdict if differ else "alike", None, None, (), floor, tuple(checked), notes, cells)


def walk(a: Side, b: Side, tokens: tuple[int, ...]) -> Iterator[Cell]:
    """Both forwards in step; a stage that one side does not have is there as what its readers read instead."""
    factors = Factors.of(a.model, a.path), Factors.of(b.model, b.path)
    runs = [_Run(side, tokens) for side in (a, b)]
    for site in TensorPairs(a.model, b.model).sites:
        stage = next(run.next.stage for run in runs if run.next is not None and run.next.stage.site == site)
        (x_a, y_a), (x_b, y_b) = (run.take(stage) for run in runs)
        cell = Cell(stage, *factors, tokens, x_a, x_b, y_a, y_b)
        if site.stage not in PAIRS:
            yield cell
        elif (routed := _routed_as_a(cell, *(experts_of(run.known(CHOICE)) for run in runs))) is not None:
            yield routed


def _routed_as_a(cell: Cell, a: Experts, b: Experts) -> Cell | None:
    """A cell of pairs of a token and an expert with A's experts on both sides; None if a token has more on one side.

    What B's own run has is kept where B chose the same experts; elsewhere B reads what A does.
    """
    if a.shape[1] != b.shape[1]:
        return None
    common = Common.of(a, b)
    if common.whole:
        return cell
    inputs = dict(cell.inputs_b)
    for role, name in cell.stage.inputs.items():
        if name == CHOICE:
            inputs[role] = cell.inputs_a[role]
        elif name in PAIRS:
            inputs[role] = common.of_b(inputs[role], cell.inputs_a[role])
    return replace(cell, inputs_b=inputs, y_b=cell.run(cell.b, inputs))


class _Run:
    """The forward of a side, up to a stage. next : the step that comes next."""

    def known(self, stage: str) -> Array:
        """What a stage gave that came by in the present layer."""
        return self._values[stage]

    def __init__(self, side: Side, tokens: tuple[int, ...]) -> None:
        self._steps = steps(side.model, tokens, side.path)
        self._layer: int | None = None
        self._values: dict[str, Array] = {}
        self.next = next(self._steps, None)

    def take(self, stage: Stage) -> tuple[dict[str, Array], Array]:
        """What the side reads and gives at a stage; one that it does not have gives what it reads first."""
        if stage.site.layer != self._layer:
            self._layer, self._values = stage.site.layer, {}
        step = self.next
        if step is None or step.stage.site != stage.site:
            read = {role: self._values[name] for role, name in stage.inputs.items()}
            value = self._values[stage.site.stage] = read[stage.kind.roles[0]]
            return read, value
        self.next = next(self._steps, None)
        self._values |= {name: step.x[role] for role, name in step.stage.inputs.items()}
        self._values[stage.site.stage] = step.y
        return dict(step.x), step.y


def unexplained(cell: Cell, found: Decomposition, pairs: TensorPairs) -> Culprit | None:
    """What is said of a local difference far beyond its floor for which no known mistake is found.

    None where a tensor was cut off instead of rounded, or has so few values that their errors repeat: such errors
    point one way without being a mistake.
    """
    differing = [name for name in pairs.tensors(cell.site) if name in pairs.names and not pairs.judge(name).check.equal]
    if any(pairs.judge(name).note is not None or pairs.repeats(name) for name in differing):
        return None
    words = "no known mistake in weights, settings or arithmetic explains it"
    if differing:
        words = f"every value of {differing[0]} is within what its formats allow, but their errors add up"
    times = "more than" if found.local is None or not found.floor else f"{found.local / found.floor:.3g} times"
    why = f"the stage adds {times} what rounding can cause: {words}"
    tensor = differing[0] if differing else None
    return Culprit(cell.site, "weights" if differing else "numerics", "unknown", why, tensor, found.local)


def _shares(cell: Cell) -> dict[str, float | None]:
    """Each factor alone, swapped into A's run: its share of the observed difference; they need not add up to 1."""
    observed = difference(cell.y_b, cell.y_a)
    base = cell.run(cell.a)
    swapped = {
        "input": cell.run(cell.a, cell.inputs_b),
        "weights": cell.run(Factors.of(cell.b.weights, cell.a.path, cell.a.config)),
        "numerics": cell.run(cell.a.on(cell.b.path)),
        "config": cell.run(Factors.of(cell.a.weights, cell.a.path, cell.b.config)),
    }
    shares = {name: share(difference(y, base), observed) for name, y in swapped.items()}
    known = [value for value in shares.values() if value is not None]
    return shares | {"graph": 0.0, "remainder": 1.0 - sum(known) if known else None}
