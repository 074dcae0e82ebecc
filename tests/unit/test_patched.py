"""What the log of a session keeps of exchanges and of cells that were run again, and what it is not taken for."""

import json
import math

import pytest

from kernels.stages import Site
from store.errors import StoreError
from tests.stores import write_store
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.decomposition import Checked, Decomposition
from workbench.cells.flips import Flips
from workbench.jobs.local_view import has_local_view, keep_local_view, local_view
from workbench.jobs.logged_side import LoggedSide
from workbench.jobs.patched import Part, Patched, accused_part, keep_patch, patches, standing_patch
from workbench.lab.retractions import retract
from workbench.session.session import Session, SessionSpec, Side

GATE, UP = Site(3, "ffn_gate"), Site(3, "ffn_up")
A, B = LoggedSide("a.gguf", "gguf", "a" * 64), LoggedSide("b.apr", "apr", "b" * 64)
MADE = Patched("", A, B, GATE, "tensors", ("gate",), "gate", "words", 7, 0.25, None, 0.5, 0.125, 3, 0)
CELLS = [
    Checked(Decomposition(GATE, 0.5, 0.4, 0.1, 1e-3, 1.0, 2.0, Flips(1, 9), 1e-3, 0.5, 0.5), 1.5, True, "more", True),
    Checked(Decomposition(UP, None, None, None, math.inf, 1.0, 2.0), None, True),
]


@pytest.fixture
def session(tmp_path):
    for side in "ab":
        write_store(tmp_path / f"{side}.h5")
    sides = (Side(str(tmp_path / f"{side}.h5"), "") for side in "ab")
    return Session.create(tmp_path / "s", SessionSpec(*sides, (3, 1, 4, 1, 5)))


class Run:
    """As much of a run as tells one file from another."""

    settings: dict[str, str] = {}  # noqa: RUF012
    created = ""

    def __init__(self, sha256):
        self.sha256 = sha256


RUNS = {"a": Run("a" * 64), "b": Run("b" * 64)}


def test_an_exchange_is_read_back_for_the_files_it_was_made_with_only(session):
    keep_patch(session, MADE)
    (made,) = patches(session, RUNS)
    assert made.to_json() == MADE.to_json()
    assert made.time
    assert standing_patch(session, Part(GATE, "tensors", ("gate",)), RUNS) == made
    assert standing_patch(session, Part(GATE, "stage"), RUNS) is None
    assert patches(session, RUNS | {"b": Run("c" * 64)}) == []
    retract(session, str(max(session.numbered_entries())), "it was another part")
    assert patches(session, RUNS) == []


@pytest.mark.parametrize("value", [None, True, -1, 10**400, "x", [], {}, [None]])
def test_whatever_a_hand_has_put_into_an_exchange_is_typed_or_left_out(session, value):
    entry = MADE.to_json() | {"time": "t"}
    for name in entry:
        try:
            again = Patched.from_json(entry | {name: value})
        except StoreError:
            continue
        assert Patched.from_json(again.to_json() | {"time": "t"}).to_json() == again.to_json()
    session.log("patched", **MADE.to_json() | {"left": "none"})
    assert patches(session, RUNS) == []


def test_the_cells_that_were_run_again_are_read_back_for_their_files_only(session):
    assert not has_local_view(session, RUNS)
    keep_local_view(session, {"a": A, "b": B}, CELLS)
    read = local_view(session, RUNS)
    assert read[GATE] == CELLS[0]
    assert (read[UP].cell.local, read[UP].beyond_floor) == (None, True)
    assert math.isnan(read[UP].cell.floor)  # it was not finite
    assert not has_local_view(session, RUNS | {"a": Run("c" * 64)})
    session.log("run again", a={}, b={}, cells=[{}])
    assert not has_local_view(session, RUNS)


def test_cells_that_were_taken_back_are_not_shown_as_current(session):
    keep_local_view(session, {"a": A, "b": B}, CELLS[:1])
    first = max(session.numbered_entries())
    keep_local_view(session, {"a": A, "b": B}, CELLS)
    assert set(local_view(session, RUNS)) == {GATE, UP}
    retraction = retract(session, str(max(session.numbered_entries())), "the floor was wrong")
    assert set(local_view(session, RUNS)) == {GATE}, "the one before stands"
    retract(session, str(first), "so was this one")
    assert local_view(session, RUNS) == {}
    assert not has_local_view(session, RUNS), "they can be run again"
    retract(session, str(retraction.line), "it was not")
    assert set(local_view(session, RUNS)) == {GATE, UP}


def culprit(site, tensor, cause="gate_up_swapped", factor="weights"):
    return Culprit(site, factor, cause, "why", tensor)


def accused(*culprits):
    return accused_part(Bisection("divergent", GATE, culprits[0], culprits[1:], None, ()))


def test_what_is_accused_is_exchanged_together():
    both = accused(culprit(GATE, "gate"), culprit(UP, "up"), culprit(Site(4, "ffn_up"), "other"))
    assert both == Part(GATE, "tensors", ("gate", "up"))
    assert accused(culprit(GATE, "gate"), culprit(UP, "up", "scaled")).tensors == ("gate",)
    assert accused(culprit(GATE, None)) == Part(GATE, "stage")
    assert accused(culprit(GATE, None, "rope_theta", "config")) == Part(GATE, "settings")
    assert accused(culprit(GATE, None, "unknown", "graph")) == Part(GATE, "stage")
    assert accused_part(Bisection("alike", None, None, (), None, ())) is None


def test_json_of_an_exchange_is_plain():
    assert json.loads(json.dumps(MADE.to_json()))["site"] == {"layer": 3, "stage": "ffn_gate"}
