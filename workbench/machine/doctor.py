"""Looking over the installation and the machine: what is there, what is slow or missing, and what to do about it.

Nothing here relies on our other packages, which may be what is wrong.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from workbench import __version__
from workbench.machine import terminal
from workbench.machine.clashes import OURS, clash

State = Literal["fine", "missing", "slow", "wrong"]  # missing : something that the program can do without
DISTRIBUTION = "layer-workbench"
# The libraries that have a part in what is computed, read or shown; metadata tells which versions are wanted.
LIBRARIES = (
    "numpy",
    "numba",
    "h5py",
    "textual",
    "gguf",
    "safetensors",
    "tokenizers",
    "click",
    "jinja2",
    "platformdirs",
    "plotille",
    "pyyaml",
    "textual-plot",
    "tomlkit",
    "zlib-ng",
)
_MODULES = {"pyyaml": "yaml"}  # of libraries that are imported under another name
# What else the program can do, by the name of the extra that brings it.
EXTRAS = {
    "llama-cpp": "`workbench record` with llama.cpp",
    "serve": "`workbench serve`, the app in a browser",
    "cluster": "`workbench sweep` on more than one process",
    "remote": "`workbench inspect` of addresses",
    "compressed": "APR files that are compressed",
}
COMPLETION = {
    "bash": """Add to ~/.bashrc: eval "$(_WORKBENCH_COMPLETE=bash_source workbench)\"""",
    "zsh": """Add to ~/.zshrc: eval "$(_WORKBENCH_COMPLETE=zsh_source workbench)\"""",
    "fish": "Run once: _WORKBENCH_COMPLETE=fish_source workbench > ~/.config/fish/completions/workbench.fish",
}
SMALLEST = (60, 20)  # characters that the map needs
_LITTLE = 1.0  # GiB
_LISTED_FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vnni")


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found: a value in a few words, whether that is fine, and if not what it means and what to do."""

    name: str
    value: str
    state: State = "fine"
    sentence: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return asdict(self)


def checks() -> Iterator[Check]:
    """Look at everything, the most basic first; what depends on something broken is left out."""
    yield _python()
    yield Check("workbench", __version__)
    libraries = [_library(name) for name in LIBRARIES]
    yield from libraries
    clashes = [_package(name) for name in OURS]
    yield from clashes
    if all(check.state != "wrong" for check in (*libraries, *clashes)):
        yield from (_kernel_cache(), _threads(), _processor(), _sessions())
    yield _terminal()
    yield _colours()
    yield from filter(None, (_extra(name, gives) for name, gives in EXTRAS.items()))
    yield from _completion()


def _python() -> Check:
    return Check("python", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def _requirements() -> list[str]:
    """What our own metadata asks for, a library a line; nothing where we are not installed."""
    try:
        return metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []


def _wanted(name: str) -> str:
    """Return what our own metadata asks of a library, such as ">=2.0"."""
    lines = _requirements()
    found = (re.match(rf"{re.escape(name)}\s*([<>=!~][^;]*)(;.*extra.*)?$", line, re.IGNORECASE) for line in lines)
    return next((match[1].strip() for match in found if match and not match[2]), "")


def _library(name: str) -> Check:
    install = f"{sys.executable} -m pip install '{name}{_wanted(name)}'"
    try:
        version = metadata.version(name)
        import_module(_MODULES.get(name, name.replace("-", "_")))
    except metadata.PackageNotFoundError:
        return Check(name, "not installed", "wrong", f"{name} is missing.", install)
    except Exception as error:  # whatever a library that does not fit this machine or its neighbours raises
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Check(name, version, "wrong", f"{name} cannot be loaded ({what}).", f"{install} --force-reinstall")
    if not _fits(version, _wanted(name)):
        return Check(name, version, "wrong", f"{name} {_wanted(name)} is wanted.", install)
    return Check(name, version)


def _extra(name: str, gives: str) -> Check | None:
    """What an extra brings, or how to get it; None where our metadata has no such extra."""
    pattern = re.compile(rf"([\w.-]+)\s*([^;]*);.*extra == ['\"]{re.escape(name)}['\"]")
    wanted = [(match[1], match[2].strip()) for line in _requirements() if (match := pattern.match(line))]
    if not wanted:
        return None
    have = []
    for library, _ in wanted:
        with suppress(metadata.PackageNotFoundError):
            have.append(f"{library} {metadata.version(library)}")
    if len(have) == len(wanted):
        return Check(f"extra {name}", ", ".join(have))
    packages = " ".join(f"'{library}{bounds}'" for library, bounds in wanted)
    advice = f"{sys.executable} -m pip install {packages}"
    return Check(
        f"extra {name}", "not installed", "missing", f"It is needed for {gives}, and for nothing else.", advice
    )


def _completion() -> Iterator[Check]:
    """How a shell that can complete our names is told to."""
    shell = Path(os.environ.get("SHELL", "")).name
    if shell in COMPLETION:
        words = f"Tab completes commands, options and names once {shell} is told to."
        yield Check("completion", shell, "fine", words, COMPLETION[shell])


def _fits(version: str, wanted: str) -> bool:
    """Whether a version is within bounds such as ">=8.2,<9"; other kinds of bounds are not looked at."""
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", wanted)
    have = _numbers(version)
    return all((have >= _numbers(bound)) == (kind == ">=") for kind, bound in bounds)


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def _package(name: str) -> Check:
    sentence = clash(name)
    if sentence is None:
        return Check(f"package {name}", str(Path(__file__).resolve().parents[2] / name))
    what, _, advice = sentence.partition("; install ")
    return Check(f"package {name}", "a foreign one interferes", "wrong", f"{what}.", f"Install {advice}")


def _kernel_cache() -> Check:
    from kernels.machine import cache

    files = list(cache.folder().glob("*.kernel"))
    damaged = sum(not cache.whole(file) for file in files)
    size = sum(file.stat().st_size for file in files) / 2**20
    value = f"{len(files)} kernels, {size:.1f} MiB in {cache.folder()}"
    writable = cache.writable()
    with suppress(OSError):  # if it is empty: the first command that computes looks whether it is there
        cache.folder().rmdir()
    if not writable:
        return Check("kernel cache", value, "slow", f"{cache.problem()[:1].upper()}{cache.problem()[1:]}.")
    if damaged:
        words = (
            f"{damaged} of {len(files)} kernels are damaged on the disk and are compiled again when they are needed."
        )
        return Check("kernel cache", value, "slow", words, "Nothing to do; if it comes back, look at the disk.")
    if not files:
        words = "No kernels are compiled yet: the first command that computes takes about a minute longer."
        return Check("kernel cache", value, "fine", words)
    return Check("kernel cache", value)


def _threads() -> Check:
    from kernels.errors import WorkbenchError
    from kernels.machine.threads import thread_count

    try:
        used = thread_count()
    except WorkbenchError as error:
        return Check("threads", "none", "wrong", f"{error}.", "Unset WORKBENCH_THREADS.")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    value, quota = f"{used} on {usable} processors", _quota()
    room = usable if quota is None else min(usable, max(1, round(quota)))
    if quota is not None and quota < usable:
        value += f", of which this container may use {quota:.3g}"
    if used > room:
        words = f"More threads than the {room} processors that may be used wait for each other."
        return Check("threads", value, "slow", words, f"Set WORKBENCH_THREADS={room}.")
    if used < room:
        return Check("threads", value, "slow", "Not all processors are used.", "Unset WORKBENCH_THREADS.")
    return Check("threads", value)


def _quota() -> float | None:
    """Processors that the control group of a container allows, if it limits them."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _processor() -> Check:
    import llvmlite.binding as llvm

    from kernels.machine import target
    from kernels.matmul.byte_products import HOST

    features = [feature for feature in _LISTED_FEATURES if target.has(feature)]
    value = f"{llvm.get_host_cpu_name()}, compiled for {target.name()}: {' '.join(features) or 'no vector extensions'}"
    value += f", byte products {HOST.name}"
    if lacking := target.missing_here():
        words = (
            f"Kernels are compiled for a processor with {' '.join(lacking[:6])}, which this one lacks: they can crash."
        )
        return Check("processor", value, "wrong", words, "Unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES.")
    here = llvm.get_host_cpu_features()
    unused = [name for name in _LISTED_FEATURES if target.X86 and here.get(name) and not target.has(name)]
    if unused:
        words = f"Kernels do without {' '.join(unused)}, which this processor has; the bits are the same."
        return Check("processor", value, "slow", words, "Unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES.")
    if target.X86 and not target.has("avx2"):
        words = "This processor has no AVX2: the bits are the same, but everything takes several times as long."
        return Check("processor", value, "slow", words, "Use a processor of 2014 or later.")
    return Check("processor", value)


def _sessions() -> Check:
    """Where new sessions go, and whether they can."""
    from workbench.session.session import Session

    folder = Session.default_folder("session").parent
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        words = f"{there} cannot be written, and new sessions go there."
        return Check("sessions", str(folder), "wrong", words, "Give --session DIR, or make it writable.")
    free = shutil.disk_usage(there).free / 2**30
    value = f"{folder}, {free:.1f} GiB free"
    if free < _LITTLE:
        return Check(
            "sessions", value, "slow", "A session holds every stage of both sides.", "Make room, or give --session DIR."
        )
    return Check("sessions", value)


def _terminal() -> Check:
    if not terminal.is_there():
        return Check("terminal", "none", "fine", "Commands print text; `open` and `demo` do too.")
    width, height = shutil.get_terminal_size()
    value = f"{os.environ.get('TERM', 'unknown')}, {width}x{height} characters"
    if os.environ.get("TERM") in (None, "", "dumb"):
        return Check("terminal", value, "wrong", "TERM names no terminal with a screen.", "Set TERM=xterm-256color.")
    if width < SMALLEST[0] or height < SMALLEST[1]:
        words = f"The map needs {SMALLEST[0]}x{SMALLEST[1]} characters."
        return Check("terminal", value, "wrong", words, "Make the window larger.")
    return Check("terminal", value)


def _colours() -> Check:
    encoding = (sys.stdout.encoding or "ascii").lower()
    if "utf" not in encoding:
        words = f"Text is written as {encoding}, which lacks the characters of the map."
        return Check("colours", encoding, "wrong", words, "Set PYTHONUTF8=1, or LANG to a UTF-8 locale.")
    if os.environ.get("NO_COLOR"):
        return Check("colours", "none", "fine", "NO_COLOR is set: shades of grey; nothing is told by colour alone.")
    if not sys.stdout.isatty():
        return Check("colours", "none", "fine", "The output is no terminal.")
    if (offered := os.environ.get("COLORTERM")) in ("truecolor", "24bit"):
        return Check("colours", f"16 million (COLORTERM={offered})")
    many = "256" in os.environ.get("TERM", "")
    advice = "If the terminal has 16 million colours, set COLORTERM=truecolor."
    return Check(
        "colours",
        f"{256 if many else 16} (TERM={os.environ.get('TERM', '')}, no COLORTERM)",
        "fine",
        "Steps of the map may look alike; digits tell them apart.",
        advice,
    )
