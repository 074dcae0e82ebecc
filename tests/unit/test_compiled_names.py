"""Compiled closures of one definition must not pass for each other, whichever process cached them."""

from itertools import combinations

from kernels.matmul import floats as matmul_float
from kernels.matmul import ggml as matmul_ggml
from kernels.matmul.byte_products import available
from kernels.weight import TensorType

FORMATS = {type.format.dot: type.format for type in TensorType if type.block.elements > 1}


def names(module):
    """Qualified names of the closures of a module: the names that Numba links them by."""
    values = vars(module).values()
    return [value.py_func.__qualname__ for value in values if "<locals>" in getattr(value, "__qualname__", "")]


def multipliers():
    made = [matmul_ggml.multiplier(dot, how, format) for how in available() for dot, format in FORMATS.items()]
    return [closure.py_func.__qualname__ for closure in made]


def test_closures_of_one_definition_have_names_of_their_own():
    loops = names(matmul_float) + names(matmul_ggml)
    assert len(loops) >= 3
    for group in (loops, multipliers()):
        assert all(one != other for one, other in combinations(group, 2))


def test_names_stay_the_same_from_process_to_process():
    """Else nothing would ever be found in the cache."""
    assert multipliers() == multipliers()
    assert not any("0x" in name for name in names(matmul_float) + multipliers())
