"""Heads of values in tiles: llama.cpp lets those that share a head of keys stand apart, Hugging Face side by side.

Here they stand as in llama.cpp, because the columns of a quantized matrix cannot be put in another order, and those of
floats can.
"""

import re
from collections.abc import Mapping

import numpy as np

from kernels.config import ModelConfig
from kernels.models import family
from store.errors import ArtifactError
from store.stored_model import FLOATS, Reordered, TensorInfo
from store.text import printable

_TENSOR = re.compile(r"model\.layers\.[0-9]+\.linear_attn\.(.+)", re.ASCII)


def in_tiles(file: str, tensors: Mapping[str, TensorInfo], config: ModelConfig) -> dict[str, Reordered]:
    """What is in another order in Hugging Face's files; ArtifactError for a matrix whose columns cannot be moved."""
    r = config.recurrence
    if r is None or not family(config.architecture).tiled or r.heads == r.groups:
        return {}
    by_head = np.arange(r.heads).reshape(r.groups, -1).T.reshape(-1)
    values = (by_head[:, None] * r.head_dim + np.arange(r.head_dim)).reshape(-1)
    convolved = np.concatenate([np.arange(2 * r.keys), 2 * r.keys + values])
    orders: dict[str, Reordered] = {
        **dict.fromkeys(("v_proj.weight", "z_proj.weight"), Reordered(values)),
        **dict.fromkeys(("a_proj.weight", "b_proj.weight", "A_log", "dt_bias"), Reordered(by_head)),
        "conv1d.weight": Reordered(convolved),
        "out_proj.weight": Reordered(columns=values),
    }
    found = {name: orders[match[1]] for name in tensors if (match := _TENSOR.fullmatch(name)) and match[1] in orders}
    for name, order in found.items():
        if order.columns is not None and tensors[name].type not in FLOATS:
            raise ArtifactError(
                f"{file}: tensor {printable(tensors[name].raw_name, 80)} has the type {tensors[name].type.name}, whose "
                "columns cannot be put in another order; give one with floats, or the GGUF."
            )
    return found
