"""cohere (command-r): layer norms without bias, both blocks side by side, a factor of the logits."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages


class Cohere(Decoder):
    """Defaults of CohereConfig in transformers 5.24; models/command-r.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("post_attn_residual", "ffn_norm"))
    layer_norms = True
    ffn_norm = None
    pairs = "norm"
    model_types = ("cohere",)
    defaults = MappingProxyType(
        {
            "vocab_size": 256000,
            "hidden_size": 8192,
            "intermediate_size": 22528,
            "num_hidden_layers": 40,
            "num_attention_heads": 64,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "logit_scale": 0.0625,
            "rope_theta": 5e5,
            "tie_word_embeddings": True,
        }
    )
    spelled = MappingProxyType({"rms_norm_eps": "layer_norm_eps"})
    told: ClassVar[tuple[str, ...]] = ("logit_scale",)
    gguf = "command-r"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("logit_scale", "attention_bias")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": ()},
            ),
            "gguf": Keys(used=frozenset(("logit_scale",))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        named = (f"self_attn.{part}_proj.bias" for part in "qkvo")
        return frozenset(named) if fields.flag("attention_bias") else frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        scale = fields.number("logit_scale")
        if scale is None:
            raise fields.wrong("does not say logit_scale, which the logits are multiplied by; add it.")
        return replace(config, parallel=True, logits_scale=scale)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {"logit_scale": config.logits_scale}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: what is absent or 0 is no factor."""
        scale = fields.single("logit_scale") if fields.find("logit_scale")[1] else None
        return replace(config, parallel=True, logits_scale=scale or 1.0)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if not config.tie_word_embeddings:
            yield f"it has an output.weight, which it does not know in {self.gguf}"


FAMILY = Cohere()
