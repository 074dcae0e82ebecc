"""Statistics of one run: against the textbook, from a run and from its store, and what two tables of them can say."""

import codecs
import io
import json
import math
import os
import re
import shutil

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kernels.models import sites
from kernels.moments import moments
from kernels.stages import SPINE, Site
from kernels.statistics import Statistics, statistics
from store.traces.open import open_trace
from store.traces.statistics_table import FIGURES, StatisticsTable, possible
from tests.unit.test_structure import ROOT
from workbench.__main__ import run
from workbench.cli.statistics import LiveTable, sparkline
from workbench.demo import MODEL

SCHEMA = json.loads((ROOT / "workbench/schemas/compare.schema.json").read_text())
TOKENS = "482,803,10,67,14"
CELL_KEYS = ["layer", "stage", "shape", *FIGURES, "nan", "inf", "zero", "worst_channel"]
ENGINE = ROOT / "tests/golden/llama-cpp-tiny-qwen2-q4_k_m.npz"
SPECIAL = st.floats(width=32, allow_subnormal=True)
TENSORS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=SPECIAL)
)


def of(values):
    return statistics(moments(values), values.shape[1])


def textbook(values):
    """Every definition written out, with exactly rounded sums."""
    flat = [float(x) for x in values.ravel()]
    finite = [x for x in flat if math.isfinite(x)]
    counts = {
        "nan": sum(map(math.isnan, flat)),
        "inf": sum(map(math.isinf, flat)),
        "zero": sum(x == 0 for x in flat),
    }
    if not finite:
        return counts | dict.fromkeys((*FIGURES, "worst_channel"))
    n = len(finite)
    mean = math.fsum(finite) / n
    peak = max(map(abs, finite))
    place = next(i for i, x in enumerate(flat) if math.isfinite(x) and abs(x) == peak)
    return counts | {
        "min": min(finite),
        "max": max(finite),
        "mean": mean,
        "std": math.sqrt(math.fsum((x - mean) ** 2 for x in finite) / n),
        "rms": math.sqrt(math.fsum(x * x for x in finite) / n),
        "worst_channel": place % values.shape[1],
    }


@given(TENSORS)
@settings(max_examples=200)
def test_every_figure_is_its_textbook_definition(values):
    found, expected = of(values), textbook(values)
    size = max((abs(expected[name]) for name in ("min", "max") if expected[name] is not None), default=0.0)
    assert found.shape == values.shape
    for name, value in expected.items():
        got = getattr(found, name)
        if value is None or name not in FIGURES:
            assert got == value, name
        else:
            assert got == pytest.approx(value, rel=1e-12, abs=1e-14 * size), name


WIDE = hnp.array_shapes(min_dims=2, max_dims=2, max_side=5).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-1e150, 1e150))
)


@given(st.one_of(TENSORS, WIDE))
@settings(max_examples=300)
def test_no_figures_of_values_are_called_contradictory(values):
    assert possible("it", of(values)) == of(values)


def test_float64_keeps_what_float32_has_no_room_for():
    found = of(np.array([[1e300, 1.0, -1e-300, np.nan]]))
    assert (found.max, found.min, found.nan, found.inf) == (1e300, -1e-300, 1, 0)
    assert found.rms is None  # its square is beyond float64: not known, rather than infinite
    assert of(np.array([[0.1, 0.2]])).max == 0.2


def test_a_token_has_the_same_bits_alone_and_on_any_number_of_threads(monkeypatch):
    values = np.random.default_rng(1).standard_normal((64, 9000)).astype(np.float32)
    whole = moments(values)
    monkeypatch.setattr("kernels.machine.parallel.thread_count", lambda: 5)
    assert moments(values).tobytes() == whole.tobytes()
    assert b"".join(moments(row[None]).tobytes() for row in values) == whole.tobytes()


def test_a_course_over_layers_is_drawn_between_its_ends():
    assert sparkline([1.0, 10.0, 100.0], 9) == "▁▅█"
    assert sparkline([0.0, None, 5.0, 5.0], 9) == "▁?▁▁"
    assert len(sparkline([float(n) for n in range(1, 81)], 20)) == 20


class Terminal(io.StringIO):
    """A terminal that understands what the live table sends it: up, erase to the end of the line, new line."""

    def isatty(self):
        return True

    def screen(self):
        lines, row, column = {}, 0, 0
        for up, erase, text in re.findall(r"\x1b\[(\d+)A|(\x1b\[K)|([^\x1b])", self.getvalue()):
            if up:
                row -= int(up)
            elif erase:
                lines[row] = lines.get(row, "")[:column]
            elif text in "\r\n":
                row, column = row + (text == "\n"), 0
            else:
                lines[row] = lines.get(row, "").ljust(column)[:column] + text + lines.get(row, "")[column + 1 :]
                column += 1
        return [lines.get(n, "").rstrip() for n in range(max(lines) + 1)], row


def test_the_live_table_fills_stays_on_the_screen_and_goes(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr("workbench.cli.statistics._INTERVAL", 0.0)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 12)))
    with LiveTable("all 5 tokens") as live:
        for done, site in enumerate(sites(3, SPINE), 1):
            live.add(site, Statistics((5, 8), -1.0, 1.0, 0.0, 0.5 * done, 0.5, 0, 0, 0, 3))
            live(done, 51, str(site))
            shown, row = terminal.screen()
            assert row < 12
            assert max(map(len, shown)) < 80
        assert shown[0].startswith("Statistics over all 5 tokens   51/51  lm_head")
        assert shown[3].split() == ["attn_norm", "2", "17", "-1", "1", "3", "▁▆█"]
    assert terminal.screen() == ([""] * 11, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of the shipped model as a store, and its statistics over all tokens and over the last."""
    folder = tmp_path_factory.mktemp("statistics")
    shutil.copy(MODEL, folder / "model.gguf")
    return folder


@pytest.fixture
def tables(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for scope in ("all", "last"):
        if not (place / f"{scope}.json").exists():
            command = ["trace", "model.gguf", "--tokens", TOKENS, "--stats", "--scope", scope, "-o", f"{scope}.h5"]
            assert run([*command, "--json"]) == 0
            (place / f"{scope}.json").write_text(capsys.readouterr().out)
    return place


def changed(path, new, **changes):
    """A copy of a table with the figures of some cells changed: stage=function of the cell."""
    record = json.loads(path.read_text())
    for cell in record["cells"]:
        if cell["stage"] in changes:
            changes[cell["stage"]](cell)
    (path.parent / new).write_text(json.dumps(record))
    return new


def test_the_json_is_the_contract_and_the_same_from_the_store(tables, capsys):
    record = json.loads((tables / "all.json").read_text())
    assert list(record) == ["artifact", "path", "tokens", "scope", "cells"]
    assert record["tokens"] == [482, 803, 10, 67, 14]
    assert (record["path"], record["scope"]) == ("ggml", "all")
    assert all(list(cell) == CELL_KEYS for cell in record["cells"])
    assert (record["cells"][0]["layer"], record["cells"][0]["shape"]) == (None, [5, 256])
    trace = open_trace(tables / "all.h5")
    for site, cell in zip(trace.sites(), record["cells"], strict=True):
        expected = textbook(trace.read(site))
        assert {name: cell[name] for name in expected} == pytest.approx(expected, rel=1e-12), site
    for scope in ("all", "last"):
        assert run(["inspect", "all.h5", "--stats", "--scope", scope, "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert again | {"artifact": None} == json.loads((tables / f"{scope}.json").read_text()) | {"artifact": None}
    assert again["cells"][-1]["shape"] == [1, 2048]


def test_without_a_terminal_the_table_is_plain_text(tables, capsys):
    assert run(["trace", "model.gguf", "--tokens", TOKENS, "--stats", "--scope", "last"]) == 0
    out, err = capsys.readouterr()
    assert "Statistics over last token (4)" in out
    assert "\x1b" not in out + err
    assert out.count("\nlayer ") == 6
    assert "std over layers 0 to 5" in out
    assert run(["inspect", "last.json"]) == 0
    assert capsys.readouterr().out.split("\n", 1)[1] == out.split("\n", 1)[1]


def test_an_engines_own_values_have_numpys_statistics(tmp_path, capsys):
    with np.load(ENGINE) as recorded:
        values = {int(key.split(".")[0]): recorded[key] for key in recorded.files if key.endswith(".ffn_out")}
    np.savez(tmp_path / "dump.npz", **{f"stage|{layer}|ffn_out": tensor for layer, tensor in values.items()})
    assert run(["inspect", str(tmp_path / "dump.npz"), "--stats", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["layer"] for cell in cells] == sorted(values)
    for cell in cells:
        wide = values[cell["layer"]].astype(np.float64)
        assert cell["shape"] == list(wide.shape)
        assert cell["std"] == pytest.approx(wide.std(), rel=1e-12)
        assert cell["worst_channel"] == np.abs(wide).max(axis=0).argmax()


def test_a_folder_that_tells_no_shapes_is_shown_as_far_as_it_goes(tables, capsys):
    command = ["trace", "model.gguf", "--tokens", TOKENS, "--save-tensor", "ffn_out,lm_head", "--format", "aprt"]
    assert run([*command, "-o", "folder"]) == 0
    capsys.readouterr()
    for scope, known in (("all", True), ("last", False)):
        assert run(["inspect", "folder", "--stats", "--scope", scope, "--json"]) == 0
        first, *_, logits = json.loads(capsys.readouterr().out)["cells"]
        assert (first["std"] is not None, first["nan"] is not None) == (known, known)
        assert logits["std"] == json.loads((tables / "last.json").read_text())["cells"][-1]["std"]
        assert first["shape"] is first["worst_channel"] is logits["shape"] is None


def double(cell):
    for name in FIGURES:
        cell[name] *= 3


def shift_channel(cell):
    cell["worst_channel"] += 1


def one_nan(cell):
    cell["nan"] = 1


def lose_shape(cell):
    cell["shape"] = None


def a_little(cell):
    cell["std"] *= 1.01


def some_steps(cell):
    cell["max"] += 6e-7 * max(abs(cell["min"]), abs(cell["max"]))


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"ffn_out": some_steps, "lm_head": some_steps}, 0, "99 of 99 cells compared, 99 with the same figures"),
        ({}, 0, "99 of 99 cells compared, 99 with the same figures"),
        ({"ffn_up": double}, 1, "the first is layer 0 ffn_up, std ratio A/B 0.3333"),
        ({"lm_head": one_nan}, 1, "0 NaN and 0 Inf in A, 1 and 0 in B"),
        ({"q_post_rope": shift_channel}, 2, "the largest value is in channel"),
        ({"attention": a_little}, 2, "statistics do not tell whether that is rounding"),
        ({"attention": lose_shape}, 2, "B does not say how many values its figures cover"),
    ],
)
def test_two_tables_say_what_differs_and_that_they_cannot_know_more(tables, capsys, change, status, words):
    other = changed(tables / "all.json", "other.json", **change)
    assert run(["compare", "all.json", other]) == status
    out, err = capsys.readouterr()
    assert words in out + err
    assert "Statistics hold no elements" in out
    assert run(["compare", "all.json", other, "--json"]) == status
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    assert record["statistics_only"] is True
    assert ("error" in record) == (status == 2)


ABOVE_ZERO = {"layer": None, "stage": "embedding", "shape": [5, 256], "min": 1.0, "max": 2.0, "zero": 0}


def without_logits(record):
    return record | {"cells": record["cells"][:-1]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record | {"tokens": [1, 2, 3]}, "different tokens"),
        (lambda record: record | {"scope": "last"}, "A covers all tokens and B the last token"),
        (without_logits, "lm_head is not there on both sides"),
        (lambda record: record | {"cells": []}, "nothing was compared"),
        (lambda record: record | {"scope": "some"}, "names no scope"),
        (lambda record: record | {"cells": record["cells"] * 2}, "twice"),
        (lambda record: record | {"cells": [record["cells"][0] | {"std": "x"}]}, "is no number"),
        (lambda record: record | {"cells": [record["cells"][0] | {"std": math.nan}]}, "is no number"),
        (lambda record: record | {"cells": [record["cells"][0] | {"std": 10**400}]}, "is no number"),
        (lambda record: record | {"cells": [record["cells"][0] | {"rms": -1}]}, "negative"),
        (lambda record: record | {"cells": [record["cells"][0] | {"min": 5, "max": -5}]}, "contradict"),
        (lambda record: record | {"cells": [record["cells"][0] | {"mean": 500}]}, "contradict"),
        (lambda record: record | {"cells": [record["cells"][0] | {"std": 1e9, "rms": 1e9}]}, "contradict"),
        (
            lambda record: record | {"cells": [record["cells"][0] | {"rms": 1e-9, "mean": 1e-3}]},
            "is less than the mean",
        ),
        (
            lambda record: record | {"cells": [record["cells"][0] | {"rms": 1e9}]},
            "embedding contradicts itself, the RMS",
        ),
        (
            lambda record: record | {"cells": [record["cells"][0] | {"nan": 900, "zero": 900}]},
            "more NaN, Inf and zeros",
        ),
        (lambda record: record | {"cells": [record["cells"][0] | {"nan": 1280}]}, "no value is finite"),
        (lambda record: record | {"cells": [record["cells"][0] | {"worst_channel": 256}]}, "channel is 256 of 256"),
        (lambda record: record | {"cells": [ABOVE_ZERO | {"zero": 3}]}, "counts zeros, and 0 is not between min 1 and"),
        (lambda record: record | {"cells": [record["cells"][0] | {"nan": 10**9}]}, "no count"),
        (lambda record: record | {"cells": [record["cells"][0] | {"shape": [0, 4]}]}, "shape"),
        (lambda record: record | {"cells": [record["cells"][0] | {"stage": "\x1b[2J"}]}, "without a known layer"),
    ],
)
def test_unlike_populations_and_damage_are_one_sentence(tables, capsys, change, words):
    (tables / "other.json").write_text(json.dumps(change(json.loads((tables / "all.json").read_text()))))
    assert run(["compare", "all.json", "other.json"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_tables_are_read_as_shells_of_windows_write_them(tables, capsys, encoding):
    text = (tables / "all.json").read_text()
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tables / "windows.json").write_bytes(mark + text.replace("\n", "\r\n").encode(encoding))
    assert run(["compare", "all.json", "windows.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"] == 99
    (tables / "windows.json").write_bytes(mark + text[: len(text) // 2].encode(encoding))
    assert run(["inspect", "windows.json"]) == 2
    err = capsys.readouterr().err
    assert f"windows.json is text in {'UTF-8' if encoding == 'utf-8-sig' else 'UTF-16'}" in err
    assert "and no whole table of statistics" in err
    assert err.count("\n") == 1


def test_statistics_are_not_compared_with_what_they_are_not(tables, capsys):
    for other, words in (("model.gguf", "--stats --json"), ("all.h5", "--stats --json")):
        assert run(["compare", "all.json", other]) == 2
        assert words in capsys.readouterr().err
    for pair in (["all.json", "gone.json"], ["gone.json", "all.json"]):
        assert run(["compare", *pair]) == 2
        assert "gone.json does not exist" in capsys.readouterr().err
    assert run(["compare", "all.json", "all.json", "--scope", "last"]) == 2
    assert "leave out --scope" in capsys.readouterr().err
    assert run(["bisect", "all.json", "model.gguf"]) == 2
    assert "holds statistics only, which inspect and compare take" in capsys.readouterr().err
    assert run(["inspect", "model.gguf", "--stats"]) == 2
    assert run(["inspect", "all.h5", "--scope", "last"]) == 2
    assert run(["inspect", "all.json", "--stats", "--scope", "last"]) == 2
    assert "holds statistics of --scope all only" in capsys.readouterr().err


def apr_stats(values):
    """As apr computes them: float32 figures, the spread of a sample, everything counted."""
    finite = values[np.isfinite(values)].astype(np.float64)
    figures = {"min": finite.min(), "max": finite.max(), "mean": finite.mean(), "std_dev": finite.std(ddof=1)}
    return {name: float(np.float32(value)) for name, value in figures.items()} | {
        "nan_count": int(np.isnan(values).sum()),
        "inf_count": int(np.isinf(values).sum()),
        "zero_count": int((values == 0).sum()),
        "count": values.size,
    }


def apr_record(store, rows):
    """What `apr trace --payload --json` prints of a run, for the rows that it covers."""
    trace = open_trace(store)
    names = {"qkv": "qkv_bias", "output": "post_ffn_residual"}
    keys = ("attn_norm", "qkv", "attn_out", "ffn_norm", "ffn_out", "output")
    sites = {(site.layer, site.stage): site for site in trace.sites()}

    def of_stage(layer, stage, kept=rows):
        return apr_stats(trace.read(sites[layer, stage])[kept])

    return {
        "format": "GGUF",
        "architecture": "qwen2",
        "num_layers": 6,
        "hidden_dim": 256,
        "vocab_size": 2048,
        "encoded_tokens": list(trace.tokens),
        "embedding": of_stage(None, "embedding"),
        "layers": [{"layer_idx": n} | {key: of_stage(n, names.get(key, key)) for key in keys} for n in range(6)],
        "final_norm": of_stage(None, "final_norm"),
        "logits_stats": of_stage(None, "lm_head", slice(-1, None)),
    }


def test_apr_figures_of_the_last_token_are_those_of_ours(tables, capsys):
    (tables / "apr.json").write_text(json.dumps(apr_record("all.h5", slice(-1, None))))
    assert run(["compare", "apr.json", "last.json", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["compared"] == 39
    cell = next(c for c in record["cells"] if (c["layer"], c["stage"]) == (3, "qkv_bias"))
    assert cell["a"]["shape"] == [1, 384]
    assert cell["a"]["std"] == pytest.approx(cell["b"]["std"], rel=1e-6)
    assert any("sample" in note for note in record["notes"])
    assert run(["compare", "apr.json", "all.json"]) == 2
    assert "A covers the last token and B all tokens" in capsys.readouterr().err


def test_apr_figures_of_all_tokens_have_a_last_token_of_logits(tables, capsys):
    (tables / "apr.json").write_text(json.dumps(apr_record("all.h5", slice(None))))
    assert run(["compare", "apr.json", "all.json"]) == 2
    assert "lm_head: A covers 1 × 2048 values, B covers 5 × 2048 values" in capsys.readouterr().err


def test_the_spread_of_a_sample_is_converted_by_the_count_of_finite_values_only(tables, capsys):
    record = apr_record("all.h5", slice(-1, None))
    values = np.float32([[1, np.nan, 2, np.inf, 4, 0] + [0.5] * 250])
    record["embedding"] = apr_stats(values)
    record["final_norm"] |= dict.fromkeys(("min", "max", "mean", "std_dev"), 0.0) | {"nan_count": 256, "zero_count": 0}
    del record["layers"][2]["ffn_out"]["count"]
    (tables / "apr.json").write_text(json.dumps(record))
    assert run(["inspect", "apr.json", "--json"]) == 0
    cells = {(cell["layer"], cell["stage"]): cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    expected = textbook(values)
    found = cells[None, "embedding"]
    assert {k: found[k] for k in ("std", "rms")} == pytest.approx({k: expected[k] for k in ("std", "rms")}, rel=1e-6)
    assert [cells[None, "final_norm"][name] for name in (*FIGURES, "nan")] == [None] * 5 + [256]
    assert (2, "ffn_out") not in cells


IMPOSSIBLE = apr_stats(np.float32([[-1, 1] * 128])) | {"mean": 5.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": [1]}, "no list of objects"),
        ({"layers": []}, "does not tell how many tokens"),
        ({"encoded_tokens": [1, -2]}, "no token ids"),
        ({"hidden_dim": 128}, "which is neither all nor the last"),
        ({"stats_source": "metadata-only"}, "--payload --json"),
        ({"embedding": {"count": 4, "nan_count": 9, "inf_count": 0, "zero_count": 0}}, "more special values"),
        ({"embedding": {"count": 4}}, "does not count"),
        ({"embedding": IMPOSSIBLE}, "embedding contradicts itself, the mean 5 is not between min -1 and max 1; trace"),
    ],
)
def test_damaged_figures_of_apr_are_one_sentence(tables, capsys, change, words):
    (tables / "apr.json").write_text(json.dumps(apr_record("all.h5", slice(-1, None)) | change))
    assert run(["inspect", "apr.json"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_model_without_biases_has_apr_s_projection_under_its_own_name():
    product, biased = Site(0, "qkv_matmul"), Site(0, "qkv_bias")
    apr = StatisticsTable(None, None, None, None, "last", {biased: Statistics((1, 4))}, with_bias=True)
    for there, name in (([product], product), ([product, biased], biased)):
        ours = StatisticsTable(None, None, None, None, "last", dict.fromkeys(there, Statistics((1, 4))))
        assert list(apr.named_as(ours).cells) == [name]
