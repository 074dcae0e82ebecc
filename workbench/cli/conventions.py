"""`workbench conventions`: what was done to the tensors of a file, and how often the weights show it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.text import printable
from workbench.cli.options import PATH, json_option, print_json
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from workbench.conventions.entry import Entry
    from workbench.conventions.ledger import Ledger


@click.command()
@click.argument("source", metavar="X", type=PATH)
@click.option("--against", metavar="Y", type=PATH, help="Another file of the same model, to hold every tensor against.")
@click.option("--all", "each", is_flag=True, help="List every tensor; else those of all layers stand on one line.")
@json_option
def command(source: Path, against: Path | None, each: bool, as_json: bool) -> int:
    """Say what was done to every tensor, and how often its weights show that it was: never, once, twice, or untold.

    Converters add 1 to the norms of some families, put rows of q and k into rotary pairs, take -exp, fuse and split.
    What container and family say should have been done is held against what the weights show. The model need not be
    one that can be run.

    Exit code 0: done as often as it should have been, or that cannot be told; 1: something was done otherwise,
    here or in Y; 2: the tensors cannot be located.

    \b
    Example:  workbench conventions model.gguf
              workbench conventions model.gguf --against folder
    """  # noqa: D301
    from store.open import open_model
    from workbench.cli.progress import ProgressLine
    from workbench.conventions.ledger import ledger, ledgers

    with ProgressLine() as progress:
        model = open_model(source)
        found = ledger(model, progress) if against is None else ledgers(model, open_model(against), progress)[0]
    if as_json:
        print_json(_json(found))
    else:
        echo("\n".join(_lines(found, each)))
    return 1 if found.counts["otherwise"] or found.counts["differs"] else 0


def _json(found: "Ledger") -> dict[str, Any]:
    """Contract: schemas/conventions.schema.json."""
    from store.conventions import architecture
    from store.kinds import kind_of

    model = found.model
    return {
        "path": str(model.path),
        "format": model.format,
        "kind": kind_of(model),
        "architecture": architecture(model),
        "runnable": model.refusal is None,
        "why_not": None if model.refusal is None else str(model.refusal),
        "against": None if found.other is None else str(found.other.path),
        "counts": found.counts,
        "mistakes": [_together_json(*each) for each in found.mistakes()],
        "differences": [_together_json(*each) for each in found.differences()],
        "tensors": [
            {
                "name": name,
                "stored_as": model.tensors[name].raw_name,
                "type": model.tensors[name].type.name,
                "shape": list(model.tensors[name].shape),
                "conventions": [_entry_json(entry) for entry in entries],
            }
            for name, entries in found.entries.items()
        ],
        "problems": list(model.problems),
    }


def _together_json(words: str, entries: "list[Entry]") -> dict[str, Any]:
    return {
        "words": words,
        "convention": entries[0].convention,
        "said": entries[0].said,
        "possible": list(entries[0].possible),
        "more": entries[0].more,
        "tensors": [entry.tensor for entry in entries],
    }


def _entry_json(entry: "Entry") -> dict[str, Any]:
    return {
        "convention": entry.convention,
        "said": entry.said,
        "times": entry.times,
        "possible": list(entry.possible),
        "verdict": entry.verdict,
        "figure": entry.figure,
        "together": entry.together,
        "more": entry.more,
    }


def _lines(found: "Ledger", each: bool) -> list[str]:
    from store.conventions import architecture
    from store.kinds import kind_of
    from workbench.conventions.words import summary

    model, name = found.model, architecture(found.model)
    kind = "" if name is None else f", {printable(name, 80)}"
    lines = [f"{printable(str(model.path), 1000)}: {model.format}{kind}, {len(model.tensors)} tensors"]
    lines.append(f"It is {printable(kind_of(model), 300)}.")
    if model.refusal is not None:
        lines.append(f"It cannot be run: {printable(str(model.refusal), 1000)}")
    lines += ["", *summary(found), "", *_table(found, each)]
    return [
        *lines,
        *(["", "problems", *(f"  {printable(text, 1000)}" for text in model.problems)] if model.problems else []),
    ]


def _table(found: "Ledger", each: bool) -> list[str]:
    from workbench.cli.tables import aligned
    from workbench.conventions.words import lines

    head = ("", "tensor", "number", "what is done", "should be", "weights show", "figure")
    rows = [
        (line.mark, printable(line.name), line.number, line.done, line.said, line.shown, printable(line.figure, 1000))
        for line in lines(found, each)
    ]
    return aligned([head, *rows], right=frozenset({2}))
