"""ernie4_5-moe: an ernie4_5 with experts behind its first layers, and a part beside them for every token."""

from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_STEP, _BESIDE = "interleave_moe_layer_step", "expert_shared_feed_forward_length"


class Ernie45Moe(Decoder):
    """models/ernie4-5-moe.cpp in llama-cpp-python 0.3.36."""

    pairs = "norm"
    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts(selection=True)
    gguf = "ernie4_5-moe"
    gguf_unused = ("attn_output.bias",)
    keys = MappingProxyType(
        {
            "gguf": Keys(
                used=GGUF_USED | {"expert_feed_forward_length", "leading_dense_block_count", _STEP, _BESIDE},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            )
        }
    )

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
