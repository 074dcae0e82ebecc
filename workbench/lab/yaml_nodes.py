"""YAML that people write, read as nodes with their lines: no aliases, no kinds beyond the core schema, no key twice."""

from typing import NamedTuple

import yaml

from store.text import printable

CORE = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


class NodeError(Exception):
    """What is wrong with a text or one of its values, in a sentence, and the line (0-based)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Field(NamedTuple):
    """A field of a mapping: its key and its value."""

    key: yaml.Node
    value: yaml.Node

    @property
    def line(self) -> int:
        """Line of the key, 0-based."""
        return int(self.key.start_mark.line)


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, which could make a small file expand without bound."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used here", mark)
        return super().compose_node(parent, index)


# Texts that look like a date, a `<<` or a `=` stay texts; what is left are the kinds of the core schema.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in CORE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def compose(text: str) -> yaml.Node | None:
    """Return the root of a text, None if it is empty; NodeError, with its line, for what is not YAML."""
    try:
        loader = _Loader(text)  # looks for control characters
        try:
            return loader.get_single_node()
        except (ValueError, OverflowError) as error:  # of a character or a number that cannot be
            line = loader.get_mark().line
            raise NodeError(line, f"it is not YAML ({error}); correct it by hand.") from error
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark is not None else 0
        star = "alias" in f"{error.context}{error.problem}"
        advice = "write a text that begins with * in quotes" if star else "correct it by hand"
        raise NodeError(line, f"it is not YAML ({printable(str(error.problem))}); {advice}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise NodeError(line, "it holds a control character; remove it.") from None
    except RecursionError:
        raise NodeError(0, "it is not usable YAML, nested too deeply; correct it by hand.") from None


def fields(node: yaml.Node | None, what: str) -> dict[str, Field]:
    """Return the fields of a mapping by their names; NodeError if it is none, or has a key twice.

    what : the mapping, in words.
    """
    if not isinstance(node, yaml.MappingNode):
        line = 0 if node is None else node.start_mark.line
        raise NodeError(line, f"{what} is not a list of `name: value` fields; correct it by hand.")
    found: dict[str, Field] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            raise NodeError(key.start_mark.line, f"{printable(name)} is given twice; remove one.")
        found[name] = Field(key, value)
    return found
