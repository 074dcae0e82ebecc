"""Factors that AWQ moves between norms and matrices cancel, and are no mistake; factors of one side alone are."""

import numpy as np
import pytest

from kernels.paths import numeric_path
from store.open import open_artifact
from tests.faults.models import plain
from tests.hf_files import float_tensor
from tests.memory_model import MemoryModel
from tests.packed_models import write_packed
from workbench.bisect.models.bisection import bisect_artifacts
from workbench.bisect.models.cell import Side

PLAIN = plain("qwen2-mha")
PATH = numeric_path("f32")
TOKENS = (1, 2, 3, 5, 8)


def model_of(values):
    return MemoryModel(PLAIN.config, {name: float_tensor(name, x.astype(np.float32)) for name, x in values.items()})


def moved(values, left_out=""):
    """As AutoAWQ does: columns times s, and what comes before by as much less; `left_out` is not divided."""
    rng, out = np.random.default_rng(4), dict(values)

    def times(name, by, rows=False):
        if name != left_out:
            out[name] = out[name] * (by[:, None] if rows else by)

    for layer in range(PLAIN.config.num_hidden_layers):
        at = f"model.layers.{layer}"
        for norm, modules in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            by = np.exp(0.4 * rng.standard_normal(PLAIN.config.hidden_size))
            times(f"{at}.{norm}.weight", 1 / by)
            for module in modules:
                times(f"{at}.{module}.weight", by)
        by = np.exp(0.4 * rng.standard_normal(PLAIN.config.hidden_size))
        times(f"{at}.self_attn.v_proj.weight", 1 / by, rows=True)
        times(f"{at}.self_attn.v_proj.bias", 1 / by)
        times(f"{at}.self_attn.o_proj.weight", by)
        by = np.exp(0.4 * rng.standard_normal(PLAIN.config.intermediate_size))
        times(f"{at}.mlp.up_proj.weight", 1 / by, rows=True)
        times(f"{at}.mlp.down_proj.weight", by)
    return out


def bisected(a, b):
    return bisect_artifacts(Side(a, PATH), Side(b, PATH), TOKENS)


@pytest.mark.parametrize("method", ["awq", "compressed-tensors"])
def test_factors_that_cancel_are_a_note(tmp_path, method):
    copy = open_artifact(write_packed(tmp_path, model_of(moved(PLAIN.values)), method))
    for pair in ((model_of(PLAIN.values), copy), (copy, model_of(PLAIN.values))):
        found = bisected(*pair)
        assert found.verdict == "quantization_only", found
        assert any("as AWQ does; they cancel" in note for note in found.notes)


def test_a_copy_without_such_factors_is_compared_as_it_is(tmp_path):
    found = bisected(model_of(PLAIN.values), open_artifact(write_packed(tmp_path, model_of(PLAIN.values), "awq")))
    assert (found.verdict, any("AWQ" in note for note in found.notes)) == ("quantization_only", False)


@pytest.mark.parametrize("name", ["self_attn.k_proj"])
def test_factors_that_do_not_cancel_are_a_mistake(tmp_path, name):
    wrong = moved(PLAIN.values, left_out=f"model.layers.1.{name}.weight")
    found = bisected(model_of(PLAIN.values), open_artifact(write_packed(tmp_path, model_of(wrong), "awq")))
    assert found.verdict == "divergent", found
    assert ".1." in str(found.culprit.tensor)
