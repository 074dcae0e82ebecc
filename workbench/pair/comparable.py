"""Whether two models can be run against each other at all, stage by stage."""

from kernels.config import ModelConfig
from workbench.cells.compare import PopulationError

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "q_size", "kv_size", "vocab_size")


def require_same_sizes(a: ModelConfig, b: ModelConfig) -> None:
    """Raise PopulationError, naming what differs, unless every stage has the same channels on both sides."""
    unlike = [
        f"{name} is {getattr(a, name)} in A and {getattr(b, name)} in B" for name in _SIZES if _differs(a, b, name)
    ]
    if unlike:
        raise PopulationError(f"A and B are no copies of one model: {', '.join(unlike)}; give two copies of one model")


def _differs(a: ModelConfig, b: ModelConfig, name: str) -> bool:
    return bool(getattr(a, name) != getattr(b, name))
