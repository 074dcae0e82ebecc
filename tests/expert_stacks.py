"""How Hugging Face stores the experts of families that stack them in a way of their own."""

import re

import numpy as np

from kernels.weight import TensorType, Weight
from tests.memory_model import MemoryModel

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj\.(weight|bias)")


def of_gpt_oss(model: MemoryModel) -> dict[str, Weight]:
    """A row of gate and a row of up by turns, all of them as columns; sinks and biases without an ending."""
    found: dict[str, Weight] = {}
    stacks: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for name, weight in model.weights.items():
        if match := _EXPERT.fullmatch(name):
            width = np.uint32 if weight.type == TensorType.F32 else np.uint16
            values = weight.stored.view(width).reshape(weight.shape)
            stacks.setdefault((match[1], match[4]), {}).setdefault(match[3], []).append(values)
        else:
            found[name.replace("sinks.weight", "sinks").replace("mlp.gate.", "mlp.router.")] = weight
    for (module, kind), parts in stacks.items():
        both = np.stack([np.stack(parts[part]) for part in ("gate", "up")], axis=2)  # (experts, rows, 2, ...)
        whole = {"gate_up": both.reshape(len(both), -1, *both.shape[3:]), "down": np.stack(parts["down"])}
        for part, values in whole.items():
            name = f"{module}.{part}_proj{'' if kind == 'weight' else '_bias'}"
            stored = np.ascontiguousarray(values.swapaxes(1, 2) if kind == "weight" else values)
            type = model.weights[f"{module}.0.down_proj.{kind}"].type
            found[name] = Weight(name, type, stored.shape, stored.reshape(len(stored), -1).view(np.uint8))
    return found
