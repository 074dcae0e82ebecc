"""Mistakes that families invite: what a file or a runtime gets wrong, and what must be said of it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kernels import ops
from kernels.forward import evaluate
from kernels.graph import At
from kernels.kinds.choice import chosen
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from tests.artifacts import tiny_model
from tests.foreign_dumps import run_changed
from tests.golden.record_families import LAYERS, OF_FAMILY
from tests.hf_files import float_tensor
from tests.memory_model import MemoryModel
from workbench.bisect.models.bisection import Bisection, bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader

TOKENS = (3, 17, 90, 4, 55, 21, 8, 60, 111)
HEALTHY = ("alike", "numerics_only", "quantization_only")


def model_of(family: str, **sizes: Any) -> MemoryModel:
    return tiny_model(family, **{"layers": LAYERS.get(family, 2), "head_dim": 32} | OF_FAMILY.get(family, {}) | sizes)


def bisected(a: Any, b: Any, path: str = "f32") -> Bisection:
    return bisect_artifacts(Side(a, numeric_path(path)), Side(b, numeric_path(path)), TOKENS)


@dataclass(frozen=True)
class Fault:
    """A mistake of one family, what the bisection must say of it, and words of its explanation.

    tensors : names -> what becomes of their values, or whose values they get. config : settings of the damaged side.
    runtime : settings of a runtime that computes one stage with them. change : what a runtime makes of the stage.
    """

    family: str
    site: Site
    cause: str
    words: str = ""
    tensors: dict[str, Callable[[np.ndarray], np.ndarray]] | None = None
    config: dict[str, Any] | None = None
    runtime: dict[str, Any] | None = None
    change: Callable[..., np.ndarray] | None = None

    def __str__(self) -> str:
        return f"{self.family}-{self.site}-{self.cause}"


def of_layer(number: int, module: str) -> str:
    return f"model.layers.{number}.{module}.weight"


def damaged(model: MemoryModel, tensors: dict[str, Callable]) -> MemoryModel:
    values = model.values()
    changed = {
        name: float_tensor(name, values[change] if isinstance(change, str) else change(values[name]))
        for name, change in tensors.items()
    }
    return replace(model, weights=model.weights | changed)


# What a runtime makes of a stage by mistake, of what it knows: the model, the layer's stages, the right output.
def per_head(model, known, right):
    c, x = model.config, known["qkv_matmul"][:, model.config.q_size : model.config.q_size + model.config.kv_size]
    heads = x.reshape(len(x), -1, c.head_dim)
    scale = np.sqrt(np.square(heads).mean(axis=2, keepdims=True) + np.float32(c.rms_norm_eps))
    return (heads / scale).reshape(x.shape) * model.values()["model.layers.0.self_attn.k_norm.weight"]


def pre_normed(model, known, right):
    x = known["layer_input"] if "layer_input" in known else known["embedding"]
    x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
    names = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv")
    return np.concatenate([x @ model.values()[name].T for name in names], axis=1)


def without_norm(model, known, right):
    return known["ffn_out"] if "ffn_out" in known else known["post_attn_residual"]


def unscaled(model, known, right):
    return right / np.float32(8)


def with_silu(model, known, right):
    return numeric_path("f32").silu(known["ffn_gate"])


def with_erf(model, known, right):
    from math import erf

    gate = known["ffn_gate"].astype(np.float64)
    return (gate / 2 * (1 + np.vectorize(erf)(gate / 2**0.5))).astype(np.float32)


def unbiased(model, known, right):
    return known["qkv_matmul"].copy()


def in_turn(model, known, right):
    c = model.config
    at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(Site(0, "attention")))
    order = [0, 2, 1, 3]
    q = known["q_post_rope"].reshape(len(right), 4, c.head_dim)[:, order].reshape(len(right), -1)
    out = evaluate(at, {"q": np.ascontiguousarray(q), "k": known["k_post_rope"], "v": known["qkv_bias"]})
    return out.reshape(len(right), 4, c.head_dim)[:, order].reshape(right.shape)


def together(model, known, right):
    c, x = model.config, known["qkv_matmul"][:, model.config.q_size : model.config.q_size + model.config.kv_size]
    scale = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(c.rms_norm_eps))
    return x / scale * np.tile(model.values()["model.layers.0.self_attn.k_norm.weight"], c.num_key_value_heads)


def without_mean_of(layer):
    """The norm before attention as an RMS norm."""

    def changed(model, known, right):
        x, w = known.get("layer_input", known.get("embedding")), model.values()
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(model.config.rms_norm_eps))
        norm = f"model.layers.{layer}.input_layernorm"
        return x * w.get(f"{norm}.weight", 1) + w.get(f"{norm}.bias", 0)

    return changed


def rotated_together(model, known, right):
    c, x = model.config, known["k_post_rope"]
    scale = np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(c.rms_norm_eps))
    weight = model.values()["model.layers.0.self_attn.key_layernorm.weight"]
    return x / scale * np.tile(weight, c.num_key_value_heads)


def rank_by_rank(model, known, right):
    """The rows of q, k and v of each half of the heads one after the other."""
    c = model.config
    halves = [np.split(part, 2, axis=1) for part in np.split(right, (c.q_size, c.q_size + c.kv_size), axis=1)]
    return np.concatenate([part[half] for half in (0, 1) for part in halves], axis=1)


def the_last_rotated(model, known, right):
    c = model.config
    x = known["qkv_matmul"][:, c.q_size : c.q_size + c.kv_size].reshape(len(right), -1, c.head_dim)
    rotation = Graph.of(model).stage(Site(0, "k_post_rope")).kind.rotation
    moved = np.ascontiguousarray(np.roll(x, -(c.head_dim - c.rotary_dim), axis=2)).reshape(right.shape)
    turned = ops.rotate(moved, ops.rope_angles_f32(np.arange(len(right)), rotation), rotation)
    return np.roll(turned.reshape(x.shape), c.head_dim - c.rotary_dim, axis=2).reshape(right.shape)


def normed(x, model, module):
    c, w = model.config, model.values()
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(c.rms_norm_eps))
    return x * w[f"{module}.weight"] + w[f"{module}.bias"]


def one_after_the_other(model, known, right):
    return normed(known["embedding"] + known["attn_out"], model, "model.layers.0.post_attention_layernorm")


def group_by_group(model, known, right):
    """Channels of q, k and v as a product has them whose rows are those of each head."""
    heads = [part.reshape(len(right), 4, -1) for part in np.split(right, 3, axis=1)]
    return np.concatenate(heads, axis=2).reshape(right.shape)


def less(name):
    """Without what a tensor adds to every token."""
    return lambda model, known, right: right - model.values()[name]


def up_with_erf(model, known, right):
    return with_erf(model, {"ffn_gate": known["ffn_up"]}, right)


def halves_of_the_first(w, size, turned):
    """The rows of every head that turn in halves, in place of adjacent pairs."""
    heads = w.reshape(-1, size, w.shape[1]).copy()
    heads[:, :turned] = np.concatenate([heads[:, 0:turned:2], heads[:, 1:turned:2]], axis=1)
    return heads.reshape(w.shape)


def with_kind(**changes):
    """The stage with other settings of its kind."""

    def change(model, known, right, site):
        at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
        at = at.doing(replace(at.kind, **changes))
        return evaluate(at, {role: known[name] for role, name in at.stage.inputs.items()})

    return change


def next_expert(model, known, right, site):
    stage = Graph.of(model).stage(site)
    moved = replace(stage, tensors=(*stage.tensors[1:], stage.tensors[0]))
    x = {role: known[name] for role, name in stage.inputs.items()}
    return evaluate(At(model, numeric_path("f32"), TOKENS, moved), x)


def unweighted(model, known, right, site):
    return known["expert_out"].reshape(len(right), -1, right.shape[1]).sum(axis=1)


def without_last(model, known, right, site):
    kind = Graph.of(model).stage(site).kind
    weights, parts = kind.terms(
        At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site)),
        {"weights": known["expert_weights"], "x": known["expert_out"]},
    )
    return right - weights[:, -1:] * parts[:, -1]


def lowest(model, known, right, site):
    at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
    scores = at.kind.scores(known["router"])
    return at.kind.weights(at, scores, at.kind.best(-scores))


def chosen_with(model, known, site, **changes):
    at = At(model, numeric_path("f32"), TOKENS, replace(Graph.of(model).stage(site), **changes))
    return evaluate(at, {"x": known["router"]})


def counted_bias(model, known, right, site):
    at = At(model, numeric_path("f32"), TOKENS, Graph.of(model).stage(site))
    scores = at.kind.selection(at, at.kind.scores(known["router"]))
    return at.kind.weights(at, scores, at.kind.best(scores))


def reversed_weights(model, known, right, site):
    experts = chosen(right, 3)
    out = np.zeros_like(right)
    np.put_along_axis(out, experts, np.take_along_axis(right, experts, axis=1)[:, ::-1], axis=1)
    return out


def swapped_experts(model, known):
    stage = Graph.of(model).stage(Site(0, "expert_up"))
    x = {role: known[name] for role, name in stage.inputs.items()}
    return evaluate(At(model, numeric_path("f32"), TOKENS, stage), x)


SHARED = [f"model.layers.0.mlp.shared_expert.{part}_proj.weight" for part in ("gate", "up")]


def expert(layer: int, number: int, part: str) -> str:
    return f"model.layers.{layer}.mlp.experts.{number}.{part}_proj.weight"


class Recorded:
    """A trace in memory, of all tokens."""

    def __init__(self, stages: dict[Site, np.ndarray]) -> None:
        self.stages = stages

    def status(self, site: Site) -> str:
        return "ok" if site in self.stages else "unmeasured"

    def read(self, site: Site) -> np.ndarray:
        return self.stages[site]

    def positions(self, site: Site) -> tuple[int, ...]:
        return tuple(range(len(self.stages[site])))


def run_with(model: MemoryModel, fault: Fault) -> dict[Site, np.ndarray]:
    """What a runtime records that is wrong at one stage."""
    other, path = replace(model, config=replace(model.config, **(fault.runtime or {}))), numeric_path("f32")

    def change(site: Site, right: np.ndarray, known: dict[str, np.ndarray]) -> np.ndarray:
        if site != fault.site:
            return right
        if fault.change is not None:
            takes_site = "site" in inspect.signature(fault.change).parameters
            return fault.change(model, known, right, *((site,) if takes_site else ()))
        at = At(other, path, TOKENS, Graph.of(other).stage(site))
        return evaluate(at, {role: known[name] for role, name in at.stage.inputs.items()})

    return run_changed(model, TOKENS, change, "f32")


def fault_name(fault: Fault) -> str:
    return f"{fault.family}-{fault.site}-{fault.cause}"


def check_named(fault: Fault) -> None:
    """That the bisection says of a mistake what must be said."""
    model = model_of(fault.family)
    if fault.runtime is not None or fault.change is not None:
        recorded = Recorded(run_with(model, fault))
        found = bisect_trace(Reader(model, numeric_path("f32"), recorded, TOKENS)).culprit
        site = found.site
    else:
        other = damaged(model, fault.tensors or {})
        other = replace(other, config=replace(model.config, **(fault.config or {})))
        whole = bisected(model, other)
        found, site = whole.culprit, whole.first_divergent
    assert (site, found.cause) == (fault.site, fault.cause), found.explanation
    assert fault.words in found.explanation
