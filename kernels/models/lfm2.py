"""lfm2: attention in some layers, in the others a short convolution between two gates."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels.config import FULL, ModelConfig, Recurrence
from kernels.family import Has, Keys, Settings, Tensor
from kernels.graph import Stage
from kernels.kinds.convolution import Convolution
from kernels.kinds.elementwise import Multiply
from kernels.kinds.product import Product
from kernels.models.llama import Decoder, decoder_stages
from kernels.stages import Site

_CONV = "conv"
_FFN = ("block_auto_adjust_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of")
LAYER = {
    "input_layernorm": "operator_norm",
    "self_attn.o_proj": "self_attn.out_proj",
    "self_attn.q_norm": "self_attn.q_layernorm",
    "self_attn.k_norm": "self_attn.k_layernorm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


class Lfm2(Decoder):
    """Defaults of Lfm2Config in transformers 5.24; models/lfm2.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages("q_norm", "k_norm", "conv_in", "conv_gated", "convolved", "conv_out")
    headless = True
    head_norms = True
    model_types = ("lfm2",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 65536, "hidden_size": 2560, "intermediate_size": 12288, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128000},
            **{"norm_eps": 1e-5, "tie_word_embeddings": True, "rope_theta": 1e6, "conv_L_cache": 3},
            **{"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256},
        }
    )
    spelled = MappingProxyType({"rms_norm_eps": "norm_eps"})
    modules = MappingProxyType(
        {
            **{f"model.layers.N.{name}": f"model.layers.N.{own}" for name, own in LAYER.items()},
            "model.norm": "model.embedding_norm",
        }
    )
    told = ("layer_types", "conv_L_cache")
    gguf = "lfm2"
    gguf_modules = MappingProxyType(
        {
            **{f"shortconv.{part}": f"conv.{part}" for part in ("in_proj", "conv", "out_proj")},
            "token_embd_norm": "model.norm",
        }
    )
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(
                    (
                        "layer_types",
                        "full_attn_idxs",
                        "conv_L_cache",
                        "conv_bias",
                        "block_ff_dim",
                        "tie_embedding",
                        *_FFN,
                    )
                ),
                irrelevant=("block_dim", "block_norm_eps", "block_mlp_init_scale", "block_out_init_scale", "conv_dim*"),
            ),
            "gguf": Keys(used=frozenset(("shortconv.l_cache", "attention.sliding_window"))),
        }
    )

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        return frozenset(f"conv.{part}_proj.bias" for part in ("in", "out") if fields.flag("conv_bias"))

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if not config.causal:
            raise fields.unsupported("sets is_causal to false, which is not computed where layers have convolutions.")
        tied, kernel = fields.flag("tie_embedding"), fields.integer("conv_L_cache")
        if kernel is None:
            raise fields.wrong("does not say conv_L_cache; add it, it is needed and cannot be guessed.")
        if tied and not fields.flag("tie_word_embeddings"):
            raise fields.wrong("says that embeddings are tied and that they are not; correct it.")
        return replace(
            config,
            intermediate_size=_feed_forward(config, fields),
            tie_word_embeddings=config.tie_word_embeddings and tied is not False,
            recurrence=Recurrence(kernel),
            recurrent_layers=_convolved(config, fields),
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        kernel = config.recurrence.kernel if config.recurrence else 1
        layers = range(config.num_hidden_layers)
        return {
            "conv_L_cache": kernel,
            "layer_types": [_CONV if config.recurs(layer) else FULL for layer in layers],
            "block_auto_adjust_ff_dim": False,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        kernel = fields.integer("shortconv.l_cache", low=2)
        if kernel is None:
            raise fields.wrong("does not say shortconv.l_cache; convert the model again.")
        if not config.causal:
            raise fields.unsupported(
                "sets attention.causal to false, which llama.cpp computes with centred convolutions."
            )
        window = fields.integer("attention.sliding_window", low=0) or None
        return replace(config, sliding_window=window, recurrence=Recurrence(kernel))

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        if config.q_size != config.hidden_size:
            yield f"its {config.q_size} channels of Q are not the {config.hidden_size} that lfm2 has there"

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        if not config.recurs(layer):
            yield from super().of_attention(config, layer)
            return
        assert config.recurrence is not None
        name, hidden = f"model.layers.{layer}.conv.".__add__, config.hidden_size
        for module, shape in (
            ("in_proj", (3 * hidden, hidden)),
            ("conv", (hidden, config.recurrence.kernel)),
            ("out_proj", (hidden, hidden)),
        ):
            yield Tensor(name(f"{module}.weight"), shape, loose=module == "conv")
            yield Tensor(name(f"{module}.bias"), shape[:1], optional=True)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        if not config.recurs(layer):
            yield from super().attention(config, layer, has)
            return
        hidden, run = config.hidden_size, "conv_in"  # what it gives: a gate before, one behind, what goes through
        used = {module: self._used(layer, f"conv.{module}", has) for module in ("in_proj", "conv", "out_proj")}
        yield self._norm(config, layer, "attn_norm", "input_layernorm", "layer_input")
        yield Stage(Site(layer, run), Product(), 3 * hidden, ("attn_norm",), used["in_proj"])
        yield Stage(Site(layer, "conv_gated"), Multiply(0, 2 * hidden, hidden), hidden, (run, run))
        yield Stage(Site(layer, "convolved"), Convolution(), hidden, ("conv_gated",), used["conv"])
        yield Stage(Site(layer, "conv_out"), Multiply(hidden, 0, hidden), hidden, (run, "convolved"))
        yield Stage(Site(layer, "attn_out"), Product(), hidden, ("conv_out",), used["out_proj"])


def _feed_forward(config: ModelConfig, fields: Settings) -> int:
    """Channels of the feed-forward block, which transformers makes of what is said."""
    size = fields.integer("block_ff_dim") or config.intermediate_size
    if not fields.flag(_FFN[0]):
        return size
    factor, multiple = fields.number(_FFN[1]), fields.integer(_FFN[2]) or 1
    size = int(2 * size / 3)
    return size if factor is None else -(-int(factor * size) // multiple) * multiple


def _convolved(config: ModelConfig, fields: Settings) -> tuple[bool, ...] | None:
    """Which layers have a convolution: those of that type, or those that are not said to have attention."""
    layers = config.num_hidden_layers
    (key, types), (other, attending) = (fields.find(key) for key in ("layer_types", "full_attn_idxs"))
    if types is not None:
        if not isinstance(types, list) or len(types) < layers or not all(kind in (_CONV, FULL) for kind in types):
            raise fields.unsupported(f"has {key} other than {_CONV} and {FULL}, or fewer than layers.")
        found = tuple(kind == _CONV for kind in types[:layers])
    elif attending is None:
        return None
    else:
        if not isinstance(attending, list) or not all(type(layer) is int for layer in attending):
            raise fields.wrong(f"gives {other} as something else than numbers of layers; correct it.")
        found = tuple(layer not in attending for layer in range(layers))
    return found if any(found) else None


FAMILY = Lfm2()
