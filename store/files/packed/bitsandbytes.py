"""bitsandbytes: 4-bit floats (NF4, FP4) with a largest value of every block, itself quantized or not, and INT8 rows."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.packed.codes import as_bytes, high_first
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.json_text import parse_object
from store.files.packed.module import Layout, Module, Opened

_STATE = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
_OF_BLOCKS = ("weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map")
PARTS = ("weight", *_OF_BLOCKS, *_STATE, "SCB", "weight_format")
KEYS = ("weight.absmax", "SCB")
_KEPT = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_INT8 = np.float32(7.874015718698502e-3)  # 1 / 127 as bitsandbytes writes it


def layout(module: Module, config: Fields) -> Layout:
    """The layout of one weight; what its blocks are stands in a text of JSON beside them."""
    del config
    if "SCB" in module.parts:
        return _rows(module)
    state = _state(module)
    blocks, size = state.needed_integer("blocksize"), state.find("shape")[1]
    kept = _KEPT.get(state.needed_text("dtype"))
    if not isinstance(size, list) or len(size) != 2 or not all(type(x) is int and x > 0 for x in size) or kept is None:
        raise module.wrong("has a quant_state without the shape and type of a matrix")
    rows, columns = size
    count = -(-rows * columns // blocks)
    if columns % 2 or (columns % blocks and blocks % columns):
        raise module.unsupported(f"has rows of {columns} values in blocks of {blocks}, which begin within rows")
    module.need("weight", ("U8",))
    module.must_be("weight", (rows * columns // 2, 1), (1, rows * columns // 2), (rows * columns // 2,))
    nested = "weight.nested_absmax" in module.parts
    module.need("weight.absmax", ("U8",) if nested else ("F32",))
    module.must_be("weight.absmax", (count,))
    module.need("weight.quant_map", ("F32",))
    module.must_be("weight.quant_map", (16,))
    if nested:
        inner = state.needed_integer("nested_blocksize")
        module.need("weight.nested_absmax", ("F32",))
        module.must_be("weight.nested_absmax", (-(-count // inner),))
        module.need("weight.nested_quant_map", ("F32",))
        module.must_be("weight.nested_quant_map", (256,))
        offset = state.find("nested_offset")[1]
        if not isinstance(offset, int | float) or isinstance(offset, bool):
            raise module.wrong("has a quant_state without nested_offset")
    name = f"bitsandbytes {'NF4' if _STATE[0] in module.parts else 'FP4'}, blocks of {blocks}"

    def make(opened: Opened) -> Packed:
        largest = _largest(opened, state) if nested else opened.array("weight.absmax")
        tall, wide = max(1, blocks // columns), min(blocks, columns)
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(high_first, opened.array("weight").view(np.uint8).reshape(rows, columns // 2)),
            levels=np.asarray(opened.array("weight.quant_map"), np.float32),
            scales=Grid(largest.reshape(-1, columns // wide), "F32", tall),
            groups=np.arange(columns) // wide,
            kept=str(kept),
        )

    return Layout(name, (rows, columns), make)


def _state(module: Module) -> Fields:
    """What the text beside the blocks says."""
    found = [part for part in _STATE if part in module.parts]
    if len(found) != 1:
        raise module.wrong(f"has {len(found)} texts of its quant_state, where one belongs")
    text = module.read(module.need(found[0], ("U8",)))
    where = f"{module.file}: the quant_state of {module.name}"
    return Fields(where, parse_object(text, where))


def _largest(opened: Opened, state: Fields) -> NDArray[np.float32]:
    """The largest value of every block, out of its own codes."""
    codes, inner = opened.array("weight.absmax").astype(np.intp), state.needed_integer("nested_blocksize")
    outer, table = (opened.array(f"weight.nested_{part}") for part in ("absmax", "quant_map"))
    products = np.asarray(table)[codes] * np.repeat(np.asarray(outer), inner)[: codes.size]
    return np.asarray(products + np.float32(state.values["nested_offset"]), np.float32)  # type: ignore[arg-type]


def _rows(module: Module) -> Layout:
    """INT8 times the largest value of a row and 1/127, in this order."""
    weight = module.need("weight", ("I8",), 2)
    module.need("SCB", ("F32",))
    rows, columns = weight.shape
    module.must_be("SCB", (rows,), (rows, 1))
    name = "bitsandbytes INT8, scales of rows"

    def make(opened: Opened) -> Packed:
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(as_bytes, opened.array("weight").view(np.uint8)),
            levels=levels("I8"),
            scales=opened.grid("SCB", (rows, 1)),
            groups=np.zeros(columns, np.intp),
            factor=_INT8,
        )

    return Layout(name, (rows, columns), make)
