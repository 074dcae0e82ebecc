"""Blocks of any format made of numbers: the layout of the format turned round, one bit of a block after the other.

`quantize` is no quantizer of any engine: every group gets the scale of its largest value, a block of signs the mean, as
everywhere, and every value the nearest code. It does for whoever needs a copy as a converter might make it, or a
damaged one.
"""

from functools import cache
from itertools import product

import numpy as np

from kernels.formats.format import EIGHT_UNIT
from kernels.rows.fields import codes, fields


def quantize(values, format):
    """uint8 rows of a float matrix whose rows are whole blocks."""
    blocks = np.asarray(values, np.float64).reshape(-1, format.block.elements)
    groups = blocks.reshape(len(blocks), max(1, format.groups), -1)
    low, high = np.minimum(groups.min(axis=2), 0), groups.max(axis=2)
    numbers = {}
    if format.dmin is not None:
        scale = (np.maximum(high, 0) - low) / format.top
        numbers[format.dmin], mins = _shared(-low, format.largest_scale)
    else:
        extreme = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
        furthest = max(format.ends, key=abs)
        scale, mins = extreme / furthest, None
        if format.scale_of == "mean":
            scale = np.abs(groups).mean(axis=2)
    if format.d_as == "UE4M3":
        d, scales = np.full(len(blocks), EIGHT_UNIT), _eights(scale / EIGHT_UNIT)
        step = d[:, None] * scales
    elif format.groups:
        d, scales = _shared(scale, format.largest_scale)
        step = d[:, None] * scales
    else:
        d, scales = _stored(scale[:, 0], format), None
        step = d[:, None]
    if format.d_as != "UE4M3":
        numbers[format.d] = d
    offset = 0 if mins is None else (numbers[format.dmin][:, None] * mins)[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.where(step[:, :, None] == 0, 0, (groups + offset) / step[:, :, None])
    levels = np.array(sorted(set(format.levels)) or range(-format.zero, format.top - format.zero + 1))
    nearest = levels[np.abs(wanted[..., None] - levels).argmin(axis=3)].reshape(blocks.shape)
    return packed(format, numbers, nearest + format.zero, scales, mins).reshape(len(values), -1)


def _eights(scale):
    """The nearest of what floats of 8 bits stand for."""
    known = np.array([*range(8), *(m << e for e in range(15) for m in range(8, 16 - (e == 14)))])
    return known[np.abs(np.abs(scale)[:, :, None] - known).argmin(axis=2)]


def _stored(d, format):
    """The nearest number that the format can keep; of powers of two, one that cuts nothing off."""
    if format.d_as == "E8M0":
        return np.exp2(np.ceil(np.log2(np.maximum(np.abs(d), 2.0**-100))))
    return d.astype(np.float16).astype(np.float64)


def _shared(scale, largest):
    """Half-precision unit of every block (blocks,) and integer multiples of it (blocks, groups)."""
    top = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)[:, 0]
    unit = (np.abs(top) / (largest - (scale.min() < 0))).astype(np.float16).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return unit, np.where(unit[:, None] == 0, 0, np.round(scale / unit[:, None])).astype(int)


def packed(format, numbers, of_elements, scales=None, mins=None):
    """uint8 (blocks, bytes) with floats at byte offsets, and the integers where the format has them."""
    blocks = np.zeros((len(of_elements), format.block.bytes), np.uint8)
    bits = np.unpackbits(blocks, axis=1, bitorder="little")
    for what, wanted in (("codes", of_elements), ("scales", scales), ("mins", mins)):
        if wanted is not None:
            for n, known in enumerate(_places(format)[what]):
                for code, place, values in known:
                    bits[np.ix_(wanted[:, n] == code, place)] = values
    blocks = np.packbits(bits, axis=1, bitorder="little")
    for at, number in numbers.items():
        if format.d_as == "E8M0" and at == format.d:
            blocks[:, at] = np.log2(number) + 128
        else:
            blocks[:, at : at + 2] = number.astype(np.float16)[:, None].view(np.uint8)
    return blocks


@cache
def _places(format):
    """For codes, scales and mins: of every integer each value with the bits of the block that stand for it."""
    size = 8 * format.block.bytes
    empty = np.zeros((1, format.block.bytes), np.uint8)
    full = np.full((1, format.block.bytes), 255, np.uint8)
    single = np.packbits(np.eye(size, dtype=np.uint8), axis=1, bitorder="little")
    read = {
        "codes": lambda blocks: codes(format, blocks),
        "scales": lambda blocks: fields(format, blocks).scales,
        "mins": lambda blocks: fields(format, blocks).mins,
    }
    return {
        what: _values(look, (look(single) != look(empty)) | (look(full ^ single) != look(full)), size)
        for what, look in read.items()
    }


def _values(look, depends, size):
    found = []
    for n in range(depends.shape[1]):
        bits = np.flatnonzero(depends[:, n])
        choices = np.array(list(product((0, 1), repeat=len(bits))), np.uint8)
        blocks = np.zeros((len(choices), size), np.uint8)
        blocks[:, bits] = choices
        integers = look(np.packbits(blocks, axis=1, bitorder="little"))[:, n]
        found.append([(int(code), bits, values) for code, values in zip(integers, choices, strict=True)])
    return found
