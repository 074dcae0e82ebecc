"""MLX: integers of 2 to 8 bits with a scale and an offset of every group of a row, or floats of 4 and 8 bits."""

from functools import partial

import numpy as np

from kernels.packed.codes import along_rows
from kernels.packed.numbers import levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.packed.module import Layout, Module, Opened

PARTS = ("weight", "scales", "biases")
KEY = "scales"
_BITS = (2, 3, 4, 5, 6, 8)
# Of the modes of floats: bits and columns of a group, what codes are, and what scales are.
_FLOATS = {
    "mxfp4": (4, 32, "E2M1", "F8_E8M0"),
    "nvfp4": (4, 16, "E2M1", "F8_E4M3"),
    "mxfp8": (8, 32, "F8_E4M3", "F8_E8M0"),
}


def layout(module: Module, config: Fields) -> Layout:
    """The layout of one weight; settings of its module stand before those of all."""
    own = config.values.get(module.name)
    settings = Fields(config.file, {**config.values, **own}) if isinstance(own, dict) else config
    mode, size = settings.text("mode") or "affine", settings.integer("group_size")
    if mode in _FLOATS:
        return _floats(module, mode)
    if mode != "affine":
        raise settings.unsupported(
            f"describes MLX weights of mode {mode!r}; supported are affine, {', '.join(_FLOATS)}."
        )
    weight, scales = module.need("weight", ("U32",), 2), module.need("scales", ("F32", "F16", "BF16"), 2)
    module.need("biases", (scales.type.name,), 2)
    bits, wide = settings.needed_integer("bits"), 64 if size is None else size
    rows, columns = weight.shape[0], scales.shape[1] * wide
    if bits not in _BITS:
        raise settings.unsupported(f"describes MLX weights of {bits} bits; supported are {', '.join(map(str, _BITS))}.")
    _of_groups(module, rows, columns, bits, wide)
    module.must_be("biases", scales.shape)
    name, kept, shape = f"MLX of {bits} bits, groups of {wide}", scales.type.name, (rows, columns // wide)

    def make(opened: Opened) -> Packed:
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(along_rows, opened.array("weight").view(np.uint8), bits, columns),
            levels=levels(f"U{bits}"),
            scales=opened.grid("scales", shape),
            groups=np.arange(columns) // wide,
            offsets=opened.grid("biases", shape),
            kept=kept,
        )

    return Layout(name, (rows, columns), make)


def _floats(module: Module, mode: str) -> Layout:
    bits, wide, kind, type = _FLOATS[mode]
    weight, scales = module.need("weight", ("U32",), 2), module.need("scales", ("U8",), 2)
    rows, columns = weight.shape[0], scales.shape[1] * wide
    _of_groups(module, rows, columns, bits, wide)
    name = f"MLX {mode}, groups of {wide}"

    def make(opened: Opened) -> Packed:
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(along_rows, opened.array("weight").view(np.uint8), bits, columns),
            levels=levels(kind),
            scales=opened.grid("scales", (rows, columns // wide), type=type),
            groups=np.arange(columns) // wide,
        )

    return Layout(name, (rows, columns), make)


def _of_groups(module: Module, rows: int, columns: int, bits: int, wide: int) -> None:
    """Raise ArtifactError unless words and scales are of as many values."""
    module.must_be("weight", (rows, columns * bits // 32))
    if columns * bits % 32:
        raise module.wrong(f"has rows of {columns} values of {bits} bits, which do not fill words")
    module.must_be("scales", (rows, columns // wide))
