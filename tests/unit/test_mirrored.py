"""Swapping A and B changes which side the words name, and nothing else."""

from dataclasses import replace

import pytest

from kernels.paths import numeric_path
from tests.faults.planted import planted
from tests.memory_model import random_model
from workbench.bisect.models.bisection import bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.pair import bisect_pair
from workbench.pair.pair import open_pair

KINDS = (
    *("rope_theta 5000", "rms_norm_eps 3e-05", "head_grouping", "rope_type", "rope scaling"),
    *("gate is up", "wrong_layer next", "embedding is head", "transposed square", "permuted_rope to pairs"),
    *("rank by rank bias", "scaled 0.5", "sign_flipped head", "zeroed", "norm_offset +1"),
    *("bias missing", "bias_wrong noise", "dtype_truncated bf16 cut", "group offset"),
    *("low rank 4", "corrupted NaN scale", "corrupted infinite value", "float8 codes without scale"),
)
CASES = list(planted(1, ("llama-mha", "qwen2-mha"), chosen=KINDS.__contains__))


def answer(pair, tokens):
    return figures(bisect_pair(open_pair(pair, (None, None), tokens, None)).bisection)


def figures(found):
    """What must not depend on the order. A factor of 2 is one of 0.5 seen from the other side: words are left out."""
    culprits = [(str(x.site), x.factor, x.cause, x.tensor) for x in (found.culprit, *found.others) if x is not None]
    return found.verdict, culprits[:1], sorted(culprits[1:], key=str), len(found.checked)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_both_orders_give_one_answer(case, tmp_path):
    pair = case.prepare(tmp_path)
    one, other = answer((pair.a, pair.b), pair.tokens), answer((pair.b, pair.a), pair.tokens)
    assert one == other
    assert one[0] == "divergent"


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "norm", "rope_attention_factor": 3.0},
        {"rope_type": "norm", "rope_factors": (4.0,) * 8},
        {"rotary_dim": 8, "rope_factors": (4.0,) * 4, "rope_attention_factor": 3.0},
        {"rope_attention_factor": 3.0, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8},
    ],
    ids=",".join,
)
def test_of_several_settings_at_one_stage_both_orders_blame_the_same(settings):
    one = random_model(layers=1)
    sides = [Side(m, numeric_path("f32")) for m in (one, replace(one, config=replace(one.config, **settings)))]
    there, back = (bisect_artifacts(*pair, (1, 5, 9, 2, 7, 3)) for pair in (sides, sides[::-1]))
    assert figures(there) == figures(back)
    assert there.others
