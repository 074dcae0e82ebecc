"""The `workbench` command: runs a command and turns every error into one sentence and an exit code."""

import gc
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

ANSWERED_ALIKE, ANSWERED_DIFFERENT, NOT_ANSWERED = 0, 1, 2
INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + signal number, as shells report them

# New objects between two looks for garbage. What is imported is none, and with Python's 700 looking for it takes a
# tenth of the time until the first screen.
_GARBAGE_LOOKS = 50_000


def main() -> None:
    """Entry point of the console script and of `python -m workbench`."""
    gc.set_threshold(_GARBAGE_LOOKS)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character must not undo what was done
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code and never lets an exception reach the user."""
    answer: dict[str, Any] = {}  # what the command answers with under --json
    try:
        status, sentence = _answered(arguments, answer)
        if sentence is not None and _wants_json(arguments):
            answer["error"] = sentence
        if answer:
            click.echo(_json(answer))
        sys.stdout.flush()
        if sentence is not None:
            click.echo(f"workbench: {sentence}", err=True)
    except (KeyboardInterrupt, click.Abort):
        click.echo("workbench: interrupted", err=True)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click turns a closed pipe into exit code 1, which here means "different"
        # Python flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return status


def _answered(arguments: Sequence[str], answer: dict[str, Any]) -> tuple[int, str | None]:
    """Run one command line; its exit code, and one sentence where the question could not be answered."""
    try:
        from workbench.cli import workbench

        status = workbench.main(args=list(arguments), prog_name="workbench", standalone_mode=False, obj=answer)
        return (status if isinstance(status, int) else ANSWERED_ALIKE), None
    except (click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get("WORKBENCH_TRACEBACK"):
            raise
        from store.text import printable

        answer.update(getattr(error, "facts", {}) if _wants_json(arguments) else {})
        return NOT_ANSWERED, printable(" ".join(_sentence(error).split()), 2000)


def _json(answer: dict[str, Any]) -> str:
    """The answer as one JSON object in ASCII; floats keep all digits, NaN and infinities become texts."""
    try:
        return json.dumps(answer, allow_nan=False)
    except ValueError:  # what a file says of itself can be a number that JSON does not have
        from workbench.plain import plain

        return json.dumps(plain(answer))


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether --json was given, also where the rest of the command line could not be understood."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def _sentence(error: Exception) -> str:
    from kernels.errors import WorkbenchError

    if isinstance(error, WorkbenchError):
        return str(error)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "workbench"
        return f"{error.format_message().rstrip('.')}; see {command} --help"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, MemoryError):
        return "out of memory; use fewer tokens, or close other programs"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"stopped on an internal error ({what}); set WORKBENCH_TRACEBACK=1 to see where"


if __name__ == "__main__":
    main()
