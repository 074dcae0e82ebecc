"""Hypotheses: claims with a falsifier, one markdown file each, written by this program and edited by hand.

`NN-slug.md` is YAML front matter (status, claim, prediction, cell, evidence) and free text below it. A file that a hand
has broken is reported with its line and never written to.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import yaml

from kernels.errors import WorkbenchError
from kernels.models import all_stages, layer_stages
from kernels.stages import Site
from store.text import printable
from store.traces.run import now
from store.whole_files import read_bounded, write_atomically
from workbench.lab.yaml_nodes import CORE, Field, NodeError, compose
from workbench.lab.yaml_nodes import fields as fields_of
from workbench.session.plain import plain

Status = Literal["UNTESTED", "CONFIRMED", "PARTIAL", "FALSIFIED"]
STATUSES: tuple[Status, ...] = get_args(Status)

_TEXTS = ("title", "status", "layer", "stage", "claim", "prediction")
_OPTIONAL_TEXTS = ("metric", "created")
_NAME = re.compile(r"(\d{2,})-(.+)\.md")
_MARKER = re.compile(r"\.number-(\d+)")
_FILE = re.compile(r"---[ \t]*\r?\n(?P<front>.*?)^---[ \t]*(\r?\n|\Z)(?P<body>.*)", re.DOTALL | re.MULTILINE)
_MAX_BYTES = 1 << 20
_MAX_BITS = 1000  # of a whole number; a longer one fits no float, and a much longer one Python does not write out


class HypothesisError(WorkbenchError, ValueError):
    """A hypothesis that cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A claim about a cell that a measurement can contradict.

    number, slug : from the file's name; number 0 is not written yet.
    prediction : what must be measured if the claim is true; its contrary falsifies it.
    evidence : the cell's numbers with population, numeric paths and artifact hashes.
    metric : key of the metric the evidence is judged by. created : UTC, ISO 8601. body : free text.
    source : the file as it was read; empty if not written yet.
    """

    title: str
    site: Site
    claim: str
    prediction: str
    status: Status = "UNTESTED"
    evidence: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""
    created: str = field(default_factory=now)
    body: str = ""
    number: int = 0
    slug: str = ""
    source: str = field(default="", repr=False, compare=False)

    @property
    def filename(self) -> str:
        """Name of its file."""
        return f"{self.number:02d}-{self.slug}.md"

    def front(self) -> dict[str, Any]:
        """Return the front matter, in the order of the file."""
        return {
            "title": self.title,
            "status": self.status,
            "layer": self.site.layer,
            "stage": self.site.stage,
            "claim": self.claim,
            "prediction": self.prediction,
            "metric": self.metric,
            "created": self.created,
            "evidence": plain(self.evidence),
        }


class Shelf(NamedTuple):
    """What a folder of hypotheses holds: the readable ones by number, and a sentence for every file that is not."""

    hypotheses: list[Hypothesis]
    problems: list[str]


def load(folder: Path) -> Shelf:
    """Read all hypotheses of a folder; a folder that does not exist is empty."""
    shelf = Shelf([], [])
    taken: dict[int, str] = {}
    files = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
    for path in sorted(file for file in files if file.suffix == ".md" and not file.name.startswith(".")):
        try:
            hypothesis = read(path)
            if hypothesis.number in taken:
                other = taken[hypothesis.number]
                raise HypothesisError(f"{_shown(path)} has the number of {other}; rename one of them.")
            taken[hypothesis.number] = printable(path.name)
            shelf.hypotheses.append(hypothesis)
        except HypothesisError as error:
            shelf.problems.append(str(error))
    shelf.hypotheses.sort(key=lambda hypothesis: hypothesis.number)
    return shelf


def read(path: Path) -> Hypothesis:
    """Read one file; HypothesisError names the file, the line and what to do."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise HypothesisError(f"{_shown(path)} is not named NN-slug.md; rename it to be listed.")
    return replace(_parse(path, _text(path)), number=int(name[1]), slug=name[2])


def write(folder: Path, hypothesis: Hypothesis) -> Hypothesis:
    """Write a new hypothesis (number 0) under the next free number, or the changes of one that was read before.

    What a hand has added to the file stays. HypothesisError if the file has changed since it was read, or cannot be
    written. Returns the hypothesis as it now lies in the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if hypothesis.number == 0:
            hypothesis = replace(hypothesis, number=_next_number(folder), slug=_slug(hypothesis.title))
            text = f"---\n{_yaml(hypothesis.front())}---\n{hypothesis.body}"
        else:
            text = _revised(folder / hypothesis.filename, hypothesis)
        write_atomically(folder / hypothesis.filename, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        where = _shown(folder / hypothesis.filename)
        raise HypothesisError(f"{where} cannot be written ({error.strerror}); the note is not saved.") from error
    return read(folder / hypothesis.filename)


def _text(path: Path) -> str:
    try:
        content = read_bounded(path, _MAX_BYTES)
    except OSError as error:
        raise HypothesisError(f"{_shown(path)} cannot be read ({error.strerror}).") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise HypothesisError(f"{_shown(path)}, line {line}: it is not UTF-8 text; save it as UTF-8.") from error


def _parse(path: Path, text: str) -> Hypothesis:
    match = _FILE.fullmatch(text.removeprefix("\ufeff"))
    if match is None:
        raise HypothesisError(f"{_shown(path)}, line 1: the front matter between two lines of --- is missing.")

    def wrong(line: int, what: str) -> HypothesisError:
        return HypothesisError(f"{_shown(path)}, line {line}: {what}")

    try:
        fields = _fields(match["front"])
        texts = {key: _scalar(fields, key) for key in (*_TEXTS, *_OPTIONAL_TEXTS)}
        evidence = _evidence(fields)
        status = cast("Status", _choice(fields, "status", STATUSES))
        stage = _choice(fields, "stage", all_stages())
        layer = _layer(fields, stage)
    except NodeError as error:
        raise wrong(error.line + 2, str(error)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark is not None else 0
        raise wrong(line + 2, f"it is not YAML ({printable(str(error.problem))}); correct it by hand.") from None
    except RecursionError:
        raise wrong(2, "it is not usable YAML, nested too deeply; correct it by hand.") from None
    return Hypothesis(
        title=texts["title"],
        site=Site(layer, stage),
        claim=texts["claim"],
        prediction=texts["prediction"],
        status=status,
        evidence=evidence,
        metric=texts["metric"],
        created=texts["created"],
        body=match["body"],
        source=text,
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
    """Text of a field as it is written, whatever YAML would make of it (a date, a number, yes)."""
    if key not in fields:
        if key in _OPTIONAL_TEXTS:
            return ""
        raise NodeError(0, f"there is no field {key}; add `{key}: ...`.")
    name, value = fields[key]
    if not isinstance(value, yaml.ScalarNode):
        raise NodeError(name.start_mark.line, f"{key} must be a single text; correct it by hand.")
    return str(value.value)


def _choice(fields: Mapping[str, Field], key: str, choices: Iterable[str]) -> str:
    found, line = _scalar(fields, key), fields[key].line
    if found not in choices:
        raise NodeError(line, f"{key} {printable(found, 40)!r} is unknown; write one of {', '.join(choices)}.")
    return found


def _layer(fields: Mapping[str, Field], stage: str) -> int | None:
    found, line = _scalar(fields, "layer"), fields["layer"].line
    if stage not in layer_stages():
        if found not in ("", "null", "~"):
            raise NodeError(line, f"{stage} belongs to no layer; write `layer: null`.")
        return None
    if not re.fullmatch(r"[0-9]{1,4}", found):
        raise NodeError(line, f"layer {printable(found, 40)!r} is not a layer number; write it in digits.")
    return int(found)


def _evidence(fields: Mapping[str, Field]) -> dict[str, Any]:
    if "evidence" not in fields:
        return {}
    name, node = fields["evidence"]
    evidence = _Values().construct_document(node)
    if not isinstance(evidence, dict | None):
        raise NodeError(name.start_mark.line, "evidence must be a list of `name: value` fields; correct it by hand.")
    return evidence or {}


def _revised(path: Path, hypothesis: Hypothesis) -> str:
    """Return the text of the file with what `hypothesis` changes, and everything else as it is."""
    text = _text(path)
    if text != hypothesis.source:
        raise HypothesisError(f"{_shown(path)} was changed on disk since it was read; reload it, then change it again.")
    old, new = _parse(path, text).front(), hypothesis.front()
    match = _FILE.fullmatch(text.removeprefix("\ufeff"))
    assert match is not None
    front, fields = match["front"], _fields(match["front"])
    changed = [key for key in new if new[key] != old[key]]
    present = sorted((key for key in changed if key in fields), key=lambda key: -fields[key][0].start_mark.index)
    for key in present:  # from the end, so that the marks of the others stay true
        name, value = fields[key]
        start, end = name.start_mark.index, _end(value)
        end = start + len(front[start:end].rstrip())
        front = front[:start] + _yaml({key: new[key]}).rstrip("\n") + front[end:]
    front += _yaml(added) if (added := {key: new[key] for key in changed if key not in fields}) else ""
    return f"---\n{front}---\n{hypothesis.body}"


def _end(node: yaml.Node) -> int:
    """Where a value ends; a block collection ends with its last item, before the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return int(node.end_mark.index)


def _next_number(folder: Path) -> int:
    """Reserve and return a number that no hypothesis of this folder has or ever had."""
    while True:
        names = [path.name for path in folder.iterdir()]
        found = [match for name in names if (match := _NAME.fullmatch(name) or _MARKER.fullmatch(name))]
        number = max((int(match[1]) for match in found), default=0) + 1
        try:
            (folder / f".number-{number:02d}").touch(exist_ok=False)
        except FileExistsError:
            continue  # another process took it this instant
        return number


def _slug(title: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:48].strip("-")
    return words or "hypothesis"


def _shown(path: Path) -> str:
    return f"hypotheses/{printable(path.name)}"
