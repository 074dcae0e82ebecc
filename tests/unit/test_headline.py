"""The verdict in one sentence: the same on the screen, in reports and in JSON."""

import json

import pytest

from kernels.stages import Site
from workbench.__main__ import run
from workbench.bisect.headline import SIGNS, headline
from workbench.bisect.verdict import EXIT_CODES, Bisection, Culprit
from workbench.demo import demo_session

SITE = Site(3, "qkv_matmul")
TENSOR = "model.layers.3.self_attn.q_proj.weight"


def found(verdict="divergent", culprit=None, first=SITE, **more) -> Bisection:
    return Bisection(verdict, first, culprit, (), None, (), **more)


@pytest.mark.parametrize(
    ("first", "begins"), [(SITE, "BROKEN at layer 3 qkv_matmul: "), (None, "WRONG at layer 3 qkv_matmul, though ")]
)
def test_a_culprit_is_named_shortly_and_nothing_of_a_file_gets_through(first, begins):
    culprit = Culprit(SITE, "weights", "permuted_rope", f"the rows of {TENSOR} of B\x1b[2J are wrong.", TENSOR)
    said = headline(found(culprit=culprit, first=first))
    assert said.startswith(begins)
    assert said.endswith(r"the rows of q_proj of B\x1b[2J are wrong.")


def test_nothing_is_called_whole_that_was_not_checked():
    assert "only 3 of 9 cells were checked" in headline(found("undecided", first=None, cells=9, cells_in_spans=3))
    assert headline(found("undecided", notes=("because",))).endswith("not whether it is wrong. because")
    assert "the 5 cells that both traces hold" in headline(found("alike", first=None), 5)
    assert set(SIGNS) == set(EXIT_CODES)
    for verdict, code in EXIT_CODES.items():
        assert headline(found(verdict)).startswith("Nothing") == (code == 0)


def test_screen_report_and_json_say_the_same(tmp_path, capsys):
    session = demo_session("permuted_rope", 3, tmp_path / "demo")
    assert run(["open", str(session.folder), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["headline"] == record["bisection"]["headline"]
    assert record["headline"].startswith("BROKEN at layer 3 qkv_matmul: the rows of q_proj of B are in ")
    assert f"**{record['headline']}**" in (session.folder / "findings.md").read_text(encoding="utf-8")
    assert run(["bisect", str(session.folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["headline"] == record["headline"]
