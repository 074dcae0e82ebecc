"""GPTQ: integers of 2 to 8 bits down the columns of words, scales and zero points of groups of inputs (v1 and v2)."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.packed.codes import along_rows, down_columns
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.packed.module import Layout, Module, Opened, groups_of, parted

PARTS = ("qweight", "qzeros", "scales", "g_idx")
KEY = "qweight"
_FORMATS = ("gptq", "gptq_v2")
_WORDS = ("I32", "U32")
_BITS = (2, 3, 4, 8)


def layout(module: Module, config: Fields) -> Layout:
    """The layout of one weight, by AutoGPTQ's rules; v1 stores zero points less one."""
    kind = config.text("checkpoint_format") or "gptq"
    if kind not in _FORMATS:
        raise config.unsupported(
            f"describes GPTQ weights in the format {kind!r}; supported are {' and '.join(_FORMATS)}."
        )
    weight, zeros = module.need("qweight", _WORDS, 2), module.need("qzeros", _WORDS, 2)
    scales = module.need("scales", ("F16", "BF16", "F32"), 2)
    groups, rows = scales.shape
    bits = zeros.shape[1] * 32 // rows
    if bits not in _BITS or zeros.shape != (groups, rows * bits // 32) or rows * bits % 32:
        raise module.wrong(
            f"has a qzeros of {zeros.shape[0]}×{zeros.shape[1]} words for scales of {groups}×{rows}, which make no "
            f"codes of {', '.join(map(str, _BITS))} bits"
        )
    columns = weight.shape[0] * 32 // bits
    module.must_be("qweight", (columns * bits // 32, rows))
    wide = _group(module, config, columns, groups)
    if "g_idx" in module.parts:
        module.need("g_idx", ("I32", "I64"), 1)
        module.must_be("g_idx", (columns,))
    name = f"GPTQ {'v2 ' if kind == 'gptq_v2' else ''}of {bits} bits, groups of {wide}"

    def make(opened: Opened) -> Packed:
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(down_columns, opened.array("qweight").view(np.uint32), bits, columns),
            levels=levels(f"U{bits}"),
            scales=Grid(opened.array("scales").T, scales.type.name),
            groups=groups_of(opened, "g_idx", columns, wide, groups),
            zeros=Grid(_zeros(opened, bits, rows, less_one=kind == "gptq").T, "U8"),
            kept=scales.type.name,
            carried=True,
        )

    return Layout(name, (rows, columns), make)


def _group(module: Module, config: Fields, columns: int, groups: int) -> int:
    """Columns of a group; rules for single modules (`dynamic`) may have set another number than the one for all."""
    if isinstance(config.find("dynamic")[1], dict) and columns % groups == 0:
        return columns // groups
    size = config.integer("group_size", low=-1)
    if size is None:
        raise config.wrong("does not say group_size, without which scales of groups mean nothing; add it.")
    return parted(module, columns, groups, size)


def _zeros(opened: Opened, bits: int, rows: int, *, less_one: bool) -> NDArray[np.uint8]:
    """Zero points (groups, out); of v1 one more than what is stored.

    The largest becomes 0, but 8 of 3 bits, which alone are not cut to their bits again (`qlinear_cuda_old.py` in
    AutoGPTQ 0.7.1).
    """
    words = np.ascontiguousarray(opened.array("qzeros")).view(np.uint8)
    stored = along_rows(words, bits, rows, np.arange(len(words)))
    if not less_one:
        return stored
    return np.asarray(stored + np.uint8(1) & np.uint8(15 if bits == 3 else (1 << bits) - 1))
