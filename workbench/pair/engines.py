"""With which arithmetic a recorded trace is to be checked: the numeric path of its engine, and how finely it rounds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kernels.errors import WorkbenchError
from kernels.paths import PATHS, F32Path, GgmlPath, numeric_path
from kernels.precision import BFLOAT16, FLOAT16, FLOAT32, TF32, Precision
from store.text import printable
from store.traces.trace import Trace
from workbench.pair.kv_cache import KINDS, KvCache

# How llama.cpp keeps K and V, whose every score and sum is rounded more than once; f16 is its default. The step of a
# block, which is half precision, counts up to 127 times; what else a quantized cache rounds is up to KvCache.
_HALF = replace(FLOAT16, unit=2.0**-11)
_BLOCKS = replace(FLOAT32, name="quantized", least=127 * FLOAT16.least)
_CACHES = {
    "f32": FLOAT32,
    "f16": _HALF,
    "unknown": _HALF,
    "bf16": replace(BFLOAT16, unit=2.0**-8),
    **dict.fromkeys(KINDS, _BLOCKS),
}
_STRANGE_CACHE = replace(_BLOCKS, unit=2.0**-5)
_WIDE = "AVX512 = 1"  # in what llama.cpp says of its build, where its vectors have 16 lanes
# Path and precision that transformers ran in; its bfloat16 and float16 operations add up in float32.
_DTYPES = {
    "float64": ("f64", FLOAT32),
    "float32": ("f32", FLOAT32),
    "float16": ("f32", FLOAT16),
    "bfloat16": ("f32", BFLOAT16),
}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How an engine computed.

    kept, attention, products : how it keeps its own numbers, those inside attention, and the inputs of products.
    cache : how K and V are kept where that is coarser than floats.
    notes : sentences about what that leaves unchecked or had to be taken for granted.
    """

    path: F32Path
    kept: Precision = FLOAT32
    attention: Precision = FLOAT32
    products: Precision = FLOAT32
    cache: KvCache | None = None
    notes: tuple[str, ...] = ()


def arithmetic_of(trace: Trace, asked: str | None = None) -> Arithmetic:
    """The arithmetic of the engine that recorded a trace.

    asked : the numeric path to use for an engine that this program does not know; WorkbenchError if it is needed.
    """
    if trace.record is not None:
        return Arithmetic(numeric_path(trace.record.numeric_path))
    if trace.engine in ENGINES:
        return ENGINES[trace.engine](trace)
    if asked is None:
        raise WorkbenchError(
            f"{printable(trace.path.name)} comes from an engine that is not known ({printable(trace.engine, 40)}); say "
            f"with --path-a or --path-b of the model how it computes: {', '.join(PATHS)}"
        )
    return Arithmetic(numeric_path(asked), notes=(f"That the engine computes as path {asked} is your word.",))


def _transformers(trace: Trace) -> Arithmetic:
    dtype = trace.settings.get("dtype")
    if dtype is None:
        path, kept = _DTYPES["float32"]
        return Arithmetic(numeric_path(path), kept, kept, notes=("It was checked as a float32 run.",))
    if str(dtype) not in _DTYPES:
        raise WorkbenchError(
            f"{printable(trace.path.name)} was computed in {printable(str(dtype), 40)}, which cannot be checked; "
            f"record it in one of {', '.join(_DTYPES)}"
        )
    path, kept = _DTYPES[str(dtype)]
    if dtype == "float32" and trace.settings.get("tf32") is True:
        note = "Products read their inputs in TF32, with 10 binary digits, so smaller mistakes cannot be seen there."
        return Arithmetic(numeric_path(path), kept, TF32, TF32, notes=(note,))
    notes = (f"Every stage was rounded to {dtype}, so smaller mistakes cannot be seen.",) if kept != FLOAT32 else ()
    return Arithmetic(numeric_path(path), kept, kept, notes=notes)


def _llama_cpp(trace: Trace) -> Arithmetic:
    """Attention in half precision where K and V are kept so, or flash attention casts them; or in quantized blocks."""
    flash = trace.observed.get("flash_attention", {"0": "off", "1": "on"}.get(str(trace.settings.get("flash"))))
    cache = _cache_of(trace)
    kinds = {cache.type_k, cache.type_v}
    path: F32Path = GgmlPath(16 if _WIDE in str(trace.settings.get("system_info", "")) else 8)
    if flash == "off" and kinds == {"f32"}:
        return Arithmetic(path)
    reasons = []
    if flash != "off":
        reasons.append("flash attention was on" if flash == "on" else "whether flash attention was on is not there")
    if kinds != {"f32"}:
        reasons.append("the type of the KV cache is not there" if "unknown" in kinds else _cache_words(cache))
    kept = _HALF if flash != "off" else FLOAT32
    for kind in kinds:
        kept = kept.coarser(_CACHES.get(kind, _STRANGE_CACHE))
    words = "half precision" if kept.unit == _HALF.unit else f"a relative rounding of {kept.unit:.2g}"
    if cache.quantized:
        words = "what its cache keeps of K and V"
    note = f"Attention was checked to {words} only: {', '.join(reasons)}."
    return Arithmetic(path, attention=kept, cache=cache if cache.quantized else None, notes=(note,))


def _cache_of(trace: Trace) -> KvCache:
    """How K and V were kept: what the nodes prove, else what the settings say."""
    said = str(trace.settings.get("kv", "unknown")).split(",")
    seen = trace.observed
    types = str(seen.get("type_k", said[0])), str(seen.get("type_v", said[-1]))
    return KvCache(*types, seen.get("turned_k", 0), seen.get("turned_v", 0))


def _cache_words(cache: KvCache) -> str:
    names = " and ".join(printable(kind, 20) for kind in sorted({cache.type_k, cache.type_v}))
    turned = "" if not (cache.turned_k or cache.turned_v) else ", turned by Walsh-Hadamard matrices"
    return f"the KV cache was {names}{turned}"


def _workbench(trace: Trace) -> Arithmetic:
    """Stages that this program saved without the record of the run."""
    path = str(trace.settings.get("numeric_path"))
    if path not in PATHS:
        name = printable(trace.path.name)
        raise WorkbenchError(f"{name} names no numeric path that is known ({printable(path, 40)}); save it again")
    return Arithmetic(numeric_path(path))


def _apr(_trace: Trace) -> Arithmetic:
    return Arithmetic(numeric_path("apr"))


ENGINES: dict[str, Callable[[Trace], Arithmetic]] = {
    "llama.cpp": _llama_cpp,
    "transformers": _transformers,
    "apr": _apr,
    "workbench": _workbench,
}
