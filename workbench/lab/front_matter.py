"""The text of a hypothesis: YAML front matter, which a hand may edit, and free text below it."""

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

import yaml

from kernels.models import all_stages, layer_stages
from kernels.stages import Site
from store.nearest import did_you_mean
from store.text import printable
from workbench.lab.hypothesis import STATUSES, VERDICTS, After, Hypothesis, HypothesisError, Ladder, Status, Verdict
from workbench.lab.yaml_nodes import CORE, Field, NodeError, compose
from workbench.lab.yaml_nodes import fields as fields_of

_REQUIRED = ("title", "claim", "status")
_NEED_NOT = ("ladder", "after", "history")  # are left out of a new file where there is nothing in them
_FILE = re.compile(r"---[ \t]*\r?\n(?P<front>.*?)^---[ \t]*(\r?\n|\Z)(?P<body>.*)", re.DOTALL | re.MULTILINE)
_MAX_BITS = 1000  # of a whole number; a longer one fits no float, and a much longer one Python does not write out
_NOTHING = ("", "null", "~")


def parse(name: str, text: str) -> Hypothesis:
    """Read the text of a file; HypothesisError names the file, as `name`, the line, and what to do."""
    match = _FILE.fullmatch(text.removeprefix("\ufeff"))
    if match is None:
        raise HypothesisError(f"{name}, line 1: the front matter between two lines of --- is missing.")

    def wrong(line: int, what: str) -> HypothesisError:
        return HypothesisError(f"{name}, line {line}: {what}")

    try:
        return _hypothesis(_fields(match["front"]), match["body"], text)
    except NodeError as error:
        raise wrong(error.line + 2, str(error)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark is not None else 0
        raise wrong(line + 2, f"it is not YAML ({printable(str(error.problem))}); correct it by hand.") from None
    except RecursionError:
        raise wrong(2, "it is not usable YAML, nested too deeply; correct it by hand.") from None


def compose_text(hypothesis: Hypothesis) -> str:
    """Write the text of a new file."""
    front = {key: value for key, value in hypothesis.front().items() if key not in _NEED_NOT or value is not None}
    return f"---\n{_yaml(front)}---\n{hypothesis.body}"


def revise(name: str, text: str, hypothesis: Hypothesis) -> str:
    """Return the text of a file with what `hypothesis` changes, and everything else as it is."""
    old, new = parse(name, text).front(), hypothesis.front()
    match = _FILE.fullmatch(text.removeprefix("\ufeff"))
    assert match is not None
    front, fields = match["front"], _fields(match["front"])
    changed = [key for key in new if new[key] != old[key]]
    present = sorted((key for key in changed if key in fields), key=lambda key: -fields[key][0].start_mark.index)
    for key in present:  # from the end, so that the marks of the others stay true
        at, value = fields[key]
        start, end = at.start_mark.index, _end(value)
        end = start + len(front[start:end].rstrip())
        front = front[:start] + _yaml({key: new[key]}).rstrip("\n") + front[end:]
    front += _yaml(added) if (added := {key: new[key] for key in changed if key not in fields}) else ""
    return f"---\n{front}---\n{hypothesis.body}"


def _hypothesis(fields: Mapping[str, Field], body: str, source: str) -> Hypothesis:
    for key in _REQUIRED:
        if key not in fields:
            raise NodeError(0, f"there is no field {key}; add `{key}: ...`.")
    ladder = _ladder(fields)
    if ladder is None and "prediction" not in fields:
        raise NodeError(0, "there is no field prediction; add `prediction: ...`, or a ladder.")
    return Hypothesis(
        title=_scalar(fields, "title"),
        claim=_scalar(fields, "claim"),
        prediction=_scalar(fields, "prediction"),
        metric=_scalar(fields, "metric"),
        created=_scalar(fields, "created"),
        status=cast("Status", _choice(fields, "status", STATUSES)),
        site=_site(fields),
        ladder=ladder,
        after=_after(fields),
        evidence=_evidence(fields),
        history=_history(fields),
        body=body,
        source=source,
    )


class _Values(yaml.constructor.SafeConstructor):
    """Values of the core schema; whatever is wrong with one is a NodeError with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401
        """The value of a node; NodeError for a kind beyond the core schema, and for what is no value of its kind."""
        line, kind = node.start_mark.line, printable(str(node.tag).rpartition(":")[2], 40)
        if node.tag not in CORE:
            raise NodeError(line, f"{kind} is no kind of value that is read here; write it as plain text.")
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > _MAX_BITS:
                raise OverflowError
            return value
        except (NodeError, yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # the constructors assume that a value fits its tag
            text = printable(str(node.value), 40)
            raise NodeError(line, f"{text!r} is no {kind}; write it as plain text.") from error


class _Dumper(yaml.SafeDumper):
    """YAML that keeps the lines of a text as they are, and escapes what cannot be seen."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    visible = text.replace("\n", "").isprintable()
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if not visible else "|" if "\n" in text else None
    )


_Dumper.add_representer(str, _text_node)


def _yaml(record: Mapping[str, Any]) -> str:
    return str(yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _fields(front: str) -> dict[str, Field]:
    return fields_of(compose(front), "the front matter")


def _scalar(fields: Mapping[str, Field], key: str) -> str:
    """Text of a field as it is written, whatever YAML would make of it (a date, a number, yes); "" without it."""
    if key not in fields:
        return ""
    name, value = fields[key]
    if not isinstance(value, yaml.ScalarNode):
        raise NodeError(name.start_mark.line, f"{key} must be a single text; correct it by hand.")
    return str(value.value)


def _choice(fields: Mapping[str, Field], key: str, choices: Collection[str]) -> str:
    found, line = _scalar(fields, key), fields[key].line
    if found not in choices:
        meant = did_you_mean(found, choices, f"write one of {', '.join(choices)}.")
        raise NodeError(line, f"{key} {printable(found, 40)!r} is unknown; {meant}")
    return found


def _site(fields: Mapping[str, Field]) -> Site | None:
    """The cell that it is about; none where neither layer nor stage is given."""
    layer, stage = _scalar(fields, "layer"), _scalar(fields, "stage")
    line = fields["layer"].line if "layer" in fields else 0
    if stage in _NOTHING:
        if layer not in _NOTHING:
            raise NodeError(line, "there is a layer and no stage; add `stage: ...`, or leave out the layer.")
        return None
    _choice(fields, "stage", all_stages())
    if stage not in layer_stages():
        if layer not in _NOTHING:
            raise NodeError(line, f"{stage} belongs to no layer; write `layer: null`.")
        return Site(None, stage)
    if not re.fullmatch(r"[0-9]{1,4}", layer):
        raise NodeError(line, f"layer {printable(layer, 40)!r} is not a layer number; write it in digits.")
    return Site(int(layer), stage)


def _part(fields: Mapping[str, Field], key: str, names: tuple[str, ...], needed: int) -> dict[str, Field] | None:
    """The fields of a field, of these names, the first `needed` of which must be there; None if it is empty."""
    if key not in fields or (isinstance(fields[key].value, yaml.ScalarNode) and _scalar(fields, key) in _NOTHING):
        return None
    parts = fields_of(fields[key].value, key)
    for name, part in parts.items():
        if name not in names:
            raise NodeError(part.line, f"{key} has no {printable(name, 40)}; it has {', '.join(names)}.")
    for name in names[:needed]:
        if name not in parts:
            raise NodeError(fields[key].line, f"{key} has no field {name}; add `{name}: ...`.")
    return parts


def _ladder(fields: Mapping[str, Field]) -> Ladder | None:
    parts = _part(fields, "ladder", Ladder._fields, 2)
    return None if parts is None else Ladder(*(_scalar(parts, name) for name in Ladder._fields))


def _after(fields: Mapping[str, Field]) -> After | None:
    parts = _part(fields, "after", After._fields, 2)
    if parts is None:
        return None
    number = _scalar(parts, "hypothesis")
    if not re.fullmatch(r"[0-9]{1,6}", number):
        raise NodeError(parts["hypothesis"].line, f"{printable(number, 40)!r} is not the number of a hypothesis.")
    return After(int(number), cast("Verdict", _choice(parts, "verdict", VERDICTS)))


def _evidence(fields: Mapping[str, Field]) -> dict[str, Any]:
    if "evidence" not in fields:
        return {}
    evidence = _Values().construct_document(fields["evidence"].value)
    if not isinstance(evidence, dict | None):
        what = "evidence must be a list of `name: value` fields; correct it by hand."
        raise NodeError(fields["evidence"].line, what)
    return evidence or {}


def _history(fields: Mapping[str, Field]) -> tuple[dict[str, Any], ...]:
    if "history" not in fields:
        return ()
    history = _Values().construct_document(fields["history"].value)
    if not isinstance(history, list | None) or not all(isinstance(test, dict) for test in history or ()):
        raise NodeError(fields["history"].line, "history must be a list of tests; correct it by hand.")
    return tuple(history or ())


def _end(node: yaml.Node) -> int:
    """Where a value ends; a block collection ends with its last item, before the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return int(node.end_mark.index)
