"""Folders whose weights are stored in parts, as quantization libraries wrote them (tests/golden/record_packed.py)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.packed.numbers import E2M1, NF4
from kernels.rows.dequantize import dequantize, dequantize_rows
from kernels.weight import TensorType
from tests.artifacts import tiny_model
from tests.hf_files import entries_of, hf_config, hf_weights, write_safetensors_entries
from tests.memory_model import MemoryModel

RECORDED = np.load(Path(__file__).parent / "golden" / "packed.npz")
CASES = [key for key in RECORDED.files if "|" not in key]
MODULE = "model.layers.0.mlp.down_proj"
WEIGHT = f"{MODULE}.weight"


def header_of(case: str) -> dict:
    return json.loads(RECORDED[case].tobytes())


def parts_of(case: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """SafeTensors' dtype, shape and bytes of every part, by how its name ends."""
    parts = header_of(case)["parts"]
    return {name: (dtype, tuple(shape), RECORDED[f"{case}|{name}"].tobytes()) for name, (dtype, shape) in parts.items()}


def write_case(folder: Path, case: str, parts: dict | None = None, **config: object) -> Path:
    """One weight in a folder; `parts` and `config` are used instead of what was recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    key = "quantization" if case.startswith("mlx") else "quantization_config"
    settings = hf_config(tiny_model("llama")) | {key: header_of(case)["config"] | config}
    (folder / "config.json").write_text(json.dumps(settings))
    entries = {f"{MODULE}.{name}": part for name, part in (parts_of(case) if parts is None else parts).items()}
    write_safetensors_entries(folder / "model.safetensors", entries)
    return folder


def source_of(case: str) -> np.ndarray:
    """The float32 values that the libraries were given."""
    rows, columns = header_of(case)["shape"]
    rng = np.random.default_rng(7)
    values = 0.05 * rng.standard_normal((rows, columns)) * np.exp(0.5 * rng.standard_normal((rows, 1)))
    return values.astype(np.float32)


class Numbers(NamedTuple):
    """What a matrix is rounded to, before it is packed.

    codes : (out, in). scales, zeros : (out, groups), fewer rows where several share them. zeros : zero points, for MLX
    offsets, None where there are none.
    """

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None


Edit = Callable[[Numbers], Numbers]


def packed_by(
    method: str, values: np.ndarray, edit: Edit = lambda numbers: numbers
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The parts of a matrix, each value rounded to the nearest code in groups of 32 or 16 or tiles of 32×32."""
    return _PACK[method](edit(_ROUND[method](values)))


def read_by(method: str, values: np.ndarray, edit: Edit = lambda numbers: numbers) -> np.ndarray:
    """What a program makes of such parts that takes their numbers for others, float32."""
    codes, scales, zeros = edit(_ROUND[method](values))
    rows, columns = codes.shape
    scales, zeros = (
        None if x is None else np.repeat(np.repeat(x, -(-rows // len(x)), 0)[:rows], -(-columns // x.shape[1]), 1)
        for x in (scales, zeros)
    )
    found, scales = LEVELS.get(method, np.arange(16, dtype=np.float32))[codes], scales[:, :columns].astype(np.float32)
    if method == "mlx":
        return found * scales + zeros.astype(np.float32)
    return (found - (8 if method == "compressed-tensors" and zeros is None else 0 if zeros is None else zeros)) * scales


CONFIGS: dict[str, dict[str, object]] = {
    "fp8": {"quant_method": "fp8", "weight_block_size": [32, 32]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
    },
    "mlx": {"group_size": 32, "bits": 4},
    "nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "nvfp4": {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}},
    },
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
}
LEVELS = {
    "fp8": dequantize_rows(TensorType.F8_E4M3, np.arange(256, dtype=np.uint8)[None], 256)[0],
    "nf4": np.array(NF4, np.float32),
    **dict.fromkeys(("nvfp4", "modelopt"), np.array(E2M1, np.float32)),
    "int8": np.arange(256, dtype=np.uint8).view(np.int8) / np.float32(127),
}


def write_packed(
    folder: Path, model: MemoryModel, method: str, change: Callable[[str, dict], None] | None = None
) -> Path:
    """A folder whose projections are stored in parts; `change` may alter those of a module."""
    folder.mkdir(parents=True, exist_ok=True)
    key = "quantization" if method == "mlx" else "quantization_config"
    (folder / "config.json").write_text(json.dumps(hf_config(model) | {key: CONFIGS[method]}))
    entries = entries_of({name: w for name, w in hf_weights(model).items() if not name.endswith("_proj.weight")})
    for name, weight in hf_weights(model).items():
        if name.endswith("_proj.weight"):
            module, parts = name.removesuffix(".weight"), packed_by(method, dequantize(weight))
            if change is not None:
                change(module, parts)
            entries |= {f"{module}.{part}": entry for part, entry in parts.items()}
    write_safetensors_entries(folder / "model.safetensors", entries)
    return folder


def entry(dtype: str, values: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return dtype, values.shape, np.ascontiguousarray(values).tobytes()


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The number of the nearest level of every value; NaN is none."""
    order = np.argsort(levels)[: np.isfinite(levels).sum()]
    ordered = levels[order]
    return order[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, values)].astype(np.uint8)


def _fp8(values: np.ndarray) -> Numbers:
    rows, columns = values.shape
    tiles = np.zeros((-(-rows // 32), -(-columns // 32)), np.float32)
    for i, j in np.ndindex(tiles.shape):
        tiles[i, j] = np.abs(values[32 * i : 32 * i + 32, 32 * j : 32 * j + 32]).max() / 448
    scales = np.repeat(np.repeat(tiles, 32, 0)[:rows], 32, 1)[:, :columns]
    return Numbers(nearest(values / scales, LEVELS["fp8"]), tiles)


def integers(values: np.ndarray) -> Numbers:
    """Codes of 4 bits with float16 scales and zero points."""
    groups = values.reshape(len(values), -1, 32)
    low, high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    scales = ((high - low) / 15).astype(np.float16)
    wide = scales.astype(np.float32)
    zeros = np.clip(np.round(-low / wide), 0, 15)
    codes = np.clip(np.round(groups / wide[..., None]) + zeros[..., None], 0, 15)
    return Numbers(codes.reshape(values.shape).astype(np.uint8), scales, zeros)


def words_of(nibbles: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Eight numbers of a row in a word, number order[n] in nibble n."""
    eights = nibbles.reshape(len(nibbles), -1, 8)[:, :, list(order)].astype(np.uint32) & 15
    return (eights << 4 * np.arange(8, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)


def _pack_gptq(n: Numbers) -> dict:
    return {
        "qweight": entry("I32", words_of(n.codes).T),
        "qzeros": entry("I32", words_of((n.zeros.astype(int) - 1 & 15).T)),
        "scales": entry("F16", n.scales.T),
        "g_idx": entry("I32", np.arange(n.codes.shape[1], dtype=np.int32) // 32),
    }


def _pack_awq(n: Numbers) -> dict:
    words = words_of(n.codes.T, AWQ), words_of(n.zeros.T.astype(int), AWQ)
    return {"qweight": entry("I32", words[0]), "qzeros": entry("I32", words[1]), "scales": entry("F16", n.scales.T)}


def _symmetric(values: np.ndarray) -> Numbers:
    groups = values.reshape(len(values), -1, 32)
    scales = np.abs(groups).max(2) / np.float32(7.5)
    codes = np.clip(np.round(groups / scales[..., None]), -8, 7).reshape(values.shape) + 8
    return Numbers(codes.astype(np.uint8), scales.astype(np.float32))


def _pack_symmetric(n: Numbers) -> dict:
    return {
        "weight_packed": entry("I32", words_of(n.codes)),
        "weight_scale": entry("F32", n.scales),
        "weight_shape": entry("I64", np.array(n.codes.shape, np.int64)),
    }


def _offset(values: np.ndarray) -> Numbers:
    groups = values.reshape(len(values), -1, 32)
    low, high = groups.min(2), groups.max(2)
    scales = ((high - low) / 15).astype(np.float16)
    codes = np.round((groups - low[..., None]) / scales.astype(np.float32)[..., None]).clip(0, 15)
    return Numbers(codes.reshape(values.shape).astype(np.uint8), scales, low.astype(np.float16))


def _pack_offset(n: Numbers) -> dict:
    parts = entry("U32", words_of(n.codes)), entry("F16", n.scales), entry("F16", n.zeros)
    return dict(zip(("weight", "scales", "biases"), parts, strict=True))


def _by_largest(method: str, values: np.ndarray, wide: int, over: float = 1) -> Numbers:
    """Levels times the largest value of every group over one that is in the levels."""
    groups = values.reshape(len(values), -1, wide)
    largest = np.abs(groups).max(2) / np.float32(over)
    return Numbers(nearest(groups / largest[..., None], LEVELS[method]).reshape(values.shape), largest)


def _pack_nf4(n: Numbers) -> dict:
    state = {"blocksize": 32, "shape": n.codes.shape, "dtype": "float32", "quant_type": "nf4"}
    codes = n.codes.reshape(-1, 2)
    return {
        "weight": entry("U8", codes[:, :1] << 4 | codes[:, 1:]),
        "weight.absmax": entry("F32", n.scales.reshape(-1)),
        "weight.quant_map": entry("F32", LEVELS["nf4"]),
        "weight.quant_state.bitsandbytes__nf4": entry("U8", np.frombuffer(json.dumps(state).encode(), np.uint8)),
    }


def _nvfp4(values: np.ndarray) -> Numbers:
    """Scales as F8_E4M3 of the tensor's scale, which is what remains of 448 * 6 over the largest value."""
    found = _by_largest("nvfp4", values, 16, 6)
    whole = np.float32(448 * 6 / np.abs(values).max())
    scales = LEVELS["fp8"][nearest(found.scales * whole, LEVELS["fp8"])] / whole
    groups = values.reshape(len(values), -1, 16) / scales[..., None]
    return Numbers(nearest(groups, LEVELS["nvfp4"]).reshape(values.shape), scales)


def _pack_nvfp4(n: Numbers) -> dict:
    whole = np.float32(448 / n.scales.max())
    return {
        "weight_packed": entry("U8", n.codes[:, ::2] | n.codes[:, 1::2] << 4),
        "weight_scale": entry("F8_E4M3", nearest(n.scales * whole, LEVELS["fp8"])),
        "weight_global_scale": entry("F32", whole.reshape(1)),
    }


def _pack_modelopt(n: Numbers) -> dict:
    whole = np.float32(n.scales.max() / 448)
    return {
        "weight": entry("U8", n.codes[:, ::2] | n.codes[:, 1::2] << 4),
        "weight_scale": entry("F8_E4M3", nearest(n.scales / whole, LEVELS["fp8"])),
        "weight_scale_2": entry("F32", whole.reshape(())),
        "input_scale": entry("F32", np.ones((), np.float32)),
    }


AWQ = (0, 2, 4, 6, 1, 3, 5, 7)
_ROUND: dict[str, Callable[[np.ndarray], Numbers]] = {
    "fp8": _fp8,
    "gptq": integers,
    "awq": integers,
    "compressed-tensors": _symmetric,
    "mlx": _offset,
    "nf4": lambda values: _by_largest("nf4", values, 32),
    "int8": lambda values: _by_largest("int8", values, values.shape[1]),
    **dict.fromkeys(("nvfp4", "modelopt"), _nvfp4),
}
_PACK: dict[str, Callable[[Numbers], dict]] = {
    "fp8": lambda n: {"weight": entry("F8_E4M3", n.codes), "weight_scale_inv": entry("F32", n.scales)},
    "gptq": _pack_gptq,
    "awq": _pack_awq,
    "compressed-tensors": _pack_symmetric,
    "mlx": _pack_offset,
    "nf4": _pack_nf4,
    "int8": lambda n: {"weight": entry("I8", n.codes.view(np.int8)), "SCB": entry("F32", n.scales.reshape(-1))},
    "nvfp4": _pack_nvfp4,
    "modelopt": _pack_modelopt,
}
