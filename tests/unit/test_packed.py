"""Weights that checkpoints store in parts: values of the libraries that wrote them, and what disagrees is an error."""

import hashlib
import json
import math

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.paths import numeric_path
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from store.open import open_artifact, open_model
from tests.artifacts import tiny_model
from tests.hf_files import write_safetensors
from tests.packed_models import (
    CASES,
    CONFIGS,
    MODULE,
    RECORDED,
    WEIGHT,
    header_of,
    integers,
    packed_by,
    parts_of,
    source_of,
    write_case,
    write_packed,
)
from workbench.__main__ import run
from workbench.bisect.models.element import element
from workbench.bisect.pair import bisect_pair
from workbench.bisect.weights.check import check_weights
from workbench.pair.pair import open_pair


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_the_library_bit_for_bit(tmp_path, case):
    model = open_model(write_case(tmp_path, case))
    weight = model.weight(WEIGHT)
    found = dequantize(weight)
    assert np.array_equal(found[:1].view(np.uint32), RECORDED[f"{case}|values"].view(np.uint32))
    assert hashlib.sha256(found.tobytes()).hexdigest() == header_of(case)["sha256"]
    assert np.array_equal(weight.rows[3].view(np.float32), found[3])
    assert np.array_equal(weight.rows[np.array([5, 1])].view(np.float32), found[[5, 1]])


@pytest.mark.parametrize("case", CASES)
def test_a_copy_is_explained_by_its_steps(tmp_path, case):
    values = source_of(case)
    source = Weight(WEIGHT, TensorType.F32, values.shape, values.view(np.uint8))
    found = check_weights(source, open_model(write_case(tmp_path, case)).weight(WEIGHT))
    assert found.explained, (found.worst, found.slope, found.spread)
    assert not found.equal


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model of floats, in memory and in a folder."""
    model, folder = tiny_model("llama", ffn=96), tmp_path_factory.mktemp("source")
    write_safetensors(folder, model)
    return model, folder


def bisected(a, b):
    return bisect_pair(open_pair((a, b), (None, None), (1, 2, 3, 5, 8), None)).bisection


@pytest.mark.parametrize("method", CONFIGS)
def test_a_whole_model_is_a_healthy_copy(tmp_path, source, method):
    model, folder = source
    found = bisected(folder, write_packed(tmp_path, model, method))
    assert found.verdict == "quantization_only", found


def test_modelopt_says_it_in_a_file_of_its_own(tmp_path):
    """modelopt 0.47, qtensor/nvfp4_tensor.py: codes times the product of both scales; other kinds by name."""
    model = tiny_model("llama", ffn=96)
    folder = write_packed(tmp_path, model, "modelopt")
    config = json.loads((folder / "config.json").read_text())
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "exclude_modules": []}}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "quantization_config"}))
    (folder / "hf_quant_config.json").write_text(json.dumps(said))
    assert folder / "hf_quant_config.json" in open_artifact(folder).files  # it decides what the model computes
    found = read(folder)
    parts = packed_by("modelopt", dequantize(model.weights[WEIGHT]))
    scales, whole, codes = (
        np.frombuffer(parts[name][2], dtype).reshape(parts[name][1])
        for name, dtype in (("weight_scale", "u1"), ("weight_scale_2", "f4"), ("weight", "u1"))
    )
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    pairs = levels[np.stack([codes & 15, codes >> 4], axis=2)].reshape(*scales.shape, 16)
    eights = (scales >> 3 & 15, 1 + (scales & 7) / 8)
    assert scales.min() > 7  # none is denormal
    factors = (2.0 ** (eights[0] - 7.0) * eights[1]).astype(np.float32) * whole
    assert (pairs * factors[..., None]).reshape(found.shape).tobytes() == found.tobytes()
    said["quantization"]["quant_algo"] = "W4A8_AWQ"
    (folder / "hf_quant_config.json").write_text(json.dumps(said))
    with pytest.raises(WorkbenchError, match="W4A8_AWQ"):
        read(folder)


def test_the_parts_are_listed_and_a_row_is_taken_apart(tmp_path, source, capsys):
    folder = write_packed(tmp_path, source[0], "gptq")
    assert run(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "GPTQ of 4 bits, groups of 32" in out
    assert "q_proj.qzeros" in out
    model = open_artifact(folder)
    rng = np.random.default_rng(0)
    x, path = rng.standard_normal(96).astype(np.float32), numeric_path("f32")
    weight = model.weight(WEIGHT)
    found = element(model, path, Site(0, "ffn_out"), x, 5)
    assert found.stored_as == "GPTQ of 4 bits, groups of 32"
    assert found.value.tobytes() == path.matmul(x[None], weight)[0, 5].tobytes()
    for term in found.terms:
        block = term.block
        assert (block.values == ((block.codes - block.zero) * block.d).astype(np.float16)).all()


def with_part(case, name, dtype=None, shape=None, raw=None):
    """The parts of a case, one of them another."""
    own = parts_of(case)
    was = own[name]
    size = was[1] if shape is None else shape
    data = (was[2] * 9)[: len(was[2]) // max(1, math.prod(was[1])) * math.prod(size)] if raw is None else raw
    return own | {name: (dtype or was[0], size, data)}


def without(case, name):
    return {part: entry for part, entry in parts_of(case).items() if part != name}


GPTQ, AWQ, FP8, MLX, BNB = "gptq 4 bits in order", "awq", "fp8 e4m3 F32 tiles", "mlx 4 bits float16", "bnb nf4 nested"
PACKED, NVFP4 = "ct 4 bits zero points", "ct nvfp4"
IN_ORDER = np.arange(64, dtype=np.int32) // 32


@pytest.mark.parametrize(
    ("case", "parts", "config", "words"),
    [
        (GPTQ, without(GPTQ, "qzeros"), {}, "has no qzeros, which its other parts need"),
        (GPTQ, with_part(GPTQ, "qzeros", shape=(2, 5)), {}, "has a qzeros of 2×5 words"),
        (
            GPTQ,
            with_part(GPTQ, "qweight", shape=(7, 32)),
            {},
            "has a g_idx of shape 64, where its other parts imply 56",
        ),
        (GPTQ, with_part(GPTQ, "scales", dtype="I16"), {}, "has its scales in I16, where BF16 or F16 or F32 belongs"),
        (GPTQ, with_part(GPTQ, "g_idx", shape=(63,)), {}, "has a g_idx of shape 63, where its other parts imply 64"),
        (GPTQ, with_part(GPTQ, "g_idx", raw=(IN_ORDER + 1).tobytes()), {}, "names group 2 of 2"),
        (GPTQ, with_part(GPTQ, "g_idx", raw=(IN_ORDER - 1).tobytes()), {}, "names group -1 of 2"),
        (GPTQ, None, {"group_size": 0}, "has scales of 2 groups, where rows of 64 values and group_size 0"),
        (GPTQ, None, {"group_size": 16}, "and group_size 16 imply another number"),
        (GPTQ, None, {"group_size": None}, "does not say group_size"),
        (GPTQ, None, {"checkpoint_format": "marlin"}, "in the format 'marlin'; supported are gptq and gptq_v2"),
        (AWQ, with_part(AWQ, "qzeros", shape=(2, 3)), {}, "has a qzeros of shape 2×3, where its other parts imply 2×4"),
        (AWQ, None, {"version": "gemv"}, "AWQ weights of 4 bits for gemv kernels"),
        (FP8, with_part(FP8, "weight_scale_inv", shape=(2, 2)), {}, "where its other parts imply 2×3"),
        (FP8, without(FP8, "weight_scale_inv"), {}, "holds F8_E4M3 codes without a scale"),
        (FP8, None, {"weight_block_size": [0, 32]}, "gives weight_block_size as something else than two sizes"),
        (MLX, with_part(MLX, "biases", shape=(32, 1)), {}, "has a biases of shape 32×1"),
        (MLX, None, {"bits": 7}, "describes MLX weights of 7 bits"),
        (MLX, None, {"mode": "mxint9"}, "mode 'mxint9'"),
        (BNB, with_part(BNB, "weight.absmax", shape=(31,)), {}, "has a weight.absmax of shape 31"),
        (BNB, without(BNB, "weight.quant_state.bitsandbytes__nf4"), {}, "has 0 texts of its quant_state"),
        (PACKED, without(PACKED, "weight_shape"), {}, "has no weight_shape"),
        (PACKED, with_part(PACKED, "weight_shape", raw=np.array([-1, 64]).tobytes()), {}, "weight_shape of -1×64"),
        (PACKED, None, {"transform_config": {"x": 1}}, "has a transform_config"),
        (PACKED, None, {"format": "marlin-24"}, "in the format 'marlin-24'"),
        (PACKED, None, {"config_groups": {}}, "describes no group of quantized weights"),
        (NVFP4, with_part(NVFP4, "weight_scale", shape=(32, 3)), {}, "where its other parts imply 32×4"),
        (NVFP4, without(NVFP4, "weight_global_scale"), {}, "has the parts of mxfp4-pack-quantized where"),
    ],
)
def test_parts_that_disagree_are_one_sentence_with_their_name(tmp_path, case, parts, config, words):
    with pytest.raises(WorkbenchError) as error:
        read(write_case(tmp_path, case, parts, **config))
    assert words in str(error.value)
    assert MODULE in str(error.value) or "config.json" in str(error.value)


def read(folder):
    """The values of the weight, or what is wrong with its parts."""
    model = open_model(folder)
    if getattr(model.tensors.get(WEIGHT), "packing", None) is None:
        raise model.refusal
    return dequantize(model.weight(WEIGHT))


@pytest.mark.parametrize("arch", ["phi3", "mixtral", "qwen2"])
def test_parts_of_fused_matrices_and_experts_are_their_rows(tmp_path, arch):
    model = tiny_model(arch)
    found = open_artifact(write_packed(tmp_path, model, "gptq"))
    packed = [name for name, info in found.tensors.items() if info.packing is not None]
    assert packed
    for name in packed:
        values = dequantize(model.weights[name])
        codes, scales, zeros = integers(values)
        wide = [np.repeat(x.astype(np.float32), 32, axis=1) for x in (scales, zeros)]
        expected = ((codes - wide[1]) * wide[0]).astype(np.float16)
        assert np.array_equal(dequantize(found.weight(name)), expected), name
    for site, x in forward(found, (1, 2, 3), numeric_path("f32")):
        assert np.isfinite(x).all(), site


@pytest.mark.parametrize(("case", "top", "zero"), [("gptq 3 bits", 7, 8), ("gptq 4 bits in order", 15, 0)])
def test_the_largest_zero_point_of_gptq_is_what_autogptq_makes_of_it(tmp_path, case, top, zero):
    """AutoGPTQ 0.7.1 adds 1 to what is stored, and cuts to the bits again, but of 3 bits."""
    parts = parts_of(case)
    dtype, shape, stored = parts["qzeros"]
    parts["qzeros"] = (dtype, shape, b"\xff" * len(stored))
    kinds = ("gptq", "gptq_v2")  # the second reads what is stored as it is
    folders = [write_case(tmp_path / kind, case, parts, checkpoint_format=kind) for kind in kinds]
    first, second = (dequantize(open_model(folder).weight(f"{MODULE}.weight")) for folder in folders)
    scales = np.frombuffer(parts["scales"][2], np.float16).reshape(parts["scales"][1]).astype(np.float32)
    groups = np.frombuffer(parts["g_idx"][2], np.int32) if "g_idx" in parts else np.arange(first.shape[1]) // 32
    step = scales[groups].T
    assert (np.abs(first - second - (top - zero) * step) < 0.1 * step).all()  # both are rounded to half precision
