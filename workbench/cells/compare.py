"""Comparing two traces, stage by stage, and refusing what cannot be compared."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.experts import PAIRS
from kernels.kinds.choice import Experts
from kernels.matmul.activations import Codes
from kernels.measures import COL
from kernels.metrics import gap_percentiles, logit_agreement, profile, profile_and_percentiles
from kernels.stages import LAST_STAGES, Site
from workbench.cells.cell import Cell
from workbench.cells.elements import Element, worst_elements
from workbench.cells.flips import flips
from workbench.cells.routing import Common


class PopulationError(WorkbenchError, ValueError):
    """Two runs that do not hold the same tokens, positions or channels."""


@dataclass(frozen=True, slots=True, eq=False)
class StageTensor:
    """One stage of one side: values (tokens, channels) and the token position of every row.

    positions is None when the rows are fewer than the tokens and the source does not say which they are.
    codes : what the run's next matmul makes of the values, where it rounds them to 8 bits.
    experts : (tokens, used), of a stage whose rows have a run of channels for each expert of the token, in that order.
    """

    site: Site
    values: NDArray[np.floating]
    positions: tuple[int, ...] | None
    codes: Codes | None = None
    experts: Experts | None = None


def require_same_tokens(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Raise PopulationError, saying how they differ, unless both sides saw the same token ids."""
    if a == b:
        return
    if len(a) != len(b):
        how = f"A has {len(a)} tokens and B has {len(b)}"
    else:
        first = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        how = f"token {first} is {a[first]} in A and {b[first]} in B"
    raise PopulationError(f"the two runs saw different tokens ({how}); run both sides on the same --tokens")


def compare_streams(
    a: Iterable[StageTensor],
    b: Iterable[StageTensor],
    sites: Sequence[Site],
    absent: Callable[[str, Site], bool],
    worst: bool = False,
) -> Iterator[Cell]:
    """Cells in execution order from two streams of stage tensors in execution order.

    Both streams are drawn in step, so that two forwards can run side by side with one stage of each in memory.
    sites : what there can be on either side, in execution order. absent(side, site) : whether the model of side "a" or
    "b" has no such stage; a stage that is missing for any other reason is unmeasured. worst : whether cells keep the
    elements that differ most.
    """
    streams = {"a": iter(a), "b": iter(b)}
    waiting = {side: next(stream, None) for side, stream in streams.items()}
    one_model = True  # as far as the channels tell that came by
    for site in sites:
        here: dict[str, StageTensor | None] = {}
        for side, stream in streams.items():
            tensor = waiting[side]
            here[side] = tensor if tensor is not None and tensor.site == site else None
            if here[side] is not None:
                waiting[side] = next(stream, None)
        yield compare_stage(site, here["a"], here["b"], partial(_at_site, absent, site), one_model, worst)
        if (x := here["a"]) is not None and (y := here["b"]) is not None:
            one_model &= x.values.shape[1] == y.values.shape[1]


def _at_site(absent: Callable[[str, Site], bool], site: Site, side: str) -> bool:
    return absent(side, site)


def compare_stage(
    site: Site,
    a: StageTensor | None,
    b: StageTensor | None,
    absent: Callable[[str], bool],
    one_model: bool = True,
    worst: bool = False,
) -> Cell:
    """The cell of one stage; never numbers for unlike populations.

    one_model : logits of unlike vocabularies are compared over the tokens that both have, as one side is padded.
    worst : whether the cell keeps the elements that differ most.
    """
    if a is None or b is None:
        return _missing(site, a, b, absent)
    note = None
    if one_model:
        a, b, note = _of_common_vocabulary(a, b)
    difference = _population_difference(a, b)
    if difference or a.positions is None:
        return Cell(site, "uncomparable", difference or "rows without known token positions on both sides")
    values_a, values_b = (np.asarray(side.values, dtype=np.float32) for side in (a, b))
    if site.stage in PAIRS:
        if a.experts is None or b.experts is None or a.experts.shape != b.experts.shape:
            return Cell(site, "uncomparable", "which experts its channels belong to is not known on both sides")
        common = Common.of(a.experts, b.experts)
        if not common.whole:
            return _of_common_pairs(site, a, values_b, common, worst)
    cell_profile, percentiles = profile_and_percentiles(values_a, values_b)
    same = bool(cell_profile[:, COL.same_bits].sum() == values_a.size)
    return Cell(
        site,
        "identical" if same else "ok",
        note,
        shape=(values_a.shape[0], values_a.shape[1]),
        profile=cell_profile,
        positions=a.positions,
        logits=logit_agreement(values_a, values_b) if site.stage == LAST_STAGES[-1] else None,
        flipped=flips(a.codes, b.codes, values_a, values_b),
        percentiles={} if same else percentiles,
        worst=() if same or not worst else worst_elements(values_a, values_b, a.positions),
    )


def _of_common_pairs(site: Site, a: StageTensor, b: NDArray[np.float32], common: Common, worst: bool) -> Cell:
    """The cell of the pairs of a token and an expert that both sides have; tokens without any are left out."""
    assert a.positions is not None
    counts, (tokens, used), size = common.there.sum(axis=1), common.places.shape, b.shape[1] // common.places.shape[1]
    kept = np.flatnonzero(counts)
    if not kept.size:
        return Cell(site, "uncomparable", f"{common.words}, which are all")
    runs = np.argsort(~common.there, axis=1, kind="stable")  # of each token, those in common first
    sides = [
        np.take_along_axis(side.reshape(tokens, used, size), runs[:, :, None], axis=1)
        for side in (np.asarray(a.values, dtype=np.float32), common.of_b(b, 0.0))
    ]
    found = np.empty((tokens, len(COL)))
    for count in np.unique(counts[kept]).tolist():
        rows = np.flatnonzero(counts == count)
        part = profile(*(np.ascontiguousarray(side[rows, :count]).reshape(len(rows), -1) for side in sides))
        run, channel = np.divmod(part[:, COL.max_channel].astype(np.int64), size)
        part[:, COL.max_channel] = runs[rows, run] * size + channel
        found[rows] = part
    in_common = np.take_along_axis(common.there, runs, axis=1)
    flat = [np.ascontiguousarray(side[in_common].reshape(1, -1)) for side in sides]
    same = bool(found[kept, COL.same_bits].sum() == flat[0].size)
    return Cell(
        site,
        "identical" if same else "ok",
        common.words,
        shape=(len(kept), b.shape[1]),
        profile=found[kept],
        positions=tuple(a.positions[row] for row in kept.tolist()),
        percentiles={} if same else gap_percentiles(flat[0], flat[1]),
        worst=() if same or not worst else _worst_of_pairs(a, b, common),
    )


def _worst_of_pairs(a: StageTensor, b: NDArray[np.float32], common: Common) -> tuple[Element, ...]:
    """The elements that differ most, in A's order of experts; a pair that one side alone has differs in none."""
    assert a.positions is not None
    there = np.repeat(common.there, b.shape[1] // common.places.shape[1], axis=1)
    of_a, of_b = (np.where(there, side, 0).astype(np.float32) for side in (a.values, common.of_b(b, 0.0)))
    return worst_elements(of_a, of_b, a.positions)


def _of_common_vocabulary(a: StageTensor, b: StageTensor) -> tuple[StageTensor, StageTensor, str | None]:
    """Logits of unlike vocabularies over the tokens that both have, and a note that says so."""
    sizes = a.values.shape[1], b.values.shape[1]
    if a.site.stage != LAST_STAGES[-1] or sizes[0] == sizes[1]:
        return a, b, None
    common = min(sizes)
    first, second = (replace(side, values=np.ascontiguousarray(side.values[:, :common])) for side in (a, b))
    return first, second, f"A has {sizes[0]} tokens and B {sizes[1]}; the first {common} were compared"


def _missing(site: Site, a: StageTensor | None, b: StageTensor | None, absent: Callable[[str], bool]) -> Cell:
    gone = [side for side, tensor in (("a", a), ("b", b)) if tensor is None]
    words = {side: "does not have this stage" if absent(side) else "was not captured here" for side in gone}
    note = "; ".join(f"{side.upper()} {why}" for side, why in words.items())
    if all(absent(side) for side in gone):
        return Cell(site, "absent" if len(gone) == 2 else "uncomparable", note)
    return Cell(site, "unmeasured", note)


def _population_difference(a: StageTensor, b: StageTensor) -> str:
    """How the populations of two stage tensors differ, in words; empty if they are alike."""
    rows_a, rows_b = a.values.shape[0], b.values.shape[0]
    if a.values.shape[1] != b.values.shape[1]:
        return f"A has {a.values.shape[1]} channels, B has {b.values.shape[1]}"
    if a.positions != b.positions or rows_a != rows_b:
        return f"A holds {_rows(a)}, B holds {_rows(b)}; align both to the last token to compare"
    return ""


def _rows(tensor: StageTensor) -> str:
    rows = tensor.values.shape[0]
    if tensor.positions is None:
        return f"{rows} row{'s' if rows > 1 else ''} of unrecorded token position"
    if tensor.positions == tuple(range(rows)):
        return f"all {rows} tokens"
    return f"the tokens at positions {', '.join(map(str, tensor.positions))}"


def align_last(tensor: StageTensor, tokens: int) -> StageTensor:
    """The last row only; where the source does not record positions, it is taken for the last of `tokens` tokens."""
    last = tokens - 1 if tensor.positions is None else tensor.positions[-1]
    experts = None if tensor.experts is None else tensor.experts[-1:]
    return StageTensor(tensor.site, tensor.values[-1:], (last,), experts=experts)
