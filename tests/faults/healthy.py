"""The pairs without a mistake: every format against its source and against other formats, seeds, long prompts."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.faults.cases import Case, Prepared
from tests.faults.models import LATER_SHAPES, NEW_FAMILY_SHAPES, SHAPES, Plain, plain
from tests.faults.storing import FORMATS, stored, write

_SOURCES = ("st-f32", "st-bf16", "gguf-f16")
_COPIES = (("gguf-q8_0", "gguf-q4_k_m"), ("gguf-q4_k_m", "apr-q4_k_m"), ("gguf-q6_k", "gguf-q4_0"))
_LONG = 60


def healthy(by_engine: bool = False) -> Iterator[Case]:
    """Every pair of two models that differ by their formats at most; those that the engine makes if there is one."""
    for number, name in enumerate((*SHAPES, "trained", *LATER_SHAPES, *NEW_FAMILY_SHAPES)):
        model = plain(name)
        source = _SOURCES[number % len(_SOURCES)]
        for copy in FORMATS:
            if copy != source and FORMATS[copy].fits(model) and (by_engine or not FORMATS[copy].by_engine):
                yield _case("format", model, source, copy)
        for pair in _COPIES:
            if all(FORMATS[format].fits(model) for format in pair):
                yield _case("two copies", model, *pair)
    for seed in (1, 2):
        for name, copy in (("qwen2-4to1", "gguf-q4_k_m"), ("llama-mha", "gguf-q8_0"), ("llama-3to1-tied", "gguf-f16")):
            yield _case(f"seed {seed}", plain(name, seed), "st-bf16", copy)
    for name, copy in (("qwen2-4to1", "gguf-q4_k_m"), ("llama-4to1", "apr-q4_k"), ("trained", "gguf-q8_0")):
        yield _case("long prompt", plain(name), "st-f32", copy, _LONG)


def _case(kind: str, model: Plain, a: str, b: str, count: int = 7) -> Case:
    return Case(kind, "none", model.name, f"{a} {b}", None, partial(_prepare, model, a, b, count))


def _prepare(model: Plain, a: str, b: str, count: int, folder: Path) -> Prepared:
    paths = (write(stored(model, FORMATS[name]), FORMATS[name], folder / side) for name, side in ((a, "a"), (b, "b")))
    return Prepared(*paths, model.tokens(count))
