"""The cases with a mistake: every kind of fault in several places of several models and pairs of formats."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from kernels.formats.format import BlockFormat
from kernels.rows.dequantize import dequantize
from tests.faults.cases import Case, Prepared
from tests.faults.config_faults import CONFIG_FAULTS, ConfigFault
from tests.faults.models import SHAPES, Plain, plain
from tests.faults.storing import FORMATS, stored, write
from tests.faults.weight_edits import Context
from tests.faults.weight_faults import WEIGHT_FAULTS, WHOLE_MODEL_FAULTS, WeightFault, expected_of, plant
from tests.memory_model import MemoryModel

Pairs = tuple[tuple[str, str], ...]
Chosen = Callable[[str], bool]  # whether the cases of a kind are wanted

PLACES = 4
MODELS = (*SHAPES, "trained")
PAIRS = (
    *(("st-f32", "gguf-f32"), ("st-f32", "gguf-f16"), ("st-f32", "gguf-q8_0"), ("st-bf16", "gguf-bf16")),
    *(("st-bf16", "gguf-q4_k_m"), ("st-f16", "apr-f16"), ("gguf-q8_0", "apr-q8_0"), ("gguf-q4_k_m", "apr-q4_k_m")),
    *(("gguf-f16", "gguf-q6_k"), ("gguf-q8_0", "gguf-q8_0"), ("st-f32", "gguf-q4_0"), ("gguf-q6_k", "gguf-q4_k")),
    *(("st-f32", "gguf-q5_0"), ("st-f32", "st-f32"), ("st-bf16", "gguf-f16"), ("gguf-f32", "apr-f32")),
    *(("st-bf16", "st-bf16"), ("apr-q4_k", "apr-q4_k")),
)
# Formats that came later are sampled by themselves, so that the cases of the others stay what they are.
LATER_PAIRS = (("st-f32", "gguf-q4_1"), ("gguf-q4_1", "apr-q4_1"), ("st-bf16", "gguf-q5_1"))
# Every other type of blocks, in models whose rows are whole blocks of all of them, by mistakes that all of them show.
_TYPES = ("q3_k", "q2_k", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "q1_0", "q2_0", "tq1_0", "tq2_0", "iq3_s", "iq3_xxs")
TYPE_PAIRS = tuple(("st-f32", f"gguf-{name}") for name in (*_TYPES, "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"))
_TYPE_MODELS = ("qwen2-4to1", "llama-4to1", "qwen2-2to1-tied")
_TYPE_KINDS = (
    "scaled",
    "sign_flipped",
    "zeroed",
    "corrupted",
    "wrong_layer",
    "transposed",
    "permuted_rope",
    "rows_perm",
)
# Scale over least-squares scale of a block; 0.83 to 1.8 by ggml_quantize_chunk with log-normal importances (sigma 2).
_FITTED_RANGE = 1.5
_HIDDEN = 2.0  # times what storing costs a row, below which a change of it is not to be seen


def all_kinds(kind: str) -> bool:
    return True


def planted(
    places: int = PLACES, models: tuple[str, ...] = MODELS, pairs: Pairs = PAIRS, chosen: Chosen = all_kinds
) -> Iterator[Case]:
    """Every case with a fault in B, of the kinds that are chosen."""
    for weight_fault in (*WEIGHT_FAULTS, *WHOLE_MODEL_FAULTS):
        if chosen(weight_fault.kind):
            yield from _some(_weight_cases(weight_fault, models, pairs), weight_fault.kind, places)
    for config_fault in CONFIG_FAULTS:
        if chosen(config_fault.kind):
            yield from _some(_config_cases(config_fault, models, pairs), config_fault.kind, places)


def planted_in_types(by_engine: bool, chosen: Chosen = all_kinds) -> Iterator[Case]:
    """A case of every kind of fault that there is in matrices of any type, in each type."""
    for pair in TYPE_PAIRS:
        if by_engine or not FORMATS[pair[1]].by_engine:
            for fault in WEIGHT_FAULTS:
                if chosen(fault.kind) and fault.kind.startswith(_TYPE_KINDS) and not fault.several:
                    cases = _weight_cases(fault, _TYPE_MODELS, (pair,))
                    matrices = (case for case in cases if case.place.endswith("_proj.weight"))
                    yield from _some(matrices, f"{fault.kind} {pair[1]}", 1)


def _some(cases: Iterator[Case], kind: str, places: int) -> Iterator[Case]:
    """Some of the cases of a kind, in formats, tensors and models that are as unlike as can be."""
    left = list(cases)
    random.Random(kind).shuffle(left)
    seen: dict[str, int] = {}
    for _ in range(min(places, len(left))):
        case = min(left, key=lambda case: max(seen.get(x, 0) for x in (case.formats, case.place, case.model)))
        left.remove(case)
        for x in (case.formats, case.place, case.model):
            seen[x] = seen.get(x, 0) + 1
        yield case


def _fitting(model: Plain, pairs: Pairs) -> Iterator[tuple[str, str]]:
    return ((a, b) for a, b in pairs if FORMATS[a].fits(model) and FORMATS[b].fits(model))


def _weight_cases(fault: WeightFault, models: tuple[str, ...], pairs: Pairs) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for name in models:
        model = plain(name)
        for names, (a, b) in product(_tensors(fault, model), list(_fitting(model, pairs))):
            context = Context(model, names[0], FORMATS[b], rng)
            if fault.fits(model.values[names[0]], context):
                prepare = partial(_prepare_weights, model, a, b, fault, names)
                yield Case(fault.kind, names[0], name, f"{a} {b}", expected_of(fault, names, model.config), prepare)


def _tensors(fault: WeightFault, model: Plain) -> Iterator[tuple[str, ...]]:
    """The tensors that a fault edits together."""
    layers = range(model.config.num_hidden_layers)
    if not fault.suffixes:
        yield tuple(sorted(model.values, key=lambda name: name != "model.embed_tokens.weight"))
    elif any(suffix in model.values for suffix in fault.suffixes):
        yield from ((name,) for name in fault.suffixes if name in model.values)
    elif fault.several:
        groups = (tuple(f"model.layers.{n}.{suffix}" for suffix in fault.suffixes) for n in layers)
        yield from (names for names in groups if all(name in model.values for name in names))
    else:
        names = (f"model.layers.{n}.{suffix}" for n in layers for suffix in fault.suffixes)
        yield from ((name,) for name in names if name in model.values)


def _prepare_weights(
    model: Plain, a: str, b: str, fault: WeightFault, names: tuple[str, ...], folder: Path
) -> Prepared:
    source, healthy = stored(model, FORMATS[a]), stored(model, FORMATS[b])
    faulty = healthy
    for name in names:
        faulty = plant(faulty, model, FORMATS[b], fault, name, seed=1)
    visible = any(_shows(source, healthy, faulty, name) for name in names)
    paths = write(source, FORMATS[a], folder / "a"), write(faulty, FORMATS[b], folder / "b")
    return Prepared(*paths, model.tokens(), visible)


def _shows(source: MemoryModel, healthy: MemoryModel, faulty: MemoryModel, name: str) -> bool:
    """Whether a row of the tensor changes by more than storing it changes it anyway."""
    if name not in faulty.weights:
        return True
    before, right, wrong = (np.atleast_2d(dequantize(model.weights[name])) for model in (source, healthy, faulty))
    format = faulty.weights[name].type.format
    if isinstance(format, BlockFormat) and format.fitted:
        wrong = _scaled_back(wrong, right)
    with np.errstate(all="ignore"):
        change = np.linalg.norm(wrong - right, axis=1)
    return not bool((change <= _HIDDEN * np.linalg.norm(right - before, axis=1)).all())


def _scaled_back(wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The values with the best scale for every block of 32, within what a quantizer makes of importance weights."""
    x, y = wrong.reshape(-1, 32), right.reshape(-1, 32)
    energy = (x * x).sum(axis=1, keepdims=True)
    factor = (x * y).sum(axis=1, keepdims=True) / np.where(energy > 0, energy, 1)
    return (x * np.clip(factor, 1 / _FITTED_RANGE, _FITTED_RANGE)).reshape(wrong.shape)


def _config_cases(fault: ConfigFault, models: tuple[str, ...], pairs: Pairs) -> Iterator[Case]:
    for name in models:
        model = plain(name)
        for a, b in _fitting(model, pairs):
            if fault.fits(model.config, FORMATS[b]):
                prepare = partial(_prepare_config, model, a, b, fault)
                yield Case(fault.kind, "config", name, f"{a} {b}", fault.expected(model.config), prepare)


def _prepare_config(model: Plain, a: str, b: str, fault: ConfigFault, folder: Path) -> Prepared:
    source = write(stored(model, FORMATS[a]), FORMATS[a], folder / "a")
    return Prepared(source, fault.write(stored(model, FORMATS[b]), FORMATS[b], folder / "b"), model.tokens())
