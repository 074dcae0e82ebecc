"""Which weights of a checkpoint are stored in parts, by what its settings say of quantization."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from kernels.errors import UnsupportedModelError
from kernels.packed.numbers import STORED
from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.packed import awq, bitsandbytes, compressed_tensors, gptq, mlx, modelopt, mxfp4
from store.files.packed.module import Layout, Module, Opened
from store.files.packed.scaled import scaled
from store.stored_model import Packing, TensorInfo
from store.tensor_types import OtherType
from store.text import printable

_TILE = (128, 128)


class Method(NamedTuple):
    """parts : how the names of the parts of a weight end. keys : those that tell it from one that is not packed.

    joint : what stands between the name of a module and that of a part.
    """

    parts: tuple[str, ...]
    keys: tuple[str, ...]
    layout: Callable[[Module, Fields], Layout]
    joint: str = "."


def _fp8(module: Module, config: Fields) -> Layout:
    """8-bit floats as transformers and fbgemm write them."""
    module.need("weight", ("F8_E4M3", "F8_E5M2"), 2)
    name = "weight_scale_inv" if "weight_scale_inv" in module.parts else "weight_scale"
    given = config.find("weight_block_size")[1]
    tile = None if name == "weight_scale" and given is None else _TILE
    if isinstance(given, list):
        if len(given) != 2 or not all(type(size) is int and size > 0 for size in given):
            raise config.wrong("gives weight_block_size as something else than two sizes; correct the file.")
        tile = given[0], given[1]
    return scaled(module, name, tile, "F32", "FP8")


_FP8 = Method(("weight", "weight_scale_inv", "weight_scale"), ("weight_scale_inv", "weight_scale"), _fp8)
_GPTQ = Method(gptq.PARTS, (gptq.KEY,), gptq.layout)
_AWQ = Method(awq.PARTS, (awq.KEY,), awq.layout)
_METHODS: dict[str, Method] = {
    "fp8": _FP8,
    "fbgemm_fp8": _FP8,
    "gptq": _GPTQ,
    "awq": _AWQ,
    "compressed-tensors": Method(compressed_tensors.PARTS, compressed_tensors.KEYS, compressed_tensors.layout),
    "modelopt": Method(modelopt.PARTS, (modelopt.KEY,), modelopt.layout),
    "mxfp4": Method(mxfp4.PARTS, mxfp4.KEYS, mxfp4.layout, "_"),
    "mlx": Method(mlx.PARTS, (mlx.KEY,), mlx.layout),
    "bitsandbytes": Method(bitsandbytes.PARTS, bitsandbytes.KEYS, bitsandbytes.layout),
}


def put_together(
    file: str, tensors: Mapping[str, TensorInfo], values: Mapping[str, object], read: Callable[[TensorInfo], bytes]
) -> dict[str, TensorInfo]:
    """Replace in tensors by name the parts of every packed weight by that weight.

    values : the settings of the model. read : the bytes of a part. Raises ArtifactError for parts that do not belong
    together, UnsupportedModelError, by name, for what is packed otherwise.
    """
    method, config = _method(values)
    if method is None:
        return dict(tensors)
    modules = _modules(tensors, method)
    found = dict(tensors)
    for name, parts in modules.items():
        module = Module(file, name, parts, read)
        made = method.layout(module, config)
        for info in parts.values():
            del found[info.name]
        found[f"{name}.weight"] = _whole(module, made)
    _refuse_bare(file, found, config)
    return found


def _method(values: Mapping[str, object]) -> tuple[Method | None, Fields]:
    """The method that the settings name, and what they say of it."""
    own, packed = (values.get(key) for key in ("quantization_config", "quantization"))
    if not isinstance(own, dict) and isinstance(packed, dict):
        return _METHODS["mlx"], Fields("quantization of config.json", packed)
    if own is None:
        return None, Fields("config.json", {})
    if not isinstance(own, dict):
        raise ArtifactError("config.json gives quantization_config as something else than an object; correct the file.")
    config, name = Fields("quantization_config of config.json", own), own.get("quant_method")
    if name is None and isinstance(packed, dict):
        return _METHODS["mlx"], config
    if name == "modelopt" or (name is None and "quant_algo" in own):
        return _METHODS["modelopt"], config
    if name == "auto-round":
        name = "awq" if "awq" in str(own.get("packing_format")) else "gptq"
    if not isinstance(name, str) or name not in _METHODS:
        known = ", ".join(_METHODS)
        raise UnsupportedModelError(
            f"config.json has a quantization_config ({printable(str(name), 80)}); supported are {known}, plain F32, "
            "F16 and BF16 tensors, or a GGUF or APR file."
        )
    return _METHODS[name], config


def _modules(tensors: Mapping[str, TensorInfo], method: Method) -> dict[str, dict[str, TensorInfo]]:
    """The parts of every packed weight, by module and by how their names end; the longest end counts."""
    ends = sorted(method.parts, key=len, reverse=True)
    found: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        if (end := next((end for end in ends if name.endswith(method.joint + end)), None)) is not None:
            found.setdefault(name[: -len(end) - 1], {})[end] = info
    return {module: parts for module, parts in found.items() if any(key in parts for key in method.keys)}


def _whole(module: Module, made: Layout) -> TensorInfo:
    """The weight that parts make; it lies where the first of them does."""
    first = min(module.parts.values(), key=lambda info: (str(info.file), info.offset))
    for part, info in module.parts.items():
        if info.type.name not in STORED:
            raise module.wrong(f"has its {part} in {info.type.name}, which holds no such numbers")
    return replace(
        first,
        name=f"{module.name}.weight",
        raw_name=f"{module.name}.weight",
        type=OtherType(made.name),
        shape=made.size,
        nbytes=sum(info.nbytes for info in module.parts.values()),
        packing=Packing(module.parts, lambda data: made.make(Opened(module, data))),
    )


def _refuse_bare(file: str, found: Mapping[str, TensorInfo], config: Fields) -> None:
    """Raise ArtifactError for codes of 8 bits that have lost their scale."""
    for info in found.values():
        if info.type.name in ("F8_E4M3", "F8_E5M2", "I8") and info.packing is None and info.name.endswith(".weight"):
            raise ArtifactError(
                f"{file}: {printable(info.name, 80)} holds {info.type.name} codes without a scale, which "
                f"{config.file} implies; download or quantize it again."
            )
