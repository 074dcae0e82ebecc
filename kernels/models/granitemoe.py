"""granitemoe: a granite with experts, and in some of its models a part beside them for every token."""

from types import MappingProxyType

from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, OF_TRAINING, USED
from kernels.family import Keys
from kernels.models.granite import MULTIPLIERS, Granite

_BESIDE = "shared_intermediate_size"
_OF_GRANITE = Granite.keys["safetensors"]


class GraniteMoe(Granite):
    """Defaults of GraniteMoeSharedConfig in transformers 5.24; models/granite-moe.cpp in llama-cpp-python 0.3.36."""

    model_types = ("granitemoeshared", "granitemoe")
    defaults = MappingProxyType({**Granite.defaults, COUNTS[1]: 8, USED: 2, _BESIDE: 0})
    gguf = "granitemoe"
    switched = False
    told = (*MULTIPLIERS, COUNTS[1], USED)
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=_OF_GRANITE.used | {*COUNTS, USED, _BESIDE},
                ignored=_OF_GRANITE.ignored,
                irrelevant=(*_OF_GRANITE.irrelevant, *OF_TRAINING),
            ),
            "gguf": Keys(
                used=GGUF_USED
                | {"logit_scale", "residual_scale", "embedding_scale", "attention.scale"}
                | {"expert_shared_feed_forward_length"},
                ignored=GGUF_OTHERS,
            ),
        }
    )


FAMILY = GraniteMoe()
