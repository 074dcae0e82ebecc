"""granite_swa: a granite with a sink for every head, windows in some layers, and layers that do not rotate."""

from dataclasses import replace
from types import MappingProxyType

from kernels.config import SLIDING, ModelConfig
from kernels.family import Settings, gguf_layer_types
from kernels.models.granite import Granite

_WINDOW, _PATTERN, _TURNS = "attention.sliding_window", "attention.sliding_window_pattern", "attention.rope_pattern"


class GraniteSwa(Granite):
    """models/granite-swa.cpp in llama-cpp-python 0.3.36."""

    sinks = True
    model_types = ()
    gguf = "granite_swa"
    switched = False
    keys = MappingProxyType(
        {
            "gguf": Granite.keys["gguf"]._replace(
                used=(Granite.keys["gguf"].used - {"rope.scaling.finetuned"}) | {_WINDOW, _PATTERN, _TURNS},
            )
        }
    )

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        config, layers = super().of_gguf(config, fields), config.num_hidden_layers
        window, types = fields.integer(_WINDOW), gguf_layer_types(config, fields, 0)
        if window is None:
            raise fields.wrong(f"does not say {self.gguf}.{_WINDOW}, which llama.cpp asks for; convert it again.")
        turns = fields.find(_TURNS)[1]
        turns = [1] * layers if turns in (None, 1) else turns  # of one number llama.cpp takes no notice
        if not isinstance(turns, list) or len(turns) < layers or not all(turn in (0, 1) for turn in turns):
            raise fields.wrong(f"gives {self.gguf}.{_TURNS} not as 0 or 1 for every layer; correct it.")
        rotated = tuple(map(bool, turns[:layers]))
        config = replace(config, rotated_layers=None if all(rotated) else rotated)
        if SLIDING not in types:
            return config
        return replace(config, sliding_window=window, layer_types=types)


FAMILY = GraniteSwa()
