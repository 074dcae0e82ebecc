"""What a sweep found, as tables of text."""

from collections.abc import Iterator

from store.text import printable
from workbench.cells.metrics import format_value
from workbench.sweep.figures import TAIL
from workbench.sweep.tally import PromptRow, Row, Tally

PARTS = ["part", "types A/B", "KL", "× floor", *TAIL, "max", "flips", "prompts"]
PROMPTS = ["prompt", "KL", "× floor", *TAIL, "max", "flips", "worst part", "its KL", "text"]
_TEXT = 40  # characters of a prompt


def part_name(name: dict[str, object]) -> str:
    """What a part is called."""
    if "tensor" in name:
        return printable(str(name["tensor"]).removeprefix("model."))
    if "stage" in name:
        where = "" if name["layer"] is None else f"layer {name['layer']} "
        return printable(f"{where}{name['stage']}")
    return printable(
        f"layer {name['layer']}" if isinstance(name.get("layer"), int) else f"{name.get('layer')} the layers"
    )


def part_row(row: Row) -> list[str]:
    """A part as the cells of a table with the heading PARTS."""
    types = "" if row.stored is None else "/".join(dict.fromkeys(_type(row, side) for side in "ab"))
    figures = [_figure(row.kl), _times(row.kl, row.times), *(_figure(row.tail(share)) for share in TAIL.values())]
    return [part_name(row.name), types, *figures, _figure(row.worst[0]), f"{row.flips}/{row.tokens}", str(row.prompts)]


def prompt_row(row: PromptRow) -> list[str]:
    """A prompt as the cells of a table with the heading PROMPTS."""
    worst = [part_name(row.worst[1]), _figure(row.worst[0])] if row.worst[1] and row.worst[0] else ["", ""]
    if row.line is None:
        return [str(row.number), *[""] * (len(TAIL) + 4), *worst, ""]
    line, text = row.line, printable(prompt_text(row), _TEXT)
    figures = [
        _figure(line["kl"]),
        _times(line["kl"], row.times),
        *(_figure(line[name]) for name in TAIL),
        _figure(line["max"]),
    ]
    return [str(row.number), *figures, f"{line['flips']}/{line['tokens']}", *worst, text]


def prompt_text(row: PromptRow) -> str:
    """The text of a prompt, or where it is not known its token ids."""
    line = row.line or {"ids": []}
    text = line.get("text")
    return text if isinstance(text, str) else ",".join(map(str, line["ids"]))


def headline(tally: Tally) -> Iterator[str]:
    """What is said above the tables."""
    head = tally.require_some()
    for side in "ab":
        of = head[side]
        yield printable(
            f"{side.upper()}  {of['path']} ({of['format']}, path {of['numeric_path']}, {of['sha256'][:16]}…)", 1000
        )
    expected = tally.expected or 0
    left = "" if tally.done >= expected else f"; {expected - tally.done} are left, --resume does them"
    yield f"{tally.done} of {expected} units, {len(tally.prompts)} of {tally.planned} prompts{left}"
    whole, shows = tally.whole, [row.shows for row in list(tally.prompts.values())]
    floor = "not known" if whole.floor is None else _figure(whole.floor)
    yield (
        f"KL(B‖A) {_figure(whole.kl)} nats a token, floor {floor} "
        f"(A in {head['floor_path']}); another top-1 at {whole.flips} of {whole.tokens} tokens"
    )
    untold = f"; of {shows.count(None)} it is not known: their floor is no number" if None in shows else ""
    yield f"B shows more than arithmetic explains on {shows.count(True)} of {len(shows)} prompts{untold}"


def _type(row: Row, side: str) -> str:
    assert row.stored is not None
    return printable(row.stored[side]["type"]) if row.stored[side] else "none"


def _times(kl: float | None, times: float | None) -> str:
    if kl is None:
        return "not finite"
    return "not known" if times is None else f"{times:.3g}".replace("inf", "∞")


def _figure(value: float | None) -> str:
    return "not finite" if value is None else format_value(value)
