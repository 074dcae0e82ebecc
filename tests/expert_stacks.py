"""How Hugging Face stores the experts of families that have a way of their own."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from kernels.models import family
from kernels.weight import TensorType, Weight
from tests.delta_files import joined, logarithmic, unsqueezed
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


_SELECTION = "mlp.gate.e_score_correction_bias"


def of_minimax(model: MemoryModel) -> dict[str, Weight]:
    """As mixtral, with what is added for the choice beside the router."""
    found = {}
    for name, weight in model.weights.items():
        for plain, own in ((_SELECTION, "mlp.e_score_correction_bias"), ("mlp.", "block_sparse_moe."), *_NUMBERED):
            name = name.replace(plain, own)
        found[name] = weight
    return found


def of_ernie(model: MemoryModel) -> dict[str, Weight]:
    """With what is added for the choice as a matrix of one row."""
    found = {}
    for name, weight in model.weights.items():
        if name.endswith(_SELECTION):
            weight = replace(weight, shape=(1, *weight.shape))
        own = name.replace(_SELECTION, "mlp.moe_statics.e_score_correction_bias")
        found[own.replace("shared_expert.", "shared_experts.")] = weight
    return found


def of_exaone(model: MemoryModel) -> dict[str, Weight]:
    names = {name: name.replace(_SELECTION, "mlp.e_score_correction_bias") for name in model.weights}
    return {own.replace("shared_expert.", "shared_experts."): model.weights[name] for name, own in names.items()}


def of_granite(model: MemoryModel) -> dict[str, Weight]:
    """The tensors of granitemoe, whose experts are stacked and whose gate and up are one tensor."""
    found = {name: unsqueezed(logarithmic(w)) for name, w in model.weights.items() if ".mlp." not in name}
    for layer in range(model.config.num_hidden_layers):
        p, count = f"model.layers.{layer}.", model.config.num_experts

        def rows(*parts: str, p: str = p) -> np.ndarray:
            return np.concatenate([model.weights[f"{p}mlp.{part}_proj.weight"].stored for part in parts])

        def put(name: str, of: str, stored: np.ndarray, *more: int, p: str = p) -> None:
            weight = model.weights[f"{p}mlp.{of}.weight"]
            shape = (*more, len(stored) // (more[0] if more else 1), weight.shape[1])
            found[f"{p}{name}.weight"] = Weight(f"{p}{name}.weight", weight.type, shape, stored)

        gate_up = np.concatenate([rows(f"experts.{n}.gate", f"experts.{n}.up") for n in range(count)])
        put("block_sparse_moe.input_linear", "experts.0.gate_proj", gate_up, count)
        down = np.concatenate([rows(f"experts.{n}.down") for n in range(count)])
        put("block_sparse_moe.output_linear", "experts.0.down_proj", down, count)
        put("block_sparse_moe.router.layer", "gate", model.weights[f"{p}mlp.gate.weight"].stored)
        put("shared_mlp.input_linear", "shared_expert.gate_proj", rows("shared_expert.gate", "shared_expert.up"))
        put("shared_mlp.output_linear", "shared_expert.down_proj", rows("shared_expert.down"))
    return found


def of_granite_hybrid(model: MemoryModel) -> dict[str, Weight]:
    """The same of granitemoehybrid, which has decays as logarithms and may have no experts."""
    if model.config.num_experts:
        return of_granite(model)
    weights = {name: unsqueezed(logarithmic(weight)) for name, weight in model.weights.items()}
    for layer in range(model.config.num_hidden_layers):
        p = f"model.layers.{layer}."
        both = [weights.pop(f"{p}mlp.{part}_proj.weight") for part in ("gate", "up")]
        name = f"{p}shared_mlp.input_linear.weight"
        weights[name] = joined(name, both)
        weights[f"{p}shared_mlp.output_linear.weight"] = weights.pop(f"{p}mlp.down_proj.weight")
    return weights


def of_afmoe(model: MemoryModel) -> dict[str, Weight]:
    plain = {
        name: name.replace(_SELECTION, "mlp.expert_bias").replace("mlp.gate.", "mlp.router.gate.")
        for name in model.weights
    }
    return {own.replace("shared_expert.", "shared_experts."): model.weights[name] for name, own in plain.items()}


def of_lfm2moe(model: MemoryModel) -> dict[str, Weight]:
    from tests.hf_files import hf_name

    found, modules = {}, family("lfm2moe").modules
    for name, weight in model.weights.items():
        own = hf_name(name, modules)
        if ".experts." in name or name.endswith(_SELECTION):
            own = name
            for plain, spelled in ((_SELECTION, "mlp.expert_bias"), ("mlp.", "feed_forward."), *_NUMBERED):
                own = own.replace(plain, spelled)
        found[own] = unsqueezed(weight)
    return found


def of_gemma4(model: MemoryModel) -> dict[str, Weight]:
    """What every layer has of the embeddings of all as one tensor, and experts stacked, beside the block."""
    found: dict[str, Weight] = {}
    whole: dict[str, list[Weight]] = {}
    for name, weight in model.weights.items():
        own = name.replace("layer_scalar.weight", "layer_scalar").replace("mlp.gate_norm.weight", "router.scale")
        own = own.replace("mlp.gate.", "router.proj.").replace("mlp.experts.", "experts.")
        if name.endswith("per_layer_model_projection.weight"):
            whole.setdefault("model.per_layer_model_projection.weight", []).append(weight)
        elif match := _EXPERT.fullmatch(own):
            part = "down_proj" if match[3] == "down" else "gate_up_proj"
            whole.setdefault(f"{match[1]}.{part}", []).append(weight)
        elif own.endswith("down_proj.output_scale"):
            module = own.partition("experts.")[0]
            whole.setdefault(f"{module}router.per_expert_scale", []).append(weight)
        else:
            found[own] = weight
    for name, parts in whole.items():
        if name.endswith("gate_up_proj"):  # as tensors come: those of all gates, then those of all of what they let in
            half = len(parts) // 2
            parts = [part for pair in zip(parts[:half], parts[half:], strict=True) for part in pair]
        rows = np.concatenate([weight.rows for weight in parts], axis=1 if name.endswith("scale") else 0)
        count = model.config.num_experts
        shape = (count,) if name.endswith("scale") else (sum(w.shape[0] for w in parts), parts[0].shape[1])
        shape = (count, shape[0] // count, shape[1]) if name.endswith("_proj") else shape
        found[name] = Weight(name, parts[0].type, shape, rows)
    return found


_NUMBERED = (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3"))
STACKED: Mapping[str, Callable[[MemoryModel], dict[str, Weight]]] = {
    "granitemoe": of_granite,
    "granitehybrid": of_granite_hybrid,
    "gpt_oss": of_gpt_oss,
    "minimax_m2": of_minimax,
    "ernie4_5_moe": of_ernie,
    "exaone_moe": of_exaone,
    "afmoe": of_afmoe,
    "lfm2moe": of_lfm2moe,
    "gemma4": of_gemma4,
}
