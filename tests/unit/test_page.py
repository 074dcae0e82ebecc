"""The findings as a page: one file, nothing but its own script, and no text of a file that does anything."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from kernels.stages import Site
from workbench.__main__ import run
from workbench.cells.metrics import METRICS
from workbench.demo import demo_session
from workbench.lab.hypotheses import Hypothesis
from workbench.lab.shelf import keep
from workbench.report import export
from workbench.session.session import Session

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{7*7}}\u202e\x1b[31m"


class Page(HTMLParser):
    """Collects elements with their attributes, and the text inside of each kind."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag in ("script", "style"):
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        kind = self._open[-1] if self._open and self._open[-1] in ("script", "style") else "seen"
        if kind == "seen":
            self.texts[kind] = self.texts.get(kind, "") + data
        else:
            self.texts[kind][-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = demo_session("gate_up_swapped", folder=tmp_path_factory.mktemp("page") / "pair")
    keep(session, Hypothesis(ATTACK, Site(3, "ffn_gate"), ATTACK, ATTACK, body=f"{ATTACK}\n{ATTACK}"))
    record = json.loads((session.folder / "session.json").read_text())
    (session.folder / "session.json").write_text(json.dumps(record | {"name": ATTACK, "prompt": ATTACK}))
    session = Session.open(session.folder)
    assert run(["open", str(session.folder)]) == 1
    return session


@pytest.fixture(scope="module")
def text(session, tmp_path_factory):
    place = tmp_path_factory.mktemp("out")
    export(session, place / "findings.md", page=place / "findings.html")
    return (place / "findings.html").read_text()


def test_nothing_but_its_own_style_and_script_may_do_anything(text):
    page = Page(text)
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)

    def digest(content):
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    (style,), (_data, script) = page.texts["style"], page.texts["script"]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src {digest(style)}",
        f"script-src {digest(script)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert {tag for tag, _ in page.elements} & {
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "a",
    } == set()
    attributes = {name for _, attrs in page.elements for name in attrs}
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "style", "srcdoc")]
    assert re.findall(r"https?:", text) == []


def test_hostile_texts_are_shown_and_do_nothing(text):
    page = Page(text)
    assert len(page.all("script")) == 2
    shown = page.texts["seen"]
    assert shown.count("<script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{7*7}}\\u202e\\x1b[31m") >= 6
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_every_cell_is_a_button_with_its_figures_in_words(text):
    page = Page(text)
    data = json.loads(page.texts["script"][0])
    buttons = page.all("button")
    assert len(buttons) == len(data["cells"]) == 99
    assert [metric["label"] for metric in data["metrics"][1:]] == [metric.label for metric in METRICS.values()]
    assert all(len(cell["looks"]) == len(METRICS) + 1 for cell in data["cells"])
    by_site = {cell["site"]: cell for cell in data["cells"]}
    marked = [site for site, cell in by_site.items() if cell["looks"][0][3]]
    assert marked == ["layer 3 ffn_gate", "layer 3 ffn_up"]
    assert data["cells"][data["start"]]["site"] == "layer 3 ffn_gate"
    for attrs in buttons:  # without colours and without the script: the words are on the button
        cell = data["cells"][int(attrs["data-cell"])]
        assert attrs["aria-label"].startswith(f"{cell['site']}: {cell['looks'][0][1]}")
    assert len(page.all("select")) == 1


def test_it_has_tensors_and_commands_that_end_their_lines_at_spaces(session, text):
    shown = Page(text).texts["seen"]
    part = shown.partition("Tensors\n")[2].partition("Exchanges\n")[0]
    assert "75 of 75 tensors compared: 73 identical, 2 outside the band" in part
    assert "model.layers.3.mlp.gate_proj.weight" in part
    assert "Q4_K" in part
    commands = re.findall(r'<pre class="command">(.*?)</pre>', text)
    assert len(commands) == 2
    for command in commands:
        words = re.findall("<span>(.*?)</span>", command)
        assert " ".join(words) in (session.folder / "findings.md").read_text()
        assert words.count("--tokens") == 1, "an option is a box of its own, which no line break divides"


def test_its_size_is_bounded(session, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("workbench.report.page._MAX_BYTES", 1000)
    assert run(["export", str(session.folder), "-o", str(tmp_path / "x.md"), "--html", str(tmp_path / "x.html")]) == 2
    assert "leave out --html" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_replaces_nothing_unasked(session, tmp_path, capsys):
    (tmp_path / "x.html").write_text("mine")
    words = ["export", str(session.folder), "--html"]
    assert run([*words, str(tmp_path / "x.html")]) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*words, str(session.folder / "findings.svg")]) == 2
    assert run([*words, str(session.folder / "b.h5"), "--force"]) == 2
    assert (tmp_path / "x.html").read_text() == "mine"
    assert run([*words, str(tmp_path / "x.html"), "--force"]) == 1
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
