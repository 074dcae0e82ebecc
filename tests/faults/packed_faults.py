"""Weights in parts (FP8, GPTQ, AWQ, compressed-tensors, ModelOpt, MLX, bitsandbytes): healthy copies and mistakes.

A mistake is planted on either side of packing: by the program that packs, whose copy is held against its source, and by
one that reads what was packed rightly and writes plain numbers.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kernels.config import ModelConfig
from kernels.rows.dequantize import dequantize
from store.open import open_artifact
from tests.faults.cases import Case, Expected, Prepared
from tests.faults.models import NEW_FAMILY_SHAPES, SHAPES, Plain, plain
from tests.faults.storing import FORMATS, stored, write
from tests.faults.weight_faults import sites_of
from tests.hf_files import float_tensor
from tests.memory_model import MemoryModel
from tests.packed_models import CONFIGS, Numbers, packed_by, read_by, write_packed

_FOUR_BITS = ("gptq", "awq", "compressed-tensors", "mlx", "nf4", "nvfp4", "modelopt")
_MODELS = tuple(name for name in (*SHAPES, *NEW_FAMILY_SHAPES, "trained"))
_ANY = ("_proj.weight",)


@dataclass(frozen=True)
class PackedFault:
    """edit : what a program takes the numbers of a weight for. methods : those whose parts can be taken so.

    ends : of the names of tensors that it makes sense in. packer : whether a packer can write it.
    """

    kind: str
    cause: str
    methods: tuple[str, ...]
    edit: Callable[[Numbers, ModelConfig], Numbers]
    ends: tuple[str, ...] = _ANY
    packer: bool = True


def _zeros(by: int) -> Callable[[Numbers, ModelConfig], Numbers]:
    return lambda n, c: n._replace(zeros=(8 if n.zeros is None else n.zeros) + np.full(n.scales.shape, by, np.float32))


def _columns(size: int) -> Callable[[Numbers, ModelConfig], Numbers]:
    return lambda n, c: n._replace(codes=n.codes.reshape(len(n.codes), -1, size)[:, :, ::-1].reshape(n.codes.shape))


def _halves(n: Numbers, c: ModelConfig) -> Numbers:
    return n._replace(codes=n.codes.reshape(len(n.codes), -1, 16, 2).swapaxes(2, 3).reshape(n.codes.shape))


def _divided(n: Numbers, c: ModelConfig) -> Numbers:
    return n._replace(scales=(1 / n.scales.astype(np.float32)).astype(n.scales.dtype))


def _multiplied(n: Numbers, c: ModelConfig) -> Numbers:
    """The scale of the tensor, which makes the largest of its groups 448."""
    return n._replace(scales=n.scales * np.float32(448 / n.scales.max()) ** 2)


def _group(by: int) -> Callable[[Numbers, ModelConfig], Numbers]:
    def moved(n: Numbers, c: ModelConfig) -> Numbers:
        return Numbers(n.codes, *(None if x is None else np.roll(x, by, axis=1) for x in (n.scales, n.zeros)))

    return moved


def _tile_below(n: Numbers, c: ModelConfig) -> Numbers:
    return n._replace(scales=np.roll(n.scales, -1, axis=0))


def _pairs(n: Numbers, c: ModelConfig) -> Numbers:
    """Rows of codes in the order of adjacent pairs, and their scales where they were."""
    heads = n.codes.reshape(-1, 2, c.head_dim // 2, n.codes.shape[1])
    return n._replace(codes=heads.swapaxes(1, 2).reshape(n.codes.shape))


def _outputs(n: Numbers, c: ModelConfig) -> Numbers:
    """The eight rows of a word in the order that AWQ has not."""
    return n._replace(
        codes=n.codes.reshape(-1, 8, n.codes.shape[1])[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(n.codes.shape)
    )


_WITH_ZEROS = ("gptq", "awq")
_F = PackedFault
FAULTS = (
    _F("zero point one more", "zero_point", _WITH_ZEROS, _zeros(1)),
    _F("zero point one less", "zero_point", _WITH_ZEROS, _zeros(-1)),
    _F("middle one less", "zero_point", ("compressed-tensors",), _zeros(-1), packer=False),
    _F("nibbles exchanged", "nibble_order", _FOUR_BITS, _columns(2)),
    _F("word reversed", "nibble_order", ("gptq", "compressed-tensors", "mlx"), _columns(8)),
    _F("pairs as halves", "nibble_order", _FOUR_BITS, _halves),
    _F("outputs of a word", "nibble_order", ("awq",), _outputs),
    _F(
        "divided by scales",
        "reciprocal_scale",
        tuple(m for m in CONFIGS if m not in ("mlx", "nvfp4", "modelopt")),
        _divided,
    ),
    _F("the tensor's scale reciprocal", "reciprocal_scale", ("nvfp4", "modelopt"), _multiplied),
    _F("scale of the group before", "scale_order", (*_FOUR_BITS, "fp8"), _group(1)),
    _F("scale of the group after", "scale_order", (*_FOUR_BITS, "fp8"), _group(-1)),
    _F("scale of the tile below", "scale_order", ("fp8",), _tile_below),
    _F("permuted without scales", "scale_order", (*_FOUR_BITS, "int8"), _pairs, ("q_proj.weight", "k_proj.weight")),
)


def packed_cases() -> Iterator[Case]:
    """Healthy copies by every method, of every third model in turn, then every mistake by packer and by reader."""
    for number, method in enumerate(CONFIGS):
        for name in _MODELS[number % 3 :: 3]:
            prepare = partial(_healthy, plain(name), method)
            yield Case("packed healthy", "none", name, f"st-f32 st-{method}", None, prepare)
    for fault in FAULTS:
        for method in fault.methods:
            for by in ("packer", "reader") if fault.packer else ("reader",):
                yield _planted(fault, method, by)


def _planted(fault: PackedFault, method: str, by: str) -> Case:
    rng = random.Random(f"{fault.kind} {method} {by}")
    model = plain(rng.choice(_MODELS))
    while not (tensors := [name for name in model.values if name.endswith(fault.ends) and _shows(fault, model, name)]):
        model = plain(rng.choice(_MODELS))
    name = rng.choice(sorted(tensors))
    expected = Expected((sites_of(model.config)[name],), ("weights",), (fault.cause,), (), name)
    formats = f"st-f32 st-{method}" if by == "packer" else f"st-{method} st-f32"
    prepare = partial(_by_packer if by == "packer" else _by_reader, model, fault, method, name)
    return Case(f"packed {fault.kind}", name, model.name, formats, expected, prepare)


def _shows(fault: PackedFault, model: Plain, name: str) -> bool:
    """Whether it changes anything: a weight may have a single group or tile."""
    rows, columns = model.values[name].shape
    return columns > 32 and (fault.edit is not _tile_below or rows > 32)


def _source(model: Plain) -> MemoryModel:
    return stored(model, FORMATS["st-f32"])


def _healthy(model: Plain, method: str, folder: Path) -> Prepared:
    a = write(_source(model), FORMATS["st-f32"], folder / "a")
    return Prepared(a, write_packed(folder / "b", _source(model), method), model.tokens())


def _by_packer(model: Plain, fault: PackedFault, method: str, name: str, folder: Path) -> Prepared:
    def change(module: str, parts: dict) -> None:
        if f"{module}.weight" == name:
            parts.clear()
            parts.update(packed_by(method, model.values[name], lambda n: fault.edit(n, model.config)))

    a = write(_source(model), FORMATS["st-f32"], folder / "a")
    return Prepared(a, write_packed(folder / "b", _source(model), method, change), model.tokens())


def _by_reader(model: Plain, fault: PackedFault, method: str, name: str, folder: Path) -> Prepared:
    a = write_packed(folder / "a", _source(model), method)
    opened = open_artifact(a)
    values = {name: dequantize(opened.weight(name)) for name in model.values}
    values[name] = read_by(method, model.values[name], lambda n: fault.edit(n, model.config))
    b = MemoryModel(model.config, {name: float_tensor(name, x) for name, x in values.items()})
    return Prepared(a, write(b, FORMATS["st-f32"], folder / "b"), model.tokens())
