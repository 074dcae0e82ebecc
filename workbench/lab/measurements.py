"""Measurements of a pair by name: what contracts bound and predictions speak of.

Nothing is opened, run or read before it is asked for, and nothing twice. A name is a key of what `compare`, `weights`
and `bisect` print with --json, of settings the name of a field of ModelConfig, or one of the words below. What cannot
be measured has no value but a sentence that says why.
"""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kernels.config import same_value
from kernels.errors import WorkbenchError
from kernels.measures import LogitAgreement, Measures
from kernels.models import Graph, execution_order
from kernels.stages import Site
from store.artifact import Artifact
from store.stored_model import StoredModel
from store.text import printable
from store.traces.trace import LOGITS, Trace
from workbench.cells.cell import Cell
from workbench.cells.metrics import METRICS
from workbench.cells.view import TokenScope
from workbench.lab.readings import AGAIN, COSINE, FLOORS, Reading, figure
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Pair, open_side, paired, runnable
from workbench.pair.prompt import Prompt
from workbench.pair.recorded import recorded

if TYPE_CHECKING:
    from workbench.bisect.pair import Answer
    from workbench.cells.comparison import Comparison
    from workbench.cells.decomposition import Checked
    from workbench.tensors.sweep import TensorDifference

T = TypeVar("T")
Show = Callable[[int, int, str], object]  # done, total, what

ALL, LAST = TokenScope("all"), TokenScope("last")


class Measurements:
    """The measurements of two models or traces.

    paths : of both sides. asked : the numeric path asked for of each, or None. show : is told how far the work is.
    """

    def __init__(
        self,
        paths: tuple[Path, Path],
        asked: tuple[str | None, str | None] = (None, None),
        tokens: tuple[int, ...] | None = None,
        prompt: Prompt | None = None,
        show: Show = lambda *_: None,
    ) -> None:
        self._paths, self._asked, self._tokens, self._prompt, self._show = paths, asked, tokens, prompt, show
        self._measures: dict[tuple[str, Site, int | None], Measures | None] = {}
        self._differences: dict[str, TensorDifference | str] = {}

    # What the two sides are

    @cached_property
    def sources(self) -> tuple[StoredModel | Trace, StoredModel | Trace]:
        """Both sides, opened; WorkbenchError for what cannot be."""
        a, b = map(open_side, self._paths)
        return a, b

    @cached_property
    def pair(self) -> Pair:
        """Both sides as they run; WorkbenchError where one cannot be run, or nothing says on which tokens."""
        a, b = map(runnable, self.sources)
        return paired((a, b), self._asked, self._tokens, self._prompt)

    def require_unchanged(self) -> None:
        """Raise WorkbenchError if a file of either side was written to since it was opened."""
        for source in self.sources:
            for file in source.files if isinstance(source, Trace) else source.sources:
                file.require_unchanged()

    def provenance(self) -> dict[str, Any]:
        """Return path, format, hash and numeric path of both sides, the tokens, and what no figure covers.

        Null for what did not run.
        """
        ran = self.__dict__.get("pair")
        record: dict[str, Any] = {}
        for number, side in enumerate("ab"):
            source = self.sources[number]
            record[side] = {
                "path": str(source.path),
                "format": source.engine if isinstance(source, Trace) else source.format,
                "sha256": self._sha256(source),
                "numeric_path": None if ran is None else _numeric_path(ran, number),
            }
        tokens = None if ran is None or ran.tokens is None else ran.tokens
        return record | {
            "tokens": None if tokens is None else list(tokens.ids),
            "prompt": None if tokens is None else tokens.prompt,
            "notes": [] if ran is None else list(ran.notes),
        }

    def _sha256(self, source: StoredModel | Trace) -> str:
        what = f"hash {printable(source.path.name)}"
        return sha256_of(source, lambda done, total: self._tell(done, total, what))

    def _tell(self, done: int, total: int, what: str) -> None:
        self._show(done, total, what)

    # Cells

    @cached_property
    def sites(self) -> list[Site] | str:
        """Where either side has a stage, in execution order, or why that is not known; nothing is run for it."""
        return _or_why(self._sites)

    def _sites(self) -> list[Site]:
        bound = recorded(self.pair)
        sides = [side if isinstance(side, Trace) else set(Graph.of(side).sites()) for side in (bound.a, bound.b)]
        configs = [side.config if isinstance(side, Artifact) else side.run.config for side in (bound.a, bound.b)]

        def there(side: Trace | set[Site], site: Site) -> bool:
            return side.status(site) != "absent" if isinstance(side, Trace) else site in side

        return [site for site in execution_order(*configs) if any(there(side, site) for side in sides)]

    def cell(self, site: Site, key: str, scope: TokenScope = ALL) -> Reading:
        """Return a figure of a cell, one of OF_CELLS; those of AGAIN are over all tokens whatever the scope."""
        if key in AGAIN:
            return self._run_again(site, key)
        found = self._cell(site, ALL)
        if isinstance(found, str):
            return Reading(None, found)
        comparison = self._of_all
        assert not isinstance(comparison, str)
        return self._observed(found, key, scope.row(found, len(comparison.a.tokens)), scope.kind)

    def compared_cell(self, site: Site) -> Reading:
        """True if a cell could be compared: numbers on both sides, in the same places."""
        found = self._cell(site, ALL)
        if isinstance(found, str):
            return Reading(None, found)
        measures = found.measures()
        if measures is None:
            return Reading(None, found.note or found.status)
        return Reading(True) if measures.finite else Reading(None, "no value is finite on both sides")

    def _cell(self, site: Site, scope: TokenScope) -> Cell | str:
        comparison = self._of_all if scope is ALL else self._of_last
        if isinstance(comparison, str):
            return comparison
        there = self._cells if scope is ALL else {cell.site: cell for cell in comparison.cells}
        return there.get(site) or f"neither side has {site}"

    def _observed(self, cell: Cell, key: str, row: int | None, name: str = "") -> Reading:
        at = (name, cell.site, row)
        if at not in self._measures:
            self._measures[at] = cell.measures(row)
        found = self._measures[at]
        if found is None:
            return Reading(None, cell.note or "these tokens are not there")
        return figure(found, key)

    def _run_again(self, site: Site, key: str) -> Reading:
        if isinstance(self._again, str):
            return Reading(None, self._again)
        if (checked := self._again.get(site)) is None:
            return Reading(None, "it was not run again, as no token reads numbers on both sides")
        if key != FLOORS:
            figures = checked.cell.to_json() | checked.to_json()
            return Reading(figures[key], "" if figures[key] is not None else "it is not known here, or not finite")
        floors = checked.floors
        if floors is None and checked.cell.local is not None and not checked.cell.floor:
            return Reading(math.inf, "it adds a difference where rounding can cause none")
        if floors is None or not math.isfinite(floors):
            return Reading(None, "it has no floor, or what it adds is not finite")
        return Reading(floors)

    # Logits

    def logit_positions(self, last: bool) -> list[int] | str:
        """Token positions of the logits, all of them or the last one, or why there are none."""
        cell = self._cell(LOGITS, ALL)
        if last and isinstance(cell, Cell) and cell.profile is None:  # one side may hold the last token only
            cell = self._cell(LOGITS, LAST)
        if isinstance(cell, str):
            return cell
        if cell.profile is None:
            return cell.note or "logits were not compared"
        return [cell.positions[-1]] if last else list(cell.positions)

    def logits(self, position: int, key: str) -> Reading:
        """Return a figure of the logits at a token position that is there: of LogitAgreement, or one of OBSERVED."""
        cell = self._cell(LOGITS, ALL)
        if isinstance(cell, Cell) and cell.profile is None:
            cell = self._cell(LOGITS, LAST)
        if isinstance(cell, str):
            return Reading(None, cell)
        if position not in cell.positions:
            return Reading(None, cell.note or f"there are no logits of token {position} on both sides")
        row = cell.positions.index(position)
        if key not in LogitAgreement._fields:
            return self._observed(cell, key, row, "logits")
        lost = self._observed(cell, "rel_rms", row, "logits")
        if lost.value is None or cell.logits is None:
            return Reading(None, lost.why or "logits were not compared")
        value = float(getattr(cell.logits, key)[row])
        return Reading(value) if math.isfinite(value) else Reading(None, "it is not finite")

    # Tensors

    @property
    def weightless(self) -> str:
        """Why no tensor can be compared, in a sentence; empty where both sides are models."""
        traces = [letter for letter, source in zip("AB", self.sources, strict=True) if isinstance(source, Trace)]
        return f"{traces[0]} is a recorded trace, which holds no weights" if traces else ""

    @cached_property
    def tensor_names(self) -> list[str] | str:
        """Canonical names of the tensors of either side, or why there are none.

        Without those that one side alone carries and its forward does not use.
        """
        a, b = self.sources
        if isinstance(a, Trace) or isinstance(b, Trace):
            names = [name for side in (a, b) if not isinstance(side, Trace) for name in side.tensors]
            return names or self.weightless
        from workbench.tensors.sweep import tensor_names

        idle = {name for side, other in ((a, b), (b, a)) for name in _unused(side) if name not in other}
        return [name for name in tensor_names(a, b) if name not in idle]

    def tensor(self, name: str, key: str) -> Reading:
        """Return a figure of a tensor, one of OF_TENSORS."""
        found = self._difference(name)
        if isinstance(found, str):
            return Reading(None, found)
        if found.measures is None:
            if found.status != "identical" or (key not in METRICS and key != COSINE):
                return Reading(None, found.note or "it was not compared")
            return Reading(1.0 if key == COSINE else METRICS[key].perfect)  # told by its bytes
        if key != "worst_row_rel_rms":
            return figure(found.measures, key)
        lost = figure(found.measures, "rel_rms")
        if lost.value is None or found.worst_row_rel_rms is None:
            return Reading(None, lost.why or "a row is zero in B only")
        return Reading(found.worst_row_rel_rms)

    def compared_tensor(self, name: str) -> Reading:
        """True if a tensor could be compared."""
        found = self._difference(name)
        if isinstance(found, str):
            return Reading(None, found)
        return Reading(True) if found.compared else Reading(None, found.note or found.status)

    def _difference(self, name: str) -> "TensorDifference | str":
        if name not in self._differences:
            self._differences[name] = _or_why(lambda: self._compared(name))
        return self._differences[name]

    def _compared(self, name: str) -> "TensorDifference":
        a, b = self.sources
        if isinstance(a, Trace) or isinstance(b, Trace):
            raise WorkbenchError(self.weightless)
        if name not in a and name not in b:
            raise WorkbenchError("neither side has it")
        from workbench.tensors.sweep import compare_tensor

        self._show(0, 0, f"tensor {printable(name)}")
        return compare_tensor(a, b, name)

    # Settings

    def setting(self, side: int, name: str) -> Reading:
        """Return a setting of side 0 or 1, one of SETTINGS; None without a reason where the model has none."""
        source, letter = self.sources[side], "AB"[side]
        config = source.config if isinstance(source, Artifact | Trace) else None
        if config is not None:
            return Reading(getattr(config, name))
        if isinstance(source, Trace):
            return Reading(None, f"{letter} is a trace that does not carry the settings of its model")
        return Reading(None, f"of {letter} it is not known how it computes: {source.refusal}")

    def same_setting(self, name: str) -> bool:
        """Tell whether a setting that both sides have is the same, as far as formats keep its digits."""
        return same_value(self.setting(0, name).value, self.setting(1, name).value)

    # Bisection

    @cached_property
    def answer(self) -> "Answer | str":
        """The answer of the pair's bisection, or why there is none."""
        return _or_why(self._bisect)

    def bisected(self, key: str) -> Reading:
        """Return a value of the bisection by its name in JSON."""
        if isinstance(self.answer, str):
            return Reading(None, self.answer)
        record = self.answer.bisection.to_json()
        return Reading(record[key]) if key in record else Reading(None, f"a bisection has no {printable(key, 40)}")

    # What takes time

    @cached_property
    def _of_all(self) -> "Comparison | str":
        return _or_why(lambda: self._compare(ALL))

    @cached_property
    def _of_last(self) -> "Comparison | str":
        return _or_why(lambda: self._compare(LAST))

    def _compare(self, scope: TokenScope) -> "Comparison":
        from workbench.capture.comparing import compare_pair

        return compare_pair(self.pair, METRICS["rel_rms"], scope, self._show)

    @cached_property
    def _cells(self) -> dict[Site, Cell]:
        return {} if isinstance(self._of_all, str) else {cell.site: cell for cell in self._of_all.cells}

    @cached_property
    def _again(self) -> "dict[Site, Checked] | str":
        if self.pair.models is None and isinstance(self.answer, str):
            return self.answer
        return _or_why(self._all_again)

    def _all_again(self) -> "dict[Site, Checked]":
        from kernels.machine.compiler import compile_all
        from workbench.bisect.models.views import views

        compile_all(lambda done, total, name: self._show(done, total, f"compile {name}"))
        if self.pair.models is None and self.pair.traces is None:
            assert not isinstance(self.answer, str)
            found = self.answer.bisection.judged(of_models=False)  # of a trace the bisection runs every recorded stage
        else:
            found = views(self.pair, lambda done, total, text: self._show(done, total, f"again {text}"))
        return {checked.cell.site: checked for checked in found}

    def _bisect(self) -> "Answer":
        from kernels.machine.compiler import compile_all
        from workbench.bisect.pair import bisect_pair

        compile_all(lambda done, total, name: self._show(done, total, f"compile {name}"))
        return bisect_pair(self.pair, lambda done, total, text: self._show(done, total, f"bisect {text}"))


def _unused(model: StoredModel) -> tuple[str, ...]:
    return model.unused if isinstance(model, Artifact) else ()


def _numeric_path(pair: Pair, number: int) -> str | None:
    source = (pair.a, pair.b)[number]
    if not isinstance(source, Trace):
        return pair.sides[number].numeric_path
    return None if source.record is None else source.record.numeric_path


def _or_why(make: Callable[[], T]) -> T | str:
    """What `make` returns, or the sentence that says why there is none."""
    try:
        return make()
    except WorkbenchError as error:
        return str(error)
