"""minicpm: a llama with factors of embeddings, blocks and logits, which older files do not say."""

from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts
from kernels.config import ModelConfig
from kernels.expert_settings import GGUF_OTHERS, GGUF_USED
from kernels.experts import ExpertParts
from kernels.family import Keys, Settings
from kernels.models.llama import Decoder, decoder_stages

_EMBEDDING, _RESIDUAL, _BASE = (
    12.0,
    1.4,
    256,
)  # of embeddings, of blocks by the root of layers, width of unscaled logits
_BESIDE = "expert_shared_feed_forward_length"


class MiniCPM(Decoder):
    """models/minicpm.cpp in llama-cpp-python 0.3.36; transformers has no such model of its own."""

    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts()
    gguf = "minicpm"
    interleaved = True
    rope_freqs = True
    long_rope = True
    ffn_biases = True
    more = r"attn_output\.bias|ffn_(?:gate|up|down)\.bias"
    told = ("embedding_multiplier", "residual_multiplier", "logits_scaling")
    keys = MappingProxyType(
        {
            "safetensors": Keys(used=frozenset(told)),
            "gguf": Keys(
                used=GGUF_USED | {"logit_scale", "residual_scale", "embedding_scale", _BESIDE},
                ignored={**GGUF_OTHERS, "expert_weights_norm": (True,), "expert_gating_func": (1,)},
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """What an APR file says."""
        embedding, residual, logits = (fields.number(key) or 1.0 for key in self.told)
        return replace(config, embedding_scale=embedding, residual_scale=residual, logits_scale=1 / logits)

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        numbers = (config.embedding_scale, config.residual_scale, 1 / config.logits_scale)
        return dict(zip(self.told, numbers, strict=True))

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if fields.find("logit_scale")[1] == 0:
            raise fields.wrong(
                f"gives {self.gguf}.logit_scale as 0, which the logits are divided by; convert it again."
            )
        embedding = _factor(fields, "embedding_scale", _EMBEDDING)
        residual = _factor(fields, "residual_scale", _RESIDUAL / config.num_hidden_layers**0.5)
        logits = _factor(fields, "logit_scale", _BASE / config.hidden_size)
        config = replace(config, embedding_scale=embedding, residual_scale=residual, logits_scale=1 / logits)
        beside = fields.integer(_BESIDE, low=0) or 0
        return expert_settings.of_gguf(config, fields, config.intermediate_size, shared_intermediate_size=beside)


def _factor(fields: Settings, key: str, usual: float) -> float:
    """As llama.cpp: 0 is no factor."""
    given = fields.find(key)[1]
    return 1.0 if given == 0 else fields.single(key) or usual


FAMILY = MiniCPM()
