"""The answer of a bisection, written as JSON and read back: nothing is lost, nothing made up is believed."""

import copy
import json

import pytest

from kernels.stages import Site
from store.errors import StoreError
from tests.stores import write_store
from workbench.bisect.verdict import Bisection, Culprit, RunnerUp
from workbench.cells.decomposition import Decomposition
from workbench.cells.flips import Flips
from workbench.jobs.bisected import Bisected, keep, last_bisection, standing_bisection
from workbench.jobs.local_view import local_view
from workbench.lab.retractions import retract
from workbench.session.session import Session, SessionSpec, Side

SITE, SHOWN = Site(3, "qkv_matmul"), Site(3, "attention")
CULPRIT = Culprit(
    SITE,
    "weights",
    "permuted_rope",
    "rows are permuted",
    "blk.3.attn_q.weight",
    0.0,
    {"weights": 1.0, "graph": None},
    RunnerUp("rows_permuted", 0.25, False),
    SHOWN,
)
OTHER = Culprit(
    Site(None, "lm_head"), "config", "rope_theta", "10000 in A", runner_up=RunnerUp("rope_type", effect=0.5)
)
CELLS = (
    Decomposition(Site(None, "embedding"), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    Decomposition(SITE, None, 0.1, None, 1e-7, 1.5, 2e6, Flips(3, 100, 0.1, 0.4), 1e-6, 0.9, 0.1),
    Decomposition(SHOWN, 0.5, 0.1, 0.2, 1e-7, 1.5, 2.0, Flips(0, 100)),
)
FOUND = Bisection("divergent", SITE, CULPRIT, (OTHER,), 1e-7, CELLS, ("a note",), 99, 4)
NOTHING = Bisection("uncomparable", None, None, (), None, (), ("why",))
SIDES = {side: {"path": f"{side}.gguf", "format": "gguf", "sha256": side * 64} for side in "ab"}
ANSWER = FOUND.to_json() | {"tokens": [1, 2], "prompt": None} | SIDES
ENTRY = ANSWER | {"time": "2026-01-01T00:00:00+00:00", "kind": "bisected", "text": "told"}


def through_json(record):
    return json.loads(json.dumps(record))


@pytest.mark.parametrize("found", [FOUND, NOTHING], ids=["divergent", "uncomparable"])
def test_an_answer_is_read_back_as_it_was(found):
    assert Bisection.from_json(through_json(found.to_json())) == found


def leaves(value, at=()):
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*at, key))
    yield at


def changed(record, at, value):
    record = copy.deepcopy(record)
    place = record
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return record


@pytest.mark.parametrize("value", [None, True, -1, 10**400, 0.5, "x", [], {}, [None], {"layer": 3, "stage": "lm_head"}])
def test_whatever_a_hand_has_put_into_it_is_typed_or_refused(value):
    record = through_json(ENTRY)
    for at in leaves(record):
        if not at:
            continue
        try:
            read = Bisected.from_json(changed(record, at, value))
        except StoreError:
            continue
        again = Bisected.from_json(ENTRY | read.found.to_json())
        assert again.found == read.found


def test_a_session_stands_by_its_last_bisection_only_as_long_as_nobody_has_changed_it(tmp_path):
    for side in "ab":
        write_store(tmp_path / f"{side}.h5")
    sides = (Side(str(tmp_path / f"{side}.h5"), "") for side in "ab")
    session = Session.create(tmp_path / "s", SessionSpec(*sides, (3, 1, 4, 1, 5)))
    assert last_bisection(session) is None
    keep(session, ANSWER, "told")
    known = last_bisection(session)
    assert known is not None
    assert (known.found, known.text, known.a.sha256) == (FOUND, "told", "a" * 64)
    assert standing_bisection(session, {}) == known
    assert local_view(session, {}), "its cells are shown"
    retraction = retract(session, str(max(session.numbered_entries())), "the floor was wrong")
    assert last_bisection(session) is None
    assert local_view(session, {}) == {}
    retract(session, str(retraction.line), "it was not")
    assert local_view(session, {})
    keep(session, ANSWER | {"culprit": {"layer": 3, "stage": "lm_head"}}, "told")
    assert last_bisection(session) is None
