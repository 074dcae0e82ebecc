"""The processor that kernels are compiled for: this one, unless NUMBA_CPU_NAME or NUMBA_CPU_FEATURES names another.

What is emitted must be what that processor has, not what this one has: LLVM ends the whole process where an
instruction cannot be selected.
"""

import platform
from functools import cache

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

X86 = platform.machine() in ("x86_64", "AMD64")

# What a feature stands on; without one of these LLVM takes the feature away too.
_NEEDS = {
    "avx2": ("avx",),
    "f16c": ("avx",),
    "fma": ("avx",),
    "avx512f": ("avx", "avx2", "f16c", "fma"),
    "avx512bw": ("avx", "avx2", "avx512f"),
    "avx512vnni": ("avx", "avx2", "avx512f"),
}


@cache
def name() -> str:
    """LLVM's name of the processor."""
    return str(cpu_target.target_context.codegen().magic_tuple()[1])


@cache
def _stated() -> dict[str, bool]:
    """The features that the target's description states, as given and as taken away."""
    stated = str(cpu_target.target_context.codegen().magic_tuple()[2]).split(",")
    return {feature[1:]: feature[0] == "+" for feature in stated if feature[1:]}


def has(feature: str) -> bool:
    """Whether the target has a feature of LLVM's, such as "avx2"; what its description does not state, it has not."""
    stated = _stated()
    return stated.get(feature, False) and all(stated.get(needed, True) for needed in _NEEDS.get(feature, ()))


def missing_here() -> list[str]:
    """Features of the target that this processor lacks: kernels that use one would end with an illegal instruction."""
    here = llvm.get_host_cpu_features()
    return sorted(feature for feature, given in _stated().items() if given and not here.get(feature, False))


# Whether the target converts half precision by itself; else LLVM would call functions that nobody has linked.
HALF_PRECISION = not X86 or has("f16c")
