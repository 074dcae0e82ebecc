"""Reading contracts: every value is checked, and whatever is wrong is told with its file and line."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import yaml

from kernels.errors import WorkbenchError
from store.nearest import did_you_mean
from store.text import printable
from store.whole_files import read_bounded
from workbench.lab.contracts.bounds import Alike, Bound, Equal, OnBothSides, OneOf, Scalar, Within
from workbench.lab.contracts.contract import Contract, Rule
from workbench.lab.contracts.subjects import (
    NO_ANSWERS,
    Cells,
    Coverage,
    Layers,
    Logits,
    Settings,
    Subject,
    Tensors,
    Verdict,
)
from workbench.lab.readings import OF_CELLS, OF_LOGITS, OF_TENSORS
from workbench.lab.yaml_nodes import CORE, Field, NodeError, compose, fields

VERSION = 1
SHIPPED = {path.stem: path for path in sorted((Path(__file__).parent / "shipped").glob("*.yaml"))}
VERDICTS = ("alike", "numerics_only", "quantization_only", "divergent")
SUBJECTS = ("cells", "tensors", "logits", "config", "coverage", "bisect")
BOUNDS = ("within", "at_least", "at_most", "equals")

_MAX_BYTES = 1 << 17
_MAX_PATTERN = 200  # characters
_MAX_LAYER = 9999
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_LAYERS = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


class ContractError(WorkbenchError, ValueError):
    """A contract that cannot be read."""


def read_contract(given: Path) -> Contract:
    """Read a contract: one that ships with the program, by its name, or a file. ContractError says what is wrong."""
    shipped = SHIPPED.get(str(given))
    path = shipped or given
    name = f"the contract {given}" if shipped else printable(str(given), 1000)
    try:
        content = read_bounded(path.resolve(), _MAX_BYTES)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: a zero byte
        why = getattr(error, "strerror", None) or str(error)
        known = f"the contracts that come by name are {', '.join(SHIPPED)}."
        meant = known if given.exists() else did_you_mean(str(given), SHIPPED, known)
        raise ContractError(f"{name} cannot be read ({why.lower()}); {meant}") from None
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ContractError(f"{name}, line {line}: it is not UTF-8 text; save it as UTF-8.") from None
    return replace(parse(text, name, None if shipped else given), sha256=hashlib.sha256(content).hexdigest())


def parse(text: str, name: str, file: Path | None = None) -> Contract:
    """Read the text of a contract; `name` is what messages call it."""
    try:
        return _contract(compose(text), file)
    except NodeError as error:
        raise ContractError(f"{name}, line {error.line + 1}: {error}") from None


def _contract(root: yaml.Node | None, file: Path | None) -> Contract:
    given = _known(root, "a contract", ("contract", "version", "rules"))
    for key in ("contract", "version", "rules"):
        if key not in given:
            raise NodeError(0, f"there is no field {key}; add `{key}: ...`.")
    if _number(given["version"].value) != VERSION:
        _wrong(given["version"].value, f"version must be {VERSION}, which is what this program reads")
    name = _named(given["contract"].value, "the name of a contract")
    items = given["rules"].value
    if not isinstance(items, yaml.SequenceNode) or not items.value:
        _wrong(items, "rules must be a list of at least one rule")
    rules: dict[str, Rule] = {}
    for item in items.value:
        rule = _rule(item)
        if rule.id in rules:
            _wrong(item, f"two rules have the id {rule.id}, the other is in line {rules[rule.id].line}; rename one")
        rules[rule.id] = rule
    return Contract(name, tuple(rules.values()), file)


def _rule(node: yaml.Node) -> Rule:
    given = _known(node, "a rule", ("id", *SUBJECTS, "metric", *BOUNDS))
    if "id" not in given:
        _wrong(node, "a rule has no id; add `id: ...`")
    kinds = [name for name in SUBJECTS if name in given]
    if len(kinds) != 1:
        found = f"both {kinds[0]} and {kinds[1]}" if kinds else "none of them"
        _wrong(node, f"a rule is about one of {', '.join(SUBJECTS)}, and this one has {found}")
    subject = _subject(node, kinds[0], given)
    return Rule(
        _named(given["id"].value, "the id of a rule"),
        node.start_mark.line + 1,
        subject,
        _bound(node, kinds[0], given),
    )


def _subject(node: yaml.Node, kind: str, given: Mapping[str, Field]) -> Subject:
    value = given[kind].value
    metrics: dict[str, tuple[str, ...]] = {"cells": OF_CELLS, "tensors": OF_TENSORS, "logits": OF_LOGITS}
    if kind not in metrics:
        if "metric" in given:
            _wrong(given["metric"].key, f"a rule about {kind} has no metric; remove it")
        if kind == "config":
            return Settings(_texts(value, "config"))
        if kind == "coverage":
            return Coverage("cells" if _choice(value, "coverage", ("cells", "tensors")) == "cells" else "tensors")
        return Verdict()
    if "metric" not in given:
        _wrong(node, f"a rule about {kind} needs a metric; add `metric: ...`")
    metric = _choice(given["metric"].value, "metric", metrics[kind])
    if kind == "tensors":
        return Tensors(_texts(value, "tensors"), metric)
    if kind == "logits":
        where = _known(value, "logits", ("positions",))
        positions = _choice(where["positions"].value, "positions", ("all", "last")) if "positions" in where else "all"
        return Logits(positions == "last", metric)
    where = _known(value, "cells", ("stage", "layers"))
    if "stage" not in where:
        _wrong(value, 'cells needs a stage; add `stage: ...`, or `stage: "*"` for all')
    layers = _layers(where["layers"].value) if "layers" in where else Layers()
    return Cells(_texts(where["stage"].value, "stage"), layers, metric)


def _bound(node: yaml.Node, kind: str, given: Mapping[str, Field]) -> Bound:
    bounds = [name for name in BOUNDS if name in given]
    if kind == "bisect":
        if bounds:
            _wrong(given[bounds[0]].key, f"a rule about bisect lists its verdicts; remove {bounds[0]}")
        return OneOf(_verdicts(given[kind].value))
    if len(bounds) != 1:
        found = f"both {bounds[0]} and {bounds[1]}" if bounds else "none of them"
        _wrong(node, f"a rule has one of {', '.join(BOUNDS)}, and this one has {found}")
    key, value = bounds[0], given[bounds[0]].value
    if kind == "config" and key == "equals":
        wanted = _scalar(value)
        return Alike() if wanted == "both" else OnBothSides(Equal(wanted))
    bound = _within(value) if key == "within" else _limit(key, _number(value))
    return OnBothSides(bound) if kind == "config" else bound


def _within(node: yaml.Node) -> Within:
    if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
        _wrong(node, "within takes two numbers, such as [0.5, 2.0]")
    low, high = map(_number, node.value)
    if low > high:
        _wrong(node, "within has its larger number first; exchange them")
    return Within(low, high)


def _limit(key: str, value: float) -> Within:
    if key == "equals":
        return Within(value, value)
    return Within(low=value) if key == "at_least" else Within(high=value)


def _verdicts(node: yaml.Node) -> tuple[str, ...]:
    found = _texts(node, "bisect")
    for item, verdict in zip(_items(node), found, strict=True):
        if verdict in NO_ANSWERS:
            _wrong(item, f"{verdict} is no answer, so that it cannot be demanded; remove it")
        if verdict not in VERDICTS:
            _wrong(item, f"verdict {_shown(item)} is unknown; write one of {', '.join(VERDICTS)}")
    return found


def _layers(node: yaml.Node) -> Layers:
    if isinstance(node, yaml.SequenceNode):
        numbers = [_number(item) for item in node.value]
        for item, number in zip(node.value, numbers, strict=True):
            if number != int(number) or not 0 <= number <= _MAX_LAYER:
                _wrong(item, f"layer {_shown(item)} is not a layer number; write it in digits")
        if not numbers:
            _wrong(node, "layers lists none; write numbers, or `layers: all`")
        return Layers("numbers", tuple(dict.fromkeys(map(int, numbers))))
    text = _text(node, "layers")
    if text == "all":
        return Layers()
    if text == "last":
        return Layers("last")
    match = _LAYERS.fullmatch(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        _wrong(node, f'layers {_shown(node)} is none of all, last, a list such as [0, 5] and a range such as "3-7"')
    return Layers("numbers", range(int(match[1]), int(match[2] or match[1]) + 1))


# Values


def _known(node: yaml.Node | None, what: str, names: Collection[str]) -> dict[str, Field]:
    """The fields of a mapping, all of which must be known."""
    given = fields(node, what)
    for name, found in given.items():
        if not isinstance(found.key, yaml.ScalarNode) or name not in names:
            meant = did_you_mean(str(found.key.value), names, f"it has {', '.join(names)}")
            _wrong(found.key, f"{_shown(found.key)} is no field of {what}; {meant}")
    return given


def _items(node: yaml.Node) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _texts(node: yaml.Node, what: str) -> tuple[str, ...]:
    """A text, or a list of at least one."""
    found = tuple(_text(item, what) for item in _items(node))
    if not found:
        _wrong(node, f"{what} lists none; name at least one")
    return tuple(dict.fromkeys(found)) if len(set(found)) == len(found) else _wrong(node, f"{what} names one twice")


def _text(node: yaml.Node, what: str) -> str:
    text = _plain(node, f"{what} must be a text").value
    if not text or len(text) > _MAX_PATTERN:
        _wrong(node, f"{what} must have 1 to {_MAX_PATTERN} characters")
    return str(text)


def _choice(node: yaml.Node, what: str, choices: Collection[str]) -> str:
    found = _text(node, what)
    if found not in choices:
        meant = did_you_mean(found, choices, f"write one of {', '.join(choices)}")
        _wrong(node, f"{what} {_shown(node)} is unknown; {meant}")
    return found


def _named(node: yaml.Node, what: str) -> str:
    found = _text(node, what)
    if not _NAME.fullmatch(found):
        _wrong(node, f"{what} has letters, digits, dots, dashes and underscores, up to 64, and not {_shown(node)}")
    return found


def _number(node: yaml.Node) -> float:
    """A number however it is written, 1e-3 too, which YAML 1.1 takes for a text; never NaN, infinite or quoted."""
    found = _plain(node, "a number is missing here")
    if found.style is not None or not _NUMBER.fullmatch(found.value):
        _wrong(node, f"{_shown(node)} is no number; write it in digits, such as 0.001 or 1e-3")
    value = float(found.value)
    if not math.isfinite(value):
        _wrong(node, f"{_shown(node)} is too large a number")
    return value


def _scalar(node: yaml.Node) -> Scalar:
    """The value that a setting must have."""
    found = _plain(node, "equals takes a single value")
    if found.style is None and found.value in ("true", "false"):
        return bool(found.value == "true")
    if found.style is None and _NUMBER.fullmatch(found.value):
        return _number(node)
    if found.style is None and found.tag != "tag:yaml.org,2002:str":
        _wrong(node, f"{_shown(node)} is no value that a setting has; write a number, true, false, both or a text")
    return _text(node, "equals")


def _plain(node: yaml.Node, otherwise: str) -> yaml.ScalarNode:
    """A single value; NodeError, with `otherwise`, for a list or fields, and for kinds beyond the core schema."""
    if not isinstance(node, yaml.ScalarNode):
        _wrong(node, otherwise)
    if node.tag not in CORE:
        _wrong(node, f"{printable(str(node.tag), 60)} is no kind of value that is read here")
    return node


def _shown(node: yaml.Node) -> str:
    return printable(repr(node.value), 60) if isinstance(node, yaml.ScalarNode) else "a list or fields"


def _wrong(node: yaml.Node, what: str) -> NoReturn:
    raise NodeError(node.start_mark.line, f"{what}.")
