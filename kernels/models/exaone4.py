"""exaone4: norms behind both blocks and of heads, and where some layers slide, only those rotate."""

from collections.abc import Iterator
from types import MappingProxyType

from kernels.config import FULL, SLIDING, ModelConfig
from kernels.family import (
    OF_SLIDING,
    Keys,
    Settings,
    every,
    gguf_layer_types,
    given_layer_types,
    rotating_where_sliding,
)
from kernels.models.llama import AFTER, Decoder, decoder_stages

_PATTERN = 4  # layers, of which the last is full
_WINDOW = 4096
_SLIDING = 64  # layers of the one model whose window llama.cpp obeys


class Exaone4(Decoder):
    """Defaults of Exaone4Config in transformers 5.24; models/exaone4.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", "post_attn_norm", "post_ffn_norm", without=("attn_norm", "ffn_norm"))
    attn_norm = None
    ffn_norm = None
    after = AFTER
    head_norms = True
    model_types = ("exaone4",)
    defaults = MappingProxyType(
        {
            "vocab_size": 102400,
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "sliding_window": _WINDOW,
            "sliding_window_pattern": _PATTERN,
        }
    )
    gguf = "exaone4"
    rope_freqs = True
    told = ("sliding_window", "layer_types")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("sliding_window", "sliding_window_pattern", "layer_types")),
                ignored={"mlp_bias": (), "attention_bias": ()},
                irrelevant=("use_sliding_window", "max_window_layers"),
            ),
            "gguf": Keys(
                used=frozenset(
                    ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa", *OF_SLIDING)
                )
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        window, types = fields.integer("sliding_window"), given_layer_types(config, fields)
        pattern = fields.find("sliding_window_pattern")[1]
        if window is not None and types is None:
            if isinstance(pattern, str):  # letters for kinds of layers, of which transformers takes no notice
                raise fields.unsupported("gives sliding_window_pattern as text and no layer_types; add layer_types.")
            types = every(fields.integer("sliding_window_pattern") or _PATTERN, config)
        if window is None and SLIDING in (types or ()):
            raise fields.wrong(f"has layer_types with {SLIDING}, but no sliding_window; correct it.")
        return rotating_where_sliding(config, window, types)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        types = config.layer_types or (FULL,) * config.num_hidden_layers  # without them transformers divides by zero
        return {"sliding_window": config.sliding_window, "layer_types": list(types)}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp: only a model of so many layers has windows."""
        if config.num_hidden_layers != _SLIDING:
            return config
        window = fields.integer("attention.sliding_window")
        if (base := fields.single("rope.freq_base_swa")) not in (None, config.rope_theta):
            raise fields.unsupported(f"gives {self.gguf}.rope.freq_base_swa as {base:g}; only one base is supported.")
        return rotating_where_sliding(
            config, _WINDOW if window is None else window, gguf_layer_types(config, fields, _PATTERN)
        )

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that exaone4 has there"


FAMILY = Exaone4()
