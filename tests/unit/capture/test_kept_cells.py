"""A session that keeps cells and the elements that differ most: the same figures, and what needs tensors says so."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from kernels.errors import WorkbenchError
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.stages import Site
from store.errors import StoreError
from store.open import open_artifact
from store.traces.hdf5 import open_store
from tests.captures import TOKENS, cells_of, events_of
from tests.unit.test_compare_foreign import SCHEMA
from workbench.__main__ import run
from workbench.bisect.models.element_text import element_text
from workbench.capture.job import CaptureJob, CellReady
from workbench.capture.needs import cells_to_write
from workbench.cells import kept_cells
from workbench.cells.cell import cell_to_wire
from workbench.cells.elements import WORST
from workbench.cells.kept_cells import read_kept
from workbench.cells.view import TokenScope
from workbench.pair.sources import open_captured, open_tensors
from workbench.session.session import Session, SessionSpec, Side

ALL = TokenScope()


@pytest.fixture
def small(job):
    return replace(job, statistics_only=True)


def without_worst(cells):
    return [cell | {"worst": []} for cell in cells]


def test_the_cells_are_those_of_a_capture_with_tensors_and_the_elements_are_the_worst_of_these(job, small, tmp_path):
    whole = replace(job, folder=tmp_path / "whole")
    assert without_worst(cells_of(events_of(small))) == cells_of(events_of(whole))
    assert sorted(path.name for path in small.folder.iterdir()) == ["cells.jsonl", "log.jsonl"]
    a, b = (open_store(whole.folder / f"{side}.h5") for side in "ab")
    for cell in read_kept(small.folder / "cells.jsonl").cells:
        x, y = (trace.read(cell.site) for trace in (a, b))
        furthest = np.argsort(-np.abs(x.astype(np.float64) - y), axis=None, kind="stable")[:WORST]
        places = [divmod(int(place), x.shape[1]) for place in furthest]
        assert [(e.token, e.channel, e.a, e.b) for e in cell.worst] == [(*at, x[at], y[at]) for at in places]


def test_what_was_kept_is_read_as_it_was_and_never_run_again(small, models):
    first = events_of(small)
    path = small.folder / "cells.jsonl"
    kept, written = read_kept(path), path.stat().st_mtime_ns
    assert [cell_to_wire(cell) for cell in kept.cells] == cells_of(first)
    told = cells_to_write([open_artifact(small.a.path)], len(TOKENS))
    assert path.stat().st_size <= told < 1.5 * path.stat().st_size
    assert cells_of(events_of(small)) == cells_of(first)
    gone = replace(small, a=Side(small.a.path + ".gone", small.a.numeric_path))
    assert cells_of(events_of(gone)) == cells_of(first)
    for other in (
        replace(gone, tokens=TOKENS[::-1]),
        replace(gone, b=replace(gone.b, path=str(models / "llama.gguf"))),
    ):
        with pytest.raises(WorkbenchError, match="gone"):
            events_of(other)
    assert path.stat().st_mtime_ns == written
    other = replace(small, b=replace(small.b, numeric_path="f32"))
    assert cells_of(events_of(other)) != cells_of(first)
    assert read_kept(path).b.numeric_path == "f32"


def test_what_could_not_be_read_again_is_not_written(small, monkeypatch):
    monkeypatch.setattr(kept_cells, "MOST_BYTES", cells_to_write([open_artifact(small.a.path)], len(TOKENS)) - 1)
    with pytest.raises(StoreError, match=r"at most [0-9,]+ are read; give fewer tokens"):
        events_of(small)
    assert not list(small.folder.glob("*cells*"))


def test_numbers_that_are_none_are_kept_too(small, monkeypatch):
    from workbench.capture import lockstep

    def lost(*arguments):
        for site, values in forward(*arguments):
            yield site, np.where(np.arange(values.shape[1]) % 7 == 3, np.inf, values) if site.layer == 1 else values

    forward = lockstep.forward
    monkeypatch.setattr(lockstep, "forward", lost)
    monkeypatch.setattr(lockstep, "as_stored", lambda values: values.astype(np.float32) * np.float32(len(values)))
    with np.errstate(all="ignore"):
        first = cells_of(events_of(small))
    assert str([cell_to_wire(cell) for cell in read_kept(small.folder / "cells.jsonl").cells]) == str(first)


def test_what_needs_tensors_says_that_they_were_not_kept(small):
    session = Session.create(small.folder, SessionSpec(small.a, small.b, small.tokens, statistics_only=True))
    assert CaptureJob.of(Session.open(small.folder)).statistics_only
    with pytest.raises(StoreError, match="has captured nothing yet"):
        open_captured(session)
    cells = {event.cell.site: event.cell for event in events_of(small) if isinstance(event, CellReady)}
    product = next(s.site for s in Graph.of(open_artifact(small.a.path)).stages() if isinstance(s.kind, Product))
    said = r"keeps cells and .*, and no tensors \(--statistics-only\); open the pair without that option"
    for asked in (lambda: open_tensors(session), lambda: list(element_text(session, product, 0, 0))):
        with pytest.raises(WorkbenchError, match=said):
            asked()
    kept, site = open_captured(session), Site(1, "ffn_up")
    found = kept.elements(cells[site], ALL)
    assert (found.count, found.of) == (WORST, cells[site].shape[0] * cells[site].shape[1])
    assert [found.element(n) for n in found.ordered("abs")] == list(cells[site].worst)
    tokens = {element.token for element in cells[site].worst}
    for token in range(len(TOKENS)):
        one = TokenScope("one", token)
        if token in tokens:
            assert {e.token for e in kept.elements(cells[site], one).known} == {token}
        else:
            with pytest.raises(WorkbenchError, match="none of those is of the tokens"):
                kept.elements(cells[site], one)


def test_a_session_of_cells_is_opened_compared_and_bisected_as_any_other(models, tmp_path, capsys):
    asked = [str(models / "q8.gguf"), str(models / "hf"), "--tokens", "3,1,4,1,5"]
    folder = str(tmp_path / "cells")
    status = run(["open", *asked, "--session", folder, "--statistics-only", "--json"])
    said = capsys.readouterr()
    assert f"to {folder}, and holds about" in said.err
    found = json.loads(said.out)
    assert run(["bisect", *asked, "--json"]) == status
    assert found["headline"] == json.loads(capsys.readouterr().out)["headline"]
    assert not list((tmp_path / "cells").glob("*.h5*"))
    assert "elements that differ most" in (tmp_path / "cells" / "findings.md").read_text()
    run(["compare", folder, "--json"])
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    run(["compare", *asked, "--statistics-only", "--json"])
    assert json.loads(capsys.readouterr().out)["cells"] == record["cells"]
    assert all(len(cell["worst"]) == WORST for cell in record["cells"] if cell["status"] == "ok")
    assert run(["open", *asked, "--session", folder]) == 2
    assert "keeps no tensors (--statistics-only)" in capsys.readouterr().err
    assert run(["open", folder, "--statistics-only"]) == 2
    assert "--statistics-only belongs to two sides" in capsys.readouterr().err


def changed(line, **fields):
    return json.dumps(json.loads(line) | fields).encode()


def test_a_file_of_cells_that_lies_or_is_damaged_is_refused_in_a_sentence(small):
    events_of(small)
    path = small.folder / "cells.jsonl"
    lines = path.read_bytes().splitlines()
    cell = json.loads(lines[2])
    table = cell["profile"]
    wrong = [
        {"stage": "nothing"}, {"status": "fine"}, {"note": 3}, {"shape": None}, {"shape": [5, -1]}, {"shape": [4, 64]},
        {"profile": None}, {"profile": table[:-4]}, {"profile": "_" * len(table)},
        {"profile": "////" * (len(table) // 4)}, {"positions": [0, 1, 2, 3, 9]}, {"positions": [0, 0, 1, 2, 3]},
        {"positions": ["0", 1, 2, 3, 4]}, {"logits": [table]}, {"flipped": [9, 1, None, None]}, {"flipped": {}},
        {"percentiles": {"p50": "much"}}, {"worst": cell["worst"] * 2}, {"worst": [[7, 0, 1.0, 2.0]]},
        {"worst": [[0, 1 << 40, 1.0, 2.0]]}, {"worst": [[0, 0, 1e300, 2.0]]}, {"worst": [[0, 0, "x", 2.0]]},
        {"worst": 5}, {"worst": [[0, 0, True, 2.0]]}, {"flipped": [1, 9, [], None]},
    ]  # fmt: skip
    for fields in wrong:
        path.write_bytes(b"\n".join([*lines[:2], changed(lines[2], **fields), *lines[3:]]))
        with pytest.raises(StoreError, match=r"cells\.jsonl, line 3, is damaged; remove the file"):
            read_kept(path)
    rng = np.random.default_rng(0)
    content, head = b"\n".join(lines), json.loads(lines[0])
    unknown = changed(lines[0], b=head["b"] | {"config": head["b"]["config"] | {"architecture": "nosuch"}})
    for damaged in (
        unknown,
        b"\n" * (32 << 20),
        b"",
        lines[0],
        b"\n".join(lines[:-1]),
        content + b"\n{}",
        b"[" * 100_000,
        content[:-9],
    ):
        path.write_bytes(damaged)
        with pytest.raises(StoreError):
            events_of(small)
    for _ in range(20):
        place = int(rng.integers(len(content)))
        path.write_bytes(content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :])
        try:
            for each in read_kept(path).cells:
                each.measures()
        except StoreError:
            continue
