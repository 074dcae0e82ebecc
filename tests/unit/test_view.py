"""The saved view: what a session shows is what it showed, and what cannot have been saved does no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.models import all_stages
from kernels.stages import SPINE, Site
from workbench.cells.cell import Cell
from workbench.cells.metrics import METRICS
from workbench.cells.view import ASPECTS, TokenScope, View, filter_problem, filtered

sites = st.sampled_from([Site(None, "embedding"), Site(None, "lm_head"), Site(0, "attention"), Site(31, "ffn_up")])
scopes = st.one_of(
    st.just(TokenScope()), st.just(TokenScope("last")), st.integers(0, 99).map(lambda n: TokenScope("one", n))
)
filters = st.sampled_from(["", "ffn 3-7"])
views = st.builds(
    View,
    st.sampled_from(list(METRICS)),
    scopes,
    sites,
    st.sampled_from([None, True, False]),
    filters,
    st.sampled_from(list(ASPECTS)),
)
anything = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda part: st.lists(part, max_size=3))


@given(views)
def test_a_view_reopens_as_it_was_left(view):
    assert View.from_json(view.to_json()) == view


@given(st.dictionaries(st.sampled_from(list(View().to_json())), anything))
def test_a_view_spoilt_by_hand_opens(record):
    view = View.from_json(record)
    assert view.metric in METRICS
    assert filter_problem(view.filter) == ""
    assert view.cursor.stage in all_stages()


@pytest.mark.parametrize(
    ("scope", "positions", "row"),
    [
        (TokenScope(), (4, 5, 6), None),
        (TokenScope("last"), (4, 5, 6), 2),
        (TokenScope("one", 5), (4, 5, 6), 1),
        (TokenScope("one", 3), (4, 5, 6), 3),  # no such row
        (TokenScope("last"), (0, 1), 2),  # the last row held is not the last token
    ],
)
def test_a_scope_selects_tokens_and_never_just_rows(scope, positions, row):
    assert scope.row(Cell(Site(0, "ffn_up"), "ok", positions=positions), tokens=7) == row


def test_scopes_go_round_and_step_within_the_run():
    scope = TokenScope()
    assert [(scope := scope.following()).kind for _ in range(3)] == ["last", "one", "all"]
    assert TokenScope("last").shifted(-1, 7) == TokenScope("one", 5)
    assert TokenScope("one", 6).shifted(1, 7) == TokenScope("one", 6)
    assert "last" in TokenScope("last").label(7)


@pytest.mark.parametrize(
    ("text", "stages", "layers"),
    [
        ("", ["embedding", *SPINE, "final_norm", "lm_head"], [0, 1, 2, 3]),
        ("ffn", [s for s in SPINE if "ffn" in s], [0, 1, 2, 3]),
        ("1-2", list(SPINE), [1, 2]),
        ("norm 0 3-9", ["attn_norm", "ffn_norm", "final_norm"], [0, 3]),
    ],
)
def test_a_filter_names_stages_and_layers(text, stages, layers):
    assert filter_problem(text) == ""
    assert filtered(text, 4) == (stages, layers)


def test_a_filter_that_names_nothing_is_refused_in_a_sentence():
    assert "'gate_porj'" in filter_problem("ffn gate_porj")
