"""Shapes of real models, and which type each of their tensors is stored in."""

from dataclasses import replace

from kernels.config import ModelConfig
from kernels.models import family
from kernels.weight import TensorType
from store.layout import Shape
from store.names import LM_HEAD, layer_of

Tensor = tuple[str, TensorType, Shape]
_QKV_BIASES = ("q_proj.bias", "k_proj.bias", "v_proj.bias")  # of the optional tensors those that real models have

TINYLLAMA = ModelConfig(
    architecture="llama",
    num_hidden_layers=22,
    hidden_size=2048,
    intermediate_size=5632,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=64,
    vocab_size=32000,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rope_type="neox",
    tie_word_embeddings=False,
    max_position_embeddings=2048,
)
QWEN_7B = ModelConfig(
    architecture="qwen2",
    num_hidden_layers=28,
    hidden_size=3584,
    intermediate_size=18944,
    num_attention_heads=28,
    num_key_value_heads=4,
    head_dim=128,
    vocab_size=152064,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    rope_type="neox",
    tie_word_embeddings=False,
    max_position_embeddings=32768,
)
QWEN_3B = replace(
    QWEN_7B,
    num_hidden_layers=36,
    hidden_size=2048,
    intermediate_size=11008,
    num_attention_heads=16,
    num_key_value_heads=2,
    vocab_size=151936,
    tie_word_embeddings=True,
)
QWEN_HALF = replace(
    QWEN_7B,
    num_hidden_layers=24,
    hidden_size=896,
    intermediate_size=4864,
    num_attention_heads=14,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=151936,
    tie_word_embeddings=True,
)
DEEP = replace(  # as many layers as the largest models, small enough to write in a moment
    QWEN_7B,
    num_hidden_layers=80,
    hidden_size=256,
    intermediate_size=512,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=256,
)


def shortened(config: ModelConfig, layers: int) -> ModelConfig:
    """The same model with fewer layers and a smaller vocabulary, for quick runs."""
    return replace(config, num_hidden_layers=min(layers, config.num_hidden_layers), vocab_size=config.vocab_size // 8)


def tensors(config: ModelConfig, mix: str) -> list[Tensor]:
    """Name, type and shape of every tensor in the order of the model; `mix` is a type or "Q4_K_M"."""
    of = family(config.architecture)
    return [
        (tensor.name, _type(tensor.name, mix, config, tensor.shape), tensor.shape)
        for tensor in of.tensors(config)
        if not tensor.optional or (of.biased and tensor.name.endswith(_QKV_BIASES))
    ]


def _type(name: str, mix: str, config: ModelConfig, shape: Shape) -> TensorType:
    if len(shape) == 1:
        return TensorType.F32
    if mix != "Q4_K_M":
        return TensorType[mix]
    wide = name == LM_HEAD or (name.endswith(("v_proj.weight", "down_proj.weight")) and _more_bits(name, config))
    if shape[1] % TensorType.Q4_K.block.elements:  # as llama.cpp does where rows are no whole super-blocks
        return TensorType.Q8_0 if wide else TensorType.Q5_0
    return TensorType.Q6_K if wide else TensorType.Q4_K


def _more_bits(name: str, config: ModelConfig) -> bool:
    """Whether llama.cpp gives more bits to v_proj and down_proj of this layer (`use_more_bits`)."""
    layer, eighth = layer_of(name), config.num_hidden_layers // 8
    assert layer is not None
    return layer < eighth or layer >= config.num_hidden_layers * 7 // 8 or (layer - eighth) % 3 == 2
