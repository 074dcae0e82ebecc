"""8-bit floats or integers times a scale of the tensor, of every row, or of every tile of rows by columns."""

from functools import partial

import numpy as np

from kernels.packed.codes import as_bytes
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from store.files.packed.module import Layout, Module, Opened

CODES = ("F8_E4M3", "F8_E5M2", "I8")
_SCALES = ("F64", "F32", "F16", "BF16", "F8_E8M0", "U8")


def scaled(module: Module, scale: str, tile: tuple[int, int] | None, kept: str | None, called: str) -> Layout:
    """The layout of `weight` beside a scale that multiplies it.

    scale : the part that holds it: one number, one for every row, or one for every tile; `tile` rows and columns share
    it, and the last ones of a row or column may be fewer. kept : the type of the product; None for that of the scale.
    """
    weight, factor = module.need("weight", CODES, axes=2), module.scale(scale, _SCALES)
    rows, columns = weight.shape
    tall, wide = tile or (1, columns)
    across = -(-columns // wide)
    if factor.shape in ((), (1,), (1, 1)):
        tall, wide, across, what = rows, columns, 1, "a scale of the tensor"
    elif factor.shape in ((rows,), (rows, 1)) and across == 1:
        tall, what = 1, "scales of rows"
    else:
        module.must_be(scale, (-(-rows // tall), across))
        what = f"scales of {tall}×{wide}"
    kind, name = weight.type.name, f"{called} {weight.type.name}, {what}"
    type = "F8_E8M0" if factor.type.name == "U8" else factor.type.name

    def make(opened: Opened) -> Packed:
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(as_bytes, opened.array("weight").view(np.uint8)),
            levels=levels(kind),
            scales=opened.grid(scale, (-(-rows // tall), across), tall, type),
            groups=np.arange(columns) // wide,
            zeros=zeros(opened),
            kept=kept or ("BF16" if type == "F8_E8M0" else type),
        )

    def zeros(opened: Opened) -> Grid | None:
        if "weight_zero_point" not in opened:
            return None
        return opened.grid("weight_zero_point", (-(-rows // tall), across), tall)

    if "weight_zero_point" in module.parts:
        module.need("weight_zero_point", ("I8",))
        module.must_be("weight_zero_point", factor.shape)
    return Layout(name, (rows, columns), make)
