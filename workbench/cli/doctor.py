"""`workbench doctor`: the installation and the machine, looked over."""

import click

from workbench.cli.options import json_option, print_json
from workbench.cli.tables import echo


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Look over the installation and the machine: versions, packages, kernel cache, processor, terminal, colours.

    Each line says what is there and whether that is fine, slow, wrong, or missing where the program can do without it;
    below it what that means and how to get it. The exit code is 1 if something is wrong, else 0.

    \b
    Example:  workbench doctor
    """  # noqa: D301
    from workbench.machine.doctor import checks

    found = list(checks())
    wrong = [check for check in found if check.state == "wrong"]
    if as_json:
        print_json({"fine": not wrong, "checks": [check.to_json() for check in found]})
        return int(bool(wrong))
    width = max(len(check.name) for check in found)
    for check in found:
        echo(f"{check.state:7}  {check.name:{width}}  {check.value}")
        for line in filter(None, (check.sentence, check.advice)):
            echo(f"{'':7}  {'':{width}}  {line}")
    states = [check.state for check in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("wrong", "slow", "missing", "fine"))
    echo(f"\n{counts}")
    return int(bool(wrong))
