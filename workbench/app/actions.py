"""Everything a key can do: the one table behind key bindings, footer, command palette and help."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from textual.binding import Binding

from workbench.cells.heat import BEYOND, LEGEND, LEVELS, OUTSIDE
from workbench.cells.limit import LIMIT
from workbench.cells.marks import SENTENCES
from workbench.cells.words import WORDS


class Action(NamedTuple):
    """What one or more keys do.

    name : Textual action, run on the screen. keys : separated by commas; empty for the palette only.
    screen : where it can be done, a key of SCREENS. show : whether the footer names it.
    """

    screen: str
    keys: str
    name: str
    description: str
    tooltip: str
    show: bool = False

    @property
    def called(self) -> str:
        """Its name in a file of preferences: that on screen, as one word."""
        return re.sub("[^a-z]+", "-", self.description.lower()).strip("-")


EVERYWHERE = "everywhere"
SCREENS: dict[str, str] = {
    "map": "Map",
    "cell": "Elements of a cell",
    "weights": "Weights",
    "config": "Configuration",
    "conventions": "Conventions",
    "page": "Answer",
    "verdict": "Evidence for the verdict",
    "hypotheses": "Hypotheses",
    "lab": "Lab",
    "experiment": "Result of an experiment",
    "note": "New hypothesis",
    "sweep": "Sweep",
    "help": "Keys",
    EVERYWHERE: "Everywhere",
}


def _list_moves(screen: str) -> tuple[Action, ...]:
    return (
        Action(screen, "up,k", "move('up')", "Up", "Move one line up."),
        Action(screen, "down,j", "move('down')", "Down", "Move one line down."),
        Action(screen, "pageup,ctrl+u", "move('page_up')", "Page up", "Move one page up."),
        Action(screen, "pagedown,ctrl+d", "move('page_down')", "Page down", "Move one page down."),
        Action(screen, "g,home", "move('first')", "First", "Go to the first line."),
        Action(screen, "G,end", "move('last')", "Last", "Go to the last line."),
        Action(screen, "left,h", "move('left')", "Left", "Move lines that are too long back to the left."),
        Action(screen, "right,l", "move('right')", "Right", "See how lines that are too long (…) go on."),
    )


_PATCH = "Exchange this stage between A and B: what is it worth in the output?"

ACTIONS: tuple[Action, ...] = (
    Action(EVERYWHERE, "question_mark,f1", "app.show_help", "Help", "List every key.", show=True),
    Action(
        "map",
        "escape",
        "cancel",
        "Stop",
        "Stop the capture, keeping what is done; or clear the filter.",
        show=True,
    ),
    Action("map", "r", "resume", "Resume", "Go on with a capture that was stopped.", show=True),
    Action(
        "map",
        "enter",
        "app.open",
        "Open",
        "Go into the cell: at the one that is broken first to the evidence, then to every element.",
        show=True,
    ),
    Action(
        "map",
        "b",
        "app.bisect",
        "Bisect",
        "Go to the first cell that is really wrong; find it if nobody has.",
        show=True,
    ),
    Action(
        "map",
        "i",
        "app.cycle_aspect",
        "View",
        "Observed, local, inherited, amplification, times what rounding can cause.",
        show=True,
    ),
    Action("map", "n", "next_outside(1)", "Next", "Go to the next cell that is broken or out of band.", show=True),
    Action("map", "N", "next_outside(-1)", "Previous !", "Go to the previous one."),
    Action("map", "m", "cycle_metric(1)", "Metric", "Show the next metric.", show=True),
    Action("map", "M", "cycle_metric(-1)", "Previous metric", "Show the previous metric."),
    Action("map", "s", "pick_metric", "Pick a metric", "Choose the metric from a list of definitions."),
    Action("map", "t", "cycle_tokens", "Tokens", "All tokens, the last, or one; always both sides alike.", show=True),
    Action("map", "[", "shift_token(-1)", "Token before", "Show one token only, the one before."),
    Action("map", "]", "shift_token(1)", "Token after", "Show one token only, the one after."),
    Action(
        "map",
        "a",
        "app.add_note",
        "Note",
        "Write a hypothesis about this cell, or take one that is proposed.",
        show=True,
    ),
    Action("map", "w", "app.show_weights", "Weights", "Compare every weight tensor.", show=True),
    Action("map", "q", "app.quit", "Quit", "Leave; the session is saved.", show=True),
    Action("map", "P", "app.patch", "Prove", _PATCH, show=True),
    Action("map", "e", "app.export", "Export", "Write the findings; what they rest on is found first.", show=True),
    Action("map", "c", "app.show_config", "Config", "Both configurations side by side, differences first.", show=True),
    Action("map", "K", "app.show_conventions", "Conventions", "What was done to tensors, and how often it shows."),
    Action("map", "L", "app.show_lab", "Lab", "Experiments that show what one number hides, on this pair too."),
    Action("map", "H", "app.show_hypotheses", "Hypotheses", "List the hypotheses of this session."),
    Action("map", "slash", "filter", "Filter", "Show some stages or layers only: ffn 3-7"),
    Action("map", "u", "undo", "View before", "Go back to the view before: metric, tokens, filter, axes, cursor."),
    Action("map", "2", "second", "Two maps", "The metric beside error / what rounding can cause; or one map again."),
    Action("map", "z", "fold", "Fold", "Take layers that look alike together: 4-17; or show each."),
    Action("map", "x", "transpose", "Exchange axes", "Exchange rows and columns."),
    Action("map", "T", "app.tour", "Tour", "Five keys from the map to the findings, or the end of that tour."),
    Action("map", "up,k", "move(-1, 0)", "Up", "Move one row up."),
    Action("map", "down,j", "move(1, 0)", "Down", "Move one row down."),
    Action("map", "left,h", "move(0, -1)", "Left", "Move one column to the left."),
    Action("map", "right,l", "move(0, 1)", "Right", "Move one column to the right."),
    Action("map", "g", "move(-9999, 0)", "First row", "Go to the first row."),
    Action("map", "G", "move(9999, 0)", "Last row", "Go to the last row."),
    Action("map", "0,home", "move(0, -9999)", "First column", "Go to the first column."),
    Action("map", "$,end", "move(0, 9999)", "Last column", "Go to the last column."),
    Action("cell", "escape,q", "app.pop_screen", "Back", "Go back to the map.", show=True),
    Action("cell", "s", "cycle_order", "Order", "Order by |d|, index, ULP distance or relative |d|.", show=True),
    Action("cell", "colon,slash", "goto", "Go to", "Go to an index, or to token,channel.", show=True),
    Action("cell", "b", "bytes", "Bytes", "The blocks of the weight row behind this element, recomputed.", show=True),
    Action("cell", "p", "app.show_parts", "Parts", "Local error by token, head, channel and block.", show=True),
    Action("cell", "P", "app.patch", "Patch", _PATCH, show=True),
    Action("cell", "w", "app.show_weights", "Weight", "Show the weight tensor that this stage uses.", show=True),
    Action("cell", "a", "app.add_note", "Note", "Write a hypothesis about this cell.", show=True),
    *_list_moves("cell"),
    Action("weights", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    Action("weights", "s", "cycle_order", "Order", "Order as in the model, or worst first.", show=True),
    Action("weights", "slash", "filter", "Filter", "Show tensors whose name holds some text.", show=True),
    *_list_moves("weights"),
    Action("config", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    *_list_moves("config"),
    Action("conventions", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    *_list_moves("conventions"),
    Action("page", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    *_list_moves("page"),
    Action("verdict", "escape,q", "app.pop_screen", "Back", "Go back to the map.", show=True),
    Action("verdict", "enter", "app.open_cell", "Elements", "Go into the cell: every element of it.", show=True),
    Action("verdict", "P", "app.patch", "Patch", _PATCH, show=True),
    Action("verdict", "e", "app.export", "Export", "Write the findings.", show=True),
    Action("verdict", "r", "again", "Again", "Bisect once more.", show=True),
    *_list_moves("verdict"),
    Action("hypotheses", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    Action("hypotheses", "enter", "go_to_cell", "Cell", "Go to the cell that the hypothesis is about.", show=True),
    Action("hypotheses", "t", "test", "Test", "Measure what the hypothesis predicts, in the background.", show=True),
    Action("hypotheses", "T", "test_all", "Test all", "Test all hypotheses in the order of their chains.", show=True),
    Action(
        "hypotheses", "space", "next_status", "Status", "By hand, where the prediction is a sentence and no expression."
    ),
    Action("hypotheses", "o", "edit", "Edit", "Open the file in $EDITOR.", show=True),
    *_list_moves("hypotheses"),
    Action("lab", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    Action("lab", "enter", "run_here", "Run here", "Run it at the cell of the map, if it runs on models.", show=True),
    Action("lab", "p", "run_published", "Published input", "Run it on its published input.", show=True),
    Action("lab", "s", "set", "Set", "Change its parameters before it is run.", show=True),
    *_list_moves("lab"),
    Action("experiment", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    *_list_moves("experiment"),
    Action("note", "ctrl+s", "save", "Save", "Save the hypothesis.", show=True),
    Action("note", "ctrl+n", "propose", "Propose", "Fill the form with what the bisection suggests.", show=True),
    Action("note", "escape", "keep_draft", "Later", "Go back; what is written is kept as a draft.", show=True),
    Action("sweep", "escape", "stop", "Stop", "Stop after the units under way; what is finished stays.", show=True),
    Action("sweep", "r", "resume", "Resume", "Go on with a sweep that was stopped or failed.", show=True),
    Action("sweep", "t", "other_table", "Table", "Show prompts, the worst first, or parts again.", show=True),
    Action(
        "sweep", "s", "cycle_order", "Order", "Order parts by KL, its 99th percentile, its largest, flips.", show=True
    ),
    Action("sweep", "q", "leave", "Quit", "Leave; --resume does what is left.", show=True),
    *_list_moves("sweep"),
    Action("help", "escape,q", "app.pop_screen", "Back", "Go back.", show=True),
    Action("help", "slash", "filter", "Filter", "Show keys whose meaning holds some text.", show=True),
    *_list_moves("help"),
    *(
        Action(screen, "y", "app.copy", "Copy", "Copy the cell, the row, the verdict, or their command.", show=True)
        for screen in SCREENS
        if screen not in ("note", "sweep", EVERYWHERE)
    ),
    Action(EVERYWHERE, "ctrl+p", "app.command_palette", "Palette", "Find an action by name."),
    Action("map", "colon", "app.command_palette", "Palette", "Find an action by name."),
    Action(EVERYWHERE, "", "app.change_theme", "Theme", "Choose other colours, light or dark."),
)

KEY_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "colon": ":",
    "backslash": "\\",
    "at": "@",
    "minus": "-",
    "plus": "+",
    "underscore": "_",
    "escape": "esc",
    "enter": "↵",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "ctrl+n": "^n",
    "ctrl+p": "^p",
    "ctrl+s": "^s",
    "ctrl+u": "^u",
    "ctrl+d": "^d",
}


def key_names(action: Action) -> str:
    """Return the keys as people write them."""
    return " ".join(KEY_NAMES.get(key, key) for key in action.keys.split(",") if key)


def of_screen(screen: str) -> list[Action]:
    """Return what can be done on a screen, everywhere-actions first."""
    return [action for action in ACTIONS if action.screen in (screen, EVERYWHERE)]


def binding_id(screen: str, action: Action) -> str:
    """Return the name of the binding of an action on a screen, by which it can be given other keys."""
    return f"{screen}/{action.screen}.{action.called}"


def bindings(screen: str) -> Iterator[Binding]:
    """Key bindings of a screen.

    Those of the map have priority: a key need not pass the focused widget and all around it first, which takes longer
    than a move. Keys of screens that are opened have none, so that what is typed ahead waits until they are there.
    """
    for action in of_screen(screen):
        if not action.keys:
            continue
        name = key_names(action).split(" ")[0]
        yield Binding(
            action.keys,
            action.name,
            action.description,
            show=action.show,
            priority=screen == "map",
            key_display=name,
            tooltip=action.tooltip,
            id=binding_id(screen, action),
        )


ONE_COLUMN = (
    "where a layer has one column only, its sign stands there, or of a cell that is fine its digit; where layers share "
    "a column, the worst of them. The cursor shows its own cell; x shows layers as rows, with figures"
)


def help_lines(screen: str, bound: Callable[[Action], Action]) -> Iterator[tuple[str, str]]:
    """Keys and what they do, those of `screen` first; a heading has no text.

    bound(action) : the action with the keys that it has in this app.
    """
    yield from _section(screen, bound)
    yield "Words", ""
    yield from WORDS.items()
    yield "Signs on the map", ""
    for sign in (*SENTENCES.values(), *LEGEND.split("   ")):
        glyph, _, meaning = sign.partition(" ")
        yield glyph, meaning
    yield OUTSIDE, "in the other views (i): more than rounding, formats or the inputs explain"
    yield f"0-{LEVELS - 1}", "in the view of amplification: a factor of 2 per step"
    yield (
        f"0-{LIMIT:g}",
        f"in the view of what rounding can cause: how many times that a stage adds; {BEYOND} is more",
    )
    yield "one column", ONE_COLUMN
    for name in dict.fromkeys((EVERYWHERE, *SCREENS)):
        if name != screen:
            yield from _section(name, bound)


def _section(screen: str, bound: Callable[[Action], Action]) -> Iterator[tuple[str, str]]:
    yield SCREENS[screen], ""
    for action in ACTIONS:
        if action.screen == screen:
            yield key_names(bound(action)) or ":", action.tooltip
