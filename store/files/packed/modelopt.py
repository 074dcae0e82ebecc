"""ModelOpt (hf_quant_config.json): 8-bit floats, and NVFP4 whose scale of the tensor multiplies."""

from functools import partial

import numpy as np

from kernels.packed.codes import along_rows
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from store.files.fields import Fields
from store.files.packed.module import Layout, Module, Opened
from store.files.packed.scaled import scaled

PARTS = ("weight", "weight_scale", "weight_scale_2", "pre_quant_scale")
KEY = "weight_scale"
FILE = "hf_quant_config.json"
_ALGORITHMS = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W4A16_NVFP4", "MIXED_PRECISION")
_WIDE = 16


def layout(module: Module, config: Fields) -> Layout:
    """The layout of one weight, which its type tells."""
    algorithm = config.text("quant_algo")
    if algorithm not in _ALGORITHMS:
        raise config.unsupported(
            f"describes ModelOpt weights of the kind {algorithm}; supported are {', '.join(_ALGORITHMS)}."
        )
    if "pre_quant_scale" in module.parts:
        raise module.unsupported("has a pre_quant_scale, by which activations are multiplied; that is not computed")
    if module.need("weight", ("U8", "F8_E4M3"), 2).type.name != "U8":
        return scaled(module, KEY, None, "F32", "ModelOpt")
    packed = module.parts["weight"]
    module.need(KEY, ("F8_E4M3",), 2)
    module.need("weight_scale_2", ("F32",))
    rows, columns = packed.shape[0], 2 * packed.shape[1]
    if columns % _WIDE:
        raise module.wrong(f"has rows of {columns} values, which do not fill groups of {_WIDE}")
    module.must_be(KEY, (rows, columns // _WIDE))
    module.must_be("weight_scale_2", (), (1,))
    name = f"ModelOpt NVFP4, groups of {_WIDE}"

    def make(opened: Opened) -> Packed:
        scales = opened.grid(KEY, (rows, columns // _WIDE))
        whole = np.float32(opened.array("weight_scale_2").reshape(-1)[0])
        return Packed(
            name=name,
            size=(rows, columns),
            codes=partial(along_rows, opened.array("weight").view(np.uint8), 4, columns),
            levels=levels("E2M1"),
            scales=Grid(scales.stored, scales.type, factor=whole),
            groups=np.arange(columns) // _WIDE,
        )

    return Layout(name, (rows, columns), make)
