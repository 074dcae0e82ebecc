"""arcee: a llama whose feed-forward block has no gate, and squares what ReLU leaves."""

from types import MappingProxyType
from typing import ClassVar

from kernels.family import Keys, Settings
from kernels.kinds.activation import ReluSquared
from kernels.models.llama import Decoder, Llama, decoder_stages


class Arcee(Decoder):
    """Defaults of ArceeConfig in transformers 5.24; models/arcee.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(without=("ffn_gate", "ffn_swigl"))
    gated = False
    activation = ReluSquared()
    ffn_biases = True
    model_types = ("arcee",)
    defaults = MappingProxyType(
        {
            "vocab_size": 32000,
            "hidden_size": 2560,
            "intermediate_size": 18432,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        }
    )
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("relu2",))
    gguf = "arcee"
    interleaved = True
    rope_freqs = True
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "mlp_bias")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=("use_sliding_window", "max_window_layers"),
            ),
            "gguf": Keys(ignored={"hidden_activation": ("relu2",)}),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return Llama.loaded_biases(self, fields)  # type: ignore[arg-type] # it looks at the settings only


FAMILY = Arcee()
