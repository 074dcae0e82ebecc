"""With which settings of llama.cpp a trace was recorded, as far as path ggml can be told to compute likewise."""

import re
from collections.abc import Iterator

from kernels.ggml_settings import CACHES, GgmlSettings
from kernels.matmul.routines import TILED
from store.traces.trace import Trace

_FEATURE = re.compile(r"\b([A-Z0-9_]+) = (\d)")
_TILED_SINCE = "llama-cpp-python 0.3.36"  # the version that we know to have tiles; recordings of ours say it themselves
_OFF = "0"


def settings_of(trace: Trace) -> GgmlSettings:
    """The settings, from what the nodes prove, else from what the trace says; what it does not say is off.

    Tiles are left out where there are too few tokens for them.
    """
    able, flash = _features(trace), flash_of(trace) == "on"
    kinds = cache_types(trace)
    kept = {f"type_{part}": kind for part, kind in zip("kv", kinds, strict=True) if kind in CACHES}
    batches = trace.observed.get("batches", [])
    return GgmlSettings(
        repack=_repacked(trace) and "AVX2" in able,
        tiled=_tiled(trace) and bool(able & {"AVX", "AVX2"}) and max(batches, default=0) >= TILED,
        flash=flash and set(kinds) <= set(CACHES),
        avx512="AVX512" in able,
        avx512_bf16=able >= {"AVX512", "AVX512_BF16"},
        batch=batches[0] if len(batches) > 1 else 0,
        **kept,
    )


def flash_of(trace: Trace) -> str | None:
    """Whether flash attention was "on" or "off"; None if it is not known."""
    said = {"0": "off", "1": "on"}.get(str(trace.settings.get("flash")))
    found: str | None = trace.observed.get("flash_attention", said)
    return found


def cache_types(trace: Trace) -> tuple[str, str]:
    """The types of K and V in the cache: what the nodes prove, else what the settings say; "unknown" else."""
    said = str(trace.settings.get("kv", "unknown")).split(",")
    return str(trace.observed.get("type_k", said[0])), str(trace.observed.get("type_v", said[-1]))


def repeated(trace: Trace) -> bool:
    """Whether path ggml does in attention what the engine did."""
    return flash_of(trace) is not None and set(cache_types(trace)) <= set(CACHES)


def not_repeated(trace: Trace) -> Iterator[str]:
    """Sentences about settings that path ggml does not compute with."""
    able = _features(trace)
    if _repacked(trace) and "AMX_INT8" in able:
        yield "Weights may have been rearranged for AMX, whose order of sums is not repeated here."
    elif _repacked(trace) and "AVX2" not in able:
        yield "Weights were rearranged for a processor without AVX2, whose order of sums is not repeated here."


def _features(trace: Trace) -> set[str]:
    """The processor features that the library was built for, as it says itself."""
    return {name for name, value in _FEATURE.findall(str(trace.settings.get("system_info", ""))) if value != _OFF}


def _repacked(trace: Trace) -> bool:
    return str(trace.settings.get("repack", _OFF)) not in (_OFF, "False")


def _tiled(trace: Trace) -> bool:
    """A variable that is not there leaves tiles on, where the library has them."""
    said = trace.settings.get("tiled")
    if said is not None:
        return str(said) == "1"
    variables = trace.settings.get("environment")
    if trace.settings.get("engine_version") != _TILED_SINCE or not isinstance(variables, dict):
        return False
    return str(variables.get("GGML_CPU_TILED_MM", "1")) != _OFF
