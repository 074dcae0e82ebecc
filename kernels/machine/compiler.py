"""How every kernel is compiled: one decorator, one flag policy, one cache, one warm-up.

Kernels are compiled by Numba for the machine they run on (target.py) and kept on disk (cache.py).
"""

import hashlib
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

from kernels.machine import cache
from kernels.machine.threads import thread_count

F = TypeVar("F", bound=Callable[..., Any])

# Sums may be re-ordered and products contracted where a kernel asks for it; NaN and Inf always keep their meaning.
REASSOCIATE = {"reassoc", "contract", "nsz", "arcp"}

# About half of the work.
_BESIDE = (
    "kernels.ggml.attention",
    "kernels.ggml.flash",
    "kernels.ggml.recurrence",
    "kernels.ggml.rotation",
    "kernels.lengths",
    "kernels.matmul.activations",
    "kernels.matmul.ggml",
    "kernels.matmul.ggml_floats",
    "kernels.ops",
    "kernels.recurrence",
    "kernels.rows.reach",
)

_registered: list[tuple[Any, str]] = []


def kernel(*signatures: str, reassociate: bool = False, of: object = None) -> Callable[[F], F]:
    """Compile a function that Python calls, for exactly the Numba `signatures` given.

    The GIL is released while it runs, so one thread per core can work on a share of the rows each (parallel.py).
    Compilation happens at the first call or in `compile_all`. of : as `helper` has it.
    """

    def decorate(function: F) -> F:
        _name_apart(function, of)
        compiled = _njit(function, reassociate)
        compiled._cache = cache.KernelCache(function)  # type: ignore[attr-defined]
        _registered.extend((compiled, signature) for signature in signatures)
        return compiled

    return decorate


def helper(*, reassociate: bool = False, of: object = None) -> Callable[[F], F]:
    """Compile a function that only kernels call; it is built into each of its callers, and so has no cache of its own.

    Caches that two processes fill at the same time would not be safe: Numba numbers the variants of a function.

    of : what tells a closure from others of the same definition. Numba links cached functions by their name and a
    number that starts anew in every process, so closures compiled in different processes would pass for each other.
    """

    def decorate(function: F) -> F:
        _name_apart(function, of)
        return _njit(function, reassociate)

    return decorate


def _name_apart(function: Callable[..., Any], of: object) -> None:
    if of is not None:
        function.__qualname__ += "_" + hashlib.sha256(repr(of).encode()).hexdigest()[:16]


def kernel_modules() -> tuple[str, ...]:
    """The modules that define kernels."""
    package = Path(__file__).parents[1]
    defining = [
        source
        for source in sorted(package.rglob("*.py"))
        if re.search(r"^ *@kernel\(", source.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    return tuple(".".join((package.name, *source.relative_to(package).with_suffix("").parts)) for source in defining)


def _njit(function: F, reassociate: bool) -> F:
    flags = REASSOCIATE if reassociate else False
    compiled: F = numba.njit(function, nogil=True, error_model="numpy", fastmath=flags)
    return compiled


def compile_all(progress: Callable[[int, int, str], object] = lambda *_: None) -> None:
    """Compile or load every kernel; progress(done, total, name) is called before each and at the end.

    Where nothing has been compiled yet, a second process compiles the modules in _BESIDE meanwhile.
    """
    alone = cache.folder().exists() or not cache.writable() or thread_count() == 1
    beside = None if alone else _start_beside()
    for module in kernel_modules():
        importlib.import_module(module)
    for done, (compiled, signature) in enumerate(sorted(_registered, key=lambda known: known[0].__module__ in _BESIDE)):
        progress(done, len(_registered), compiled.__name__)
        if beside is not None and compiled.__module__ in _BESIDE:
            beside.wait()
        compiled.compile(signature)
    progress(len(_registered), len(_registered), "")


def compile_modules(names: tuple[str, ...]) -> None:
    """Compile the kernels of some modules, so that the cache has them."""
    for name in names:
        importlib.import_module(name)
    for compiled, signature in _registered:
        if compiled.__module__ in names:
            compiled.compile(signature)


def _start_beside() -> "subprocess.Popen[bytes]":
    """A process that compiles _BESIDE; should it fail, nothing is lost but its help."""
    program = f"from kernels.machine.compiler import compile_modules; compile_modules({_BESIDE!r})"
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
