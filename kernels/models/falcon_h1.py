"""falcon-h1: a state space (Mamba 2) beside attention in every layer; many products have multipliers."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from kernels import state_space
from kernels.config import ModelConfig
from kernels.family import Factors, Has, Keys, Settings, Tensor
from kernels.graph import LAYER_INPUT, Stage
from kernels.kinds.elementwise import AddBoth
from kernels.models.llama import Decoder, Llama, decoder_stages
from kernels.stages import Site

_EMBEDDING, _HEAD = "embedding_multiplier", "lm_head_multiplier"
_IN, _OUT, _KEY = "attention_in_multiplier", "attention_out_multiplier", "key_multiplier"
_SSM_IN, _SSM_OUT = "ssm_in_multiplier", "ssm_out_multiplier"
_NUMBERS = (_EMBEDDING, _HEAD, _IN, _OUT, _KEY, _SSM_IN, _SSM_OUT)
_LISTS = {"mlp_multipliers": 2, "ssm_multipliers": 5}
_BIASES = ("attention_bias", "mlp_bias", "mamba_proj_bias", "projectors_bias")
_NORM, _BEFORE = "mamba_rms_norm", "mamba_norm_before_gate"


class FalconH1(Llama):
    """Defaults of FalconH1Config in transformers 5.24; models/falcon-h1.cpp in llama-cpp-python 0.3.36.

    What transformers multiplies inputs and outputs of products with, the converter to GGUF puts into the weights.
    """

    stages = decoder_stages(*state_space.NAMES, "scan_out")
    interleaved = False
    rope_freqs = False
    in_apr = False
    model_types = ("falcon_h1",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 128000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192},
            **{"rms_norm_eps": 1e-5, "mamba_d_ssm": 1024, "mamba_n_heads": 128, "mamba_n_groups": 1},
            **{"mamba_d_state": 256, "mamba_d_conv": 4, "mamba_expand": 2, _BEFORE: True, _NORM: False},
        }
    )
    modules = MappingProxyType(
        {
            "model.layers.N.post_attention_layernorm": "model.layers.N.pre_ff_layernorm",
            **{f"model.layers.N.mlp.{p}_proj": f"model.layers.N.feed_forward.{p}_proj" for p in ("gate", "up", "down")},
            "model.norm": "model.final_layernorm",
        }
    )
    gguf = "falcon-h1"
    # llama.cpp looks for the norm before the feed-forward block under a name that does not end in ".weight".
    gguf_modules = MappingProxyType({**state_space.GGUF_MODULES, "ffn_norm": "post_attention_layernorm.weight"})
    more = r"ffn_(?:gate|up|down)\.bias"
    scaled = (*Decoder.scaled, "mamba.in_proj", "mamba.out_proj")
    gguf_unused = ("rope_freqs.weight", "attn_output.bias")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset((*_NUMBERS, *_LISTS, *_BIASES, *state_space.SHAPE, _NORM, _BEFORE, "mamba_d_ssm"))
                | {"mamba_d_head", "mamba_expand", "mamba_conv_bias", "time_step_limit"},
                ignored={"sliding_window": ()},
                irrelevant=("mamba_chunk_size", "num_logits_to_keep", "layer_types", "layers_block_type"),
            ),
            "gguf": Keys(used=frozenset(state_space.GGUF_SHAPE)),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if biased := [key for key in _BIASES if fields.flag(key)]:
            raise fields.unsupported(f"sets {biased[0]}; only products without biases are supported in this family.")
        if fields.flag(_NORM) and fields.flag(_BEFORE) is not False:
            raise fields.unsupported(f"has {_NORM} with {_BEFORE}, by which z comes behind the norm; it must be false.")
        recurrence = state_space.of_hugging_face(config, fields, fields.integer("mamba_d_ssm"))
        scale = 1.0
        if config.tie_word_embeddings:  # one tensor, which is multiplied as the embedding
            scale = (fields.number(_HEAD) or 1.0) / (fields.number(_EMBEDDING) or 1.0)
        return replace(config, recurrence=recurrence, logits_scale=scale)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        assert config.recurrence is not None
        return {**state_space.to_hugging_face(config), "mamba_d_ssm": config.recurrence.values}

    def factors(self, config: ModelConfig, fields: Settings) -> Factors:
        """In the converter's order."""
        number = {key: np.float32(1.0 if fields.number(key) is None else fields.number(key)) for key in _NUMBERS}
        (gate, down), parts = (_list(fields, key, size) for key, size in _LISTS.items())
        r = config.recurrence
        assert r is not None
        rows = np.repeat(np.array(parts, np.float32), (r.values, r.values, r.keys, r.keys, r.heads))
        found = {
            "model.embed_tokens.weight": (number[_EMBEDDING],),
            "lm_head.weight": (number[_HEAD],),
            "self_attn.q_proj.weight": (number[_IN],),
            "self_attn.k_proj.weight": (number[_KEY], number[_IN]),
            "self_attn.v_proj.weight": (number[_IN],),
            "self_attn.o_proj.weight": (number[_OUT],),
            "mamba.in_proj.weight": (number[_SSM_IN], rows[:, None]),
            "mamba.out_proj.weight": (number[_SSM_OUT],),
            "mlp.gate_proj.weight": (np.float32(gate),),
            "mlp.down_proj.weight": (np.float32(down),),
        }
        arrays = {name: tuple(np.asarray(step) for step in steps) for name, steps in found.items()}
        return {name: steps for name, steps in arrays.items() if any((step != 1).any() for step in steps)}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return replace(config, recurrence=state_space.of_gguf(config, fields))

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        yield from super().of_attention(config, layer)
        yield from state_space.tensors(config, layer, norm_optional=True)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        *before, last = super().attention(config, layer, has)
        yield from (*before, *state_space.stages(config, layer, self._used, has, "scan_out"), last)

    def _added(self, config: ModelConfig, layer: int, block: str, before: str, name: str) -> Iterator[Stage]:
        if block != "attn_out":
            yield from super()._added(config, layer, block, before, name)
            return
        read = ("attn_out", LAYER_INPUT, "scan_out")  # in llama.cpp's order: what both give is added up first
        yield Stage(Site(layer, name), AddBoth(), config.hidden_size, read)


def _list(fields: Settings, key: str, size: int) -> list[float]:
    """So many multipliers; ones where they are absent."""
    given = fields.find(key)[1]
    if given is None:
        return [1.0] * size
    if not isinstance(given, list) or len(given) != size or not all(type(x) in (int, float) and x > 0 for x in given):
        raise fields.wrong(f"gives {key} as something else than {size} numbers above zero; correct it.")
    return [float(x) for x in given]


FAMILY = FalconH1()
