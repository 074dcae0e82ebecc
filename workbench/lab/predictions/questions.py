"""What a prediction can ask for: the names, what they are given, their figures, and what kind each figure is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kernels.models import all_stages, layer_stages
from kernels.stages import Site
from store.nearest import did_you_mean
from store.text import printable
from workbench.cells.cell import LOGIT_FIGURES
from workbench.cells.metrics import METRICS
from workbench.cells.view import TokenScope
from workbench.lab.predictions.errors import PredictionError
from workbench.lab.predictions.kinds import ANY, PLAIN, STRING, TRUTH, Kind, number
from workbench.lab.predictions.syntax import Argument, Term
from workbench.lab.readings import AGAIN, COSINE, KL, SETTINGS, TOP1

_MAX_LAYER = 9999
_ALL, _LAST = TokenScope("all"), TokenScope("last")


@dataclass(frozen=True, slots=True)
class OfCell:
    """A figure of a cell, over all tokens, the last one, or one."""

    site: Site
    scope: TokenScope
    key: str


@dataclass(frozen=True, slots=True)
class OfTensor:
    """A figure of a weight tensor, by its canonical name."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class OfLogits:
    """A figure of the logits."""

    scope: TokenScope
    key: str


@dataclass(frozen=True, slots=True)
class OfConfig:
    """A setting of side 0 or 1."""

    side: int
    name: str


@dataclass(frozen=True, slots=True)
class OfLab:
    """A figure of an experiment; on the pair, at a cell, where layer or stage is given."""

    name: str
    settings: Mapping[str, Any]
    layer: int | None
    stage: str | None
    key: str


@dataclass(frozen=True, slots=True)
class OfRule:
    """A key of the row of a contract's rule. contract : its name, None for whichever has the rule."""

    contract: str | None
    id: str
    key: str


@dataclass(frozen=True, slots=True)
class OfBisection:
    """A key of the bisection, dots between the levels."""

    key: str


Question = OfCell | OfTensor | OfLogits | OfConfig | OfLab | OfRule | OfBisection


class Asked(NamedTuple):
    """A question and the kind of its answer."""

    question: Question
    kind: Kind


_UNITS = {"max_ulp": "ULP"} | dict.fromkeys(("nonfinite_a", "nonfinite_b"), "values")
_OF_VALUES = ("std_a", "std_b", "max_abs", "mean_abs", "rms", "mean_shift")


def _figures(unit: str) -> dict[str, Kind]:
    """The kinds of what is measured between two tensors whose values have this unit."""
    names = (*METRICS, COSINE, "std_a", "std_b", *_UNITS)
    kinds = {name: number(unit if name in _OF_VALUES else _UNITS.get(name, "")) for name in names}
    return kinds | {"status": STRING, "note": STRING}


_ACTIVATIONS, _WEIGHTS = "units of activations", "units of weights"
CELL = (
    _figures(_ACTIVATIONS)
    | dict.fromkeys(("max_at.token", "max_at.channel"), PLAIN)
    | {
        name: number(_ACTIVATIONS)
        for name in ("max_at.a", "max_at.b", *(f"percentiles_abs_d.p{p}" for p in (50, 90, 99)))
    }
    | {f"flipped_codes.{name}": number("codes") for name in ("flipped", "of")}
    | {name: number() for name in AGAIN}
    | {"beyond_floor": TRUTH, "unforeseen": TRUTH}
)
TENSOR = _figures(_WEIGHTS) | {
    "worst_row": PLAIN,
    "worst_row_rel_rms": number(),
    "type_a": STRING,
    "type_b": STRING,
    "in_band": TRUTH,
}
LOGIT_KEYS = {KL: "kl_b_a_mean", TOP1: "top1_agreement"}  # the short names that contracts use
OF_LOGITS = (
    _figures(_ACTIVATIONS)
    | {name: number(figure.unit) for name, figure in LOGIT_FIGURES.items()}
    | {short: number(LOGIT_FIGURES[name].unit) for short, name in LOGIT_KEYS.items()}
)
_PLACE = {"layer": PLAIN, "stage": STRING}
BISECTION = (
    {"verdict": STRING, "floor": number()}
    | {name: number("cells") for name in ("cells_checked", "cells_in_spans", "cells_expected")}
    | {f"first_divergent.{name}": kind for name, kind in _PLACE.items()}
    | {f"culprit.{name}": kind for name, kind in _PLACE.items()}
    | {f"culprit.shown_at.{name}": kind for name, kind in _PLACE.items()}
    | {f"culprit.{name}": STRING for name in ("factor", "cause", "tensor", "explanation", "runner_up.cause")}
    | {f"culprit.{name}": number() for name in ("residual", "runner_up.residual", "runner_up.effect")}
    | {f"culprit.shares.{name}": number() for name in ("weights", "numerics", "config", "graph")}
    | {"culprit.runner_up.reproduces": TRUTH}
)
RULE = {
    **dict.fromkeys(("verdict", "bound", "note", "where.stage", "where.tensor", "where.setting"), STRING),
    **dict.fromkeys(("compared", "expected", "line", "where.layer", "where.token"), PLAIN),
    "measured": ANY,
}
_TEXTS, _TRUTHS = ("architecture", "rope_type", "length_limit_key"), ("tie_word_embeddings", "causal")
_LISTS = ("rope_factors", "layer_types")
CONFIG = {
    name: STRING if name in _TEXTS else TRUTH if name in _TRUTHS else PLAIN for name in SETTINGS if name not in _LISTS
}


def ask(term: Term, source: str) -> Asked:
    """Return what a term asks for; PredictionError points at what it cannot be given."""
    maker = _MAKERS.get(term.name)
    if maker is None:
        names = ", ".join(_MAKERS)
        raise PredictionError(f"{printable(term.name, 40)} is nothing to ask for; there are {names}", source, term.at)
    return maker(_Given(term, source))


class _Given:
    """A term whose arguments are taken one after the other."""

    def __init__(self, term: Term, source: str) -> None:
        self.term, self.source = term, source
        self._left = list(term.arguments)

    def fail(self, what: str, at: int | None = None) -> PredictionError:
        return PredictionError(what, self.source, self.term.at if at is None else at)

    def done(self) -> None:
        """Refuse what is left."""
        if self._left:
            raise self.fail(f"{self.term.name} takes no more than this", self._left[0].at)
        for name, argument in self.term.named.items():
            raise self.fail(f"{self.term.name} takes nothing called {printable(name, 40)}", argument.at)

    @property
    def more(self) -> bool:
        return bool(self._left)

    def argument(self, what: str) -> Argument:
        if not self._left:
            raise self.fail(f"{self.term.name} has to be given {what}")
        return self._left.pop(0)

    def text(self, what: str) -> tuple[str, int]:
        value, at = self.argument(what)
        if not isinstance(value, str):
            raise self.fail(f"{what} is expected here, in quotes", at)
        return value, at

    def one_of(self, what: str, choices: Mapping[str, Any] | tuple[str, ...]) -> str:
        value, at = self.text(what)
        if value not in choices:
            raise self.fail(f"{printable(value, 40)!r} is not {what}{_hint(value, choices)}", at)
        return value

    def scope(self) -> TokenScope:
        """Tokens, if they are given: "all", "last", or a position."""
        if not self.more:
            return _ALL
        value, at = self.argument("tokens")
        if value in ("all", "last"):
            return _ALL if value == "all" else _LAST
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**9:
            raise self.fail('tokens are "all", "last", or the position of one', at)
        return TokenScope("one", value)

    def key(self, known: Mapping[str, Kind] | None) -> str:
        """The figure asked for; `known` is None where only measuring tells what there is."""
        term = self.term
        key = ".".join(name for name, _ in term.path)
        if not key:
            raise self.fail(f"say which figure of {term.name}, after a dot{_some(known)}", term.at)
        if known is not None and key not in known:
            levels = [".".join(name for name, _ in term.path[: n + 1]) for n in range(len(term.path))]
            wrong = next((n for n, level in enumerate(levels) if not _begins(level, known)), len(levels) - 1)
            if _begins(key, known):
                inner = ", ".join(
                    sorted({name.removeprefix(f"{key}.").split(".")[0] for name in known if name.startswith(f"{key}.")})
                )
                raise self.fail(f"{key} is no figure by itself; it has {inner}", term.path[-1][1])
            shown = printable(term.path[wrong][0], 40)
            raise self.fail(f"{term.name} has no {shown}{_hint(key, known)}", term.path[wrong][1])
        return key


def _begins(level: str, known: Mapping[str, Kind]) -> bool:
    return any(name == level or name.startswith(f"{level}.") for name in known)


def _hint(value: str, choices: Mapping[str, Any] | tuple[str, ...]) -> str:
    hint = did_you_mean(value, choices, f"there are {', '.join(choices)}" if len(choices) <= 20 else "")
    return f"; {hint}" if hint else ""


def _some(known: Mapping[str, Kind] | None) -> str:
    return ", such as .value" if known is None else f", such as .{next(iter(known))}"


def _cell(given: _Given) -> Asked:
    what = "a layer and a stage, or a stage that belongs to no layer"
    first, at = given.argument(what)
    layer: int | None = None
    if isinstance(first, str):
        stage = first
    elif isinstance(first, int) and 0 <= first <= _MAX_LAYER:
        layer = first
        stage, at = given.text("the name of a stage")
    else:
        raise given.fail("a layer is a whole number from 0", at)
    if stage not in all_stages():
        raise given.fail(f"{printable(stage, 40)!r} is no stage{_hint(stage, all_stages())}", at)
    if (stage in layer_stages()) != (layer is not None):
        raise given.fail(f"{stage} belongs to {'a' if layer is None else 'no'} layer", at)
    scope = given.scope()
    given.done()
    key = given.key(CELL)
    if key in (*AGAIN, "beyond_floor", "unforeseen") and scope != _ALL:
        raise given.fail(f"{key} is known over all tokens only", given.term.path[0][1])
    return Asked(OfCell(Site(layer, stage), scope, key), CELL[key])


def _tensor(given: _Given) -> Asked:
    name, _ = given.text("the canonical name of a tensor")
    given.done()
    key = given.key(TENSOR)
    return Asked(OfTensor(name, key), TENSOR[key])


def _logits(given: _Given) -> Asked:
    scope = given.scope()
    given.done()
    key = given.key(OF_LOGITS)
    return Asked(OfLogits(scope, LOGIT_KEYS.get(key, key)), OF_LOGITS[key])


def _config(given: _Given) -> Asked:
    side = given.one_of('a side, "a" or "b"', ("a", "b", "A", "B")).lower()
    at = given.term.arguments[1].at if len(given.term.arguments) > 1 else None
    name, _ = given.text("the name of a setting")
    if name in _LISTS:
        raise given.fail(f"{name} is a list, which nothing here is compared with", at)
    if name not in CONFIG:
        raise given.fail(f"{printable(name, 40)!r} is no setting{_hint(name, CONFIG)}", at)
    given.done()
    if given.term.path:
        raise given.fail("a setting has no figures; leave out the dot", given.term.path[0][1])
    return Asked(OfConfig("ab".index(side), name), CONFIG[name])


def _lab(given: _Given) -> Asked:
    name, _ = given.text("the number or word of an experiment")
    named = dict(given.term.named)
    layer, stage = named.pop("layer", None), named.pop("stage", None)
    if layer is not None and (not isinstance(layer.value, int) or not 0 <= layer.value <= _MAX_LAYER):
        raise given.fail("a layer is a whole number from 0", layer.at)
    if stage is not None and stage.value not in all_stages():
        raise given.fail(f"{printable(str(stage.value), 40)!r} is no stage", stage.at)
    if given.more:
        raise given.fail("an experiment is given `parameter=value` after its name", given.argument("").at)
    settings = {key: argument.value for key, argument in named.items()}
    where = None if layer is None else int(layer.value), None if stage is None else str(stage.value)
    return Asked(OfLab(name, settings, *where, given.key(None)), ANY)


def _rule(given: _Given) -> Asked:
    name, at = given.text("the id of a rule, or CONTRACT/ID")
    given.done()
    contract, slash, rule = name.rpartition("/")
    if not rule or (slash and not contract):
        raise given.fail("a rule is called by its id, or CONTRACT/ID", at)
    key = given.key(RULE)
    return Asked(OfRule(contract or None, rule, key), RULE[key])


def _bisect(given: _Given) -> Asked:
    given.done()
    key = given.key(BISECTION)
    return Asked(OfBisection(key), BISECTION[key])


_MAKERS = {
    "cell": _cell,
    "tensor": _tensor,
    "logits": _logits,
    "config": _config,
    "lab": _lab,
    "rule": _rule,
    "bisect": _bisect,
}
