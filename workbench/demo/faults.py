"""Mistakes that converters make, as changes to one layer; named by the cause that a diagnosis gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat
from kernels.rows.fields import bytes_of_codes
from store.artifact import Artifact

Rows = NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """What a fault does: fields of the configuration and stored rows by canonical name, all others stay."""

    config: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)


class Fault(NamedTuple):
    """A mistake in one line, and the change it makes to the layer whose tensor names start with a prefix."""

    summary: str
    change: Callable[[Artifact, str], Change]


def _rope_theta(_model: Artifact, _layer: str) -> Change:
    return Change(config={"rope_theta": 10_000.0})


def _rms_norm_eps(_model: Artifact, _layer: str) -> Change:
    return Change(config={"rms_norm_eps": 1e-3})


def _permuted_rope(model: Artifact, layer: str) -> Change:
    rows = {}
    for module, heads in (("q_proj", model.config.num_attention_heads), ("k_proj", model.config.num_key_value_heads)):
        name = f"{layer}self_attn.{module}.weight"
        stored = model.stored_rows(name)
        halves = stored.reshape(heads, 2, -1, stored.shape[1])
        rows[name] = halves.swapaxes(1, 2).reshape(stored.shape)
    return Change(rows=rows)


def _gate_up_swapped(model: Artifact, layer: str) -> Change:
    gate, up = f"{layer}mlp.gate_proj.weight", f"{layer}mlp.up_proj.weight"
    return Change(rows={gate: model.stored_rows(up), up: model.stored_rows(gate)})


def _corrupted_blocks(model: Artifact, layer: str) -> Change:
    name = f"{layer}self_attn.o_proj.weight"
    rows, format = model.stored_rows(name).copy(), model.weight(name).type.format
    assert isinstance(format, BlockFormat)
    rows[:8, bytes_of_codes(format)] ^= 0xFF
    return Change(rows={name: rows})


def _zeroed(model: Artifact, layer: str) -> Change:
    name = f"{layer}self_attn.q_proj.bias"
    return Change(rows={name: np.zeros_like(model.stored_rows(name))})


def _scaled(model: Artifact, layer: str) -> Change:
    name = f"{layer}mlp.up_proj.weight"
    format, stored = model.weight(name).type.format, model.stored_rows(name)
    assert isinstance(format, BlockFormat)
    blocks = stored.reshape(-1, format.block.bytes).copy()
    for at in format.factors:
        scales = np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)
        blocks[:, at : at + 2] = (scales * np.float16(1.25)).view(np.uint8)
    return Change(rows={name: blocks.reshape(stored.shape)})


def _norm_offset(model: Artifact, layer: str) -> Change:
    name = f"{layer}post_attention_layernorm.weight"
    return Change(rows={name: (model.stored_rows(name).view(np.float32) + np.float32(1)).view(np.uint8)})


def _wrong_layer(model: Artifact, layer: str) -> Change:
    number = int(layer.split(".")[2])
    other = number - 1 if number else number + 1
    name = f"{layer}mlp.gate_proj.weight"
    return Change(rows={name: model.stored_rows(f"model.layers.{other}.mlp.gate_proj.weight")})


FAULTS: dict[str, Fault] = {
    "rope_theta": Fault("rotary base 10000 in place of 1000000 (all layers)", _rope_theta),
    "rms_norm_eps": Fault("RMS norm epsilon 1e-3 in place of 1e-6 (all layers)", _rms_norm_eps),
    "permuted_rope": Fault("q and k rows ordered for adjacent-pair rotation", _permuted_rope),
    "gate_up_swapped": Fault("gate and up projections exchanged", _gate_up_swapped),
    "corrupted_blocks": Fault(
        "the first block of 8 rows of the attention output projection inverted", _corrupted_blocks
    ),
    "zeroed": Fault("q bias all zero", _zeroed),
    "scaled": Fault("up projection scaled by 1.25", _scaled),
    "norm_offset": Fault("1 added to the norm weight before the feed-forward network", _norm_offset),
    "wrong_layer": Fault("gate projection taken from the neighbouring layer", _wrong_layer),
}
