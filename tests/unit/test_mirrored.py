"""Swapping A and B changes which side the words name, and nothing else."""

import pytest

from tests.faults.planted import planted
from workbench.bisect.question import bisect_pair, open_pair

KINDS = (
    *("rope_theta 5000", "rms_norm_eps 3e-05", "head_grouping", "rope_type", "rope scaling"),
    *("gate is up", "q is k", "wrong_layer next", "embedding is head", "transposed square", "permuted_rope to pairs"),
    *("rows_permuted heads rolled", "rank by rank bias", "scaled 0.5", "sign_flipped head", "zeroed", "norm_offset +1"),
    *("bias missing", "bias_wrong noise", "dtype_truncated bf16 cut", "requantized int8 rows", "group offset"),
    *("low rank 4", "corrupted NaN scale", "corrupted infinite value", "float8 codes without scale"),
)
CASES = [case for case in planted(1, ("llama-mha", "qwen2-mha")) if case.kind in KINDS]


def answer(pair, tokens):
    """What must not depend on the order. A factor of 2 is one of 0.5 seen from the other side: words are left out."""
    found = bisect_pair(open_pair(pair, (None, None), tokens, None)).bisection
    culprits = [(str(x.site), x.factor, x.cause, x.tensor) for x in (found.culprit, *found.others) if x is not None]
    return found.verdict, culprits[:1], sorted(culprits[1:], key=str), len(found.checked)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_both_orders_give_one_answer(case, tmp_path):
    pair = case.prepare(tmp_path)
    one, other = answer((pair.a, pair.b), pair.tokens), answer((pair.b, pair.a), pair.tokens)
    assert one == other
    assert one[0] == "divergent"
