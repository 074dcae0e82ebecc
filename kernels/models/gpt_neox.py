"""gpt_neox: layer norms, q, k and v of each head in turn, a part of it rotates, both blocks side by side or in turn."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from kernels.config import ModelConfig
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_ERF, _TANH = "gelu", "gelu_new"  # the first by the error function, which llama.cpp does not compute here
_LAYER = {
    "input_layernorm": "input_layernorm",
    "self_attn.qkv_by_group_proj": "attention.query_key_value",
    "self_attn.o_proj": "attention.dense",
    "post_attention_layernorm": "post_attention_layernorm",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}


class GptNeoX(Decoder):
    """Defaults of GPTNeoXConfig in transformers 5.24; models/gptneox.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("ffn_gate", "ffn_swigl"))
    layer_norms = True
    norm_biases = True
    gated = False
    biased = True
    ffn_biases = True
    model_types = ("gpt_neox",)
    defaults = MappingProxyType(
        {
            "vocab_size": 50432,
            "hidden_size": 6144,
            "intermediate_size": 24576,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "hidden_act": _ERF,
            "use_parallel_residual": True,
            "attention_bias": True,
        }
    )
    activations: ClassVar[tuple[str, tuple[str, ...]]] = (
        "hidden_act",
        (_ERF, _TANH, "gelu_pytorch_tanh", "gelu_fast"),
    )
    spelled = MappingProxyType({"rms_norm_eps": "layer_norm_eps", "rope_theta": "rotary_emb_base"})
    partly: ClassVar[tuple[str, float] | None] = ("rotary_pct", 0.25)
    modules = MappingProxyType(
        {
            "model.embed_tokens": "gpt_neox.embed_in",
            **{f"model.layers.N.{name}": f"gpt_neox.layers.N.{own}" for name, own in _LAYER.items()},
            "model.norm": "gpt_neox.final_layer_norm",
            "lm_head": "embed_out",
        }
    )
    told = ("hidden_act", "use_parallel_residual")
    gguf = "gptneox"
    more = r"attn_output\.bias|ffn_(?:up|down)\.bias"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "use_parallel_residual", "hidden_act")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=("classifier_dropout",),
            ),
            "gguf": Keys(used=frozenset(("use_parallel_residual",))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        attention = ("q", "k", "v", "qkv_by_group", "o") if fields.flag("attention_bias") else ()
        named = (*(f"self_attn.{part}_proj" for part in attention), "mlp.up_proj", "mlp.down_proj")
        return frozenset(f"{module}.bias" for module in named)

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if config.q_size != config.hidden_size:
            raise fields.unsupported(
                f"has heads of {config.q_size} channels together where the hidden size is {config.hidden_size}, which "
                "transformers does not compute in gpt_neox; correct head_dim."
            )
        activation = _ERF if fields.text("hidden_act") == _ERF else _TANH
        return replace(config, parallel=bool(fields.flag("use_parallel_residual")), activation=activation)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {"use_parallel_residual": config.parallel, "hidden_act": config.activation}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        parallel = fields.flag("use_parallel_residual")
        if parallel is None:
            raise fields.wrong(f"does not say {self.gguf}.use_parallel_residual; convert it again.")
        return replace(config, parallel=parallel, activation=_TANH)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that {self.gguf} has there"
        if config.tie_word_embeddings:
            yield f"it has no output.weight, which it asks for in {self.gguf}"


FAMILY = GptNeoX()
