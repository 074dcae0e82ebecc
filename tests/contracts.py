"""Contracts and what `workbench check` prints, as tests write and read them."""

import json
from importlib.resources import files

import jsonschema

from workbench.__main__ import run

IDS = "482,803,10,67,14,310,307"
TOKENS = ("--tokens", IDS)
SCHEMA = json.loads((files("workbench") / "schemas" / "check.schema.json").read_text())
HEAD = "contract: c\nversion: 1\nrules:\n"


def rules(folder, *given):
    """A contract of rules in flow style, each in a line of its own from line 4."""
    file = folder / "c.yaml"
    file.write_text(HEAD + "".join(f"  - {{{rule}}}\n" for rule in given))
    return file


def printed(capsys, status, *arguments):
    """What check prints with --json."""
    capsys.readouterr()
    assert run(["check", *map(str, arguments), "--json"]) == status
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    record = json.loads(out)
    jsonschema.validate(record, SCHEMA)
    assert (status == 2) == ("error" in record)
    assert err == (f"workbench: {record['error']}\n" if status == 2 else "")
    return record


def row(capsys, status, *arguments):
    """The only row of a contract of one rule."""
    (found,) = printed(capsys, status, *arguments)["rules"]
    return found


def other(command, capsys, *arguments):
    capsys.readouterr()
    run([command, *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)
