"""The command line: one module per command, imported when it is asked for."""

import importlib
from typing import Any

import click

# What the help lists, in the order in which somebody with two models needs it.
GROUPS: dict[str, dict[str, str]] = {
    "The path": {
        "open": "both side by side: the map of where they differ, and the verdict",
        "bisect": "the first cell that is really wrong, and which mistake made it",
        "patch": "exchange a part between A and B: what the output makes of it",
        "export": "the findings as a document and a page that prove it",
    },
    "Without models of your own": {
        "demo": "a small pair with a fault of your choice",
    },
    "Saved investigations": {
        "sessions": "list them, with their verdicts",
        "diff": "what changed between two of them, as after a fix",
        "hypotheses": "list what was claimed, and measure whether it holds",
        "retract": "take back what verdicts rest on",
    },
    "A closer look at two": {
        "compare": "every stage of every layer in every metric",
        "weights": "every tensor, whatever the formats",
        "lab": "experiments that show what one number hides",
        "check": "whether a pair meets a contract; for builds",
        "sweep": "many prompts: what every tensor of B costs, a recipe for a size; one file with settings varied",
    },
    "One model alone": {
        "inspect": "settings, tensors, tokenizer, problems; of two, whether they are fed alike",
        "conventions": "what was done to every tensor, and how often the weights show it",
        "trace": "run it: keep every stage, save some, or show their statistics",
        "record": "every stage as llama.cpp or transformers computes it",
        "convert": "write it as APR v2",
    },
    "This installation": {
        "serve": "the app in a browser on this machine",
        "preferences": "keys, theme, metric and prompt of your own: what holds, and where",
        "doctor": "what is there, slow, wrong or missing, and what to do about it",
    },
}
COMMANDS = tuple(name for commands in GROUPS.values() for name in commands)
_NAMES = max(map(len, COMMANDS))  # characters of the widest name


class _Commands(click.Group):
    """Finds command NAME as `command` in workbench.cli.NAME, so that --help loads nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"workbench.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from store.nearest import did_you_mean
            from store.text import printable

            meant = did_you_mean(name, COMMANDS)
            ctx.fail(f"there is no command {printable(name, 60)}" + (f"; {meant}" if meant else ""))
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(_NAMES), summary) for name, summary in commands.items()])
        click.Command.format_options(self, ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        from workbench.machine.bus_errors import tell_bus_errors

        tell_bus_errors()
        return super().invoke(ctx)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: Any) -> None:  # noqa: ANN401
    if wanted:
        from workbench import __version__

        click.echo(f"workbench {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
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
    Try it:      workbench demo
    Your files:  workbench open A.gguf B.apr --prompt "def add(a, b):"
    Then:        workbench bisect SESSION    what is the first wrong place, and why
                 workbench patch SESSION     what that part is worth in the output
                 workbench export SESSION    the document for your colleagues

    `open` prints the path of its SESSION when it ends; `workbench sessions` lists all of them.

    Exit codes: 0 alike, 1 different, 2 the question could not be answered.
    """  # noqa: D301 (click needs the backspace character)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        raise click.ClickException("no command was given; `workbench demo` is a good first one")
    if ctx.invoked_subcommand != "doctor":  # which says what is wrong among other things
        from kernels.machine.threads import thread_count

        thread_count()
