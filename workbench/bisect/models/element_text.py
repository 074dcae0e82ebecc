"""One element of a product with a weight, down to the bytes of both sides, in words."""

from collections.abc import Iterator

import numpy as np

from kernels.errors import WorkbenchError
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from store.artifact import Artifact
from store.text import printable
from store.traces.run import RunRecord
from store.traces.trace import Trace
from workbench.bisect.models.element import Element, Term, element
from workbench.pair.recorded import of_other_engine
from workbench.pair.sources import open_model, open_tensors
from workbench.session.session import Session

_PER_LINE = 16
_LAST_BITS = 2.0**-20  # of the sum of magnitudes, that another order of sums may change


def element_text(session: Session, site: Site, token: int, channel: int) -> Iterator[str]:
    """Explain an element of a session's stored stage `site` on both sides, from the bytes of its weight row.

    Raises WorkbenchError for a stage that is no product with a weight, and where a model or a tensor is gone.
    """
    tensors = open_tensors(session)
    graph = Graph(tensors.a.run.config)
    stage = graph.stage(site)
    if stage is None or not isinstance(stage.kind, Product):
        raise WorkbenchError(_where_to_go(graph, site))
    yield f"{site}, token {token}, channel {channel}"
    sides = session.spec.a, session.spec.b
    traces = tensors.a, tensors.b
    for name, side, other, trace in zip("AB", sides, reversed(sides), traces, strict=True):
        yield ""
        if of_other_engine(trace.run):
            yield f"{name}  a trace of {printable(trace.run.format, 40)}, with the weights of the model beside it"
            name, side = " ", other
        yield from _side(name, open_model(side), trace, site, token, channel)


def _where_to_go(graph: Graph, site: Site) -> str:
    """Name the product that a stage was made of."""
    stage, here = graph.stage(site), site
    while stage is not None and stage.reads and not isinstance(stage.kind, Product):
        here = list(graph.reads(stage).values())[-1]
        stage = graph.stage(here)
    if stage is None or not isinstance(stage.kind, Product):
        return f"{site} is made of rows of the embedding and of no product; w shows its weights."
    where = f"{here.stage} of the last layer" if site.layer is None and here.layer is not None else str(here)
    return f"{site} is no product with a weight; go to {where}, which it was made of."


def _row(trace: Trace, site: Site, token: int) -> np.ndarray:
    """The stored values of one token, (channels,)."""
    positions = trace.positions(site) if trace.status(site) == "ok" else None
    if positions is None or token not in positions:
        raise WorkbenchError(f"token {token} of {site} is not stored; choose another one")
    return np.asarray(trace.read(site)[positions.index(token)])


def _side(name: str, model: Artifact, trace: Trace, site: Site, token: int, channel: int) -> Iterator[str]:
    run = trace.run
    graph = Graph.of(model)
    stage = graph.stage(site)
    if stage is None:
        raise WorkbenchError(f"{name} has no stage {site}; choose another one")
    x = _row(trace, graph.reads(stage)["x"], token)
    stored = np.float32(_row(trace, site, token)[channel])
    found = element(model, numeric_path(run.numeric_path), site, x, channel)
    again = np.float32(found.value)
    yield f"{name}  {printable(found.tensor)}  {_layout(found)}  row {found.row}" + _as_stored(found)
    rule = "kept as floats" if found.rule is None else f"rounded to 8 bits ({found.rule})"
    yield f"   path {run.numeric_path}, activations {rule}, blocks: {len(found.terms)}, in {_file(found)}"
    yield f"   stored      {stored:<16.9g} {stored.view(np.uint32):08x}"
    yield f"   recomputed  {again:<16.9g} {again.view(np.uint32):08x}  {_agreement(found, again, stored, run)}"
    if found.bias is not None:
        yield f"   bias        {found.bias:<16.9g} added after the product"
    for n, term in enumerate(found.terms):
        yield from _term(n, term)


def _agreement(found: Element, again: np.float32, stored: np.float32, run: RunRecord) -> str:
    if again.view(np.uint32) == stored.view(np.uint32):
        return "equal, bit for bit"
    close = abs(float(again) - float(stored)) <= _LAST_BITS * sum(abs(term.partial) for term in found.terms)
    if close and of_other_engine(run):
        return "equal but for the last bits: another order of sums"
    return "NOT EQUAL" if found.exact_order else "the sum is in another order: the last bits may differ"


def _layout(found: Element) -> str:
    return found.stored_as if isinstance(found.stored_as, str) else found.stored_as.name


def _as_stored(found: Element) -> str:
    return "" if found.stored_row == found.row else f" (row {found.stored_row} in the file)"


def _file(found: Element) -> str:
    return "memory" if found.file is None else printable(found.file.name, 40)


def _term(number: int, term: Term) -> Iterator[str]:
    block = term.block
    place = "" if term.offset is None else f" at byte {term.offset}"
    size = f"{len(block.raw)} bytes" if block.raw else f"{block.codes.size} codes stored in parts"
    yield f"   block {number}{place}, {size}; adds {term.partial:.9g}"
    factors = [
        ("d", block.d),
        ("zero point", np.float32(block.zero) if block.zero and not block.raw else None),
        ("dmin", block.dmin),
        ("least value", block.least),
    ]
    several = () if term.scales is None else term.scales
    factors += [("scale of the activations", scale) for scale in several]
    factors += [("sum of the activations", term.total)]
    known = [f"{what} {value:.9g}" for what, value in factors if value is not None]
    if known:
        yield f"     {', '.join(known)}"
    for what, numbers in (("scales", block.scales), ("mins", block.mins)):
        if numbers.size > 1:
            yield f"     {what:<6} {' '.join(f'{number:.6g}' for number in numbers.tolist())}"
    if block.shifts.size:
        yield f"     codes moved by {' '.join(f'{shift:g}' for shift in block.shifts.tolist())}"
    for first in range(0, block.values.size, _PER_LINE):
        yield from _values(term, slice(first, first + _PER_LINE))


def _values(term: Term, here: slice) -> Iterator[str]:
    """Weights and activations of up to 16 elements, as codes where they are codes."""
    codes, x = term.block.codes, term.codes
    for what, numbers, floats in (("w", codes, term.block.values), ("x", x, term.x)):
        if numbers is not None and numbers.size:
            yield f"   {here.start:>4} {what} {' '.join(f'{n:>3}' for n in numbers[here].tolist())}"
        else:
            for half in (slice(here.start, here.start + 8), slice(here.start + 8, here.stop)):
                yield f"   {half.start:>4} {what} {' '.join(f'{n:>8.3g}' for n in floats[half].tolist())}"
