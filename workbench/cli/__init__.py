"""The command line: one module per command, imported when it is asked for."""

import importlib
from typing import Any

import click

COMMANDS = (
    *("open", "inspect", "trace", "compare", "bisect", "patch", "weights", "lab", "check", "hypotheses", "retract"),
    *("export", "diff", "convert", "record", "demo", "doctor"),
)


class _Commands(click.Group):
    """Finds command NAME as `command` in workbench.cli.NAME, so that --help loads nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"workbench.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        from workbench.machine.bus_errors import tell_bus_errors

        tell_bus_errors()
        return super().invoke(ctx)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: Any) -> None:  # noqa: ANN401
    if wanted:
        from workbench import __version__

        click.echo(f"workbench {__version__}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def workbench(ctx: click.Context) -> None:
    """Find the first place where two copies of a language model part ways.

    A and B below are models (GGUF, APR, SafeTensors or a Hugging Face folder) or traces (.h5).

    \b
    Start here:  workbench demo
    Your files:  workbench open A.gguf B.apr --prompt "def add(a, b):"

    Exit codes: 0 alike, 1 different, 2 the question could not be answered.
    """  # noqa: D301 (click needs the backspace character)
    if ctx.invoked_subcommand != "doctor":  # which says what is wrong among other things
        from kernels.machine.threads import thread_count

        thread_count()
