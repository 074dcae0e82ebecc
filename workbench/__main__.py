"""The `workbench` command: runs a command and turns every error into one sentence and an exit code."""

import errno
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from workbench.machine import interrupts

ANSWERED_ALIKE, ANSWERED_DIFFERENT, NOT_ANSWERED = 0, 1, 2
INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + signal number, as shells report them; so are other signals

# Of NumPy, whose own threads wait by turning round where the kernels' threads want to work; a sum of products also has
# other bits with other numbers of them.
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_COMPLETING = "_WORKBENCH_COMPLETE"  # click's name for the variable by which a shell asks for words


def main() -> None:
    """Entry point of the console script and of `python -m workbench`."""
    os.environ.setdefault(_BLAS_THREADS, "1")
    _open_what_was_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character must not undo what was done
            stream.reconfigure(errors="backslashreplace")
    interrupts.unwind()
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt as error:  # while another end was being told
        status = _ended(error)
    interrupts.leave(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code and never lets an exception reach the user."""
    answer: dict[str, Any] = {}  # what the command answers with under --json
    try:
        status, sentence = _answered(arguments, answer)
        if sentence is not None and _wants_json(arguments):
            answer["error"] = _line(sentence)
        if answer:
            click.echo(_json(answer))
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        return _ended(error)
    except click.Abort as error:
        return _ended(error.__cause__ or error)
    except (BrokenPipeError, SystemExit):  # click turns a closed pipe into exit code 1, which here means "different"
        if _COMPLETING in os.environ:  # a shell has asked which words there are, and click has told it
            return ANSWERED_ALIKE
        _drop_output()
        return PIPE_CLOSED
    except OSError as error:  # what stdout goes to takes no more: no answer has arrived
        _drop_output()
        return _fail(_sentence(error), NOT_ANSWERED)
    finally:
        _tell_of_cache()
    return status if sentence is None else _fail(sentence, status)


def _open_what_was_closed() -> None:
    """Let standard streams that were closed lead nowhere: else a file of ours, or of a child, gets their number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the system gives the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _drop_output() -> None:
    """Give what stdout still holds somewhere to go, as Python flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answered(arguments: Sequence[str], answer: dict[str, Any]) -> tuple[int, str | None]:
    """Run one command line; its exit code, and one sentence where the question could not be answered."""
    try:
        from workbench.cli import workbench

        status = workbench.main(args=list(arguments), prog_name="workbench", standalone_mode=False, obj=answer)
        return (status if isinstance(status, int) else ANSWERED_ALIKE), None
    except BrokenPipeError:
        raise
    except click.Abort as error:  # click's word for an interrupt, and for an EOFError wherever it comes from
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return NOT_ANSWERED, _sentence(error.__cause__ or error)
    except Exception as error:
        if os.environ.get("WORKBENCH_TRACEBACK"):
            raise
        answer.update(getattr(error, "facts", {}) if _wants_json(arguments) else {})
        return NOT_ANSWERED, _sentence(error)


def _json(answer: dict[str, Any]) -> str:
    """The answer as one JSON object in ASCII; floats keep all digits, NaN and infinities become texts.

    Written so that the runner of a build server takes no text in it for a command.
    """
    try:
        text = json.dumps(answer, allow_nan=False)
    except ValueError:  # what a file says of itself can be a number that JSON does not have
        from workbench.session.plain import plain

        text = json.dumps(plain(answer))
    return text.replace("##[", "#\\u0023[")


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether --json was given, also where the rest of the command line could not be understood."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


def _ended(error: BaseException) -> int:
    number = error.number if isinstance(error, interrupts.Ended) else signal.SIGINT
    return _fail(interrupts.sentence(number), interrupts.exit_code(number))


def _tell_of_cache() -> None:
    """Say it on stderr where kernels were compiled that could not be kept."""
    cache = sys.modules.get("kernels.machine.cache")
    if cache is not None and (problem := cache.problem()):
        click.echo(f"workbench: {problem}", err=True)


def _sentence(error: BaseException) -> str:
    from kernels.errors import WorkbenchError

    if isinstance(error, WorkbenchError):
        return str(error)
    if isinstance(error, click.UsageError):
        return _usage(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "out of memory; use fewer tokens, or close other programs"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return f"the output cannot be written ({(error.strerror or str(error)).lower()}); make room for it"
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"stopped on an internal error ({what}); set WORKBENCH_TRACEBACK=1 to see where"


def _usage(error: click.UsageError) -> str:
    """What is wrong with a command line, and what was meant, else where it is explained."""
    if isinstance(error, click.NoSuchOption):
        near = next(iter(error.possibilities or ()), None)
        words = f"there is no option {error.option_name}" + (f"; did you mean {near}?" if near else "")
    else:
        words = error.format_message().rstrip(".")
    if words.endswith("?"):
        return words
    return f"{words}; see {error.ctx.command_path if error.ctx else 'workbench'} --help"


def _fail(sentence: str, status: int) -> int:
    with suppress(OSError):  # the terminal may be gone
        click.echo(f"workbench: {_line(sentence)}", err=True)
    return status


def _line(sentence: str) -> str:
    from store.text import inert, printable

    return inert(printable(" ".join(sentence.split()), 2000))


if __name__ == "__main__":
    main()
