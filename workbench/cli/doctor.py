"""`workbench doctor`: the installation and the machine, looked over."""

import click

from workbench.cli.options import json_option, print_json
from workbench.cli.tables import echo


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Look over the installation and the machine: versions, packages, kernel cache, processor, terminal.

    The exit code is 0 if everything works, if slowly, and 1 if something is wrong.

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
        echo(f"{check.state:5}  {check.name:{width}}  {check.value}")
        for line in filter(None, (check.sentence, check.advice)):
            echo(f"{'':5}  {'':{width}}  {line}")
    slow = sum(check.state == "slow" for check in found)
    echo(f"\n{len(wrong)} wrong, {slow} slow, {len(found) - len(wrong) - slow} fine")
    return int(bool(wrong))
