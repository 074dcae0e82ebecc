"""Typed look-ups in the metadata of a model file; an error names the file and the key."""

from collections.abc import Mapping

import numpy as np

from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.text import printable

MAX_INTEGER = 2**31 - 1
SMALLEST, LARGEST = 1e-18, 1e18


class Fields:
    """Metadata of one file, read by key; several keys are aliases, the first that is present counts.

    A missing or null key gives None, or an ArtifactError where the method's name says `needed`. A value of the
    wrong kind is always an ArtifactError, never replaced by a default.
    """

    def __init__(self, file: str, values: Mapping[str, object], prefix: str = "") -> None:
        self.file = file
        self.values = values
        self.prefix = prefix

    def find(self, *keys: str) -> tuple[str, object]:
        """Return the first present key, with prefix, and its value; value None when there is none."""
        for key in keys:
            value = self.values.get(self.prefix + key)
            if value is not None:
                return self.prefix + key, value
        return self.prefix + keys[0], None

    def integer(self, *keys: str, low: int = 1, high: int = MAX_INTEGER) -> int | None:
        """Return a whole number within [low, high]."""
        key, value = self.find(*keys)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key, value, f"a whole number from {low} to {high}")
        return value

    def number(self, *keys: str) -> float | None:
        """Return a number within [1e-18, 1e18], where float32 neither overflows nor underflows."""
        key, value = self.find(*keys)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value <= LARGEST:
            raise self._wrong(key, value, f"a number from {SMALLEST:g} to {LARGEST:g}")
        return float(value)

    def single(self, *keys: str) -> float | None:
        """Return a number that was kept in single precision, as its shortest decimal."""
        value = self.number(*keys)
        return None if value is None else shortest(value)

    def text(self, *keys: str) -> str | None:
        """Return a string."""
        key, value = self.find(*keys)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def flag(self, *keys: str) -> bool | None:
        """Return a truth value."""
        key, value = self.find(*keys)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def needed_integer(self, *keys: str, high: int = MAX_INTEGER) -> int:
        """Return a whole number above zero that must be there."""
        value = self.integer(*keys, high=high)
        if value is None:
            raise self._missing(*keys)
        return value

    def needed_number(self, *keys: str) -> float:
        """Return a number that must be there."""
        value = self.number(*keys)
        if value is None:
            raise self._missing(*keys)
        return value

    def needed_text(self, *keys: str) -> str:
        """Return a string that must be there."""
        value = self.text(*keys)
        if value is None:
            raise self._missing(*keys)
        return value

    def within(self, *keys: str) -> "Fields":
        """Return the settings in the first of some objects that is there and not empty; none where none is."""
        for key in keys:
            inner = self.values.get(self.prefix + key)
            if isinstance(inner, dict) and inner:
                own = f"{self.prefix}{key}."
                return Fields(self.file, {f"{own}{name}": value for name, value in inner.items()}, own)
        return Fields(self.file, {}, f"{self.prefix}{keys[-1]}.")

    def wrong(self, words: str) -> ArtifactError:
        """Return the error that these settings cannot be; words follow the name of the file."""
        return ArtifactError(f"{self.file} {words}")

    def unsupported(self, words: str) -> UnsupportedModelError:
        """Return the error that this program does not compute what these settings ask for."""
        return UnsupportedModelError(f"{self.file} {words}")

    def _missing(self, *keys: str) -> ArtifactError:
        names = " or ".join(self.prefix + key for key in keys)
        return ArtifactError(f"{self.file} does not say {names}; add it, it is needed and cannot be guessed.")

    def _wrong(self, key: str, value: object, expected: str) -> ArtifactError:
        return ArtifactError(
            f"{self.file} gives {key} as {show_value(value)}, which is not {expected}; correct the file."
        )


def shortest(number: float) -> float:
    """Return the shortest decimal that rounds to the same float32 (1e-06 for 9.999999974752427e-07).

    Formats that keep a setting in float32 then agree with the ones that keep it as text.
    """
    return float(str(np.float32(number)))


def show_value(value: object) -> str:
    """Return a value of a file in short and fit for a terminal; a list or an object only by its size."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return printable(repr(value), 80)
