"""Options that several commands share, and how their values are read and written."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from store.text import printable

if TYPE_CHECKING:
    from workbench.cells.view import TokenScope
    from workbench.pair.prompt import Chat, Prompt

F = TypeVar("F", bound=Callable[..., Any])

# The names of kernels.paths.PATHS, workbench.cells.metrics.METRICS and store.traces.statistics_table.SCOPES; a test
# keeps them alike, so that --help need not load the kernels.
PATH_NAMES = ("f64", "f32", "ggml", "apr")
METRIC_NAMES = (
    "std_ratio",
    "rel_rms",
    "one_minus_cosine",
    "max_abs",
    "mean_abs",
    "rms",
    "mean_shift",
    "nmse_energy",
    "nmse_var",
    "max_ulp",
    "identical_share",
)
SCOPE_NAMES = ("all", "last")

_MAX_TOKENS_FILE = 1 << 24  # bytes; more than a million ids
_TOKEN_IDS = re.compile(r"\s*[0-9]{1,10}(?:(?:\s*,\s*|\s+)[0-9]{1,10})*\s*", re.ASCII)


class _PathType(click.Path):
    """A path that is not empty: an empty one would be taken for the current folder."""

    def convert(self, value: "str | os.PathLike[str]", param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        if not os.fspath(value):
            self.fail("the name is empty; give the name of a file or folder", param, ctx)
        return super().convert(value, param, ctx)


PATH = _PathType(path_type=Path)


class OneOf(click.Choice):  # type: ignore[type-arg] # generic only since click 8.2
    """One of some names; who writes another one is told the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        if value not in self.choices:
            from store.nearest import did_you_mean

            meant = did_you_mean(str(value), self.choices, f"it takes one of {', '.join(self.choices)}")
            self.fail(f"{printable(str(value), 60)!r} is not known; {meant}", param, ctx)
        return super().convert(value, param, ctx)


class NumericPath(OneOf):
    """The name of a numeric path, or of path ggml with settings behind a colon."""

    def __init__(self) -> None:
        super().__init__(PATH_NAMES)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        if not str(value).startswith("ggml:"):
            return super().convert(value, param, ctx)
        from kernels.errors import WorkbenchError
        from kernels.ggml_settings import GgmlSettings

        try:
            return GgmlSettings.of(str(value).partition(":")[2]).path
        except WorkbenchError as error:
            self.fail(printable(str(error)), param, ctx)


def statistics_option(command: F) -> F:
    """Add --statistics-only: cells with the elements that differ most, and no tensors."""
    return click.option(
        "--statistics-only",
        is_flag=True,
        help="Keep the cells, each with the elements that differ most, and no tensors.",
    )(command)


def completing(names: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what tells a shell which of some names begin with what was typed; they are loaded only then."""
    return lambda _ctx, _parameter, typed: [name for name in names() if name.startswith(typed)]


def prompt_options(command: F) -> F:
    """Add --prompt and --chat. The command gets the text or the conversation as `prompt`."""

    @functools.wraps(command)
    def with_prompt(*arguments: Any, prompt: str | None, chat: "Chat | None", **options: Any) -> Any:  # noqa: ANN401
        _require_one({"--prompt": prompt, "--chat": chat})
        return command(*arguments, prompt=prompt if chat is None else chat, **options)

    text = click.option("--prompt", metavar="TEXT", help="Text to run, where the models carry a tokenizer.")
    chat = click.option(
        "--chat",
        metavar="TEXT|FILE.json",
        callback=_chat,
        help="Message of a user, or a file of messages, to run as the chat template of the models renders it.",
    )
    return text(chat(cast("F", with_prompt)))


def token_options(command: F) -> F:
    """Add --prompt, --chat, --tokens and --tokens-file: what to run.

    The command gets the ids of either of the last two as `tokens`, and the text or the conversation as `prompt`.
    """

    @functools.wraps(command)
    def with_tokens(
        *arguments: Any,  # noqa: ANN401
        tokens: tuple[int, ...] | None,
        tokens_file: tuple[int, ...] | None,
        prompt: "Prompt | None",
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        _require_one({"--tokens": tokens, prompt_option(prompt): prompt, "--tokens-file": tokens_file})
        ids = tokens if tokens_file is None else tokens_file
        return command(*arguments, tokens=ids, prompt=prompt, **options)

    ids = click.option(
        "--tokens", metavar="1,2,3", callback=token_ids, help="Token ids to run, for example 482,803,10."
    )
    file = click.option(
        "--tokens-file",
        metavar="FILE",
        callback=_token_file,
        help="File of token ids to run, separated by commas or white space; - for stdin.",
    )
    return prompt_options(ids(file(cast("F", with_tokens))))


def _require_one(options: dict[str, object]) -> None:
    """Raise UsageError where two of the options were given that say what to run."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} were both given; give one of them")


def prompt_option(prompt: "Prompt | None") -> str:
    """Return the option by which a prompt is given."""
    return "--prompt" if prompt is None or isinstance(prompt, str) else "--chat"


def force_option(command: F) -> F:
    """Add --force."""
    return click.option("--force", is_flag=True, help="Replace the file if it exists.")(command)


def pair_options(command: F) -> F:
    """Add what both sides run, and the numeric path of either."""
    paths = NumericPath()
    a = click.option("--path-a", type=paths, help="Numeric path of A; by default as the engine of its format computes.")
    b = click.option("--path-b", type=paths, help="Numeric path of B.")
    return token_options(a(b(command)))


def map_options(command: F) -> F:
    """Add the metric and the tokens that a map shows."""
    metric = click.option(
        "--metric", type=OneOf(METRIC_NAMES), default=METRIC_NAMES[0], show_default=True, help="Metric to show."
    )
    scope = click.option(
        "--scope",
        metavar="all|last|N",
        default="all",
        show_default=True,
        callback=_token_scope,
        help="Tokens that every figure covers, on both sides.",
    )
    return metric(scope(command))


def statistics_options(command: F) -> F:
    """Add --stats, and the tokens that statistics are of: None where it is not said."""
    statistics = click.option(
        "--stats",
        "statistics",
        is_flag=True,
        help="Show of every stage min, max, mean, population std, RMS, counts of NaN, Inf and zero, worst channel.",
    )
    scope = click.option(
        "--scope", type=OneOf(SCOPE_NAMES), help="Tokens that the statistics cover; all unless it is given."
    )
    return statistics(scope(command))


def json_option(command: F) -> F:
    """Add --json: one JSON object on stdout and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")(
        command
    )


def bisects_option(command: F) -> F:
    """Add --no-bisect. The command gets `bisects`."""
    return click.option(
        "--no-bisect",
        "bisects",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Only compare; else the pair is bisected as soon as it was captured.",
    )(command)


def plain_option(command: F) -> F:
    """Add --plain: the app as lines of text."""
    return click.option(
        "--plain",
        is_flag=True,
        help="Talk in lines of text, for screen readers: no colours, nothing is painted over; `help` lists the words.",
    )(command)


def mouse_option(command: F) -> F:
    """Add --no-mouse. The command gets `mouse`."""
    return click.option(
        "--no-mouse",
        "mouse",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Leave the mouse to the terminal, which then selects text with it.",
    )(command)


def print_json(value: dict[str, Any]) -> None:
    """Answer with a JSON object: it is printed, and with it why there is no answer, when the command has ended."""
    click.get_current_context().ensure_object(dict).update(value)


def _chat(_ctx: click.Context, _option: click.Parameter, value: str | None) -> "Chat | None":
    """Read a conversation."""
    if value is None:
        return None
    from workbench.pair.prompt import Chat

    return Chat.said(value)


def token_ids(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read token ids written 482,803,10, for an option."""
    return None if value is None else _ids(value, printable(repr(value), 60))


def _token_file(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read the token ids in a file, or from stdin."""
    from store.whole_files import read_bounded

    if value is None:
        return None
    try:
        if value == "-":
            content = sys.stdin.buffer.read(_MAX_TOKENS_FILE + 1)
        else:
            content = read_bounded(Path(value).resolve(), _MAX_TOKENS_FILE)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise click.BadParameter(f"{printable(value)} cannot be read ({getattr(error, 'strerror', error)})") from None
    if len(content) > _MAX_TOKENS_FILE:
        raise click.BadParameter(f"stdin has more than {_MAX_TOKENS_FILE} bytes")
    return _ids(content.decode("ascii", "replace"), "stdin" if value == "-" else printable(value))


def _ids(text: str, name: str) -> tuple[int, ...]:
    from workbench.session.session import MAX_TOKEN

    ids = tuple(map(int, re.findall("[0-9]+", text))) if _TOKEN_IDS.fullmatch(text) else ()
    if not ids or max(ids) > MAX_TOKEN:
        raise click.BadParameter(f"{name} is not a list of token ids, 0 to {MAX_TOKEN}, such as 482,803,10")
    return ids


def _token_scope(_ctx: click.Context, _option: click.Parameter, value: str) -> "TokenScope":
    """Read all, last or a token position."""
    from workbench.cells.view import TokenScope

    if value == "all":
        return TokenScope("all")
    if value == "last":
        return TokenScope("last")
    if not re.fullmatch("[0-9]{1,9}", value):
        raise click.BadParameter(f"{printable(value, 60)!r} is none of all, last and a token position from 0")
    return TokenScope("one", int(value))
