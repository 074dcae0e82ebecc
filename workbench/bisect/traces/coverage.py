"""Which cells of a model a trace has vouched for: those recorded and checked, and those inside of checked spans."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kernels.stages import Site
from workbench.bisect.traces.span_causes import way_of
from workbench.bisect.traces.span_sight import Blur
from workbench.bisect.traces.spans import order
from workbench.bisect.traces.stages import Checked, Reader
from workbench.cells.metrics import format_value

_MOST_SENTENCES = 3


@dataclass(slots=True)
class Coverage:
    """cells : those of the model, in execution order. blurred : spans that would not show every mistake, and why."""

    reader: Reader
    cells: list[Site]
    checked: set[Site] = field(default_factory=set)
    inside: dict[Site, Site] = field(default_factory=dict)
    blurred: list[tuple[Checked, Blur]] = field(default_factory=list)

    @classmethod
    def of(cls, reader: Reader) -> "Coverage":
        """The cells that the model has, and what a trace holds beside them."""
        return cls(reader, reader.graph.sites())

    def see(self, stage: Checked) -> None:
        """Take note of a stage that was checked, and of the cells on the way to it that were not recorded."""
        self.checked.add(stage.site)
        for site in stage.span.inside:
            if self.reader.trace.status(site) != "ok":
                self.inside.setdefault(site, stage.site)

    def blur(self, stage: Checked, blur: Blur) -> None:
        """Take note of a span whose end says nothing of what is inside."""
        self.blurred.append((stage, blur))
        self.inside = {site: end for site, end in self.inside.items() if end != stage.site}

    @property
    def in_spans(self) -> int:
        """Cells that were not recorded and lie before a stage that was checked."""
        return len(self.inside.keys() & set(self.cells) - self.checked)

    @property
    def missing(self) -> list[Site]:
        """Cells of which nothing is known."""
        return [site for site in self.cells if site not in self.checked and site not in self.inside]

    def sentences(self) -> Iterator[str]:
        """What was checked through spans, and what was not; the most important comes last."""
        total, ends = len(self.cells), len(set(self.inside.values()))
        if self.in_spans:
            spans = "a span that was" if ends == 1 else f"{ends} spans that were"
            yield (
                f"{len(self.checked)} of {total} cells were recorded and checked; {self.in_spans} more lie in {spans} "
                "checked by what comes out at the end."
            )
        for stage, blur in self.blurred[_MOST_SENTENCES - 1 :: -1]:
            yield (
                f"Nothing is known {way_of(stage)}: the end is {format_value(blur.found)} of its norm off, rounding "
                f"may make {format_value(blur.floor)}, and {blur.words} would make {format_value(blur.share)}; record "
                "more stages."
            )
        if tainted := self.reader.tainted:
            yield (
                f"{len(tainted)} stages from {min(tainted, key=order)} on read NaN or infinite values, and were "
                "checked on the other tokens only."
            )
        lost = {site for stage, _ in self.blurred for site in stage.span.inside}
        runs = list(_runs(self.cells, set(self.missing) - lost))
        for first, last in runs[_MOST_SENTENCES - 1 :: -1]:
            where = f"of {first}" if first == last else f"from {first} to {last}"
            yield f"Nothing is known {where}: no later stage could be checked; record more stages."
        if self.missing:
            first = min(self.missing, key=order)
            yield f"Nothing is known of {len(self.missing)} of {total} cells, the first is {first}."


def _runs(cells: list[Site], chosen: set[Site]) -> Iterator[tuple[Site, Site]]:
    """First and last of every unbroken run of chosen cells."""
    first = last = None
    for cell in cells:
        if cell in chosen:
            first, last = first or cell, cell
        elif first is not None and last is not None:
            yield first, last
            first = None
    if first is not None and last is not None:
        yield first, last
