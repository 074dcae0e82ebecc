"""Hypotheses: what a hand or this program wrote is never lost, and what a hand broke is named with its line."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.stages import SPINE, Site
from workbench.lab import hypotheses
from workbench.lab.hypothesis import STATUSES, Hypothesis, HypothesisError

ROOT = Path(__file__).parents[3]

NOTE = """---
# the theory of Tuesday
title: RoPE base
status: UNTESTED   # not yet
layer: 3
stage: q_post_rope
claim: B turns q by another base
prediction: with B's base in A the cell is IDENTICAL
mood: hopeful
evidence:
  rel_rms: 0.25
  tokens: [1, 2]
# last words
---
Free *text* with --- inside.
"""


def rope_base(**changes) -> Hypothesis:
    facts = {
        "title": "RoPE base",
        "site": Site(3, "q_post_rope"),
        "claim": "B turns q by another base",
        "prediction": "with B's base the cell is IDENTICAL",
        "evidence": {"rel_rms": np.float32(0.25), "worst": float("nan"), "population": {"tokens": (1, 2)}},
        "metric": "rel_rms",
    }
    return Hypothesis(**facts | changes)


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "07-rope-base.md"
    path.write_text(NOTE)
    return path


def test_a_written_hypothesis_is_read_back(tmp_path):
    written = hypotheses.write(tmp_path, rope_base(body="two\nlines\n"))
    assert (tmp_path / "01-rope-base.md").is_file()
    assert hypotheses.load(tmp_path) == ([written], [])
    assert hypotheses.read(tmp_path / "01-rope-base.md").evidence == {
        "rel_rms": 0.25,
        "worst": "nan",
        "population": {"tokens": [1, 2]},
    }


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    title=texts,
    claim=texts,
    prediction=texts,
    body=texts,
    status=st.sampled_from(STATUSES),
    site=st.builds(Site, st.integers(0, 999), st.sampled_from(SPINE)) | st.just(Site(None, "lm_head")),
    evidence=st.dictionaries(texts, st.integers() | st.floats() | texts | st.none(), max_size=3),
)
def test_any_text_survives_writing_reading_and_changing(tmp_path_factory, **facts):
    folder = tmp_path_factory.mktemp("notes")
    first = hypotheses.write(folder, rope_base())
    for hypothesis in (Hypothesis(**facts), replace(first, **facts)):
        written = hypotheses.write(folder, hypothesis)
        read = hypotheses.read(folder / written.filename)
        assert read.front() == hypothesis.front()
        assert read.body == hypothesis.body
    assert hypotheses.load(folder).problems == []


def test_a_change_leaves_everything_else_that_a_hand_wrote(tmp_path, note):
    hypothesis = hypotheses.read(note)
    assert (hypothesis.number, hypothesis.slug, hypothesis.status) == (7, "rope-base", "UNTESTED")
    changed = replace(hypothesis, status="FALSIFIED", evidence={"rel_rms": 0.5}, metric="rel_rms")
    hypotheses.write(tmp_path, changed)
    expected = (
        NOTE.replace("UNTESTED", "FALSIFIED")
        .replace("  rel_rms: 0.25\n  tokens: [1, 2]\n", "  rel_rms: 0.5\n")
        .replace("# last words\n", "# last words\nmetric: rel_rms\n")
    )
    assert note.read_text() == expected


def test_a_hand_edit_since_reading_is_not_overwritten(tmp_path, note):
    hypothesis = hypotheses.read(note)
    note.write_text(NOTE.replace("hopeful", "doubtful"))
    with pytest.raises(HypothesisError, match=r"07-rope-base.md was changed on disk since it was read"):
        hypotheses.write(tmp_path, replace(hypothesis, status="CONFIRMED"))
    assert "doubtful" in note.read_text()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("status: UNTESTED", "status: MAYBE", "line 4: status 'MAYBE' is unknown; write one of UNTESTED, CONFIRMED"),
        ("layer: 3", "layer: three", "line 5: layer 'three' is not a layer number"),
        ("stage: q_post_rope", "stage: q_rope", "line 6: stage 'q_rope' is unknown"),
        ("stage: q_post_rope", "stage: lm_head", "line 5: lm_head belongs to no layer"),
        ("claim: B", "claim: [B]\nmore: B", "line 7: claim must be a single text"),
        ("claim: B turns q by another base\n", "", "line 2: there is no field claim"),
        ("mood: hopeful", "mood: 'hopeful", r"line \d+: it is not YAML \("),
        ("mood: hopeful", "mood: a: b", r"line 9: it is not YAML \(mapping values"),
        ("mood: hopeful", "claim: again", "line 9: claim is given twice"),
        ("mood: hopeful", "mood: &a [*a]", r"line 9: it is not YAML \(aliases"),
        ("mood: hopeful", "mood: " + "[" * 5000, r"line \d+: it is not "),
        ("mood: hopeful", "mood: \x1b[31m", "line 9: it holds a control character"),
        ("evidence:\n", "evidence: !!python/object:os.system\n", r"line 10: os.system is no kind of value"),
        ("  rel_rms: 0.25\n  tokens: [1, 2]\n", "- 1\n", "line 10: evidence must be a list of `name: value`"),
        (NOTE[:3], "", "line 1: the front matter between two lines of --- is missing"),
        ("# last words\n---", "# last words\n--", "line 1: the front matter"),
        (NOTE[4:-40], "- 1\n---\n", "line 2: the front matter is not a list of `name: value`"),
        (NOTE, "", "line 1: the front matter"),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_broken_by_hand_is_named_with_its_line_and_left_alone(tmp_path, note, old, new, sentence):
    other = hypotheses.write(tmp_path, rope_base(title="another"))
    assert old in NOTE
    broken = NOTE.replace(old, new, 1)
    note.write_text(broken)
    shelf = hypotheses.load(tmp_path)
    assert [hypothesis.title for hypothesis in shelf.hypotheses] == ["another"]
    (problem,) = shelf.problems
    assert problem.startswith("hypotheses/07-rope-base.md, ")
    with pytest.raises(HypothesisError, match=sentence):
        hypotheses.read(note)
    hypotheses.write(tmp_path, replace(other, status="PARTIAL"))
    with pytest.raises(HypothesisError):
        hypotheses.write(tmp_path, rope_base(number=7, slug="rope-base"))
    assert note.read_text() == broken


def test_unreadable_files_are_named(tmp_path, note):
    note.write_bytes(NOTE.encode().replace(b"hopeful", b"\n\xff"))
    (tmp_path / "idea.md").write_text("just text")
    (tmp_path / "08-big.md").write_bytes(b"x" * 2_000_000)
    (tmp_path / "09-folder.md").mkdir()
    first, second, third, fourth = hypotheses.load(tmp_path).problems
    assert first == "hypotheses/07-rope-base.md, line 10: it is not UTF-8 text; save it as UTF-8."
    assert "more than 1048576 bytes" in second
    assert "09-folder.md cannot be read" in third
    assert "idea.md is not named NN-slug.md" in fourth
    (tmp_path / "10-copy.md").write_text(NOTE)
    (tmp_path / "10-original.md").write_text(NOTE)
    assert any("10-original.md has the number of 10-copy.md" in text for text in hypotheses.load(tmp_path).problems)


def test_windows_editors_do_no_harm(tmp_path, note):
    note.write_bytes(b"\xef\xbb\xbf" + NOTE.replace("\n", "\r\n").encode())
    hypothesis = hypotheses.read(note)
    assert hypothesis.body == "Free *text* with --- inside.\r\n"
    hypotheses.write(tmp_path, replace(hypothesis, status="CONFIRMED"))
    assert hypotheses.read(note).status == "CONFIRMED"
    assert b"hopeful\r\n" in note.read_bytes()


def test_a_number_is_never_used_again(tmp_path):
    for title in ("one", "two", "three"):
        last = hypotheses.write(tmp_path, rope_base(title=title))
    assert last.filename == "03-three.md"
    (tmp_path / last.filename).unlink()
    assert hypotheses.write(tmp_path, rope_base(title="four")).filename == "04-four.md"


DIES = """
import os, sys
from pathlib import Path
from dataclasses import replace
from workbench.lab import hypotheses
os.replace = lambda *names: os._exit(9)
folder = Path(sys.argv[1])
hypotheses.write(folder, replace(hypotheses.load(folder).hypotheses[0], status="FALSIFIED"))
"""


def test_a_kill_between_writing_and_renaming_leaves_the_old_note(tmp_path, note):
    assert subprocess.run([sys.executable, "-c", DIES, tmp_path], cwd=ROOT, check=False).returncode == 9
    assert note.read_text() == NOTE
    assert len(list(tmp_path.iterdir())) == 2, "the new text was on its way"
    (found,) = hypotheses.load(tmp_path).hypotheses
    assert found.status == "UNTESTED"
    assert hypotheses.write(tmp_path, replace(found, status="FALSIFIED")).status == "FALSIFIED"


def test_a_full_disk_loses_nothing(tmp_path, note, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("store.whole_files.os.fsync", full)
    with pytest.raises(HypothesisError, match=r"cannot be written \(No space left on device\); the note is not saved"):
        hypotheses.write(tmp_path, replace(hypotheses.read(note), status="CONFIRMED"))
    assert note.read_text() == NOTE
    assert [path.name for path in tmp_path.iterdir()] == [note.name]


MANY = """
import sys
from pathlib import Path
from kernels.stages import Site
from workbench.lab import hypotheses
from workbench.lab.hypothesis import Hypothesis
for n in range(12):
    hypotheses.write(Path(sys.argv[1]), Hypothesis(f"{sys.argv[2]} {n}", Site(n, "ffn_up"), "c", "p"))
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", MANY, tmp_path, name], cwd=ROOT) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    shelf = hypotheses.load(tmp_path)
    assert shelf.problems == []
    assert {h.title for h in shelf.hypotheses} == {f"{name} {n}" for name in "abc" for n in range(12)}
    assert [h.number for h in shelf.hypotheses] == list(range(1, 37))


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ('{a: !!int ""}', 8),
        ("\n  a: 1\n  b: !!timestamp x", 10),
        ("{a: !!bool x}", 8),
        ("{a: !!float x}", 8),
        ("{a: !!binary x}", 8),
        ("\n  a: !mine x", 9),
        ("!!set {a}", 8),
        ('\n  a: "\\UFFFFFFFF"', 9),
        ("\n  a: 1\n  b: " + "9" * 5000, 10),
        ("\n  a: 0x" + "f" * 5000, 9),
        ("\n  a: 1" + ":59" * 3000, 9),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_value_that_does_not_fit_its_kind_is_named_with_its_line(tmp_path, value, line):
    front = "title: t\nstatus: UNTESTED\nlayer: 1\nstage: ffn_up\nclaim: c\nprediction: p"
    (tmp_path / "01-x.md").write_text(f"---\n{front}\nevidence: {value}\n---\n")
    (problem,) = hypotheses.load(tmp_path).problems
    assert problem.startswith(f"hypotheses/01-x.md, line {line}: ")
    assert len(problem) < 300


def test_values_that_only_look_like_a_date_or_a_merge_stay_texts(tmp_path):
    front = "title: t\nstatus: UNTESTED\nlayer: 1\nstage: ffn_up\nclaim: c\nprediction: p"
    (tmp_path / "01-x.md").write_text(f"---\n{front}\nevidence: {{day: 2026-01-31, sign: =, <<: 5}}\n---\n")
    assert hypotheses.read(tmp_path / "01-x.md").evidence == {"day": "2026-01-31", "sign": "=", "<<": 5}
