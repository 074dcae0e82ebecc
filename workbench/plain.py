"""Values as JSON and YAML can hold them."""

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return `value` made of dict, list, str, bool, int, finite float and None.

    NumPy scalars and arrays become Python's, NaN and infinities the texts "nan", "inf" and "-inf", everything else its
    text.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
