"""MXFP4 as gpt-oss has it: stacks of experts in blocks of 32 floats of 4 bits, and a power of two for each."""

from functools import partial

import numpy as np

from kernels.packed.codes import along_rows
from kernels.packed.numbers import levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.packed.module import Layout, Module, Opened

PARTS = KEYS = ("blocks", "scales")
_WIDE, _BYTES = 32, 16  # values of a block, two to a byte, the lower half first


def layout(module: Module, config: Fields) -> Layout:
    """The rows of all experts one after the other, as many as blocks (experts, rows, groups, 16) have."""
    del config
    blocks = module.need("blocks", ("U8",), 4)
    module.need("scales", ("U8", "F8_E8M0"), 3)
    experts, rows, groups, size = blocks.shape
    if size != _BYTES:
        raise module.wrong(f"has blocks of {size} bytes, where {_BYTES} belong")
    module.must_be("scales", (experts, rows, groups))
    whole, columns = (experts * rows, groups * _WIDE), groups * _WIDE

    def make(opened: Opened) -> Packed:
        return Packed(
            name="MXFP4",
            size=whole,
            codes=partial(along_rows, opened.array("blocks").view(np.uint8).reshape(whole[0], -1), 4, columns),
            levels=levels("E2M1"),
            scales=opened.grid("scales", (whole[0], groups), type="F8_E8M0"),
            groups=np.arange(columns) // _WIDE,
            kept="BF16",
        )

    return Layout("MXFP4", whole, make)
