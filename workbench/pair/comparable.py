"""Whether two models can be run against each other at all, stage by stage."""

from kernels.config import ModelConfig
from kernels.models import family
from workbench.cells.compare import PopulationError

_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "q_size", "kv_size", "vocab_size")


def require_same_sizes(a: ModelConfig, b: ModelConfig) -> None:
    """Raise PopulationError, naming what differs, unless both have the same stages, with the same channels."""
    unlike = [
        f"{name} is {getattr(a, name)} in A and {getattr(b, name)} in B" for name in _SIZES if _differs(a, b, name)
    ]
    for side, own, other in (("A", a, b), ("B", b, a)):
        lacking = family(other.architecture).stages
        only = [stage for stage in family(own.architecture).stages if stage not in lacking]
        if only:
            unlike.append(f"{side} alone has {', '.join(only)}")
    if unlike:
        raise PopulationError(f"A and B are no copies of one model: {', '.join(unlike)}; give two copies of one model")


def _differs(a: ModelConfig, b: ModelConfig, name: str) -> bool:
    return bool(getattr(a, name) != getattr(b, name))
