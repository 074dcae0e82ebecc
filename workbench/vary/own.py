"""What a setting is to a numeric path of this program: the path, and the threads, without and with the change."""

from dataclasses import replace
from typing import NamedTuple

from kernels.batches import in_batches
from kernels.ggml_settings import CACHES
from kernels.graph import Model
from kernels.kinds.apart import ProductsApart
from kernels.kinds.attention import Attention
from kernels.machine.threads import thread_count
from kernels.models import Graph
from kernels.paths import F32Path, GgmlPath
from workbench.vary.change import CannotVaryError, Change, calls_of, calls_words

_ON = {False: "off", True: "on"}
_FEW = 2  # threads to change to where all processors are one


class OwnRun(NamedTuple):
    """A path, and the threads that it runs on; None for as many as there are."""

    path: F32Path
    threads: int | None = None


class OwnChange(NamedTuple):
    """The changed run, and both values in words."""

    run: OwnRun
    before: str
    after: str


def own_change(model: Model, path: F32Path, change: Change, tokens: int) -> OwnChange:
    """The run of a path with one setting changed; CannotVaryError says why there is none."""
    if change.name in ("tokens", "batch", "prefix"):
        calls = calls_of(change, tokens)
        _require_batches(model)
        before = _calls(path, tokens)
        if before == calls:
            raise CannotVaryError(f"the run computes {calls_words(calls)} anyway; give {change.name}= another number")
        return OwnChange(OwnRun(_batched(path, calls)), calls_words(before), calls_words(calls))
    if change.name == "threads":
        threads, all_ = change.number or (1 if thread_count() > 1 else _FEW), thread_count()
        if threads == all_:
            raise CannotVaryError(f"{threads} threads are what the run has anyway; give threads=N with another number")
        return OwnChange(OwnRun(path, threads), str(all_), str(threads))
    if not isinstance(path, GgmlPath):
        raise CannotVaryError(f"path {path.name} has no setting {change.name}; --engine runs an engine that has it")
    return _ggml(path, change)


def _calls(path: F32Path, tokens: int) -> tuple[int, ...]:
    """How many tokens a path computes at a time."""
    size = (path.how.batch if isinstance(path, GgmlPath) else 0) or tokens
    return tuple(min(size, tokens - start) for start in range(0, tokens, size))


def _batched(path: F32Path, calls: tuple[int, ...]) -> F32Path:
    """The path in batches; batches of one size, whose last may be smaller, are a setting of path ggml."""
    uniform = set(calls[:-1]) == {calls[0]} and calls[-1] <= calls[0]
    if isinstance(path, GgmlPath) and uniform:
        return GgmlPath(replace(path.how, batch=calls[0]))
    return in_batches(path, calls)


def _ggml(path: GgmlPath, change: Change) -> OwnChange:
    how = path.how
    if change.name == "kv":
        kind, before = change.value or ("f32" if how.type_k == how.type_v == "f16" else "f16"), how.type_k
        if kind not in CACHES:
            raise CannotVaryError(
                f"path ggml keeps keys and values in {' or '.join(CACHES)}, not in {kind[:40]}; --engine runs llama.cpp"
            )
        if how.type_k == how.type_v == kind:
            raise CannotVaryError(f"the cache is {kind} already; give kv= another type")
        return OwnChange(OwnRun(GgmlPath(replace(how, type_k=kind, type_v=kind))), before, kind)
    if change.name == "flash":
        return OwnChange(OwnRun(GgmlPath(replace(how, flash=not how.flash))), _ON[how.flash], _ON[not how.flash])
    return OwnChange(OwnRun(GgmlPath(replace(how, repack=not how.repack))), _ON[how.repack], _ON[not how.repack])


def _require_batches(model: Model) -> None:
    """Raise CannotVaryError where a stage would not be computed in batches: it would be the same by construction."""
    for stage in Graph.of(model).stages():
        kind = stage.kind
        if isinstance(kind, ProductsApart) or (kind.over_tokens and not (isinstance(kind, Attention) and kind.causal)):
            raise CannotVaryError(
                f"the paths of this program compute {stage.site.stage} of all tokens at once; --engine runs an engine "
                "that can be given some at a time"
            )
