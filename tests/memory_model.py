"""Small seeded models in memory, for whoever needs a forward but no file."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from kernels.config import CHUNKED, FULL, SLIDING, ModelConfig, Recurrence
from kernels.graph import Arithmetic, At
from kernels.kinds.rotate import yarn_magnitude
from kernels.models import Graph, family, sites
from kernels.rows.dequantize import dequantize
from kernels.stages import SPINE, Site
from kernels.weight import TensorType, Weight
from store.files.fields import Fields
from store.rope import hf_scaling
from tests.random_weights import random_rows

# Rotary settings as transformers has them: a context that five tokens are longer than, and a ramp within small heads.
_DEEPSEEK = {
    **{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    **{"mscale": 0.5, "mscale_all_dim": 0.5},
}
YARN: dict[str, dict[str, object]] = {
    "mistral3": {
        **{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2},
        **{"beta_fast": 0.2, "beta_slow": 0.01, "mscale": 1.0, "mscale_all_dim": 0.5},
    },
    "deepseek2": _DEEPSEEK,
    "deepseek3": _DEEPSEEK,
}
HYBRID = 3  # layers of a model with windows, which GGUF has no word for


def of_experts(c: ModelConfig) -> dict[str, object]:
    return {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": c.intermediate_size // 2}


def and_beside(c: ModelConfig) -> dict[str, object]:
    return of_experts(c) | {"shared_intermediate_size": c.intermediate_size}


def by_yarn(c: ModelConfig) -> dict[str, object]:
    settings, of = Fields("", YARN[c.architecture]), family(c.architecture)
    scaling = hf_scaling(of, "rope_parameters", settings, settings, c.rope_theta, c.rotary_dim or c.head_dim)
    stretched = {"rope_factors": scaling.factors, "rope_attention_factor": scaling.attention_factor}
    return stretched | {"rope_ramp": scaling.ramp}


def of_delta_nets(c: ModelConfig) -> dict[str, object]:
    return {
        "rotary_dim": c.head_dim // 4,
        "rms_norm_eps": 1e-6,  # which another epsilon is in GGUF, and always in transformers
        "recurrence": Recurrence(4, 4, c.head_dim, 2, c.head_dim),
        "recurrent_layers": tuple(n % 2 == 0 for n in range(c.num_hidden_layers)),
    }


def mostly_scans(c: ModelConfig) -> dict[str, object]:
    return {
        "recurrence": Recurrence(4, 4, c.hidden_size // 2, 2, 16),
        "recurrent_layers": tuple(n % 2 == 0 for n in range(c.num_hidden_layers)),
        "rotated_layers": (False,) * c.num_hidden_layers,
        "embedding_scale": 6.0,
        "residual_scale": 0.22,
        "attention_scale": 0.3,
        "logits_scale": 0.125,
    }


def behind_the_first(c: ModelConfig) -> tuple[bool, ...]:
    return tuple(layer > 0 for layer in range(c.num_hidden_layers))


def in_chunks(c: ModelConfig) -> dict[str, object]:
    """Chunks and layers without rotation: as llama.cpp has them, or with chunks that matter to a few tokens."""
    small = c.num_hidden_layers == HYBRID
    step = 2 if small else 4
    rotated = tuple((n + 1) % step != 0 for n in range(c.num_hidden_layers))
    return {
        "rotated_layers": rotated,
        "layer_types": tuple(CHUNKED if turns else FULL for turns in rotated),
        **{"attention_chunk": 3 if small else 8192, "temperature": 0.5 if small else 0.1},
        "temperature_length": 2 if small else 8192,
    }


def latent(c: ModelConfig) -> dict[str, object]:
    """Latent attention of heads of which a third rotates, and experts behind the first layers and beside them."""
    turned = {"rotary_dim": c.head_dim // 3, "num_key_value_heads": c.num_attention_heads, "rms_norm_eps": 1e-6}
    magnitude = yarn_magnitude(4.0, 0.5)
    own = {"kv_lora_rank": 64, "v_head_dim": 32, "attention_scale": c.head_dim**-0.5 * magnitude**2}
    return and_beside(c) | {"expert_layers": behind_the_first(c)} | turned | by_yarn(replace(c, **turned)) | own


def in_groups(c: ModelConfig) -> dict[str, object]:
    chosen = {"expert_scoring": "sigmoid", "routed_scaling_factor": 2.5, "n_group": 3, "topk_group": 2}
    return and_beside(c) | {"expert_layers": behind_the_first(c)} | chosen


def sliding(c: ModelConfig) -> dict[str, object]:
    types = tuple(FULL if n % 2 else SLIDING for n in range(c.num_hidden_layers))
    return {"sliding_window": 3, "layer_types": types}


def turning(pairs: int) -> tuple[float, ...]:
    """Divisors with which the first quarter of the pairs of a head turns."""
    return (1.0,) * (pairs // 4) + (float(np.float32(1e30)),) * (pairs - pairs // 4)


def two_kinds_of_heads(c: ModelConfig) -> dict[str, object]:
    return {
        **{"full_head_dim": 2 * c.head_dim, "full_kv_heads": 1, "keys_as_values": True, "attention_scale": 1.0},
        **{"rope_factors": turning(c.head_dim), "logits_cap": 3.0},
    }


def with_layer_embeddings(c: ModelConfig) -> dict[str, object]:
    """gemma4 as E2B is: the second half of the layers shares keys and values, and is twice as wide."""
    own, size = c.num_hidden_layers // 2, 32 if c.hidden_size % 32 == 0 else c.hidden_size // 2
    return two_kinds_of_heads(c) | {
        **{"full_kv_heads": c.num_key_value_heads, "keys_as_values": False, "layer_embedding_size": size},
        "shared_kv_layers": c.num_hidden_layers - own,
        "intermediate_sizes": (c.intermediate_size,) * own + (2 * c.intermediate_size,) * own,
    }


# What only some families have, so that it matters in a small model.
OWN_SETTINGS: dict[str, Callable[[ModelConfig], dict[str, object]]] = {
    "exaone4": lambda c: (
        {}
        if c.num_hidden_layers != HYBRID
        else {
            "sliding_window": 3,
            "layer_types": (SLIDING, FULL, SLIDING),
            "rotated_layers": (True, False, True),
        }
    ),
    "llama4": lambda c: (
        in_chunks(c)
        | and_beside(c)
        | {
            "shared_intermediate_size": c.intermediate_size // 2,
            "expert_scoring": "sigmoid of chosen",
            "norm_topk_prob": False,
            "expert_layers": tuple(n % 2 == 1 for n in range(c.num_hidden_layers)),
        }
    ),
    "afmoe": lambda c: {
        **and_beside(c) | {"expert_layers": behind_the_first(c), "expert_scoring": "sigmoid"},
        **{
            "routed_scaling_factor": 2.5,
            "sliding_window": 3,
            "embedding_scale": float(np.sqrt(np.float32(c.hidden_size))),
        },
        "layer_types": tuple(SLIDING if (n + 1) % 4 else FULL for n in range(c.num_hidden_layers)),
        "rotated_layers": tuple((n + 1) % 4 != 0 for n in range(c.num_hidden_layers)),
    },
    "lfm2moe": lambda c: {
        **of_experts(c) | {"expert_layers": behind_the_first(c), "expert_scoring": "sigmoid"},
        "recurrence": Recurrence(3),
        "recurrent_layers": tuple(n % 2 == 0 for n in range(c.num_hidden_layers)),
    },
    "gemma4": two_kinds_of_heads,
    "gemma4-e2b": with_layer_embeddings,
    "gemma4-a4b": lambda c: two_kinds_of_heads(c) | and_beside(c),
    "deepseek2": lambda c: latent(c) | {"norm_topk_prob": False, "routed_scaling_factor": 2.5},
    "deepseek3": lambda c: (
        latent(c)
        | {"q_lora_rank": 32, "expert_scoring": "sigmoid", "routed_scaling_factor": 2.5, "n_group": 2, "topk_group": 1}
    ),
    "mistral3": lambda c: by_yarn(c) | {"temperature": 0.5, "temperature_length": 2},
    "qwen35": lambda c: of_delta_nets(c),
    "qwen35moe": lambda c: of_delta_nets(c) | and_beside(c),
    "qwen3next": lambda c: of_delta_nets(c) | and_beside(c),
    "granitehybrid": mostly_scans,
    "granitehybrid-experts": lambda c: mostly_scans(c) | and_beside(c) | {"moe_intermediate_size": c.intermediate_size},
    "falcon_h1": lambda c: {"recurrence": Recurrence(4, 4, c.hidden_size // 4, 2, c.head_dim)},
    "lfm2": lambda c: {
        "recurrence": Recurrence(3),
        "recurrent_layers": tuple(n % 2 == 0 for n in range(c.num_hidden_layers)),
    },
    "gemma2": lambda c: {
        "sliding_window": 3,
        "layer_types": tuple(SLIDING if n % 2 == 0 else FULL for n in range(c.num_hidden_layers)),
        "attention_cap": 2.0,
        "logits_cap": 3.0,
    },
    **dict.fromkeys(("dream", "llada"), lambda _: {"causal": False}),
    "plamo": lambda _: {"parallel": True},
    "baichuan": lambda c: {"rotated_layers": (False,) * c.num_hidden_layers},
    "chatglm": lambda c: {"rotary_dim": c.head_dim // 2},
    "minicpm": lambda _: {"embedding_scale": 6.0, "residual_scale": 0.25, "logits_scale": 0.125},
    "olmo3": lambda _: {"rope_theta": 1e4, "rope_local_theta": 1e4},
    "phi3": lambda c: {"rotary_dim": c.head_dim // 4 * 3 if c.head_dim % 8 == 0 else None},
    "glm4": lambda c: {"rotary_dim": c.head_dim // 2},
    "mixtral": lambda c: {
        "num_experts": 5,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": c.intermediate_size,
        "sliding_window": None,
    },
    "qwen2moe": lambda c: {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": c.intermediate_size // 2,
        "shared_intermediate_size": c.intermediate_size // 3 // 32 * 32 or 32,
        "norm_topk_prob": False,
    },
    "deepseek": lambda c: and_beside(c) | {"expert_layers": behind_the_first(c), "norm_topk_prob": False},
    "bailingmoe": lambda c: and_beside(c) | {"routed_scaling_factor": 2.5},
    "dots1": lambda c: (
        and_beside(c)
        | {"expert_layers": behind_the_first(c), "expert_scoring": "sigmoid", "routed_scaling_factor": 2.5}
    ),
    "glm4_moe": lambda c: in_groups(c) | {"rotary_dim": c.head_dim // 2},
    "llada_moe": lambda c: of_experts(c) | {"norm_topk_prob": False, "causal": False},
    "hunyuan_moe": lambda c: and_beside(c) | {"moe_intermediate_size": c.intermediate_size},
    "bailingmoe2": lambda c: in_groups(c) | {"rotary_dim": c.head_dim // 2},
    "minimax_m2": lambda c: (
        of_experts(c)
        | {"moe_intermediate_size": c.intermediate_size, "expert_scoring": "sigmoid", "rotary_dim": c.head_dim // 2}
    ),
    "exaone_moe": lambda c: in_groups(c) | sliding(c) | {"rotated_layers": (True, False)[: c.num_hidden_layers]},
    "mellum": lambda c: of_experts(c) | sliding(c) | {"rope_local_theta": c.rope_theta},
    "dbrx": lambda c: of_experts(c) | {"moe_intermediate_size": c.intermediate_size, "clip_qkv": 0.75},
    "granite_swa": lambda c: (
        sliding(c)
        | {"embedding_scale": 6.0, "residual_scale": 0.22, "attention_scale": 0.3, "logits_scale": 0.125}
        | {"rotated_layers": (True, False)[: c.num_hidden_layers]}
    ),
    "qwen2vl": lambda _: {"rms_norm_eps": 0.0},
    "rnd1": lambda c: of_experts(c) | {"causal": False},
    "qwen3vlmoe": lambda c: of_experts(c),
    "ernie4_5_moe": lambda c: and_beside(c) | {"expert_layers": behind_the_first(c)},
    "gpt_oss": lambda c: {
        **of_experts(c) | {"moe_intermediate_size": c.intermediate_size},
        **{"expert_scoring": "softmax of chosen", "norm_topk_prob": False, "swiglu_alpha": 1.702, "swiglu_limit": 7.0},
        **{"sliding_window": 3, "layer_types": tuple(FULL if n % 2 else SLIDING for n in range(c.num_hidden_layers))},
    },
    "olmoe": lambda c: {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": c.intermediate_size,
        "norm_topk_prob": False,
    },
    "granitemoe": lambda c: {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": c.intermediate_size,
        "shared_intermediate_size": c.intermediate_size // 2,
        "embedding_scale": 6.0,
        "residual_scale": 0.22,
        "attention_scale": 0.3,
        "logits_scale": 0.125,
    },
    "qwen3moe": of_experts,
    "granite": lambda _: {
        "embedding_scale": 6.0,
        "residual_scale": 0.22,
        "attention_scale": 0.3,
        "logits_scale": 0.125,
    },
    "cohere": lambda _: {"parallel": True, "logits_scale": 0.25},
    "cohere2": lambda c: {
        "parallel": True,
        "logits_scale": 0.25,
        "sliding_window": 3,
        "layer_types": tuple(SLIDING if n % 2 == 0 else FULL for n in range(c.num_hidden_layers)),
        "rotated_layers": tuple(n % 2 == 0 for n in range(c.num_hidden_layers)),
    },
    "olmo": lambda c: {} if c.num_hidden_layers == HYBRID else {"clip_qkv": 0.75},
    "phi": lambda c: {"parallel": True, "rotary_dim": c.head_dim // 2},
    "nemotron": lambda c: {"rotary_dim": c.head_dim // 2},
    "gpt_neox": lambda c: (
        {"rotary_dim": c.head_dim // 4}
        | ({"activation": "gelu"} if c.num_hidden_layers == HYBRID else {"activation": "gelu_new", "parallel": True})
    ),
    "starcoder2": lambda c: {"sliding_window": 3} if c.num_hidden_layers == HYBRID else {},
    "smollm3": lambda c: {"rotated_layers": tuple((n + 1) % 4 != 0 for n in range(c.num_hidden_layers))},
}
_BIASES = tuple(f"self_attn.{part}_proj.bias" for part in "qkv")
# Of families that are known to have biases: all of them, and not only those of q, k and v.
_ALL_BIASED = ("starcoder2", "gpt_neox", "phi", "jais2", "codeshell", "pangu_embedded", "gpt_oss")
_KEYS_OF_EVERY_HEAD = ("gpt_neox", "qwen")
_ALSO_BIASED = (
    "glm4",
    "glm4_moe",
    "pangu_embedded",
)  # some models, by a setting that is on by default, or what llama.cpp wants
_BOUNDED = ("gate_proj.bias", "up_proj.bias")
_DRAWN_BY_HAND = ("llama", "mistral", "qwen2", "qwen3", "gemma3")  # in the order of the recorded dumps
_FURTHER_NORMS = (
    *("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    *("pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"),
)


@dataclass
class MemoryModel:
    config: ModelConfig
    weights: dict[str, Weight] = field(default_factory=dict)

    def weight(self, name: str) -> Weight:
        if name == "lm_head.weight" and self.config.tie_word_embeddings:
            name = "model.embed_tokens.weight"
        return self.weights[name]

    def __contains__(self, name: str) -> bool:
        return name in self.weights

    def values(self) -> dict[str, np.ndarray]:
        """Every tensor as float32 values."""
        return {name: dequantize(weight) for name, weight in self.weights.items()}


def random_model(
    architecture: str = "qwen2",
    type: TensorType = TensorType.F32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    hidden: int = 64,
    ffn: int = 96,
    vocab: int = 128,
    tied: bool = False,
    seed: int = 0,
) -> MemoryModel:
    """A model whose matrices have the given type and whose norms and biases are F32.

    architecture : a family, or one of its forms, "FAMILY-FORM".
    """
    form, architecture = architecture, architecture.partition("-")[0]
    config = ModelConfig(
        architecture=architecture,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_attention_heads=heads,
        num_key_value_heads=heads if architecture in _KEYS_OF_EVERY_HEAD else kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        rope_type="neox",
        tie_word_embeddings=tied,
        max_position_embeddings=128,
    )
    of = family(architecture)
    config = replace(config, rope_type=of.pairs)
    if of.local_base is not None:  # every other layer slides
        types = tuple(SLIDING if n % 2 == 0 else FULL for n in range(layers))
        config = replace(config, rope_theta=1e6, sliding_window=3, layer_types=types, rope_local_theta=1e4)
    elif architecture == "mistral":  # of whose windows GGUF has no word
        config = replace(config, sliding_window=3)
    config = replace(config, **OWN_SETTINGS.get(form, lambda _: {})(config))
    rng, model = np.random.default_rng(seed), MemoryModel(config)

    def matrix(name: str, rows: int, columns: int) -> None:
        model.weights[name] = Weight(name, type, (rows, columns), random_rows(rng, type, rows, columns))

    def vector(name: str, size: int, around: float) -> None:
        beyond = config.swiglu_limit is not None and name.endswith(_BOUNDED)  # so that some values are
        spread = (6.0 if beyond else 0.3) * rng.standard_normal(size)
        values = spread.astype(np.float32) + np.float32(around) if of.less_one else (around + spread).astype(np.float32)
        model.weights[name] = Weight(name, TensorType.F32, (size,), values.view(np.uint8).reshape(1, -1))

    def convolution(name: str, channels: int, taps: int) -> None:
        values = (0.5 * rng.standard_normal((channels, taps))).astype(np.float32)
        model.weights[name] = Weight(name, TensorType.F32, values.shape, values.view(np.uint8))

    def decays(name: str, size: int) -> None:
        values = (-np.exp(rng.uniform(-3, 0.7, size).astype(np.float32).astype(np.float64))).astype(np.float32)
        model.weights[name] = Weight(name, TensorType.F32, (size,), values.view(np.uint8).reshape(1, -1))

    biased = of.biased or architecture in _ALSO_BIASED
    if architecture not in _DRAWN_BY_HAND:
        for tensor in of.tensors(config):
            if tensor.loose and not tensor.optional and len(tensor.shape) == 2:
                convolution(tensor.name, *tensor.shape)
            elif tensor.name.endswith("A_log"):
                decays(tensor.name, *tensor.shape)
            elif not tensor.optional and len(tensor.shape) == 2:
                matrix(tensor.name, *tensor.shape)
            elif not tensor.optional or (
                biased and tensor.name.endswith(".bias" if architecture in _ALL_BIASED else _BIASES)
            ):
                vector(tensor.name, *tensor.shape, 0 if tensor.name.endswith(".bias") else 1)
            elif tensor.name.endswith("layer_scalar.weight") or (
                tensor.name.endswith("down_proj.output_scale") and form == "gemma4-a4b" and ".experts." in tensor.name
            ):
                vector(tensor.name, *tensor.shape, 1)
            elif tensor.name.endswith("conv1d.bias") or (
                tensor.name.endswith("e_score_correction_bias") and architecture != "deepseek2"
            ):
                vector(tensor.name, *tensor.shape, 0)
        return model
    matrix("model.embed_tokens.weight", vocab, hidden)
    for n in range(layers):
        p = f"model.layers.{n}."
        vector(p + "input_layernorm.weight", hidden, 1)
        for letter, size in (("q", config.q_size), ("k", config.kv_size), ("v", config.kv_size)):
            matrix(p + f"self_attn.{letter}_proj.weight", size, hidden)
            if architecture == "qwen2":
                vector(p + f"self_attn.{letter}_proj.bias", size, 0)
        for tensor in of.tensors(config):
            if tensor.name.startswith(p) and tensor.name.removeprefix(p) in _FURTHER_NORMS:
                vector(tensor.name, *tensor.shape, 1)
        matrix(p + "self_attn.o_proj.weight", hidden, config.q_size)
        vector(p + "post_attention_layernorm.weight", hidden, 1)
        matrix(p + "mlp.gate_proj.weight", ffn, hidden)
        matrix(p + "mlp.up_proj.weight", ffn, hidden)
        matrix(p + "mlp.down_proj.weight", hidden, ffn)
    vector("model.norm.weight", hidden, 1)
    if not tied:
        matrix("lm_head.weight", vocab, hidden)
    return model


def with_optional(model: MemoryModel, seed: int = 1) -> MemoryModel:
    """The model with every tensor that models of its family may have: biases, and factors of any sign."""
    rng, more = np.random.default_rng(seed), {}
    for tensor in family(model.config.architecture).tensors(model.config):
        if tensor.optional:
            values = rng.standard_normal(tensor.shape).astype(np.float32)
            more[tensor.name] = Weight(tensor.name, TensorType.F32, tensor.shape, values.view(np.uint8).reshape(1, -1))
    return replace(model, weights=model.weights | more)


def spine(layers: int) -> list[Site]:
    """The sites that a model of so many layers may have, if it has none but those of llama."""
    return sites(layers, SPINE)


def place(model: MemoryModel, path: Arithmetic, tokens: tuple[int, ...], layer: int | None, stage: str) -> At:
    """Where a stage of a model is evaluated."""
    found = Graph.of(model).stage(Site(layer, stage))
    assert found is not None
    return At(model, path, tokens, found)
