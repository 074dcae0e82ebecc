"""The shipped model and its faulty copies: each fault changes what it says, where it says, and nothing else."""

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.rows.dequantize import dequantize
from store.open import open_artifact
from workbench.demo import LAYER, MODEL, make_copy
from workbench.demo.faults import FAULTS

ORIGINAL = open_artifact(MODEL)
CHANGED = {
    "rope_theta": [],
    "rms_norm_eps": [],
    "permuted_rope": ["self_attn.k_proj.weight", "self_attn.q_proj.weight"],
    "gate_up_swapped": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "corrupted_blocks": ["self_attn.o_proj.weight"],
    "zeroed": ["self_attn.q_proj.bias"],
    "scaled": ["mlp.up_proj.weight"],
    "norm_offset": ["post_attention_layernorm.weight"],
    "wrong_layer": ["mlp.gate_proj.weight"],
}


def copy_with(fault, tmp_path, layer=LAYER):
    make_copy(tmp_path / "copy.apr", fault, layer)
    return open_artifact(tmp_path / "copy.apr")


def values(artifact, name):
    return dequantize(artifact.weight(name))


def changed_tensors(copy):
    return sorted(n for n in ORIGINAL.tensors if (values(ORIGINAL, n) != values(copy, n)).any())


def test_a_healthy_copy_is_the_same_model(tmp_path):
    copy = copy_with(None, tmp_path)
    assert copy.config == ORIGINAL.config
    assert changed_tensors(copy) == []
    assert copy.problems == ()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("layer", [0, LAYER, 5])
def test_a_fault_changes_what_it_says_and_nothing_else(fault, layer, tmp_path):
    copy = copy_with(fault, tmp_path, layer)
    assert changed_tensors(copy) == [f"model.layers.{layer}.{suffix}" for suffix in CHANGED[fault]]
    fields = {
        f: getattr(copy.config, f)
        for f in ORIGINAL.config.__slots__
        if getattr(copy.config, f) != getattr(ORIGINAL.config, f)
    }
    assert set(fields) == ({fault} if not CHANGED[fault] else set())
    assert all(np.isfinite(values(copy, name)).all() for name in copy.tensors)


def test_faults_do_what_their_names_say(tmp_path):
    layer = f"model.layers.{LAYER}."
    assert copy_with("rope_theta", tmp_path).config.rope_theta == 10_000
    copy = copy_with("gate_up_swapped", tmp_path)
    gate, up = f"{layer}mlp.gate_proj.weight", f"{layer}mlp.up_proj.weight"
    assert (values(copy, gate) == values(ORIGINAL, up)).all()
    assert (values(copy, up) == values(ORIGINAL, gate)).all()
    assert (values(copy_with("zeroed", tmp_path), f"{layer}self_attn.q_proj.bias") == 0).all()
    scaled, original = values(copy_with("scaled", tmp_path), up), values(ORIGINAL, up)
    assert np.linalg.norm(scaled - 1.25 * original) < 1e-3 * np.linalg.norm(original)
    query = f"{layer}self_attn.q_proj.weight"
    old, new = values(ORIGINAL, query), values(copy_with("permuted_rope", tmp_path), query)
    half = ORIGINAL.config.head_dim // 2
    assert (new[0] == old[0]).all()
    assert (new[1] == old[half]).all()
    assert (new[2] == old[1]).all()


def test_unknown_fault_and_layer_are_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="no fault gremlin; --fault takes one of rope_theta"):
        make_copy(tmp_path / "x.apr", "gremlin")
    with pytest.raises(WorkbenchError, match="no layer 6; --layer takes 0 to 5"):
        make_copy(tmp_path / "x.apr", None, 6)
    assert not (tmp_path / "x.apr").exists()
