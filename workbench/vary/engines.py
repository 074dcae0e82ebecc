"""What a setting is to an engine that is recorded: the settings of the run without and with the change."""

from collections.abc import Callable
from typing import Any, NamedTuple

from workbench.record.jobs import SETTINGS, with_threads
from workbench.record.llama_cpp_script import CACHE_TYPES
from workbench.vary.change import CannotVaryError, Change, calls_of, calls_words

_FLOATS = ("f32", "f16", "bf16")
_FEW = 2  # threads to change to where all processors are one


class EngineChange(NamedTuple):
    """Settings of the run without and with the change, and both values in words."""

    base: dict[str, Any]
    changed: dict[str, Any]
    before: str
    after: str


def base_settings(engine: str) -> dict[str, Any]:
    """The settings of the run that nothing is changed of: those that `record` takes by itself."""
    return with_threads(SETTINGS[engine])


def engine_change(engine: str, change: Change, tokens: int) -> EngineChange:
    """The run of an engine with one setting changed; CannotVaryError says why there is none."""
    base = base_settings(engine)
    if change.name in ("tokens", "prefix") or (change.name == "batch" and engine != "llama.cpp"):
        calls = calls_of(change, tokens)
        return EngineChange(base, base | {"calls": list(calls)}, calls_words((tokens,)), calls_words(calls))
    if change.name == "batch":
        calls = calls_of(change, tokens)
        return EngineChange(base, base | {"batch": calls[0]}, calls_words((tokens,)), calls_words(calls))
    if change.name == "threads":
        threads = change.number or (1 if base["threads"] > 1 else _FEW)
        if threads == base["threads"]:
            raise CannotVaryError(f"{threads} threads are what the run has anyway; give threads=N with another number")
        return EngineChange(base, base | {"threads": threads}, str(base["threads"]), str(threads))
    return _OWN[engine](change, base)


def _llama_cpp(change: Change, base: dict[str, Any]) -> EngineChange:
    if change.name == "kv":
        kind = change.value or "f16"
        if kind not in CACHE_TYPES or kind == base["kv"]:
            known = ", ".join(name for name in CACHE_TYPES if name != base["kv"])
            raise CannotVaryError(f"kv={kind[:40]} is not what a cache can be changed to; give kv= one of {known}")
        if kind not in _FLOATS:  # blocks of V are read by flash attention only
            base |= {"flash": "on"}
        words = "" if kind in _FLOATS else ", both with flash attention"
        return EngineChange(base, base | {"kv": kind}, base["kv"], kind + words)
    if change.name == "flash":
        return EngineChange(base, base | {"flash": "on"}, "off", "on")
    return EngineChange(base, base | {"repack": True}, "off", "on")


def _transformers(change: Change, base: dict[str, Any]) -> EngineChange:
    if change.name == "flash":
        return EngineChange(base, base | {"attn_implementation": "sdpa"}, "eager", "sdpa")
    why = {
        "kv": "transformers keeps keys and values as it computed them, so there is no other cache to vary",
        "repack": "transformers never rearranges weights, so there is nothing to vary",
    }
    raise CannotVaryError(why[change.name])


_OWN: dict[str, Callable[[Change, dict[str, Any]], EngineChange]] = {
    "llama.cpp": _llama_cpp,
    "transformers": _transformers,
}
