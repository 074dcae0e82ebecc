"""Whether two models can be run against each other at all, stage by stage."""

from kernels.config import ModelConfig
from kernels.models import stages_of
from workbench.cells.compare import PopulationError

_SIZES = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "q_size", "kv_size", "vocab_size"),
    *("full_head_dim", "full_kv_heads", "keys_as_values", "shared_kv_layers", "intermediate_sizes"),
    "layer_embedding_size",
    *("num_experts", "moe_intermediate_size", "shared_intermediate_size", "expert_layers"),
)


def require_same_sizes(a: ModelConfig, b: ModelConfig) -> None:
    """Raise PopulationError, naming what differs, unless both have the same stages, with the same channels."""
    unlike = [
        f"{name} is {getattr(a, name)} in A and {getattr(b, name)} in B" for name in _SIZES if _differs(a, b, name)
    ]
    for side, own, other in (("A", a, b), ("B", b, a)):
        lacking = stages_of(other)
        only = [stage for stage in stages_of(own) if stage not in lacking]
        if only:
            unlike.append(f"{side} alone has {', '.join(only)}")
    if unlike:
        raise PopulationError(f"A and B are no copies of one model: {', '.join(unlike)}; give two copies of one model")


def _differs(a: ModelConfig, b: ModelConfig, name: str) -> bool:
    return bool(getattr(a, name) != getattr(b, name))
