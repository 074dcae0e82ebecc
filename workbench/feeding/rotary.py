"""In which rotary settings two models differ; loads no kernels, so that a screen is there at once."""

from kernels.config import ModelConfig, same_value

ROTARY = (
    *("rope_theta", "rope_type", "rotary_dim", "rope_factors", "rope_attention_factor", "rope_local_theta"),
    *("rope_long_factors", "rotated_layers"),
)


def rotary_differences(a: ModelConfig, b: ModelConfig) -> list[tuple[str, str, str]]:
    """Return the rotary settings that differ, each with both values in short."""
    pairs = ((name, getattr(a, name), getattr(b, name)) for name in ROTARY)
    return [(name, _short(one), _short(other)) for name, one, other in pairs if not same_value(one, other)]


def _short(value: object) -> str:
    if isinstance(value, tuple):
        if all(isinstance(item, bool) for item in value):
            return f"not in layers {', '.join(str(n) for n, turned in enumerate(value) if not turned)}"
        return f"{len(value)} divisors from {min(value):g} to {max(value):g}"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
