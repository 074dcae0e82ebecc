"""Compiled closures of one definition must not pass for each other, whichever process cached them."""

from itertools import combinations

from kernels import matmul_float, matmul_ggml, packed_dot
from kernels.packed_dot import BLOCK_32, Q4_K, Q5_K, Q6_K

SCHEMES = (BLOCK_32, Q4_K, Q5_K, Q6_K)


def names(module):
    """Qualified names of the multi-token loops of a module: the names that Numba links them by."""
    values = vars(module).values()
    return [value.py_func.__qualname__ for value in values if getattr(value, "__name__", "") == "run"]


def test_closures_of_one_definition_have_names_of_their_own():
    loops = names(matmul_float) + names(matmul_ggml)
    assert len(loops) >= 10
    plain = [packed_dot.plain_dot(scheme, tokens).py_func.__qualname__ for scheme in SCHEMES for tokens in (1, 2, 3, 4)]
    for group in (loops, plain):
        assert all(one != other for one, other in combinations(group, 2))


def test_names_stay_the_same_from_process_to_process():
    """Else nothing would ever be found in the cache."""
    assert packed_dot.plain_dot(Q4_K, 2).py_func.__qualname__ == packed_dot.plain_dot(Q4_K, 2).py_func.__qualname__
    assert not any("0x" in name for name in names(matmul_float))
