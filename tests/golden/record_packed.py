"""Record packed.npz: small weights as quantization libraries store them, and what these dequantize them to.

usage: PYTHONPATH=. ENVIRONMENT/bin/python tests/golden/record_packed.py

The environment has torch 2.13, transformers 5.24, compressed-tensors 0.20, bitsandbytes 0.50 and mlx 0.32 (mlx-cpu).
GPTQ and AWQ are packed and unpacked here by the formulas of AutoGPTQ 0.7 (`qlinear_cuda_old.py`) and AutoAWQ 0.2
(`packing_utils.py`), element by element.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).with_name("packed.npz")
ROWS, COLUMNS = 32, 64  # zero points of 3 bits fill words of 32 outputs
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint32: "U32",
    torch.float8_e8m0fnu: "F8_E8M0",
}
found: dict[str, np.ndarray] = {}


def source(rows=ROWS, columns=COLUMNS):
    rng = np.random.default_rng(7)
    values = 0.05 * rng.standard_normal((rows, columns)) * np.exp(0.5 * rng.standard_normal((rows, 1)))
    return torch.from_numpy(values.astype(np.float32))


def keep(case, parts, config, values, shape=(ROWS, COLUMNS)):
    values = values.detach().float().contiguous().numpy()
    assert values.shape == shape, (case, values.shape)
    header = {"config": config, "shape": shape, "parts": {}}
    for name, part in parts.items():
        part = part.detach().contiguous()
        header["parts"][name] = [_DTYPES[part.dtype], list(part.shape)]
        found[f"{case}|{name}"] = (
            part.reshape(-1).view(torch.uint8).numpy() if part.dim() else part.reshape(1).view(torch.uint8).numpy()
        )
    header["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    found[case] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    found[f"{case}|values"] = values[:1]
    error = np.linalg.norm(values - source(*shape).numpy()) / np.linalg.norm(values)
    sys.stdout.write(f"{case}: {error:.3f}\n")


def fp8():
    from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

    for kind, dtype in (("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
        for scales in (torch.float32, torch.bfloat16) if kind == "e4m3" else (torch.float32,):
            rows, columns, tile = 40, 72, 32
            w = source(rows, columns)
            top = torch.finfo(dtype).max
            grid = torch.zeros(2, 3)
            codes = torch.zeros(rows, columns, dtype=dtype)
            for i in range(2):
                for j in range(3):
                    here = slice(tile * i, tile * (i + 1)), slice(tile * j, tile * (j + 1))
                    grid[i, j] = w[here].abs().max() / top
            grid = grid.to(scales)
            for i in range(2):
                for j in range(3):
                    here = slice(tile * i, tile * (i + 1)), slice(tile * j, tile * (j + 1))
                    codes[here] = (w[here] / grid[i, j].float()).clamp(-top, top).to(dtype)
            values = _dequantize_fp8_weight(codes, grid, [tile, tile], torch.float32)
            config = {"quant_method": "fp8", "weight_block_size": [tile, tile], "activation_scheme": "dynamic"}
            keep(
                f"fp8 {kind} {_DTYPES[scales]} tiles",
                {"weight": codes, "weight_scale_inv": grid},
                config,
                values,
                (rows, columns),
            )
    w = source()
    for case, scale in (("tensor", w.abs().max() / 448), ("rows", w.abs().amax(1, keepdim=True) / 448)):
        codes = (w / scale).to(torch.float8_e4m3fn)
        keep(
            f"fp8 {case}",
            {"weight": codes, "weight_scale": scale, "input_scale": torch.tensor(0.5)},
            {"quant_method": "fp8", "activation_scheme": "static"}
            if case == "tensor"
            else {"quant_method": "fbgemm_fp8"},
            codes.float() * scale,
        )


def groups_of(size, desc_act):
    groups = np.arange(COLUMNS) // size
    return np.random.default_rng(3).permutation(groups) if desc_act else groups


def integers(bits, size, g_idx):
    """Codes, half-precision scales (groups, out) and zero points (groups, out) by rounding to nearest."""
    w, count, top = source().numpy(), COLUMNS // size, 2**bits - 1
    scales, zeros, codes = (
        np.zeros((count, ROWS), np.float16),
        np.zeros((count, ROWS), int),
        np.zeros((ROWS, COLUMNS), int),
    )
    for g in range(count):
        here = w[:, g_idx == g]
        low, high = np.minimum(here.min(1), 0), np.maximum(here.max(1), 0)
        scales[g] = (high - low) / top
        zeros[g] = np.clip(np.round(-low / scales[g].astype(np.float32)), 0, top)
        scale = scales[g].astype(np.float32)[:, None]
        codes[:, g_idx == g] = np.clip(np.round(here / scale) + zeros[g][:, None], 0, top)
    return codes, scales, zeros


def packed_down(numbers, bits):
    """Numbers (n, columns) to int32 (n * bits / 32, columns), as AutoGPTQ's `pack` writes them, 3 bits included."""
    n, columns = numbers.shape
    words = np.zeros((n * bits // 32, columns), np.uint32)
    numbers = numbers.astype(np.uint32)
    i = row = 0
    while row < len(words):
        if bits in (2, 4, 8):
            for j in range(i, i + 32 // bits):
                words[row] |= numbers[j] << np.uint32(bits * (j - i))
            i, row = i + 32 // bits, row + 1
            continue
        for j in range(i, i + 10):
            words[row] |= numbers[j] << np.uint32(3 * (j - i))
        i += 10
        words[row] |= numbers[i] << np.uint32(30)
        row += 1
        words[row] |= (numbers[i] >> np.uint32(2)) & np.uint32(1)
        i += 1
        for j in range(i, i + 10):
            words[row] |= numbers[j] << np.uint32(3 * (j - i) + 1)
        i += 10
        words[row] |= numbers[i] << np.uint32(31)
        row += 1
        words[row] |= (numbers[i] >> np.uint32(1)) & np.uint32(3)
        i += 1
        for j in range(i, i + 10):
            words[row] |= numbers[j] << np.uint32(3 * (j - i) + 2)
        i, row = i + 10, row + 1
    return torch.from_numpy(words.view(np.int32).copy())


def gptq():
    for bits in (2, 3, 4, 8):
        for version, desc_act in (("gptq", bits == 4), ("gptq", False), ("gptq_v2", False))[
            bits != 4 : 4 if bits == 4 else 2
        ]:
            g_idx = groups_of(32, desc_act)
            codes, scales, zeros = integers(bits, 32, g_idx)
            stored = zeros - 1 if version == "gptq" else zeros
            assert bits != 3 or zeros.all(), "stored as 7, of which AutoGPTQ makes 8 and not 0"
            values = torch.from_numpy(scales[g_idx] * (codes.T - zeros[g_idx]).astype(np.float16)).T
            parts = {
                "qweight": packed_down(codes.T, bits),
                "qzeros": packed_down((stored & 2**bits - 1).T, bits).T,
                "scales": torch.from_numpy(scales),
            }
            if desc_act or bits == 4:
                parts["g_idx"] = torch.from_numpy(g_idx.astype(np.int32))
            config = {
                "quant_method": "gptq",
                "bits": bits,
                "group_size": 32,
                "desc_act": desc_act,
                "checkpoint_format": version,
            }
            keep(f"{version} {bits} bits{' in order' * desc_act}", parts, config, values)


def awq():
    codes, scales, zeros = integers(4, 32, groups_of(32, False))
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def across(numbers):  # (n, out) -> (n, out / 8)
        words = np.zeros((len(numbers), numbers.shape[1] // 8), np.uint32)
        for column in range(words.shape[1]):
            for nibble in range(8):
                words[:, column] |= numbers[:, 8 * column + order[nibble]].astype(np.uint32) << np.uint32(4 * nibble)
        return torch.from_numpy(words.view(np.int32).copy())

    g = groups_of(32, False)
    values = torch.from_numpy((codes.T - zeros[g]).astype(np.float16) * scales[g]).T
    keep(
        "awq",
        {"qweight": across(codes.T), "qzeros": across(zeros), "scales": torch.from_numpy(scales)},
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
        values,
    )


def compressed():
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    def one(case, format, scale_type=torch.float32, extra=None, **args):
        weights, w = QuantizationArgs(**args), source()
        scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=format)
        size = weights.group_size or COLUMNS
        tiles = w.reshape(ROWS, -1, size)
        if weights.strategy == "tensor":
            low, high = w.min().reshape(1), w.max().reshape(1)
        elif weights.strategy == "block":
            tall, wide = weights.block_structure
            tiles = w.reshape(ROWS // tall, tall, COLUMNS // wide, wide)
            low, high = tiles.amin((1, 3)), tiles.amax((1, 3))
        else:
            low, high = tiles.amin(2), tiles.amax(2)
        state = {"weight": w}
        if extra is not None:
            state["weight_global_scale"] = extra
            scale, zero = calculate_qparams(low, high, weights, global_scale=extra)
        else:
            scale, zero = calculate_qparams(low, high, weights)
        state |= {
            "weight_scale": scale.to(scale_type) if scale.dtype == torch.float32 else scale,
            "weight_zero_point": zero,
        }
        compressor = BaseCompressor.get_value_from_registry(format)
        made = compressor.compress(state, scheme)
        values = compressor.decompress(dict(made), scheme)["weight"]
        config = {
            "quant_method": "compressed-tensors",
            "format": format,
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": json.loads(weights.model_dump_json())}},
        }
        keep(f"ct {case}", made, config, values)

    for bits in (4, 8, 3):
        one(
            f"{bits} bits groups",
            "pack-quantized",
            num_bits=bits,
            type="int",
            symmetric=True,
            strategy="group",
            group_size=32,
        )
    one(
        "4 bits zero points",
        "pack-quantized",
        torch.bfloat16,
        num_bits=4,
        type="int",
        symmetric=False,
        strategy="group",
        group_size=32,
    )
    one(
        "8 bits zero points",
        "pack-quantized",
        torch.float16,
        num_bits=8,
        type="int",
        symmetric=False,
        strategy="group",
        group_size=32,
    )
    one("4 bits rows", "pack-quantized", torch.bfloat16, num_bits=4, type="int", symmetric=True, strategy="channel")
    one("int8 rows", "int-quantized", torch.bfloat16, num_bits=8, type="int", symmetric=True, strategy="channel")
    one("int8 zero points", "int-quantized", num_bits=8, type="int", symmetric=False, strategy="channel")
    one("float8 rows", "float-quantized", torch.bfloat16, num_bits=8, type="float", symmetric=True, strategy="channel")
    one("float8 tensor", "float-quantized", num_bits=8, type="float", symmetric=True, strategy="tensor")
    one(
        "float8 tiles",
        "float-quantized",
        num_bits=8,
        type="float",
        symmetric=True,
        strategy="block",
        block_structure=[8, 32],
    )
    one(
        "mxfp4",
        "mxfp4-pack-quantized",
        num_bits=4,
        type="float",
        symmetric=True,
        strategy="group",
        group_size=32,
        scale_dtype=torch.uint8,
    )
    one(
        "mxfp8",
        "mxfp8-quantized",
        num_bits=8,
        type="float",
        symmetric=True,
        strategy="group",
        group_size=32,
        scale_dtype=torch.uint8,
    )
    one(
        "nvfp4",
        "nvfp4-pack-quantized",
        extra=(448 * 6 / source().abs().max()).reshape(1),
        num_bits=4,
        type="float",
        symmetric=True,
        strategy="tensor_group",
        group_size=16,
        scale_dtype=torch.float8_e4m3fn,
    )


def mlx():
    import mlx.core as mx

    def to_torch(array):
        if array.dtype == mx.bfloat16:
            return torch.from_numpy(np.array(array.view(mx.uint16)).view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.array(array))

    for bits in (2, 3, 4, 5, 6, 8):
        for dtype in (mx.float32, mx.float16, mx.bfloat16) if bits == 4 else (mx.bfloat16,):
            w = mx.array(source().numpy()).astype(dtype)
            parts = mx.quantize(w, group_size=32, bits=bits)
            values = mx.dequantize(*parts, group_size=32, bits=bits)
            kind = str(dtype).rpartition(".")[2]
            keep(
                f"mlx {bits} bits {kind}",
                dict(zip(("weight", "scales", "biases"), map(to_torch, parts), strict=True)),
                {"group_size": 32, "bits": bits},
                to_torch(values),
            )
    for mode, size, bits in (("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)):
        w = mx.array(source().numpy()).astype(mx.bfloat16)
        parts = mx.quantize(w, group_size=size, bits=bits, mode=mode)
        values = mx.dequantize(*parts, group_size=size, bits=bits, mode=mode)
        keep(
            f"mlx {mode}",
            dict(zip(("weight", "scales"), map(to_torch, parts), strict=True)),
            {"group_size": size, "bits": bits, "mode": mode},
            to_torch(values),
        )


def bitsandbytes():
    import bitsandbytes.functional as bnb

    for kind, nested, dtype in (
        ("nf4", True, torch.bfloat16),
        ("nf4", False, torch.float32),
        ("fp4", True, torch.float16),
    ):
        packed, state = bnb.quantize_4bit(source().to(dtype), blocksize=64, quant_type=kind, compress_statistics=nested)
        values = bnb.dequantize_4bit(packed, state)
        parts = {"weight": packed} | {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
        keep(f"bnb {kind}{' nested' * nested}", parts, {"quant_method": "bitsandbytes", "load_in_4bit": True}, values)
    codes, scales, _ = bnb.int8_vectorwise_quant(source().half())
    keep(
        "bnb int8",
        {"weight": codes, "SCB": scales, "weight_format": torch.tensor(0, dtype=torch.uint8)},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        bnb.int8_vectorwise_dequant(codes, scales),
    )


for record in (fp8, gptq, awq, compressed, mlx, bitsandbytes):
    record()
np.savez_compressed(GOLDEN, **found)
sys.stdout.write(f"{GOLDEN.stat().st_size} bytes\n")
