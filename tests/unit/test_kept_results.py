"""What a session's log keeps of contracts and experiments, and what it is not taken for."""

import json
import shutil

import pytest
from markdown_it import MarkdownIt

from store.errors import StoreError
from tests.stores import write_store
from workbench.__main__ import run
from workbench.demo import demo_session
from workbench.jobs.kept_checks import KeptCheck, checks
from workbench.jobs.kept_experiments import KeptExperiment, experiments
from workbench.lab.retractions import retract
from workbench.pair.sources import open_tensors
from workbench.report import export
from workbench.session.session import Session, SessionSpec, Side

CONTRACT = """contract: mine
version: 1
rules:
  - id: band
    cells: {stage: ffn_swigl}
    metric: std_ratio
    within: [0.5, 2.0]
  - id: weights
    tensors: "*"
    metric: rel_rms
    at_most: 0
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A session that was checked against two contracts and had two experiments run on it."""
    session = demo_session("scaled", folder=tmp_path_factory.mktemp("kept") / "pair")
    (session.folder / "mine.yaml").write_text(CONTRACT)
    folder = str(session.folder)
    assert run(["open", folder]) == 1
    assert run(["check", "parity", folder]) == 1
    assert run(["check", str(session.folder / "mine.yaml"), folder]) == 1
    assert run(["lab", "ledger", folder]) == 0
    assert run(["lab", "scope", folder, "--layer", "1", "--stage", "ffn_swigl"]) == 0
    return session


def runs_of(session):
    tensors = open_tensors(session)
    return {"a": tensors.a.run, "b": tensors.b.run}


def names(session, runs):
    found, stale = checks(session, runs)
    results, old = experiments(session, runs)
    return [each.contract for each in found], [each.experiment for each in results], [*stale, *old]


def of(session, kind):
    return next(entry for entry in session.entries() if entry["kind"] == kind)


def test_they_are_read_back_as_they_were(asked, capsys):
    found, results, stale = names(asked, runs_of(asked))
    assert (found, results, stale) == (["parity", "mine"], ["ledger", "scope"], [])
    (parity, mine), _ = checks(asked, runs_of(asked))
    assert (mine.file, parity.file) == ("mine.yaml", None)
    capsys.readouterr()
    assert run(["check", "parity", str(asked.folder), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    for rule, kept in zip(record["rules"], of(asked, "contract")["rules"], strict=True):
        assert {name: kept[name] for name in rule} == rule
    ledger = experiments(asked, runs_of(asked))[0][0].record()
    assert ledger["series"][0]["factor"] == "0.077 % of one product"
    assert ledger["residual_first"] == pytest.approx(14.12, abs=0.01)


def test_the_findings_have_them_whole_and_twice_the_same(asked, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        export(asked, tmp_path / place / "x.md", page=tmp_path / place / "x.html")
    text, page = ((tmp_path / "a" / name).read_text() for name in ("x.md", "x.html"))
    assert all(
        (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes() for name in ("x.md", "x.html")
    )
    order = ("\n## Hypotheses", "\n## Ledger", "\n## Contracts", "\n## Tensors", "\n## Appendix")
    assert sorted(order, key=text.index) == list(order)
    for shown in (text, page):
        assert "mine: BROKEN (1 met, 1 broken)" in shown
        assert "A product looks complete with any residual" in shown
        assert "5.70 compounding" in shown
        assert "What would all tokens against the last token have reported?" in shown
    row = next(line for line in text.splitlines() if line.startswith("| BROKEN  | weights"))
    assert [cell.strip() for cell in row.split("|")[5:8]] == ["at most 0", "75/75", "8"]


class OfAnother:
    """A run of another file."""

    sha256, created = "c" * 64, ""


def test_what_was_measured_of_another_file_is_not_shown_as_current(asked):
    found, results, stale = names(asked, runs_of(asked) | {"b": OfAnother()})
    assert (found, results) == ([], [])
    assert len(stale) == 4
    assert all("the file of B is not the one that was measured" in sentence for sentence in stale)


@pytest.fixture
def copy(asked, tmp_path):
    """The log of that session in one of its own."""
    for side in "ab":
        write_store(tmp_path / f"{side}.h5")
    spec = asked.spec
    session = Session.create(tmp_path / "s", SessionSpec(spec.a, spec.b, spec.tokens))
    (session.folder / "log.jsonl").write_bytes((asked.folder / "log.jsonl").read_bytes())
    (session.folder / "mine.yaml").write_text(CONTRACT)
    return session


def test_a_contract_that_was_changed_other_tokens_and_other_paths_make_it_stale(asked, copy):
    runs = runs_of(asked)
    assert names(copy, runs)[2] == []
    (copy.folder / "mine.yaml").write_text(CONTRACT.replace("at_most: 0", "at_most: 9"))
    found, _, stale = names(copy, runs)
    assert found == ["parity"]
    assert "mine" in stale[0]
    assert stale[0].endswith("the contract mine was changed")
    spec = copy.spec
    other = Session(copy.folder, SessionSpec(spec.a, spec.b, (1, 2)))
    assert names(other, runs)[:2] == ([], [])
    other = Session(copy.folder, SessionSpec(spec.a, Side(spec.b.path, "f32"), spec.tokens))
    assert names(other, runs)[:2] == ([], [])


def test_what_was_taken_back_is_left_out(asked, copy):
    runs = runs_of(asked)
    for number, entry in copy.numbered_entries().items():
        if entry["kind"] in ("contract", "experiment"):
            retract(copy, str(number), "wrong pair")
    assert names(copy, runs) == ([], [], [])


@pytest.mark.parametrize("value", [None, True, -1, 10**400, 0.5, "x", [], {}, [None], [{}], [{"a": 1}, {"b": 1}]])
def test_whatever_a_hand_has_put_into_them_is_typed_or_left_out(asked, copy, value):
    from workbench.report.contracts import contracts
    from workbench.report.experiments import lab_results

    runs = runs_of(asked)
    for kind, read in (("contract", KeptCheck), ("experiment", KeptExperiment)):
        entry = of(asked, kind)
        for name in entry:
            changed = entry | {name: value}
            try:
                read.from_json(changed)
            except StoreError:
                continue
            (copy.folder / "log.jsonl").write_text(json.dumps(changed) + "\n")
            contracts(copy, runs)
            lab_results(copy, runs)


ATTACK = "<script>alert(1)</script> [x](javascript:alert(1)) ``` | # \u202e\x1b[31m"


def attacked(value):
    """The same with hostile texts in the place of all texts but those that are no words of a reader's."""
    if isinstance(value, dict):
        keep = ("time", "kind", "a", "b", "path_a", "path_b", "sha256", "verdict", "experiment", "file", "contract")
        return {name: item if name in keep else attacked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [attacked(item) for item in value]
    return ATTACK if isinstance(value, str) else value


def test_hostile_texts_in_a_log_stay_texts(asked, tmp_path):
    folder = tmp_path / "hostile"
    shutil.copytree(asked.folder, folder)
    entries = [attacked(entry) if entry["kind"] in ("contract", "experiment") else entry for entry in asked.entries()]
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    session = Session.open(folder)
    export(session, tmp_path / "x.md", page=tmp_path / "x.html")
    text, page = ((tmp_path / name).read_text() for name in ("x.md", "x.html"))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert html.count("&lt;script&gt;alert(1)") > 20
    assert "<script" not in html
    assert 'javascript:alert(1)"' not in html
    assert page.count("&lt;script&gt;alert(1)") > 20
    assert page.count("<script") == 2
    for shown in (text, page):
        assert "\u202e" not in shown
        assert "\x1b" not in shown


def test_an_option_that_a_session_has_of_its_own_is_refused(asked, capsys):
    assert run(["lab", "ledger", str(asked.folder), "--tokens", "1"]) == 2
    assert "--tokens belongs to two sides" in capsys.readouterr().err
