"""Values as JSON and YAML can hold them."""

import math
from collections.abc import Mapping
from typing import Any

_DEPTH = 50  # of what a reader may want to see; Python's own functions end at about 1000


def plain(value: Any, depth: int = _DEPTH) -> Any:  # noqa: ANN401
    """Return `value` made of dict, list, str, bool, int, finite float and None, `depth` levels deep, then "…".

    NumPy scalars and arrays become Python's, NaN and infinities the texts "nan", "inf" and "-inf", everything else its
    text.
    """
    if depth == 0:
        return "…"
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
