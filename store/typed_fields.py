"""Records of JSON values read back into dataclasses, each field as its annotation says, whoever wrote them."""

import dataclasses
import sys
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from store.errors import StoreError

_LARGEST = sys.float_info.max  # of the whole numbers that a float can be


def typed_fields(kind: Any, record: object, what: str) -> dict[str, Any]:  # noqa: ANN401
    """Return the fields of dataclass `kind` found in `record`, each of the type its annotation names.

    Lists become tuples and whole numbers floats where the annotation says so. StoreError, which calls the record
    `what`, if a field without a default is missing or a value is of another type.
    """
    if not isinstance(record, Mapping):
        raise StoreError(f"The {what} record is not an object of named fields.")
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in record:
            fields[field.name] = _typed(field.type, record[field.name], f"{what} field {field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise StoreError(f"The {what} record has no field {field.name}.")
    return fields


def _typed(annotation: Any, value: object, what: str) -> object:  # noqa: ANN401
    """Return `value` if it fits the annotation, else raise StoreError."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin is tuple and options[1:] == (...,) and isinstance(value, list | tuple):
        return tuple(_typed(options[0], item, what) for item in value)
    if origin in (UnionType, Union) and NoneType in options:
        return None if value is None else _typed(options[0], value, what)
    if origin is dict and isinstance(value, Mapping):
        return {_typed(options[0], key, what): _typed(options[1], item, what) for key, item in value.items()}
    if annotation is Any:
        return value
    if origin is Literal:
        accepted = value in options
    elif dataclasses.is_dataclass(annotation):
        accepted = isinstance(value, Mapping | annotation)
    elif annotation is float:
        accepted = isinstance(value, float) or (isinstance(value, int) and _fits_float(value))
    else:
        accepted = isinstance(value, origin or annotation) and (annotation is bool or not isinstance(value, bool))
    if not accepted:
        raise StoreError(f"The {what} is of the wrong kind.")
    return float(value) if annotation is float and isinstance(value, int) else value


def _fits_float(value: int) -> bool:
    return not isinstance(value, bool) and abs(value) <= _LARGEST
