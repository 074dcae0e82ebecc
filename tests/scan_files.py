"""Models with a state space beside attention as Hugging Face stores them: weights without the multipliers."""

from dataclasses import replace

import numpy as np

from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from tests.delta_files import logarithmic
from tests.memory_model import MemoryModel

# Powers of two, by which floats can be divided and multiplied again.
MULTIPLIERS = {
    "embedding_multiplier": 4.0,
    "lm_head_multiplier": 0.5,
    "attention_in_multiplier": 2.0,
    "attention_out_multiplier": 0.5,
    "key_multiplier": 0.25,
    "ssm_in_multiplier": 4.0,
    "ssm_out_multiplier": 0.25,
    "mlp_multipliers": [0.5, 2.0],
    "ssm_multipliers": [0.5, 2.0, 0.25, 4.0, 8.0],
}


def without_multipliers(model: MemoryModel) -> dict[str, Weight]:
    """The tensors by their canonical names, divided by what transformers multiplies products with."""
    return {name: _divided(logarithmic(weight), model) for name, weight in model.weights.items()}


def _divided(weight: Weight, model: MemoryModel) -> Weight:
    m, r = MULTIPLIERS, model.config.recurrence
    factors = {
        "embed_tokens": m["embedding_multiplier"],
        "lm_head": m["lm_head_multiplier"],
        **{f"{letter}_proj": m["attention_in_multiplier"] for letter in "qv"},
        "k_proj": m["attention_in_multiplier"] * m["key_multiplier"],
        "o_proj": m["attention_out_multiplier"],
        "out_proj": m["ssm_out_multiplier"],
        "gate_proj": m["mlp_multipliers"][0],
        "down_proj": m["mlp_multipliers"][1],
        "in_proj": m["ssm_in_multiplier"]
        * np.repeat(m["ssm_multipliers"], (r.values, r.values, r.keys, r.keys, r.heads))[:, None],
    }
    factor = factors.get(weight.name.split(".")[-2])
    if factor is None or not weight.name.endswith(".weight"):
        return weight
    type = np.float32 if weight.type == TensorType.F32 else np.float16
    values = (dequantize(weight) / factor).astype(type)
    return replace(weight, stored=values.view(np.uint8))
