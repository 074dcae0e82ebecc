"""compressed-tensors: packed integers, 8-bit integers and floats, and 4-bit floats (MXFP4, NVFP4), by group or row."""

from functools import partial

import numpy as np

from kernels.packed.codes import along_rows
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.packed.module import Layout, Module, Opened, groups_of, parted
from store.files.packed.scaled import scaled

PARTS = (
    *("weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_global_scale"),
    *("weight",),
)
KEYS = ("weight_packed", "weight_scale")
_PACKED = ("pack-quantized",)
_FLOATS = {"mxfp4-pack-quantized": (32, ("U8", "F8_E8M0")), "nvfp4-pack-quantized": (16, ("F8_E4M3",))}
_PLAIN = ("naive-quantized", "int-quantized", "float-quantized", "mxfp8-quantized")
_MIXED = "mixed-precision"


def layout(module: Module, config: Fields) -> Layout:
    """The layout of one weight: the group of the configuration whose scheme its parts are made by."""
    _refuse(config)
    schemes = _schemes(config)
    if "weight_packed" not in module.parts:
        return _plain(module, config, schemes)
    if module.parts["weight_packed"].type.name == "U8":
        return _floats(module, config)
    return _integers(module, schemes)


def _refuse(config: Fields) -> None:
    """Raise UnsupportedModelError for what changes the numbers and is not computed."""
    kind = config.text("format")
    known = (*_PACKED, *_FLOATS, *_PLAIN, _MIXED)
    if kind is not None and kind not in known:
        raise config.unsupported(f"has weights in the format {kind!r}; supported are {', '.join(known)}.")
    if config.find("transform_config")[1]:
        raise config.unsupported("has a transform_config, by which activations are rotated; that is not computed.")
    sparse = config.find("sparsity_config")[1]
    if isinstance(sparse, dict) and sparse.get("format") not in (None, "dense"):
        raise config.unsupported("has sparse weights (sparsity_config); give a copy that is not compressed so.")


def _schemes(config: Fields) -> list[Fields]:
    """What the groups of the configuration say of weights."""
    groups = config.find("config_groups")[1]
    found = (
        [each.get("weights") for each in groups.values() if isinstance(each, dict)] if isinstance(groups, dict) else []
    )
    schemes = [Fields(config.file, each) for each in found if isinstance(each, dict)]
    if not schemes:
        raise config.wrong("describes no group of quantized weights (config_groups); download it again.")
    return schemes


def _integers(module: Module, schemes: list[Fields]) -> Layout:
    """Integers of 2 to 8 bits along the rows of words, stored with half their range added."""
    packed = module.need("weight_packed", ("I32",), 2)
    scales = module.need("weight_scale", ("F32", "F16", "BF16"))
    rows, columns = _shape(module)
    bits = packed.shape[1] * 32 // columns
    fitting = [scheme for scheme in schemes if scheme.integer("num_bits", high=8) == bits]
    if not fitting or packed.shape != (rows, -(-columns * bits // 32)):
        raise module.wrong(
            f"has a weight_packed of {packed.shape[0]}×{packed.shape[1]} words for a weight of {rows}×{columns}, which "
            "no group of the configuration makes"
        )
    groups = 1 if scales.shape in ((), (1,), (1, 1), (rows,), (rows, 1)) else scales.shape[-1]
    tall = rows if scales.shape in ((), (1,), (1, 1)) and rows > 1 else 1
    size = fitting[0].integer("group_size", low=-1) if groups > 1 else columns
    wide = parted(module, columns, groups, columns if size is None else size)
    module.must_be("weight_scale", *([scales.shape] if groups == 1 else [(rows, groups)]))
    _zero_points(module, bits, rows, groups)
    if "weight_g_idx" in module.parts:
        module.need("weight_g_idx", ("I32", "I64"), 1)
        module.must_be("weight_g_idx", (columns,))
    per = f"groups of {wide}" if groups > 1 else "a scale of the tensor" if tall > 1 else "scales of rows"
    name, shape = f"compressed-tensors of {bits} bits, {per}", (-(-rows // tall), groups)

    def make(opened: Opened) -> Packed:
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(along_rows, opened.array("weight_packed").view(np.uint8), bits, columns),
            levels=levels(f"U{bits}") - np.float32(1 << bits - 1),
            scales=opened.grid("weight_scale", shape, tall),
            groups=groups_of(opened, "weight_g_idx", columns, wide, groups),
            zeros=_zeros(opened, bits, rows, shape, tall),
            kept=scales.type.name,
            carried=True,
        )

    return Layout(name, (rows, columns), make)


def _shape(module: Module) -> tuple[int, int]:
    module.need("weight_shape", ("I64", "I32"), 1)
    module.must_be("weight_shape", (2,))
    info = module.parts["weight_shape"]
    rows, columns = np.frombuffer(module.read(info), "<i8" if info.type.name == "I64" else "<i4").tolist()
    if not (0 < rows < 1 << 31 and 0 < columns < 1 << 31):
        raise module.wrong(f"has a weight_shape of {rows}×{columns}, which is no matrix")
    return rows, columns


def _zero_points(module: Module, bits: int, rows: int, groups: int) -> None:
    if "weight_zero_point" in module.parts:
        info = module.need("weight_zero_point", ("I32", "I8"))
        packed = (-(-rows * bits // 32), groups)
        module.must_be("weight_zero_point", *([packed] if info.type.name == "I32" else [(rows, groups), (1,)]))


def _zeros(opened: Opened, bits: int, rows: int, shape: tuple[int, int], tall: int) -> Grid | None:
    """Zero points: packed down the columns of words as the weight is along its rows, or one in a byte."""
    if "weight_zero_point" not in opened:
        return None
    stored = opened.array("weight_zero_point")
    if stored.dtype == np.int8:
        return Grid(stored.reshape(shape), "I8", tall)
    words = np.ascontiguousarray(stored.T).view(np.uint8)
    found = along_rows(words, bits, rows, np.arange(len(words))).T.astype(np.int16) - (1 << bits - 1)
    return Grid(found.astype(np.int8), "I8")


def _floats(module: Module, config: Fields) -> Layout:
    """Two E2M1 a byte, the lower half first; the scales of NVFP4 are divided by that of the tensor."""
    kinds = ("nvfp4-pack-quantized",) if "weight_global_scale" in module.parts else ("mxfp4-pack-quantized",)
    kind = kinds[0]
    if config.text("format") not in (*kinds, _MIXED, None):
        raise module.wrong(f"has the parts of {kind} where the configuration says {config.text('format')}")
    wide, types = _FLOATS[kind]
    packed, scales = module.need("weight_packed", ("U8",), 2), module.need("weight_scale", types, 2)
    rows, columns = packed.shape[0], 2 * packed.shape[1]
    if columns % wide:
        raise module.wrong(f"has rows of {columns} values, which do not fill groups of {wide}")
    module.must_be("weight_scale", (rows, columns // wide))
    if "weight_global_scale" in module.parts:
        module.need("weight_global_scale", ("F32",))
        module.must_be("weight_global_scale", (1,), ())
    name = f"compressed-tensors {kind.partition('-')[0].upper()}, groups of {wide}"
    type = "F8_E4M3" if scales.type.name == "F8_E4M3" else "F8_E8M0"

    def make(opened: Opened) -> Packed:
        grid = opened.grid("weight_scale", (rows, columns // wide), type=type)
        if "weight_global_scale" in opened:
            grid = Grid(grid.stored, type, divisor=np.float32(opened.array("weight_global_scale").reshape(-1)[0]))
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(along_rows, opened.array("weight_packed").view(np.uint8), 4, columns),
            levels=levels("E2M1"),
            scales=grid,
            groups=np.arange(columns) // wide,
            kept="BF16",
            carried=True,
        )

    return Layout(name, (rows, columns), make)


def _plain(module: Module, config: Fields, schemes: list[Fields]) -> Layout:
    """A code a byte: `scaled`, by tiles where a scheme says so, or groups of a row."""
    for scheme in schemes:
        block, size = scheme.find("block_structure")[1], scheme.integer("group_size", low=-1)
        if isinstance(block, list) and len(block) == 2 and all(type(x) is int and x > 0 for x in block):
            return scaled(module, "weight_scale", (block[0], block[1]), None, "compressed-tensors")
        if size is not None and size > 0:
            return scaled(module, "weight_scale", (1, size), None, "compressed-tensors")
    del config
    return scaled(module, "weight_scale", None, None, "compressed-tensors")
