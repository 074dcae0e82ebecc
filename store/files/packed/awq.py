"""AWQ: integers of 4 bits, eight outputs in a word in an order of their own, with zero points of groups of inputs."""

from functools import partial

import numpy as np

from kernels.packed.codes import AWQ_ORDER, across_rows
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.packed.module import Layout, Module, Opened, parted

PARTS = ("qweight", "qzeros", "scales")
KEY = "qweight"
_WORDS = ("I32", "U32")
_PER_WORD = 8


def layout(module: Module, config: Fields) -> Layout:
    """The layout of one weight as AutoAWQ's `gemm` kernels read it."""
    version, bits = config.text("version") or "gemm", config.integer("bits", "w_bit")
    if version.lower() != "gemm" or bits not in (None, 4):
        raise config.unsupported(
            f"describes AWQ weights of {bits or 4} bits for {version} kernels; supported are 4 bits for gemm."
        )
    weight, zeros = module.need("qweight", _WORDS, 2), module.need("qzeros", _WORDS, 2)
    scales = module.need("scales", ("F16", "BF16", "F32"), 2)
    groups, rows = scales.shape
    columns = weight.shape[0]
    module.must_be("qweight", (columns, rows // _PER_WORD))
    module.must_be("qzeros", (groups, rows // _PER_WORD))
    if rows % _PER_WORD:
        raise module.wrong(f"has scales of {rows} outputs, which do not fill words of {_PER_WORD}")
    size = config.integer("group_size", "q_group_size", low=-1)
    wide = parted(module, columns, groups, 128 if size is None else size)
    name = f"AWQ of 4 bits, groups of {wide}"
    kept = scales.type.name
    del zeros

    def make(opened: Opened) -> Packed:
        zeros = across_rows(opened.array("qzeros").view(np.uint32), AWQ_ORDER, np.arange(rows))
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(across_rows, opened.array("qweight").view(np.uint32), AWQ_ORDER),
            levels=levels("U4"),
            scales=Grid(opened.array("scales").T, kept),
            groups=np.arange(columns) // wide,
            zeros=Grid(zeros, "U8"),
            kept=kept,
        )

    return Layout(name, (rows, columns), make)
