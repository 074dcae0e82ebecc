"""What a session knows of its pair, cell by cell."""

import pytest

from kernels.stages import Site
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.decomposition import Checked, Decomposition
from workbench.cli.pair import run_session
from workbench.demo import demo_session
from workbench.jobs.answering import answer
from workbench.jobs.inquiry import Inquiry, Logged
from workbench.jobs.known import Known, _marks
from workbench.pair.sources import open_tensors
from workbench.session.session import Session

ORDER = [Site(0, stage) for stage in ("attn_norm", "qkv_matmul", "attention", "attn_out", "ffn_norm")]


def again(site: Site, beyond: bool = False, observed: float = 0.1) -> Checked:
    return Checked(Decomposition(site, observed, 0.1, 0.0, 0.1, 0.0, 0.0), None, beyond)


@pytest.mark.parametrize("factor", ["weights", "graph"])
def test_marks_tell_what_was_checked_from_what_was_not(factor):
    culprit = Culprit(ORDER[1], factor, "scaled", "twice")
    found = Bisection("divergent", ORDER[1], culprit, (), None, ())
    cells = {ORDER[0]: again(ORDER[0]), ORDER[1]: again(ORDER[1], True), ORDER[2]: again(ORDER[2])}
    cells |= {ORDER[3]: again(ORDER[3], True)}
    assert list(_marks(found, cells, ORDER).values()) == ["fine", "culprit", "inherited", "wrong", "unchecked"]
    cells[ORDER[2]] = again(ORDER[2], observed=0.0)  # nothing came in that could be inherited
    assert _marks(found, cells, ORDER)[ORDER[2]] == "fine"


def test_the_cell_that_shows_a_mistake_is_not_called_the_one_that_makes_it():
    culprit = Culprit(ORDER[0], "graph", "rms_norm_eps", "eps", shown_at=ORDER[3])
    found = Bisection("divergent", ORDER[0], culprit, (), None, ())
    marks = _marks(found, {ORDER[3]: again(ORDER[3], True)}, ORDER)
    assert (marks[ORDER[0]], marks[ORDER[1]], marks[ORDER[3]]) == ("culprit", "unchecked", "wrong")


def test_a_session_knows_verdict_proof_and_every_cell_after_one_question(tmp_path):
    folder = tmp_path / "demo"
    session = demo_session("permuted_rope", 3, folder)
    run_session(session)
    told: list = []
    answer(Inquiry(folder, "examine"), told.append)
    assert sum(isinstance(event, Logged) for event in told) == 3
    tensors = open_tensors(Session.open(folder))
    known = Known.of(session, {"a": tensors.a.run, "b": tensors.b.run})
    assert known.bisected is not None
    assert known.patched is not None
    assert known.whole
    assert len(known.checked) == 99
    assert Known.of(session, {"a": tensors.b.run, "b": tensors.a.run}) == Known()  # of other files nothing is known
