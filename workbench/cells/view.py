"""What the map shows of a session, as it is saved with the session: metric, tokens, cursor, orientation, filter."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kernels.models import all_stages, in_layers
from kernels.stages import FIRST_STAGES, LAST_STAGES, SPINE, Site
from workbench.cells.cell import Cell
from workbench.cells.metrics import METRICS, OPENING_METRIC

FIRST_SITE = Site(None, FIRST_STAGES[0])
OBSERVED, FLOORS = "observed", "floors"
ASPECTS: dict[str, str] = {
    OBSERVED: "observed",
    "local": "local ‖d‖/‖B‖",
    "inherited": "inherited ‖d‖/‖B‖",
    "amplification": "amplification, ×2 a step",
    FLOORS: "error / what rounding can cause",
}
_LAYERS = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def step_of(aspect: str) -> float:
    """Factor from one heat level of a view to the next."""
    return 2.0 if aspect == "amplification" else 10.0


class TokenScope(NamedTuple):
    """Which tokens every figure covers, on both sides alike; `position` is the one token of kind "one"."""

    kind: Literal["all", "last", "one"] = "all"
    position: int = 0

    def row(self, cell: Cell, tokens: int) -> int | None:
        """Row of a cell to measure, as Cell.measures takes it; `tokens` is the length of the run."""
        if self.kind == "all":
            return None
        wanted = tokens - 1 if self.kind == "last" else self.position
        # A row that is not there has no measures; that must not read as row None, all tokens.
        return cell.positions.index(wanted) if wanted in cell.positions else len(cell.positions)

    def label(self, tokens: int) -> str:
        """Name the tokens in words."""
        if self.kind == "one":
            return f"token {self.position} only"
        if tokens == 0:
            return f"{self.kind} tokens" if self.kind == "all" else "last token"
        return f"all {tokens} tokens" if self.kind == "all" else f"last token ({tokens - 1})"

    def following(self) -> "TokenScope":
        """Return the next kind: all, last, one."""
        kinds: dict[str, Literal["all", "last", "one"]] = {"all": "last", "last": "one", "one": "all"}
        return self._replace(kind=kinds[self.kind])

    def shifted(self, by: int, tokens: int) -> "TokenScope":
        """Return one token, `by` positions further than the one shown; the end of the run is where "last" stands."""
        start = tokens - 1 if self.kind == "last" else self.position
        position = start + by if self.kind != "all" else start
        return TokenScope("one", min(max(position, 0), max(tokens - 1, 0)))


class View(NamedTuple):
    """The user's view of the map.

    transposed : stages as rows; None leaves it to the size of the terminal. aspect : the difference as observed, or
    one of the figures that take running every stage again, a key of ASPECTS.
    """

    metric: str = OPENING_METRIC
    tokens: TokenScope = TokenScope()
    cursor: Site = FIRST_SITE
    transposed: bool | None = None
    filter: str = ""
    aspect: str = OBSERVED

    def to_json(self) -> dict[str, Any]:
        """Return the view as JSON values."""
        scope = self.tokens
        return {
            "metric": self.metric,
            "tokens": scope.position if scope.kind == "one" else scope.kind,
            "cursor": list(self.cursor),
            "transposed": self.transposed,
            "filter": self.filter,
            "aspect": self.aspect,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "View":
        """Rebuild a view; a part that is missing or that nobody can have saved is as in a new session."""
        new = cls()
        metric, tokens, transposed = (record.get(name) for name in ("metric", "tokens", "transposed"))
        words, aspect = record.get("filter"), record.get("aspect")
        return cls(
            metric=metric if isinstance(metric, str) and metric in METRICS else new.metric,
            tokens=_scope(tokens),
            cursor=_site(record.get("cursor")),
            transposed=transposed if isinstance(transposed, bool) else None,
            filter=words if isinstance(words, str) and not filter_problem(words) else "",
            aspect=aspect if isinstance(aspect, str) and aspect in ASPECTS else OBSERVED,
        )


def _scope(value: object) -> TokenScope:
    if value == "last":
        return TokenScope("last")
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return TokenScope("one", value)
    return TokenScope()


def _site(value: object) -> Site:
    match value:
        case [None, str(stage)] if stage in FIRST_STAGES + LAST_STAGES:
            return Site(None, stage)
        case [int(layer), str(stage)] if layer >= 0 and in_layers(stage):
            return Site(layer, stage)
    return FIRST_SITE


def filter_problem(text: str) -> str:
    """Say in a sentence what is wrong with a filter, or return an empty string."""
    for word in text.split():
        if not _LAYERS.fullmatch(word) and not any(word in stage for stage in all_stages()):
            return f"No stage is named like {word!r}; write parts of stage names, layers, or both: ffn 3-7"
    return ""


def filtered(text: str, layers: int, inner: Sequence[str] = SPINE) -> tuple[list[str], list[int]]:
    """Stages and layers that a filter leaves: any of its stage words, any of its layers ("3", "3-7").

    inner : the stages that a layer has.

    Layers alone leave out the stages that belong to no layer.
    """
    words = text.split()
    ranges = [match for word in words if (match := _LAYERS.fullmatch(word))]
    names = [word for word in words if not _LAYERS.fullmatch(word)]
    every = [*FIRST_STAGES, *inner, *LAST_STAGES]
    stages = [stage for stage in every if any(name in stage for name in names)]
    kept = {n for match in ranges for n in range(int(match[1]), int(match[2] or match[1]) + 1)}
    if not names:
        stages = list(inner) if ranges else every
    return stages, [layer for layer in range(layers) if layer in kept or not ranges]
