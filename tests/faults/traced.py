"""Cases with a recorded trace: mistakes of a runtime, and engines that are right, in every setting they have."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from kernels.rows.dequantize import dequantize
from tests.faults.cases import Case, Prepared
from tests.faults.family_faults import FAMILY_FAULTS
from tests.faults.models import FAMILY_SHAPES, LATER_SHAPES, SHAPES, Plain, plain
from tests.faults.runtime_fault import RuntimeFault, expected_of, fits, value_of
from tests.faults.runtime_faults import RUNTIME_FAULTS
from tests.faults.storing import FORMATS, stored, write
from tests.faults.torch_runs import loud, run_jobs, write_plain
from workbench.record.recording import record

_MODELS = (*(name for name in SHAPES if name.startswith(("llama", "qwen2"))), "trained")
_FAMILIES = (
    *(name for name in SHAPES if name.startswith(("qwen3", "gemma3"))),
    *LATER_SHAPES,
    *FAMILY_SHAPES,
)
_LONG = 60  # tokens of which every window hides some
_SAME = ("st-f32", "gguf-q8_0", "gguf-f16", "gguf-q4_k_m", "apr-f32")  # the engine runs the very values of the file
_SOURCE = ("gguf-f16", "gguf-q8_0", "gguf-q6_k")  # the engine runs what the file was made of
_COST = {"gguf-f16": 3e-4, "gguf-q8_0": 6e-3, "gguf-q6_k": 2e-2}  # of a product's norm
_HIDDEN = 3.0  # times that cost, below which a mistake in a product is not to be seen
_LLAMA = {"repack": False, "flash": "off", "kv": "f32", "threads": 1, "batch": 512}
_LLAMA_SETTINGS = (
    {},
    {"repack": True},
    {"flash": "on"},
    {"flash": "auto", "kv": "f16", "repack": True},
    {"kv": "f16"},
    {"flash": "on", "kv": "q8_0"},
    {"flash": "on", "kv": "q8_0,q4_0"},
    {"threads": 2},
    {"batch": 2},
    {"batch": 3, "threads": 2, "kv": "f16"},
)


def traced(python: str, folder: Path, places: int, chosen: Callable[[str], bool]) -> list[Case]:
    """Every case with a trace: of transformers, all recorded when the first is run, and of llama.cpp, each by itself.

    python : an interpreter with torch, transformers and llama-cpp-python. chosen : which kinds are wanted.
    """
    batch = _Batch(folder / "traces", python)
    cases = [case for case in (*_runtime(batch, places, chosen), *_transformers(batch)) if chosen(case.kind)]
    return cases + [case for case in _llama_cpp(python) if chosen(case.kind)]


class _Batch:
    """Runs of transformers that are started together, for the interpreter takes seconds to start."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python = folder, python
        self.jobs: list[dict[str, object]] = []
        self.models: dict[str, Path] = {}
        folder.mkdir()

    def add(self, model: Plain, **job: object) -> Path:
        """Plan a run; returns where its trace will be."""
        if model.name not in self.models:
            self.models[model.name] = write_plain(model, self.folder / f"model{len(self.models)}")
        out = self.folder / f"{len(self.jobs)}.npz"
        usual = {"tokens": list(model.tokens()), "dtype": "float32", "edit": "", "value": 0, "layers": []}
        self.jobs.append(usual | {"model": str(self.models[model.name]), "out": str(out)} | job)
        return out

    def run(self) -> None:
        """Record what has been planned, once."""
        if self.jobs:
            run_jobs(self.jobs, self.folder, self.python)
            self.jobs.clear()


def _as_stored(model: Plain, format: str) -> Plain:
    """The model with the values that a file of some format holds."""
    values = {name: dequantize(weight) for name, weight in stored(model, FORMATS[format]).weights.items()}
    return replace(model, name=f"{model.name} {format}", values=values)


def _runtime(batch: _Batch, places: int, chosen: Callable[[str], bool]) -> Iterator[Case]:
    for fault in RUNTIME_FAULTS:
        if chosen(fault.kind):
            yield from _of_fault(batch, fault, places, _MODELS)
            yield from _of_fault(batch, fault, 1, _FAMILIES)
    for fault in FAMILY_FAULTS:
        if chosen(fault.kind):
            yield from _of_fault(batch, fault, places, _FAMILIES)


def _of_fault(batch: _Batch, fault: RuntimeFault, places: int, names: tuple[str, ...]) -> Iterator[Case]:
    chance = random.Random(fault.kind)
    models = [plain(name) for name in names if fits(fault, plain(name))]
    chance.shuffle(models)
    for place in range(min(places, 2 * len(models))):
        model = models[place % len(models)]
        same = place % 3 != 2
        formats = [name for name in (_SAME if same else _SOURCE) if FORMATS[name].fits(model)]
        same, format = (same, chance.choice(formats)) if formats else (True, "st-f32")
        run = _as_stored(model, format) if same else model
        everywhere = fault.once or place % 4 == 1
        layers = fault.layers(model.config)
        layer = layers[0 if everywhere else chance.randrange(len(layers))]
        if fault.dtype:  # coarse enough without another rounding of the weights
            model, same, format = loud(model, layer) if fault.loud else model, True, "st-f32"
            run = model
        job = {"edit": fault.edit, "value": value_of(fault, model), "layers": layers if everywhere else [layer]}
        job |= {"dtype": fault.dtype or ("float64" if place % 5 == 4 else "float32")}
        tokens = list(model.tokens(fault.count))
        path = batch.add(run, silu=fault.silu, tokens=tokens, **job)
        right = None if same and "rounded" not in fault.edit else batch.add(run, tokens=tokens)
        expected = expected_of(fault, layer)
        shown = partial(_shows, path, right, expected.cells[0], 0.0 if same else _COST[format])
        prepare = partial(_prepare, batch, model, format, path, shown, fault.count)
        where = "everywhere" if everywhere else f"layer {layer}"
        yield Case(
            fault.kind, where, model.name, f"{format} trace{'' if same else ' of the source'}", expected, prepare
        )


def _shows(wrong: Path, right: Path | None, site, cost: float) -> bool:
    """Whether a mistake changes its stage by more than the rounding of the weights changes it anyway."""
    if right is None:
        return True
    key = f"stage|{-1 if site.layer is None else site.layer}|{site.stage}"
    with np.load(wrong) as one, np.load(right) as other:
        if key not in one or key not in other:
            return True
        change = np.linalg.norm(one[key].astype(np.float64) - other[key])
        return bool(change > max(_HIDDEN * cost, 1e-6) * np.linalg.norm(other[key]))


def _prepare(
    batch: _Batch, model: Plain, format: str, trace: Path, shows: Callable[[], bool], count: int, folder: Path
) -> Prepared:
    batch.run()
    tokens = model.tokens(count)
    return Prepared(write(stored(model, FORMATS[format]), FORMATS[format], folder / "a"), trace, tokens, shows())


def _transformers(batch: _Batch) -> Iterator[Case]:
    """Runs without a mistake in every precision, beside files of the same values and of others."""
    for number, name in enumerate((*_MODELS, *_FAMILIES)):
        model, format = plain(name), _SAME[number % len(_SAME)]
        format = format if FORMATS[format].fits(model) else "st-f32"
        for dtype in ("float32", "float64", "bfloat16", *(("float16",) if name in _FAMILIES else ())):
            yield _right(batch, f"transformers {dtype}", model, format, _as_stored(model, format), dtype=dtype)
        if name in _FAMILIES:
            for dtype in ("float32", "bfloat16", "float16"):
                run = _as_stored(model, format)
                yield _right(batch, f"transformers {dtype} long", model, format, run, _LONG, dtype=dtype)
        for source in _SOURCE:
            if FORMATS[source].fits(model):
                yield _right(batch, "transformers of the source", model, source, model)
        coarse = next((f for f in ("gguf-q4_k_m", "gguf-q4_0") if FORMATS[f].fits(model)), None)
        if coarse is not None:
            verdicts = ("quantization_only", "undecided")  # whose format is not always recognised
            case = _right(batch, "transformers of a coarser copy", model, "st-f32", _as_stored(model, coarse))
            yield replace(case, formats=f"st-f32 trace of {coarse}", verdicts=verdicts)
        noisy = _right(batch, "not deterministic", model, "st-f32", model, edit="noise", value=1e-3)
        yield replace(noisy, place="everywhere", verdicts=("undecided",))


def _right(batch: _Batch, kind: str, model: Plain, format: str, run: Plain, count: int = 7, **job: object) -> Case:
    """A case with nothing to blame: a file of a model, and the trace of a run."""
    path = batch.add(run, tokens=list(model.tokens(count)), **job)
    prepare = partial(_prepare, batch, model, format, path, lambda: True, count)
    return Case(kind, "none", model.name, f"{format} trace", None, prepare)


def _llama_cpp(python: str) -> Iterator[Case]:
    for number, settings in enumerate(_LLAMA_SETTINGS):
        for at, format in enumerate(("gguf-f16", "gguf-q8_0", "gguf-q4_k_m")):
            block = 32 if "q" in str(settings.get("kv")) else 1  # llama.cpp refuses heads of other sizes
            models = [plain(name) for name in _MODELS if FORMATS[format].fits(plain(name))]
            models = [model for model in models if model.config.head_dim % block == 0]
            model = models[(number + at) % len(models)]
            yield _recorded(model, format, settings, python)
        format = ("gguf-q8_0", "gguf-f16", "gguf-q4_0")[number % 3]
        models = [plain(name) for name in _FAMILIES if FORMATS[format].fits(plain(name))]
        yield _recorded(models[number % len(models)], format, settings, python, _LONG)


def _recorded(model: Plain, format: str, settings: dict[str, object], python: str, count: int = 12) -> Case:
    words = " ".join(f"{key}={value}" for key, value in settings.items()) or "plain"
    prepare = partial(_record, model, format, _LLAMA | settings, python, count)
    return Case(f"llama.cpp {words}", "none", model.name, f"{format} trace", None, prepare)


def _record(model: Plain, format: str, settings: dict[str, object], python: str, count: int, folder: Path) -> Prepared:
    file = write(stored(model, FORMATS[format]), FORMATS[format], folder / "a")
    tokens = model.tokens(count)
    job = {"model": str(file), "tokens": list(tokens), **settings}
    meta = {"model": file.name, "architecture": model.config.architecture, "tokens": list(tokens)}
    record("llama.cpp", job, meta, folder / "b.npz", python, lambda *_: None)
    return Prepared(file, folder / "b.npz", tokens)
