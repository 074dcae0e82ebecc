"""Every word of a conversation, what may follow it, and what it does: the one table behind the answers and `help`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kernels.errors import WorkbenchError
from store.nearest import did_you_mean
from store.text import printable
from workbench.cli.plain import bisecting, keeping, moving
from workbench.cli.plain.investigation import Investigation


@dataclass(frozen=True, slots=True)
class Word:
    """A word. takes : what may follow it. action : what a key of the app does that it stands for, "" for none."""

    name: str
    takes: str
    does: str
    answer: Callable[[Investigation, str], Iterator[str]]
    action: str = ""


def _help(_about: Investigation, argument: str) -> Iterator[str]:
    chosen = [word for word in WORDS if argument in ("", word.name)]
    if not chosen:
        meant = did_you_mean(argument, [word.name for word in WORDS], "help alone lists all words")
        raise WorkbenchError(f"there is no word {printable(argument, 40)}; {meant}")
    for word in chosen:
        yield f"{word.name} {word.takes}".rstrip() + f": {word.does}"
    if not argument:
        yield "A word may be cut short as long as only one begins so."


def _quit(_about: Investigation, _argument: str) -> Iterator[str]:
    yield from ()


WORDS: tuple[Word, ...] = (
    Word("where", "", "the cell you are at: what the verdict says of it, and its figures.", moving.where, "open"),
    Word("why", "", "the verdict, what it rests on, and how to mend it.", bisecting.why, "bisect"),
    Word("details", "", "all that the bisection said.", bisecting.details),
    Word("next", "", "go to the next cell that is wrong.", moving.following, "next_outside(1)"),
    Word("previous", "", "go to the wrong cell before.", moving.previous, "next_outside(-1)"),
    Word("cell", "L9 STAGE", "go to a cell; the layer may be left out if it stays.", moving.cell, "move"),
    Word("after", "", "go to the cell that is computed next.", moving.after, "move"),
    Word("before", "", "go to the cell that is computed before.", moving.before, "move"),
    Word("layer", "[N]", "all cells of a layer.", moving.layer, "filter"),
    Word("stage", "[STAGE]", "one stage in every layer.", moving.stage, "filter"),
    Word("summary", "", "what all cells together show.", moving.summary),
    Word("metric", "[NAME]", "choose the metric that is told first, or list them.", moving.metric, "cycle_metric"),
    Word("tokens", "all|last|N", "choose the tokens of all figures.", moving.tokens, "cycle_tokens"),
    Word("elements", "[COUNT]", "the elements of the cell that differ most.", keeping.elements, "open"),
    Word("bisect", "", "look for the first wrong place once more.", bisecting.bisect, "bisect"),
    Word("patch", "", "exchange this stage between A and B: what is it worth?", bisecting.patch, "patch"),
    Word("parts", "", "where in the cell its local error sits.", bisecting.parts, "show_parts"),
    Word("bytes", "TOKEN CHANNEL", "what an element was computed from.", bisecting.bytes_of, "bytes"),
    Word("local", "", "run every cell again: what each adds by itself.", bisecting.local, "cycle_aspect"),
    Word("weights", "", "compare every tensor.", keeping.weights, "show_weights"),
    Word("conventions", "", "what was done to tensors, and how often.", keeping.ledger, "show_conventions"),
    Word("config", "", "what is configured differently.", keeping.config, "show_config"),
    Word("lab", "[NAME [published]]", "list the experiments, or run one here.", bisecting.lab, "show_lab"),
    Word("note", "[N]", "write a hypothesis, or take a proposed one.", keeping.note, "add_note"),
    Word("hypotheses", "", "list the hypotheses.", keeping.hypotheses, "show_hypotheses"),
    Word("test", "N|all", "measure what hypotheses predict.", bisecting.test, "show_hypotheses"),
    Word("export", "[FILE.md]", "write the findings; what they lack is measured first.", keeping.export, "export"),
    Word("session", "", "where the session is, and what it is of.", keeping.session),
    Word("help", "[WORD]", "all words.", _help, "show_help"),
    Word("quit", "", "leave; the session is kept. Ctrl-C leaves, too, in the middle of work.", _quit, "quit"),
)
