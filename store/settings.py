"""What the keys of a file mean for the numbers: which are obeyed, refused, ignored as its engine does, or not known."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, NamedTuple

from kernels.errors import UnsupportedModelError
from store.files.fields import Fields, show_value

Use = Literal["used", "irrelevant", "not understood"]
Neutral = Mapping[str, tuple[object, ...]]


class Table(NamedTuple):
    """The keys that a container gives models of one family, by what a forward makes of them.

    engine
        The program whose reading of these keys counts.
    used
        Decide what is computed, and are obeyed.
    refused
        Change what is computed and are not implemented, unless they have one of these values or are zero, false or
        empty (a list: if all of its items do).
    ignored
        Change what is computed in other families, or in another engine, but not in `engine` for this one; values that
        change nothing anywhere as in `refused`.
    irrelevant
        Patterns of keys that no forward looks at.
    """

    engine: str
    used: frozenset[str]
    refused: Neutral = MappingProxyType({})
    ignored: Neutral = MappingProxyType({})
    irrelevant: tuple[str, ...] = ()

    def use(self, key: str) -> Use:
        """Say what becomes of a key, given without the family's prefix."""
        if key in self.used or key in self.refused:
            return "used"
        if key in self.ignored or any(fnmatchcase(key, pattern) for pattern in self.irrelevant):
            return "irrelevant"
        return "not understood"

    def check(self, fields: Fields, family: str) -> list[str]:
        """Return sentences about keys that the engine ignores; UnsupportedModelError for one that it does not."""
        for key, value in _beyond(fields, self.refused):
            raise UnsupportedModelError(
                f"{fields.file} sets {fields.prefix}{key} to {show_value(value)}, which this program does not compute; "
                "use a model without it."
            )
        return [
            f"{fields.file} sets {fields.prefix}{key} to {show_value(value)}, which {self.engine} ignores for "
            f"{family}; so does this program."
            for key, value in _beyond(fields, self.ignored)
        ]


class Setting(NamedTuple):
    """A key of a file, its value in short, and what becomes of it."""

    key: str
    value: str
    use: Use


def _beyond(fields: Fields, neutral: Neutral) -> Iterator[tuple[str, object]]:
    """The keys whose values do something."""
    for key, values in neutral.items():
        value = fields.values.get(fields.prefix + key)
        items = value if isinstance(value, list) else [value]
        if any(item and item not in values for item in items):
            yield key, value
