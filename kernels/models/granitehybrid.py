"""granitehybrid: a granite of which most layers have a state space in place of attention; the others do not rotate."""

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

from kernels import expert_settings, experts, state_space
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, OF_TRAINING, USED
from kernels.family import Has, Keys, Settings, Tensor
from kernels.graph import LAYER_INPUT, Stage
from kernels.models.granite import MULTIPLIERS, Granite
from kernels.models.llama import decoder_stages

_RECURRENT, _ATTENDING = ("mamba", "linear_attention"), ("attention", "full_attention")
_BESIDE = "shared_intermediate_size"


class GraniteHybrid(Granite):
    """Defaults of GraniteMoeHybridConfig in transformers 5.24; models/granite-hybrid.cpp in llama-cpp-python 0.3.36."""

    stages = decoder_stages(*state_space.NAMES, *experts.NAMES)
    headless = True
    in_apr = False
    model_types = ("granitemoehybrid",)
    defaults = MappingProxyType(
        {
            **Granite.defaults,
            **{COUNTS[1]: 8, USED: 2, _BESIDE: 1024, "mamba_n_heads": 128, "mamba_n_groups": 1, "mamba_d_state": 256},
            **{"mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False},
        }
    )
    gguf = "granitehybrid"
    gguf_modules = state_space.GGUF_MODULES
    scaled = (*Granite.scaled, "mamba.in_proj", "mamba.out_proj")
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=Granite.keys["safetensors"].used
                | {*COUNTS, USED, _BESIDE, *state_space.SHAPE, "mamba_d_head", "mamba_expand", "mamba_conv_bias"}
                | {"mamba_proj_bias", "layer_types", "layers_block_type", "position_embedding_type", "time_step_limit"},
                ignored={"sliding_window": ()},
                irrelevant=(*Granite.keys["safetensors"].irrelevant, *OF_TRAINING, "mamba_chunk_size", "attn_*"),
            ),
            "gguf": Keys(
                used=Granite.keys["gguf"].used | set(state_space.GGUF_SHAPE),
                ignored=Granite.keys["gguf"].ignored,
            ),
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        recurrence = state_space.of_hugging_face(config, fields)
        beside = fields.integer(_BESIDE, low=0) or 0
        if fields.integer(COUNTS[1], low=0):
            config = expert_settings.of_hugging_face(
                config, fields, "intermediate_size", shared_intermediate_size=beside
            )
        else:
            config = replace(config, intermediate_size=beside)
        numbers = [fields.number(key) or 1.0 for key in MULTIPLIERS]
        if fields.text("position_embedding_type") != "rope":
            config = replace(config, rotated_layers=(False,) * config.num_hidden_layers)
        made = self.multiplied(config, *numbers)
        return replace(made, recurrence=recurrence, recurrent_layers=_layers(config, fields))

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        turned, layers = config.rotated_layers is None, range(config.num_hidden_layers)
        return {
            **super().to_hugging_face(config),
            COUNTS[1]: config.num_experts,
            _BESIDE: config.shared_intermediate_size or config.intermediate_size,
            **state_space.to_hugging_face(config),
            "layer_types": ["linear_attention" if config.recurs(layer) else "full_attention" for layer in layers],
            "position_embedding_type": "rope" if turned else None,
        }

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        return super().of_gguf(replace(config, recurrence=state_space.of_gguf(config, fields)), fields)

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        yield from super().refused_by_llama_cpp(config)
        if config.recurrence is not None and config.recurrence.values != 2 * config.hidden_size:
            yield f"its state spaces have {config.recurrence.values} channels, which are not twice {config.hidden_size}"

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        own = state_space.tensors if config.recurs(layer) else super().of_attention
        yield from own(config, layer)

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        if not config.recurs(layer):
            yield from super().attention(config, layer, has)
            return
        yield self._norm(config, layer, "attn_norm", "input_layernorm", LAYER_INPUT)
        yield from state_space.stages(config, layer, self._used, has, "attn_out")


def _layers(config: ModelConfig, fields: Settings) -> tuple[bool, ...] | None:
    """Which layers have a state space; all where nothing is said."""
    layers, (key, types) = config.num_hidden_layers, fields.find("layer_types", "layers_block_type")
    if types is None:
        return (True,) * layers
    known = (*_RECURRENT, *_ATTENDING)
    if not isinstance(types, list) or len(types) < layers or not all(kind in known for kind in types):
        raise fields.unsupported(f"has {key} other than {', '.join(known)}, or fewer than layers.")
    found = tuple(kind in _RECURRENT for kind in types[:layers])
    return found if any(found) else None


FAMILY = GraniteHybrid()
