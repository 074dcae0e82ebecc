"""A float32 run on tensor cores: products cut their inputs to ten binary digits, which is no mistake of anybody."""

import json

import numpy as np
import pytest

from kernels.forward import forward
from kernels.paths import F32Path
from kernels.rows.dequantize import dequantize
from tests.artifacts import tiny_safetensors
from tests.foreign_dumps import write_stage_dump
from tests.hf_files import float_tensor
from workbench.__main__ import run

TOKENS = (5, 17, 3, 42, 8, 9, 11)
META = {"engine": "transformers", "dtype": "float32", "tokens": list(TOKENS)}


def cut(x):
    """The upper 19 of 32 bits, as a tensor core reads them."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32)


def rounded(x):
    """The nearest number of 19 bits, as libraries that prepare what the core reads."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & 0xFFFFE000).view(np.float32)


class TensorCores(F32Path):
    """Products in float32 over what is left of their inputs, those of attention too."""

    def __init__(self, left):
        self.left = left

    def matmul(self, x, *weights, apart=False):
        return np.concatenate([self.left(x) @ self.left(dequantize(weight)).T for weight in weights], axis=1)

    def attention(self, q, k, v, how, sinks=None):
        return super().attention(self.left(q), self.left(k), self.left(v), how, sinks)


def verdict(tmp_path, capsys, stages, **meta):
    write_stage_dump(tmp_path / "gpu.npz", stages, META | meta)
    run(["bisect", str(tmp_path / "hf"), str(tmp_path / "gpu.npz"), "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("left", [cut, rounded])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_a_run_on_tensor_cores_is_healthy_where_it_says_so(tmp_path, capsys, architecture, left):
    model = tiny_safetensors(tmp_path / "hf", architecture)
    found = verdict(tmp_path, capsys, dict(forward(model, TOKENS, TensorCores(left))), tf32=True)
    assert found["verdict"] == "numerics_only", found["headline"]


def test_a_mistake_in_a_run_on_tensor_cores_is_found(tmp_path, capsys):
    model = tiny_safetensors(tmp_path / "hf")
    name = "model.layers.1.mlp.up_proj.weight"
    model.weights[name] = float_tensor(name, dequantize(model.weights[name]) * np.float32(1.02))
    found = verdict(tmp_path, capsys, dict(forward(model, TOKENS, TensorCores(cut))), tf32=True)
    culprit = found["culprit"]
    assert (culprit["layer"], culprit["stage"], culprit["cause"]) == (1, "ffn_up", "scaled")


def test_tensor_cores_that_nobody_spoke_of_are_named(tmp_path, capsys):
    model = tiny_safetensors(tmp_path / "hf")
    found = verdict(tmp_path, capsys, dict(forward(model, TOKENS, TensorCores(cut))))
    assert (found["culprit"]["factor"], found["culprit"]["cause"]) == ("numerics", "kv_precision")
    assert "TF32" in found["culprit"]["explanation"]
