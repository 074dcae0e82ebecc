"""falcon-h1: its mistakes, its multipliers, and what is refused."""

import json

import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.rows.dequantize import dequantize
from kernels.stages import Site
from store.open import open_artifact
from tests.family_faults import Fault, bisected, check_named, fault_name, model_of
from tests.gguf_files import write_gguf
from tests.hf_files import hf_config, hf_weights, write_safetensors
from tests.scan_files import MULTIPLIERS
from tests.unit.test_recurrent import exchanged, other_scan
from workbench.conventions.ledger import ledger

FAMILY, SUM = "falcon_h1", Site(0, "post_attn_residual")


def without(*stages):
    return lambda model, known, right: right - sum(known[name] for name in stages)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FAMILY, SUM, "residual_missing", "scan_out is not added", change=without("scan_out")),
        Fault(FAMILY, SUM, "residual_missing", "attn_out is not added", change=without("attn_out")),
        Fault(FAMILY, Site(0, "scan"), "recurrence", "B and C are exchanged", change=other_scan(x=exchanged)),
        Fault(FAMILY, Site(0, "scan"), "recurrence", "D x is not added", change=other_scan(d=np.zeros_like)),
        Fault(
            *(FAMILY, Site(0, "scan_silu"), "activation_function", "a sigmoid stands in place of SiLU"),
            change=lambda m, known, right: 1 / (1 + np.exp(-known["scan_z"])),
        ),
        Fault(
            *(FAMILY, Site(0, "scan"), "recurrence", "once more"),
            tensors={"model.layers.0.mamba.A_log": lambda a: -np.exp(a)},
        ),
    ],
    ids=fault_name,
)
def test_a_mistake_is_named(fault):
    check_named(fault)


@pytest.mark.parametrize(
    ("key", "site"),
    [
        ("key_multiplier", Site(0, "qkv_matmul")),
        ("ssm_out_multiplier", Site(0, "scan_out")),
        ("mlp_multipliers", Site(0, "ffn_gate")),
        ("ssm_multipliers", Site(0, "scan_in")),
    ],
)
def test_a_multiplier_that_a_file_does_not_say_is_found(tmp_path, key, site):
    model = model_of(FAMILY)
    write_gguf(tmp_path / "m.gguf", model)
    write_safetensors(tmp_path / "folder", model)
    settings = hf_config(model)
    del settings[key]
    (tmp_path / "folder" / "config.json").write_text(json.dumps(settings))
    found = bisected(open_artifact(tmp_path / "m.gguf"), open_artifact(tmp_path / "folder"))
    assert found.verdict == "divergent"
    assert found.first_divergent == site


def test_a_tied_head_is_multiplied_by_its_own_number(tmp_path):
    model = model_of(FAMILY, tied=True)
    write_safetensors(tmp_path, model)
    found = open_artifact(tmp_path)
    assert found.config.logits_scale == MULTIPLIERS["lm_head_multiplier"] / MULTIPLIERS["embedding_multiplier"]
    stored = dequantize(hf_weights(model)["model.embed_tokens.weight"])
    logits = dequantize(found.weight("lm_head.weight")) * np.float32(found.config.logits_scale)
    assert np.array_equal(logits, stored * np.float32(MULTIPLIERS["lm_head_multiplier"]))


def test_the_ledger_finds_everything_done_as_often_as_it_should_be(tmp_path):
    write_safetensors(tmp_path / "folder", model_of(FAMILY))
    write_gguf(tmp_path / "m.gguf", model_of(FAMILY))
    for name in ("folder", "m.gguf"):
        entries = [entry for of in ledger(open_artifact(tmp_path / name)).entries.values() for entry in of]
        assert entries
        assert not [entry for entry in entries if entry.verdict == "otherwise"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mamba_rms_norm": True}, "mamba_norm_before_gate"),
        ({"projectors_bias": True}, "projectors_bias"),
        ({"mlp_multipliers": [1.0]}, "mlp_multipliers"),
        ({"time_step_limit": [0.1, 1.0]}, "time_step_limit"),
        ({"mamba_d_ssm": 66}, "evenly"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, changes, words):
    model = model_of(FAMILY)
    write_safetensors(tmp_path, model)
    (tmp_path / "config.json").write_text(json.dumps(hf_config(model) | changes))
    with pytest.raises(WorkbenchError, match=words):
        open_artifact(tmp_path)
