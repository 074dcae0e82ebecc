"""ernie4_5-moe: an ernie4_5 with experts behind its first layers, and a part beside them for every token."""

from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED, INNER, OF_TRAINING
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_COUNT, _USED, _SHARED = "moe_num_experts", "moe_k", "moe_num_shared_experts"
_FIRST, _LAST, _EVERY = "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"
_STEP, _BESIDE = "interleave_moe_layer_step", "expert_shared_feed_forward_length"


class Ernie45Moe(Decoder):
    """Defaults of Ernie4_5_MoeConfig in transformers 5.24; models/ernie4-5-moe.cpp in llama-cpp-python 0.3.36."""

    pairs = "norm"
    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    model_types = ("ernie4_5_moe",)
    defaults = MappingProxyType(
        {
            **{"vocab_size": 103424, "hidden_size": 2560, "intermediate_size": 12288, "num_hidden_layers": 28},
            **{"num_attention_heads": 20, "num_key_value_heads": 4, "max_position_embeddings": 131072},
            **{"rms_norm_eps": 1e-5, "tie_word_embeddings": True, "rope_theta": 5e5, INNER: 1536, _USED: 6},
            **{_COUNT: 64, _SHARED: 2, _FIRST: 1, _LAST: -1, _EVERY: 1, "moe_norm_min": 1e-12},
        }
    )
    told = (_COUNT, _USED, INNER, _SHARED, _FIRST, _LAST, _EVERY)
    gguf = "ernie4_5-moe"
    gguf_unused = ("attn_output.bias",)
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset((_COUNT, _USED, INNER, _SHARED, _FIRST, _LAST, _EVERY, "use_bias")),
                ignored={
                    **{"sliding_window": (), "layer_types": ("full_attention",), "mlp_bias": (), "attention_bias": ()},
                    **{"moe_norm_min": (1e-12,)},
                },
                irrelevant=(*OF_TRAINING, "moe_*"),
            ),
            "gguf": Keys(
                used=GGUF_USED | {"expert_feed_forward_length", "leading_dense_block_count", _STEP, _BESIDE},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Experts in every so manyth layer from the first to the last that has any; -1 for the last of all."""
        if fields.flag("use_bias"):
            raise fields.unsupported("sets use_bias, which this program does not compute in ernie4_5_moe models.")
        first, every, beside = (fields.integer(key, low=0) for key in (_FIRST, _EVERY, _SHARED))
        number, last = fields.find(_LAST)[1], config.num_hidden_layers - 1
        if None in (first, beside) or not every or type(number) is not int or number < -1:
            raise fields.wrong(f"does not say all of {_FIRST}, {_LAST}, {_EVERY} and {_SHARED} as numbers; correct it.")
        first, last = first or 0, last if number == -1 else number
        layers = range(config.num_hidden_layers)
        return expert_settings.of_hugging_face(
            *(config, fields, INNER, (_COUNT,)),
            used=_USED,
            expert_layers=tuple((n + 1) % every == 0 and first <= n <= last for n in layers),
            shared_intermediate_size=(fields.integer(INNER) or 0) * (beside or 0),
        )

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        """Of models whose layers without experts are the first ones."""
        return {
            _COUNT: config.num_experts,
            _USED: config.num_experts_per_tok,
            INNER: config.moe_intermediate_size,
            _SHARED: config.shared_intermediate_size // max(config.moe_intermediate_size, 1),
            _FIRST: len(expert_settings.dense_layers(config)),
            _LAST: -1,
            _EVERY: 1,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """As llama.cpp, which has weights of experts in all layers behind the first ones."""
        step, behind = fields.integer(_STEP), expert_settings.gguf_leading(config, fields)
        if step is None:
            raise fields.wrong(f"does not say {self.gguf}.{_STEP}, which layers have experts; convert it again.")
        if any(has and (layer + 1) % step for layer, has in enumerate(behind)):
            raise fields.unsupported(
                f"gives {self.gguf}.{_STEP} as {step}, by which layers behind the dense ones have no experts; "
                "this program does not compute that."
            )
        return expert_settings.of_gguf(
            *(config, fields, expert_settings.gguf_inner(config, fields)),
            expert_layers=behind,
            shared_intermediate_size=fields.integer(_BESIDE, low=0) or 0,
        )


FAMILY = Ernie45Moe()
