"""Small models, each with one setting that changes the numbers, as files that the engines read too."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kernels.config import FULL, SLIDING
from kernels.stages import Site
from kernels.weight import TensorType, Weight
from tests.artifacts import tiny_model
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, hf_config, write_safetensors
from tests.memory_model import MemoryModel

TOKENS = tuple((7 * n + 3) % 128 for n in range(24))
KEPT = (Site(0, "q_post_rope"), Site(1, "attention"), Site(None, "lm_head"))  # what is recorded of each, and
ROWS = (0, 1, 11, 23)  # of which tokens
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 500000.0}


@dataclass(frozen=True)
class Case:
    """One model: `changes` to config.json (... removes a key) or to the metadata of a GGUF, stored biases to add.

    tensors : further ones of a GGUF. room : tokens that its engine has room for.
    """

    engine: str
    architecture: str
    changes: dict[str, object] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    tensors: dict[str, list[float]] = field(default_factory=dict)
    room: int = len(TOKENS)

    def write(self, folder: Path) -> Path:
        model = self.model()
        if self.engine == "llama.cpp":
            write_gguf(folder / "m.gguf", model, vocabulary=None, **self.changes)
            return folder / "m.gguf"
        write_safetensors(folder, model)
        config = hf_config(model) | self.changes
        config = {key: value for key, value in config.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def model(self) -> MemoryModel:
        model = tiny_model(self.architecture)
        rng, c = np.random.default_rng(9), model.config
        sizes = {"q": c.q_size, "k": c.kv_size, "v": c.kv_size, "o": c.hidden_size}
        for layer in range(c.num_hidden_layers):
            for letter in self.biases:
                name = f"model.layers.{layer}.self_attn.{letter}_proj.bias"
                values = rng.standard_normal(sizes[letter]).astype(np.float32)
                model.weights[name] = Weight(name, TensorType.F32, values.shape, values.view(np.uint8).reshape(1, -1))
        model.weights |= {
            name: float_tensor(name, np.array(values, np.float32)) for name, values in self.tensors.items()
        }
        return model


def yarn(**more: object) -> dict[str, object]:
    """YaRN whose blend lies within the eight pairs of a head."""
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 100.0} | more


CASES = {
    "old scaling beside new": Case(
        "transformers", "llama", {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": PLAIN}
    ),
    "scaling and a base apart": Case(
        "transformers",
        "qwen2",
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": ..., "rope_theta": 500000.0},
    ),
    "llama3 over the whole context": Case("transformers", "llama", {"rope_parameters": LLAMA3 | {"rope_theta": 5e4}}),
    "yarn": Case("transformers", "qwen2", {"rope_parameters": yarn()}),
    "yarn with everything": Case(
        "transformers",
        "llama",
        {"rope_parameters": yarn(beta_fast=3.0, beta_slow=0.5, truncate=False, mscale=0.7, mscale_all_dim=1.3)},
    ),
    "yarn whose attention factor is given": Case(
        "transformers", "llama", {"rope_parameters": yarn(attention_factor=1.5), "original_max_position_embeddings": 64}
    ),
    "yarn of no range": Case(
        "transformers", "qwen2", {"rope_parameters": yarn(beta_fast=1.0, factor=None), "rope_theta": 5e5}
    ),
    "longrope": Case(
        "transformers",
        "llama",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "short_factor": [1, 1.5, 2, 2.5, 3, 3.5, 4, 8],
                "long_factor": [9.0] * 8,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "longrope of a text beyond the original context": Case(
        "transformers",
        "phi3",
        {
            "rope_parameters": {
                **{"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
                **{"short_factor": [9.0] * 6, "long_factor": [1, 1.5, 2, 2.5, 3, 4]},
                "original_max_position_embeddings": 16,
            },
            "original_max_position_embeddings": 16,
        },
    ),
    "gguf longrope in a context beyond the original one": Case(
        "llama.cpp",
        "phi3",
        {"rope__scaling__original_context_length": 64},
        tensors={"rope_factors_short.weight": [9.0] * 6, "rope_factors_long.weight": [1, 1.5, 2, 2.5, 3, 4]},
        room=256,
    ),
    "yarn in full layers only, and the base of the others": Case(
        "transformers",
        "olmo3",
        {
            **{"rope_parameters": ..., "rope_theta": 100.0, "layer_types": ..., "num_hidden_layers": 2},
            "rope_scaling": {
                **{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 2.0},
                **{"beta_slow": 0.5, "attention_factor": 1.2},
            },
            "layer_types": [SLIDING, FULL],
        },
    ),
    "longrope of an older name, of a part of each head": Case(
        "transformers",
        "phi3",
        {
            "rope_parameters": ...,
            "rope_scaling": {
                "type": "su",
                "short_factor": [1, 1.5, 2, 2.5, 3, 4],
                "long_factor": [9.0] * 6,
                "original_max_position_embeddings": 64,
            },
            "original_max_position_embeddings": 64,
        },
    ),
    "dynamic with an alpha, which stretches the base": Case(
        "transformers",
        "hunyuan_v1_dense",
        {
            "rope_parameters": ...,
            "rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0},
            "max_position_embeddings": 16,
        },
    ),
    "dynamic within its context": Case("transformers", "qwen2", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}),
    "not causal": Case("transformers", "llama", {"is_causal": False}),
    "causality null": Case("transformers", "qwen2", {"is_causal": None}),
    "a window that is not reached": Case(
        "transformers", "qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    ),
    "a window that llama does not have": Case("transformers", "llama", {"sliding_window": 4}),
    "biases without attention_bias": Case("transformers", "llama", {}, tuple("qkvo")),
    "biases with attention_bias": Case("transformers", "llama", {"attention_bias": True}, tuple("qkvo")),
    "output biases of qwen2": Case("transformers", "qwen2", {"attention_bias": True}, ("o",)),
    "defaults": Case(
        "transformers", "llama", {"rms_norm_eps": ..., "rope_parameters": ..., "tie_word_embeddings": ...}
    ),
    "partial rotation of the default kind": Case("transformers", "llama", {"partial_rotary_factor": 0.5}),
    "gguf yarn": Case(
        "llama.cpp",
        "llama",
        {
            "rope__scaling__type": "yarn",
            "rope__scaling__factor": 4.0,
            "rope__scaling__original_context_length": 32,
            "rope__freq_base": 100.0,
        },
    ),
    "gguf yarn with betas and an attention factor": Case(
        "llama.cpp",
        "qwen2",
        {
            "rope__scaling__type": "yarn",
            "rope__scaling__factor": 8.0,
            "rope__scaling__attn_factor": 0.75,
            "rope__scaling__yarn_beta_fast": 3.0,
            "rope__scaling__yarn_beta_slow": 0.5,
            "rope__freq_base": 100.0,
        },
    ),
    "gguf attention factor alone": Case("llama.cpp", "qwen2", {"rope__scaling__attn_factor": 1.5}),
    "gguf factor of no scaling": Case(
        "llama.cpp", "llama", {"rope__scaling__type": "none", "rope__scaling__factor": 4.0}
    ),
    "gguf not causal": Case("llama.cpp", "qwen2", {"attention__causal": False}),
    "gguf window": Case("llama.cpp", "qwen2", {"attention__sliding_window": 4}),
    "gguf activation": Case("llama.cpp", "llama", {"hidden_activation": "gelu"}),
    "layers that rotate by their kind": Case(
        "transformers",
        "gemma3",
        {
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
                SLIDING: {"rope_type": "default", "rope_theta": 100.0},
            },
            "query_pre_attn_scalar": 24,
            "sliding_window": 5,
        },
    ),
    "layers that rotate by their kind, in older keys": Case(
        "transformers",
        "gemma3",
        {
            "rope_parameters": ...,
            "rope_theta": 500.0,
            "rope_local_base_freq": 100.0,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
            "layer_types": ...,
            "sliding_window_pattern": 2,
        },
    ),
    "gemma3 that says little": Case(
        "transformers",
        "gemma3",
        {
            "rope_parameters": ...,
            "rope_local_base_freq": ...,
            "layer_types": ...,
            "sliding_window": ...,
            "rms_norm_eps": ...,
            "query_pre_attn_scalar": ...,
        },
    ),
    "layers that slide in a mistral": Case(
        "transformers", "mistral", {"sliding_window": 4, "layer_types": [FULL, SLIDING]}
    ),
    "scaling of a base that is not said": Case(
        "transformers", "cohere", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": ...}
    ),
    "a bound of scores that gemma3 does not have": Case("transformers", "gemma3", {"attn_logit_softcapping": 0.5}),
    "gguf scale of scores that arcee does not have": Case("llama.cpp", "arcee", {"attention__scale": 0.5}),
    "gemma3 with biases": Case("transformers", "gemma3", {"attention_bias": True}, tuple("qkvo")),
    "gguf of layers that rotate by their kind": Case(
        "llama.cpp",
        "gemma3",
        {
            "rope__scaling__type": "linear",
            "rope__scaling__factor": 4.0,
            "rope__freq_base": 500.0,
            "rope__freq_base_swa": 100.0,
            "attention__sliding_window": 5,
            "attention__sliding_window_pattern": 2,
        },
    ),
    "gguf without a window": Case("llama.cpp", "gemma3", {"attention__sliding_window": 0, "rope__freq_base": 500.0}),
}
