"""Folders whose weights are stored in parts, as quantization libraries wrote them (tests/golden/record_packed.py)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kernels.rows.dequantize import dequantize, dequantize_rows
from kernels.weight import TensorType
from tests.artifacts import entries_of, hf_config, hf_weights, tiny_model, write_safetensors_entries
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


def packed_by(method: str, values: np.ndarray) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The parts of a matrix, each value rounded to the nearest code in groups of 32 or tiles of 32×32."""
    return {"fp8": _fp8, "gptq": _gptq, "awq": _awq, "compressed-tensors": _compressed, "mlx": _mlx}[method](values)


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


def _fp8(values: np.ndarray) -> dict:
    rows, columns = values.shape
    tiles = np.zeros((-(-rows // 32), -(-columns // 32)), np.float32)
    for i, j in np.ndindex(tiles.shape):
        tiles[i, j] = np.abs(values[32 * i : 32 * i + 32, 32 * j : 32 * j + 32]).max() / 448
    scales = np.repeat(np.repeat(tiles, 32, 0)[:rows], 32, 1)[:, :columns]
    levels = dequantize_rows(TensorType.F8_E4M3, np.arange(127, dtype=np.uint8)[None], 127)[0]
    size = np.abs(values) / scales
    codes = np.abs(size[..., None] - levels).argmin(axis=2).astype(np.uint8)
    return {"weight": entry("F8_E4M3", codes | (values < 0) * np.uint8(0x80)), "weight_scale_inv": entry("F32", tiles)}


def integers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (out, in), float16 scales and zero points, both (out, groups)."""
    groups = values.reshape(len(values), -1, 32)
    low, high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    scales = ((high - low) / 15).astype(np.float16)
    wide = scales.astype(np.float32)
    zeros = np.clip(np.round(-low / wide), 0, 15)
    codes = np.clip(np.round(groups / wide[..., None]) + zeros[..., None], 0, 15)
    return codes.reshape(values.shape).astype(np.uint32), scales, zeros.astype(np.uint32)


def words_of(nibbles: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Eight numbers of a row in a word, number order[n] in nibble n."""
    eights = nibbles.reshape(len(nibbles), -1, 8)[:, :, list(order)].astype(np.uint32)
    return (eights << 4 * np.arange(8, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)


def _gptq(values: np.ndarray) -> dict:
    codes, scales, zeros = integers(values)
    return {
        "qweight": entry("I32", words_of(codes).T),
        "qzeros": entry("I32", words_of((zeros - 1 & 15).T)),
        "scales": entry("F16", scales.T),
        "g_idx": entry("I32", np.arange(values.shape[1], dtype=np.int32) // 32),
    }


def _awq(values: np.ndarray) -> dict:
    codes, scales, zeros = integers(values)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    words = words_of(codes.T, order), words_of(zeros.T, order)
    return {"qweight": entry("I32", words[0]), "qzeros": entry("I32", words[1]), "scales": entry("F16", scales.T)}


def _compressed(values: np.ndarray) -> dict:
    groups = values.reshape(len(values), -1, 32)
    scales = np.abs(groups).max(2) / np.float32(7.5)
    codes = np.clip(np.round(groups / scales[..., None]), -8, 7).reshape(values.shape) + 8
    return {
        "weight_packed": entry("I32", words_of(codes)),
        "weight_scale": entry("F32", scales.astype(np.float32)),
        "weight_shape": entry("I64", np.array(values.shape, np.int64)),
    }


def _mlx(values: np.ndarray) -> dict:
    groups = values.reshape(len(values), -1, 32)
    low, high = groups.min(2), groups.max(2)
    scales = ((high - low) / 15).astype(np.float16)
    codes = np.round((groups - low[..., None]) / scales.astype(np.float32)[..., None]).clip(0, 15)
    words = words_of(codes.reshape(values.shape))
    return {
        "weight": entry("U32", words),
        "scales": entry("F16", scales),
        "biases": entry("F16", low.astype(np.float16)),
    }
