"""The process that renders a chat template: a program of strangers, which may neither reach out nor go on for ever.

Run by workbench.pair.chat as `python -m workbench.pair.template_process`. On stdin, as JSON: {"template", "variables",
"conversations", "now"}. On stdout a list with {"text"} or {"error"} for each conversation.

The environment is the one of transformers' apply_chat_template (utils/chat_template_utils.py, 5.24): Jinja's immutable
sandbox, blocks that leave no white space behind, `break` and `continue`, `{% generation %}`, and five names of its own.
Beside the sandbox the process has limits: no more memory, time or output than any template needs; it writes no file.
"""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_OUTPUT = 1 << 20  # characters
_SECONDS = 2  # of processor time, its start included
_MEMORY = 512 << 20  # bytes of address space


class _RefusedError(TemplateError):
    """What a template says by `raise_exception`."""


class _Names(Namespace):
    """A `namespace()` that keeps no names of Python's internals."""

    def __init__(self, *args: Any, **names: Any) -> None:  # noqa: ANN401
        values = dict(*args, **names)
        for name in values:
            _require_plain(name)
        super().__init__(values)

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401
        _require_plain(name)
        super().__setitem__(name, value)


class _Generation(Extension):
    """`{% generation %}`, which marks what an assistant wrote: its body is rendered."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the body of the block, in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    _limit()
    json.dump(_answers(**job), sys.stdout)


def _answers(
    template: str, variables: dict[str, str], conversations: list[dict[str, Any]], now: str
) -> list[dict[str, str]]:
    environment = _environment(datetime.fromisoformat(now))
    try:
        compiled = environment.from_string(template)
    except Exception as error:  # whatever a text that is no template leads to
        return [{"error": _why(error)} for _ in conversations]

    def render(conversation: dict[str, Any]) -> str:
        parts, length = list[str](), 0
        for part in compiled.generate(**variables, **conversation, add_generation_prompt=True):
            parts.append(part)
            length += len(part)
            if length > MAX_OUTPUT:
                raise _RefusedError(f"it writes more than {MAX_OUTPUT} characters")
        return "".join(parts)

    return [_attempt(render, conversation) for conversation in conversations]


def _attempt(render: Callable[[dict[str, Any]], str], conversation: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": render(conversation)}
    except Exception as error:  # a template can raise anything
        return {"error": _why(error)}


def _environment(now: datetime) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )

    def refuse(message: object) -> None:
        raise _RefusedError(f"it says: {message}")

    def as_json(
        value: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment.filters["tojson"] = as_json
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": now.strftime,
        "dict": lambda *args, **names: dict(*args, **names),
        "namespace": _Names,
    }
    return environment


def _require_plain(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace keeps no name like {name}")


def _why(error: Exception) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    if isinstance(error, SecurityError):
        return f"it reaches for what no template may have ({error})"
    if isinstance(error, TemplateSyntaxError):
        return f"line {error.lineno}: {error.message}"
    if isinstance(error, MemoryError):
        return f"it needs more than {_MEMORY >> 20} MiB of memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{type(error).__name__}: {error}"


def _limit() -> None:
    """Take from this process what no template needs, where the system has such limits."""
    try:
        import resource
    except ImportError:
        return
    limits = {"RLIMIT_CPU": _SECONDS, "RLIMIT_AS": _MEMORY, "RLIMIT_FSIZE": 0, "RLIMIT_NPROC": 0}
    for name, most in limits.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            resource.setrlimit(kind, (most, most + (kind == resource.RLIMIT_CPU)))  # at the second one SIGKILL comes


if __name__ == "__main__":
    main()
