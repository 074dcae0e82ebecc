"""The findings document: true, reproducible, and harmless whatever the files say."""

import json
import os
import re
import shlex
import subprocess
import textwrap
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kernels.stages import Site
from store.traces.hdf5 import open_store
from workbench.__main__ import run
from workbench.cells.heat import LEVELS, PALETTE
from workbench.demo import demo_session
from workbench.lab.hypothesis import Hypothesis
from workbench.lab.shelf import keep
from workbench.report import export
from workbench.report.commands import typed_path
from workbench.report.markdown import code_block, command, escaped, link, quoted, table

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = demo_session("gate_up_swapped", folder=tmp_path_factory.mktemp("report") / "pair")
    keep(
        session,
        Hypothesis(
            "Gate & up <exchanged>",
            Site(3, "ffn_gate"),
            "the converter | mixed them up",
            "exchanging them back leaves nothing",
            status="CONFIRMED",
            evidence={"rel_rms": 1.676},
            body="First line\n\n# not a heading\n<script>alert(1)</script>",
        ),
    )
    assert run(["open", str(session.folder)]) == 1
    return session


@pytest.fixture(scope="module")
def text(session):
    return session.findings_path.read_text()


class Text(HTMLParser):
    """Collects what a reader sees, and the elements it is made of."""

    def __init__(self):
        super().__init__()
        self.seen, self.tags = "", set()

    def handle_data(self, data):
        self.seen += data

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def rendered(markdown):
    parser = Text()
    parser.feed(MARKDOWN.render(markdown))
    return parser


def test_the_first_screenful_convinces(text):
    """Verdict, three figures, the local view, how to fix it, and two commands, on 40 lines of 100 columns."""
    screen = text.partition("## Hypotheses")[0].partition("\nThis rests on")[0]
    wrapped = [part for line in screen.splitlines() for part in textwrap.wrap(line, 100) or [""]]
    assert len(wrapped) <= 40
    assert "**BROKEN at layer 3 ffn_gate: " in screen
    assert len(re.findall(r"^- \*\*[0-9.,]+ times what rounding can cause\*\* ", screen, re.MULTILINE)) == 1
    assert (
        len(re.findall(r"^- \*\*KL [0-9.]+ nats, top-1 changed at [0-7] of 7 tokens\*\* ", screen, re.MULTILINE)) == 1
    )
    assert len(re.findall(r"^- \*\*[0-9.]+% of that KL\*\* is what swapping A's gate_proj", screen, re.MULTILINE)) == 1
    assert "](findings.svg)" in screen
    assert "**How to fix it.** Exchange gate_proj and up_proj" in screen
    assert "Unexplained after the fix: 0 of the norm of the cell." in screen
    assert screen.count("\nworkbench ") == 2


def test_a_verdict_stands_above_what_the_bands_say(tmp_path):
    """Where a fault stays within all bands, nothing that sounds like health comes before it, nor in its place."""
    session = demo_session("scaled", folder=tmp_path / "pair")
    assert run(["open", str(session.folder)]) == 1
    text = session.findings_path.read_text()
    assert text.splitlines()[2].startswith("**BROKEN at layer 3 ")
    assert "No cell is outside the band" in text.partition("DIVERGENT at ")[2]
    assert "No cell is outside" not in text.partition("DIVERGENT at ")[0]
    tensors = text.partition("## Tensors")[2].partition("\n## ")[0]
    assert "74 identical, 0 outside the band" in tensors
    assert "Within it the most different:\n\n- model.layers.3.mlp.up_proj.weight (Q4_K in A, Q4_K in B)" in tensors


def test_no_table_is_wider_than_a_window(text):
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, rows)) <= 130


def test_its_figures_are_those_of_the_log(session, text):
    entries = {entry["kind"]: entry for entry in session.entries()}
    patched, bisected = entries["patched"], entries["bisected"]
    culprit = next(cell for cell in bisected["cells"] if (cell["layer"], cell["stage"]) == (3, "ffn_gate"))
    assert f"**{culprit['local'] / culprit['floor']:.1f} times" in text
    assert f"**{1 - patched['left']:.1%} of that KL**" in text
    assert set(patched["tensors"]) == {f"model.layers.3.mlp.{name}_proj.weight" for name in ("gate", "up")}
    assert len(entries["run again"]["cells"]) == 99


def test_only_the_wrong_cells_are_bright_in_the_local_view(session):
    picture = ElementTree.parse(session.folder / "findings.svg")
    titles = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 99
    bright = [title for title in titles if title.endswith("!")]
    assert [title.partition(":")[0] for title in bright] == ["layer 3 ffn_gate", "layer 3 ffn_up"]


def test_the_digits_of_the_local_view_count_what_rounding_can_cause_as_those_of_the_app(session):
    picture = ElementTree.parse(session.folder / "findings.svg")
    cells = [[part.text for part in group if part.text] for group in picture.iter("{http://www.w3.org/2000/svg}g")]
    for title, glyph in cells:
        times = title.partition(": ")[2]
        if times.endswith("!") or times == "=":
            assert glyph == ("=" if times == "=" else "9"), title
        else:
            assert int(glyph) - 1e-3 <= float(times) <= int(glyph) + 1, title


def test_the_two_commands_prove_it_from_the_folder_that_is_named(session, text, capsys, monkeypatch):
    assert "run in the folder of this document" in text
    lines = text.partition("```sh\n")[2].partition("\n```")[0].splitlines()
    monkeypatch.chdir(session.folder)
    capsys.readouterr()
    assert [run(shlex.split(line)[1:]) for line in lines] == [1, 1]
    out = capsys.readouterr().out
    assert out.startswith("DIVERGENT at layer 3 ffn_gate: gate_up_swapped")
    left = next(entry["left"] for entry in session.entries() if entry["kind"] == "patched")
    assert f"leaves {left:.1%} of KL" in out


def test_exporting_twice_and_elsewhere_gives_the_same_bytes(session, tmp_path, monkeypatch):
    def written(folder):
        folder.mkdir()
        export(session, folder / "x.md", page=folder / "x.html")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = written(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert first == written(tmp_path / "b")
    assert set(first) == {"x.md", "x.svg", "x-maps.svg", "x.html"}
    entries = len(session.entries())
    assert run(["export", str(session.folder)]) == 1
    assert len(session.entries()) == entries, "nothing new was found"


def test_it_names_the_cell_the_tensors_the_files_and_the_hypothesis(session, text):
    run_a = open_store(session.trace_path("a")).run
    assert "DIVERGENT at layer 3 ffn_gate: gate_up_swapped" in text
    assert "This rests on the bisection of" in text
    assert run_a.sha256 in text
    assert str(run_a.size) in text
    assert "482,803,10,67,14,310,307" in text
    assert "99 of 99 cells compared over all 7 tokens" in text
    assert "model.layers.3.mlp.gate_proj.weight" in text
    assert "CONFIRMED" in text


def test_its_top_elements_are_the_largest_differences(session, text):
    a, b = (open_store(session.trace_path(side)).read(Site(3, "ffn_gate")) for side in "ab")
    d = np.abs(a.astype(np.float64) - b)
    order = np.argsort(-d, axis=None)[:10]
    rows = text.partition("elements that differ most")[2].partition("##")[0].splitlines()
    cells = [[part.strip() for part in row.split("|")[1:-1]] for row in rows if row.startswith("| ")][1:]
    expected = [divmod(int(index), a.shape[1]) for index in order]
    assert [(int(row[0]), int(row[2])) for row in cells] == expected
    assert [np.float32(row[3]) for row in cells] == [a[place] for place in expected]
    assert [np.float32(row[4]) for row in cells] == [b[place] for place in expected]


def test_its_commands_give_its_numbers_again(session, text, capsys, monkeypatch):
    monkeypatch.chdir(session.folder)
    lines = text.rpartition("```sh\n")[2].partition("\n```")[0].splitlines()
    assert [shlex.split(line)[1] for line in lines] == ["demo", "open", "compare", "weights"]
    capsys.readouterr()
    assert run(shlex.split(lines[2])[1:]) == 1
    record = json.loads(capsys.readouterr().out)
    gate = next(cell for cell in record["cells"] if (cell["layer"], cell["stage"]) == (3, "ffn_gate"))
    metrics = text.partition("| metric")[2].partition("elements that differ")[0]
    for label, key in (("relative RMS", "rel_rms"), ("std ratio A/B", "std_ratio"), ("RMS d", "rms")):
        shown = re.search(rf"^\| {label} +\| ([-+.e0-9]+)", metrics, re.MULTILINE)[1]
        assert shown == f"{gate[key]:.9g}"
    assert run(shlex.split(lines[3])[1:]) == 1
    assert run(shlex.split(lines[1])[1:]) == 1
    assert run(shlex.split(lines[0])[1:]) == 1


def test_words_of_files_and_people_stay_words(text):
    page = rendered(text)
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.seen
    assert "Gate & up <exchanged>" in page.seen
    assert "the converter | mixed them up" in page.seen


def test_it_is_replaced_as_a_whole_and_stays_beside_its_picture(session, tmp_path):
    target = export(session, tmp_path / "my findings.md").path
    assert target.read_text().count("my%20findings.svg") == 1
    picture = ElementTree.parse(tmp_path / "my findings-maps.svg")
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".svg"}
    assert f"run in the session's folder {escaped(str(session.folder))}" in target.read_text()
    titles = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 2 * 99
    assert any(title.startswith("layer 3 ffn_out: ") and title.endswith("!") for title in titles)


def test_it_is_written_when_the_models_are_gone(session, tmp_path):
    for model in [*session.folder.glob("*.gguf"), *session.folder.glob("*.apr")]:
        model.rename(tmp_path / model.name)
    try:
        text = export(session, tmp_path / "gone.md").path.read_text()
    finally:
        for model in [*tmp_path.glob("*.gguf"), *tmp_path.glob("*.apr")]:
            model.rename(session.folder / model.name)
    assert "The tensors were not compared" in text
    assert "relative RMS 1.676" in text


def test_what_cannot_be_measured_is_said(session, tmp_path, capsys):
    model = next(session.folder.glob("*.apr"))
    original = next(session.folder.glob("*.gguf"))
    assert run(["trace", str(original), "-o", str(tmp_path / "t.h5"), "--tokens", "482,803"]) == 0
    assert run(["open", str(model), str(tmp_path / "t.h5"), "--session", str(tmp_path / "s")]) == 1
    text = (tmp_path / "s" / "findings.md").read_text()
    assert "- **Not measured** what swapping the accused part removes." in text
    assert "**Not measured.** The culprit was not exchanged between A and B: t.h5 is a recorded trace" in text
    assert "**One command proves it**" in text
    capsys.readouterr()
    assert run(["export", str(tmp_path / "s"), "--json"]) == 1
    assert "t.h5 is a recorded trace" in json.loads(capsys.readouterr().out)["lacking"][0]


def test_a_long_prompt_is_named_by_its_session(session, monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.report.commands._MAX_TOKENS", 3)
    text = export(session, tmp_path / "long.md").path.read_text()
    lines = text.partition("```sh\n")[2].partition("\n```")[0].splitlines()
    assert lines[0] == "workbench bisect ."
    assert lines[1].startswith("workbench patch . --tensor ")


@pytest.mark.parametrize("name", ["-a b'.gguf", "$(x)`y`.gguf", "a\nb.gguf", "é\udcff.gguf"])
def test_a_shell_gives_a_strange_file_name_back(session, name):
    words = command("printf", "%s", typed_path(session, session.folder / name))
    done = subprocess.run(["bash", "-c", words], capture_output=True, check=True)
    assert done.stdout.removeprefix(b"./") == os.fsencode(name)
    assert not done.stdout.startswith(b"-")


def test_nothing_captured_is_one_sentence(tmp_path, capsys):
    demo_session(None, folder=tmp_path / "empty")
    assert run(["export", str(tmp_path / "empty")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "empty" / "findings.md").exists()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf", "Co", "Cn"]), min_size=1))
def test_escaped_text_renders_as_itself(words):
    for markdown in (f"x {escaped(words)} y", quoted(f"x {words} y"), f"- x: {escaped(words)} y"):
        page = rendered(markdown)
        assert f"{words} y" in page.seen
        assert page.tags <= {"p", "ul", "li", "blockquote"}
    page = rendered(table([["a", "b"], [f"x{words}x", "c"]]))
    assert f"x{words}x" in page.seen


HOSTILE = [
    "# heading",
    "###### x #",
    "heading\n===",
    "heading\n---",
    "---",
    "- - -",
    "***",
    "- item",
    "+ item",
    "* item",
    "1. item",
    "2) item",
    "-",
    "1.",
    "    code",
    "\tcode",
    "```sh",
    "~~~",
    "<b>bold</b>",
    "<!-- x",
    "[x](javascript:alert(1))",
    "[x]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "![x](http://x/y.png)",
    "| a | b |\n|---|---|\n| c | d |",
    "a\n:--\nb",
    "> quote",
    "x  \ny\\",
    "&lt;script&gt;",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_no_line_of_a_note_or_of_a_log_makes_structure(words):
    def kinds(markdown):
        return {token.type for block in MARKDOWN.parse(markdown) for token in (block, *(block.children or []))}

    for around in (quoted, lambda text: f"- {escaped(text)}", lambda text: f"# {escaped(text)}", escaped):
        assert kinds(around(words)) <= kinds(around("word\nword")) | {"softbreak"}
    assert kinds(f"before\n{escaped(words)}") == kinds("before\nword")


def test_the_link_to_the_picture_holds_any_name():
    assert link("a b\udcff\n(é.svg") == "a%20b%FF%0A%28%C3%A9.svg"


@given(st.lists(st.text(min_size=1), min_size=1))
def test_command_lines_keep_their_words_and_stay_in_their_block(words):
    words = [word.replace("\0", "") or "x" for word in words]
    line = command(*words)
    assert line.isprintable()
    if all(word.isprintable() for word in words):
        assert shlex.split(line) == words
    fenced = MARKDOWN.parse(code_block([line, "second"]))
    assert [token.type for token in fenced] == ["fence"]
    assert fenced[0].content == f"{line}\nsecond\n"


def test_palette_grows_lighter_with_the_level():
    channels = [[int(colour[n : n + 2], 16) for n in (1, 3, 5)] for colour in PALETTE]
    lightness = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in channels]
    assert len(PALETTE) == LEVELS
    assert lightness == sorted(lightness)
