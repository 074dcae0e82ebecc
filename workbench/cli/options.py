"""Options that several commands share, and how their values are read and written."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from workbench.view import TokenScope

F = TypeVar("F", bound=Callable[..., Any])

# The names of kernels.paths.PATHS and workbench.metrics.METRICS; a test keeps them alike, so that --help need not load
# the kernels.
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


def token_options(command: F) -> F:
    """Add --prompt and --tokens: what to run."""
    ids = click.option(
        "--tokens", metavar="1,2,3", callback=_token_ids, help="Token ids to run, for example 482,803,10."
    )
    text = click.option("--prompt", metavar="TEXT", help="Text to run, where the models carry a tokenizer.")
    return text(ids(command))


def pair_options(command: F) -> F:
    """Add what both sides run, and the numeric path of either."""
    paths = click.Choice(PATH_NAMES)
    a = click.option("--path-a", type=paths, help="Numeric path of A; by default as the engine of its format computes.")
    b = click.option("--path-b", type=paths, help="Numeric path of B.")
    return token_options(a(b(command)))


def map_options(command: F) -> F:
    """Add the metric and the tokens that a map shows."""
    metric = click.option(
        "--metric", type=click.Choice(METRIC_NAMES), default=METRIC_NAMES[0], show_default=True, help="Metric to show."
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


def json_option(command: F) -> F:
    """Add --json: one JSON object on stdout and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")(
        command
    )


def print_json(value: dict[str, Any]) -> None:
    """Answer with a JSON object: it is printed, and with it why there is no answer, when the command has ended.

    Floats keep all digits; NaN and infinity cannot occur.
    """
    click.get_current_context().ensure_object(dict).update(value)


def _token_ids(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read token ids written 482,803,10."""
    if value is None:
        return None
    parts = value.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of token ids such as 482,803,10")
    return tuple(int(part) for part in parts)


def _token_scope(_ctx: click.Context, _option: click.Parameter, value: str) -> "TokenScope":
    """Read all, last or a token position."""
    from workbench.view import TokenScope

    if value == "all":
        return TokenScope("all")
    if value == "last":
        return TokenScope("last")
    if not (value.isascii() and value.isdecimal()):
        raise click.BadParameter(f"{value!r} is none of all, last and a token position from 0")
    return TokenScope("one", int(value))
