"""One element of a matmul stage, down to the bytes: which blocks of which weight row made it, and how.

The dot product is computed again from the raw bytes, in plain NumPy and in the very order of the engine's own kernel
(kernels/matmul/packed_dot.py, kernels/matmul/float_dot.py): it is the stored value, bit for bit, but for float64 and
what ggml sums by other routines for several tokens: rows of floats, and its settings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.formats.format import SHIFT, BlockFormat, Format
from kernels.graph import Model, Stage
from kernels.kinds.product import Product
from kernels.matmul.float_dot import APR, FLOAT32, Scheme
from kernels.models import Graph
from kernels.packed.packed import Packed
from kernels.paths import AprPath, F32Path, GgmlPath
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.artifact import Artifact
from store.names import EMBEDDING, LM_HEAD
from workbench.bisect.weights.blocks import Block, read_block, read_parts

SUPER_BLOCK = 256  # values in a term of a float row, whose format has no blocks

Lanes = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """What one block of the row adds to the sum.

    offset : of the block in `Element.file`, in bytes; None for a model that lies in no file.
    x : the activations that the block meets, float32: before rounding to 8 bits, but after any other rounding.
    codes, scales : the same as 8-bit codes and the scales of their parts; None where the path keeps floats.
    total : their sum, where the rule keeps it.
    partial : the block's part of the sum, float64.
    """

    block: Block
    offset: int | None
    x: NDArray[np.floating]
    codes: NDArray[np.int8] | None
    scales: NDArray[np.float32] | None
    total: np.float32 | None
    partial: float


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """One element of a matmul stage and everything it was made of.

    row : of the tensor in canonical order. stored_row : the same row as the file orders them.
    rule : how activations are rounded to 8 bits, or None.
    bias : what is added after the dot product, or None.
    value : computed again, bias included. exact_order : whether that followed the engine's order of sums, so that it
    must be the stored value, bit for bit; elsewhere it is the float64 sum.
    """

    tensor: str
    stored_as: TensorType | str
    row: int
    stored_row: int
    file: Path | None
    rule: str | None
    terms: tuple[Term, ...]
    bias: np.float32 | None
    value: np.floating
    exact_order: bool


def element(model: Model, path: F32Path, site: Site, x: NDArray[np.floating], channel: int) -> Element:
    """Explain channel `channel` of one token of a matmul stage.

    x : (in,) the token's values of what the stage reads.
    Raises WorkbenchError for a stage that is no product with a weight, or a channel that it does not have, and where
    the product is multiplied or bounded.
    """
    graph = Graph.of(model)
    stage = graph.stage(site)
    if stage is None or not isinstance(stage.kind, Product):
        products = dict.fromkeys(other.site.stage for other in graph.stages() if isinstance(other.kind, Product))
        raise WorkbenchError(f"{site} is no product with a weight; choose one of {', '.join(products)}")
    if stage.scales or stage.kind.times != 1 or stage.kind.cap is not None:
        raise WorkbenchError(
            f"the product of {site} is multiplied by a factor or kept below a bound, which is not taken apart; choose "
            "another stage"
        )
    weight, row = _row_of(model, stage, channel)
    one = Weight(weight.name, weight.type, (1, weight.shape[1]), np.ascontiguousarray(weight.rows[row : row + 1]))
    file, stored_row, start = _place(model, weight, row)
    x = np.ascontiguousarray(x, dtype=path.dtype).reshape(1, -1)
    if isinstance(weight.stored, Packed):
        rule, terms = None, tuple(_terms_of_parts(weight.stored, row, x[0]))
    else:
        rule, terms = _terms(one, path, x, start)
    value: np.floating
    exact_order = _is_followed(path, rule)
    if rule is not None:
        value = _packed_dot(one.type.format, terms)
    elif exact_order:
        value = _lane_dot(APR if isinstance(path, AprPath) else FLOAT32, terms)
    else:
        value = np.float64(sum(term.partial for term in terms))
    bias = _bias(model, stage, channel)
    value = value if bias is None else value + bias
    return Element(weight.name, weight.stored_as, row, stored_row, file, rule, terms, bias, value, exact_order)


def _is_followed(path: F32Path, rule: str | None) -> bool:
    """Whether sums here go in the order of the path. rule : of 8-bit activations, None for rows of floats."""
    if isinstance(path, GgmlPath):
        return rule is not None and not (path.how.repack or path.how.tiled)
    return path.dtype == np.float32


def _row_of(model: Model, stage: Stage, channel: int) -> tuple[Weight, int]:
    """The tensor and the row behind a channel; the channels of q, k and v follow each other."""
    first = 0
    for name in stage.weights:
        weight = model.weight(name)
        if first <= channel < first + weight.shape[0]:
            return weight, channel - first
        first += weight.shape[0]
    raise WorkbenchError(f"{stage.site} has no channel {channel}; give one from 0 to {first - 1}")


def _place(model: Model, weight: Weight, row: int) -> tuple[Path | None, int, int | None]:
    """File of a row, its number there, and the offset of its first byte."""
    if not isinstance(model, Artifact):
        return None, row, None
    name = EMBEDDING if weight.name == LM_HEAD and LM_HEAD not in model.tensors else weight.name
    stored = row
    if (order := model.row_order(name)) is not None:
        stored = int(order[row])
    info = model.tensors[name]
    stored = info.place(stored)
    if info.packing is not None:
        return info.file, info.packing.first + stored, None
    return info.file, stored, None if info.encoding else info.offset + stored * weight.rows.shape[1]


def _terms(
    row: Weight, path: F32Path, x: NDArray[np.floating], start: int | None
) -> tuple[str | None, tuple[Term, ...]]:
    """The rule of 8-bit activations, if any, and the terms of a row (1, in) times x (1, in)."""
    elements, size = row.type.block
    if elements == 1:
        elements, size = SUPER_BLOCK, SUPER_BLOCK * size
    raw, rounded = row.rows[0].tobytes(), path.round_activations(x, row)
    kept = path.kept_activations(x, row)[0] if rounded is None else x[0]
    terms = []
    for n in range(-(-len(raw) // size)):
        block = read_block(row.type, raw[n * size : (n + 1) * size])
        here, offset = slice(n * elements, (n + 1) * elements), None if start is None else start + n * size
        weights = block.values.astype(np.float64)
        if rounded is None:
            terms.append(Term(block, offset, kept[here], None, None, None, float(kept[here] @ weights)))
            continue
        several = elements * rounded.scales.shape[1] // rounded.codes.shape[1]
        codes, scales = rounded.codes[0, here], rounded.scales[0, n * several : (n + 1) * several]
        total, values = None if rounded.sums is None else np.float32(rounded.sums[0, n]), _values(codes, scales)
        partial = float(values @ weights)
        if block.least is not None and total is not None:
            partial = float(values @ (weights - block.least)) + float(block.least) * float(total)
        terms.append(Term(block, offset, kept[here], codes, scales, total, partial))
    return None if rounded is None else rounded.rule, tuple(terms)


def _terms_of_parts(packed: Packed, row: int, x: NDArray[np.floating]) -> Iterator[Term]:
    """The terms of a row that is stored in parts, times x (in,)."""
    start = 0
    for block in read_parts(packed, row, SUPER_BLOCK):
        here = slice(start, start + block.values.size)
        yield Term(block, None, x[here], None, None, None, float(x[here] @ block.values.astype(np.float64)))
        start = here.stop


def _bias(model: Model, stage: Stage, channel: int) -> np.float32 | None:
    if not stage.biases:
        return None
    return np.float32(np.concatenate([dequantize(model.weight(name)) for name in stage.biases])[channel])


def _values(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(codes * np.repeat(scales.astype(np.float64), codes.size // scales.size))


def _packed_dot(format: Format, terms: Sequence[Term]) -> np.float32:
    """Add up quantized blocks in the order of `kernels.matmul.packed_dot`."""
    assert isinstance(format, BlockFormat)
    turns, least = np.zeros((format.dot.turns, 8), np.float32), np.zeros(8, np.float32)
    in_turns = len(terms) // format.dot.turns * format.dot.turns
    for n, term in enumerate(terms[:in_turns]):
        _add_block(format, term, turns[n % format.dot.turns], least)
    acc = reduce(np.add, turns)
    four, least = acc[4:] + acc[:4], least[4:] + least[:4]
    two = four[:2] + four[2:]
    result = np.float32(two[0] + two[1] + ((least[0] + least[2]) + (least[1] + least[3])))
    for term in terms[in_turns:]:
        total = lane_sums(format, term).sum(keepdims=True).astype(np.float32)
        result = fma(_scale(term), total, np.array([result]))[0]
    return result


def _add_block(format: BlockFormat, term: Term, acc: Lanes, least: Lanes) -> None:
    """Add a block to the sums of its turn, eight lanes, and to those of what is taken off, as many or fewer."""
    block, within = term.block, format.dot.within
    assert term.scales is not None
    assert block.d is not None
    if within == "halves":
        scales = np.repeat(block.d * block.scales.astype(np.float32), 4).reshape(-1, 8)
        for scale, own, lanes in zip(term.scales, scales, _products(format, term), strict=True):
            acc[:] = fma(scale * own, lanes.astype(np.float32), acc)
        return
    if within:
        lanes = _products(format, term)
        sums, lanes = (least[:1], np.asarray(lanes.sum(axis=1, keepdims=True))) if within == "one" else (acc, lanes)
        part = np.zeros(sums.size, np.float32)
        for scale, each in zip(term.scales, lanes.astype(np.float32), strict=True):
            part = fma(scale, each, part)
        sums[:] = fma(block.d, part, sums)
        return
    if format.dot.mins in ("first", "lanes", "one", "eights"):
        dmin, added = _mins(format, term)
        sums = acc if format.dot.mins == "first" else least[: added.size]
        sums[:] = fma(-(term.scales[0] * dmin), added, sums)
    acc[:] = fma(_scale(term), lane_sums(format, term).astype(np.float32), acc)
    if block.least is not None and term.total is not None:
        least[:1] = fma(block.least, np.array([term.total]), least[:1])


def _products(format: BlockFormat, term: Term) -> NDArray[np.int64]:
    """Sums of four neighbouring products of codes, (groups of 32 elements, 8 lanes)."""
    assert term.codes is not None
    zero = 0 if format.dot.mins == "offset" else term.block.zero  # or it is taken off all products of a scale at once
    products = (term.block.codes - zero) * term.codes.astype(np.int64)
    return np.asarray(products.reshape(-1, 8, 4).sum(axis=2))


def lane_sums(format: BlockFormat, term: Term) -> NDArray[np.int64]:
    """The eight integer sums of a quantized block: lane l owns elements 4l to 4l+3 of every 32."""
    assert term.codes is not None
    block, fours = term.block, _products(format, term)
    lanes = (fours * np.repeat(block.scales, fours.size // block.scales.size).reshape(fours.shape)).sum(axis=0)
    if format.dot.mins == "offset":
        sums = term.codes.astype(np.int64).reshape(16, 16).sum(axis=1)
        lanes = lanes - block.zero * (block.scales * sums).reshape(8, 2).sum(axis=1)
    return np.asarray(lanes)


def _scale(term: Term) -> np.float32:
    assert term.scales is not None
    assert term.block.d is not None
    return np.float32(term.scales[0] * term.block.d)


def _mins(format: BlockFormat, term: Term) -> tuple[np.float32, Lanes]:
    """The unit of the mins, and what they take off in it, in as many sums as the format has for it."""
    block = term.block
    assert term.codes is not None
    assert block.d is not None
    dmin, mins = block.dmin, block.mins
    if dmin is None:
        repeated = np.repeat(block.scales, block.shifts.size // block.scales.size)
        dmin, mins = np.float32(block.d * SHIFT), np.where(block.shifts < 0, repeated, -repeated)
    sums = term.codes.astype(np.int64).reshape(mins.size, -1)
    if format.dot.mins == "eights":
        added = (mins[:, None] * sums.reshape(mins.size, 2, 4).sum(axis=2)).reshape(-1, 8).sum(axis=0)
    else:
        added = (mins * sums.sum(axis=1)).reshape(-1, 2).sum(axis=1)
    return dmin, np.asarray(added.sum(keepdims=True) if format.dot.mins == "one" else added, np.float32)


def _lane_dot(scheme: Scheme, terms: Sequence[Term]) -> np.float32:
    """Add up float products in the order of `kernels.matmul.float_dot`."""
    x = np.concatenate([term.x for term in terms])
    w = np.concatenate([term.block.values for term in terms])
    acc, whole = np.zeros(scheme.chains, np.float32), x.size // scheme.chains * scheme.chains
    for n in range(0, whole, scheme.chains):
        acc = fma(x[n : n + scheme.chains], w[n : n + scheme.chains], acc)
    acc = acc[: acc.size // 2] + acc[acc.size // 2 :]
    while acc.size > 1:
        acc = acc[::2] + acc[1::2]
    total = acc[0]
    for n in range(whole, x.size):
        total += x[n] * w[n]
    return np.float32(total)


def fma(a: Lanes | np.float32, b: Lanes, c: Lanes) -> Lanes:
    """a*b + c in float32, rounded once.

    The product is exact in float64; the sum is rounded there to odd, after which rounding to float32 cannot go wrong
    (Boldo and Melquiond 2008).
    """
    product, wide = np.asarray(a, np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + wide
    back = total - product
    lost = (product - (total - back)) + (wide - back)  # exact (Knuth)
    even = (total.view(np.int64) & 1) == 0
    odd = np.where(even & (lost != 0), np.nextafter(total, np.where(lost > 0, np.inf, -np.inf)), total)
    result: Lanes = odd.astype(np.float32)
    return result
