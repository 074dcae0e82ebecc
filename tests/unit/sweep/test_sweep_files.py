"""The file of a sweep, what it says together, and the recipe that is made of it."""

import errno
import itertools
import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

import workbench
from kernels.errors import WorkbenchError
from store.errors import StoreError
from workbench.__main__ import run
from workbench.demo import MODEL, make_copy
from workbench.sweep.recipe import recipe, wanted
from workbench.sweep.results import appending, read_lines
from workbench.sweep.tally import Tally

SIDE = {"path": "/m/a.gguf", "format": "gguf", "sha256": "0" * 64, "numeric_path": "ggml", "size": 10_000}
SCHEMA = Path(workbench.__file__).parent / "schemas" / "sweep.schema.json"
FIGURES = {"p50": 0.0, "p90": 0.0, "p99": 0.0, "top1": 1.0, "flips": 0, "kl_floor": 1e-6, "pair": "0"}
# Three layers and a head whose name is a part of other names: bytes in A and B, and what B's cost.
TENSORS = {
    "output.weight": (4000, 2000, 0.02),
    "blk.0.attn_output.weight": (1000, 500, 0.001),
    "blk.1.attn_output.weight": (1000, 500, 0.03),
    "blk.11.attn_output.weight": (1000, 500, 0.004),
    "blk.1.attn_norm.weight": (100, 100, 0.0),
}


def line(unit, kl=0.0, **more):
    bins = {"zero": 1} if not kl else {"-100": 1}
    return {"unit": unit, "kl": kl, "max": kl, "tokens": 1, "bins": bins} | FIGURES | more


def whole(prompt=0, **more):
    about = {"a": SIDE, "b": SIDE, "ids": [1], "text": None, "by": "tensor", "floor_path": "f64"}
    return line({"prompt": prompt}, 0.05, units=6, prompts=1, worst_token=0, **about) | more


def lines(prompt=0):
    for name, (a, b, kl) in TENSORS.items():
        types = ("F32", "F32") if "norm" in name else ("Q8_0", "Q4_0")
        sides = {s: {"type": t, "bytes": n} for s, t, n in zip("ab", types, (a, b), strict=True)}
        yield line({"tensor": name, "prompt": prompt}, kl, stored={"name": name, "elements": 1000} | sides)
    yield whole(prompt)


def written(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("kept", range(6))
def test_a_recipe_keeps_what_costs_most_for_its_size_and_never_more(kept):
    size = 10_000 - 3500 + 500 * kept
    found = recipe(Tally(lines()), str(size), "kl")
    assert found.size <= size
    assert found.size == 10_000 - sum(a - b for name, (a, b, _) in TENSORS.items() if name in _names(found.given))
    best = min(
        sum(TENSORS[name][2] for name in set(TENSORS) - set(chosen))
        for number in range(6)
        for chosen in itertools.combinations(TENSORS, number)
        if sum(TENSORS[name][0 if name in chosen else 1] for name in TENSORS) + 2900 <= size
    )
    assert found.loss == pytest.approx(best)  # here what costs most per byte first is best


def test_a_floor_that_is_no_number_is_said_to_be_unknown_and_answers_nothing(tmp_path, capsys):
    unit = {"tensor": "output.weight", "prompt": 0}
    stored = {"name": "output.weight", "elements": 9} | {side: {"type": "F32", "bytes": 36} for side in "ab"}
    still = [whole(kl=0.0, kl_floor=None, units=2), line(unit, 0.0, stored=stored) | {"kl_floor": None}]
    assert run(["sweep", str(written(tmp_path / "still.jsonl", still)), "--json"]) == 0  # nothing moves, whatever it is
    moved = [whole(kl_floor=None, units=2), line(unit, 0.02, stored=stored) | {"kl_floor": None}]
    path = str(written(tmp_path / "moved.jsonl", moved))
    capsys.readouterr()
    assert run(["sweep", path, "--json"]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert (found["different"], found["whole"]["kl_floor"], found["parts"][0]["kl_floor"]) == (False, None, None)
    assert found["prompts"][0]["shows"] is None
    assert "nothing tells what arithmetic alone costs" in said.err
    assert run(["sweep", path]) == 2
    said = capsys.readouterr().out
    assert "floor not known" in said
    assert "∞" not in said
    assert "of 1 it is not known" in said
    over = [*moved, line({"prompt": 1}, 0.05, **{k: v for k, v in whole().items() if k not in ("unit", "kl")})]
    assert run(["sweep", str(written(tmp_path / "over.jsonl", over))]) == 1  # a known floor on another prompt


def _names(choices):
    return {choice.name for choice in choices}


def test_its_lines_give_every_tensor_its_own_type_as_llama_quantize_reads_them():
    found = recipe(Tally(lines()), "7500", "kl")
    types = [line.removeprefix("--tensor-type ").split("=") for line in found.lines()]
    for name in TENSORS:
        first = next((type for pattern, type in types if re.search(pattern.lower(), name)), None)
        wants = "q8_0" if name in _names(found.kept) else "q4_0"
        assert first == (None if "norm" in name else wants), name
    assert {name for name in TENSORS if "norm" not in name} - _names(found.kept)


def test_sizes_are_bytes_or_bits():
    assert [wanted(text) for text in ("4.5", "400M", "1.5GiB", "123456")] == [
        *((4.5, True), (4e8, False), (1.5 * 2**30, False), (123456.0, False))
    ]
    assert recipe(Tally(lines()), "56.8", "kl").bits == pytest.approx(8 * 7100 / 5000)
    for text in ("", "x", "-3", "4.5.6"):
        with pytest.raises(WorkbenchError, match="is no size"):
            wanted(text)
    with pytest.raises(WorkbenchError, match="the smallest mixture of A and B has 6500 bytes"):
        recipe(Tally(lines()), "6000", "kl")
    with pytest.raises(WorkbenchError, match="sweep --by tensor"):
        recipe(Tally([line({"layer": 0, "prompt": 0}), whole()]), "4.5", "kl")


def test_experts_of_a_layer_are_one_tensor_of_the_file():
    sides = {"a": {"type": "Q8_0", "bytes": 10}, "b": {"type": "Q4_0", "bytes": 5}}
    stored = {"name": "blk.0.ffn_up_exps.weight", "elements": 8} | sides
    experts = [line({"tensor": f"e{n}", "prompt": 0}, 0.1, stored=stored) for n in range(4)]
    found = recipe(Tally([*experts, whole(units=5)]), "9980", "kl")
    assert [(c.name, c.bytes_b, pytest.approx(c.loss)) for c in found.given] == [("blk.0.ffn_up_exps.weight", 20, 0.4)]


def test_what_is_no_result_is_named_by_its_line(tmp_path):
    good = json.dumps(whole())
    for bad in ("{}", "nonsense", "[]", good.replace('"tokens": 1', '"tokens": 0'), good.replace("-100", "x")):
        path = tmp_path / "out.jsonl"
        path.write_text(f"{good}\n{bad}\n")
        with pytest.raises(StoreError, match=r"out.jsonl, line 2, is no result of a sweep"):
            list(read_lines(path))
    path.write_text(good + "\n" + good[:30])
    assert len(list(read_lines(path))) == 1


def test_a_line_is_written_whole_or_not_at_all_by_one_sweep_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(whole()) + "\n" + '{"unit"')
    really = os.write

    def full(handle, data):
        if len(data) > 20:
            return really(handle, data[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with appending(path, afresh=False) as results:
        with pytest.raises(WorkbenchError, match="another sweep is writing"), appending(path, afresh=False):
            pass
        results.append(whole(1))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left") as caught:
            results.append(whole(2))
    assert caught.value.filename == str(path)
    assert [record["unit"]["prompt"] for record in read_lines(path)] == [0, 1]


def test_two_files_put_together_count_a_unit_once_and_prompts_are_told_apart():
    twice = [*lines(), *lines(), whole(1, kl=1e-7, max=1e-7), whole(2, kl=None, max=None, bins={})]
    found = Tally(twice)
    assert found.done == 8
    assert found.rows["output.weight",].kl == 0.02
    assert {number: row.shows for number, row in found.prompts.items()} == {0: True, 1: False, 2: True}
    assert found.prompts[0].worst == (0.03, {"tensor": "blk.1.attn_output.weight"})
    assert found.whole.kl is None
    assert found.different


def test_a_file_is_shown_again(tmp_path, capsys):
    path = written(tmp_path / "out.jsonl", lines())
    assert run(["sweep", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "6 of 6 units, 1 of 1 prompts" in shown
    assert re.search(r"blk.1.attn_output.weight +Q8_0/Q4_0 +0.03 +3e\+04", shown)
    assert run(["sweep", str(path), "--recipe", "7500", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    assert record["recipe"]["bytes"] == 7500
    assert [row["tensor"] for row in record["parts"]][:2] == ["blk.1.attn_output.weight", "output.weight"]
    assert run(["sweep", str(path), "--resume"]) == 2
    assert "--resume belongs to two models" in capsys.readouterr().err


def test_an_unfinished_sweep_gives_no_all_clear_and_no_recipe(tmp_path, capsys):
    same = whole(kl=1e-7, max=1e-7, units=500)
    path = written(tmp_path / "out.jsonl", [same])
    assert run(["sweep", str(path)]) == 2
    assert "only 1 of 500 units are there; --resume does the rest" in capsys.readouterr().err
    assert run(["sweep", str(written(path, [same | {"units": 1}]))]) == 0
    assert run(["sweep", str(written(path, [same | {"kl": 0.1, "max": 0.1}]))]) == 1
    *most, _, head = lines()
    assert run(["sweep", str(written(path, [*most, head])), "--recipe", "7500"]) == 2
    said = capsys.readouterr()
    assert "a recipe is made of all 6 units, and 5 are there" in said.err
    assert "--tensor-type" not in said.out


def test_a_sweep_is_as_large_as_its_largest_head_and_by_one_kind_of_part():
    assert Tally([whole(), whole(1, prompts=3), whole(prompts=2)]).expected == 18
    with pytest.raises(WorkbenchError, match="--by different parts"):
        Tally([whole(), whole(1, by="layer")])


@pytest.mark.parametrize(
    "content", ['{"model": 1}', '{"unit": 1}', '{"unit', '{"a": 1}\n{"unit"', "GOOD\nthe end of my notes", "GOOD\n{}"]
)
def test_resuming_leaves_a_file_that_is_none_of_a_sweep_as_it_is(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content.replace("GOOD", json.dumps(whole())))
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"mine.json"), appending(path, afresh=False):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("figure", "bad"),
    [
        *(('"-100": 1', f'"{bin}": 1') for bin in (99999, 16384, -17301)),
        ('"-100": 1', '"-100": 2, "3": -1'),
        *(('"kl": 0.05', f'"kl": {kl}') for kl in ("1e999", "-1e999", f"1{'0' * 400}")),
        ('"units": 6', f'"units": 1{"0" * 3000}'),
    ],
)
def test_numbers_that_no_sweep_writes_are_refused(tmp_path, capsys, figure, bad):
    good = json.dumps(whole())
    assert figure in good
    path = tmp_path / "out.jsonl"
    path.write_text(good.replace(figure, bad) + "\n")
    assert run(["sweep", str(path)]) == 2
    assert "out.jsonl, line 1, is no result of a sweep" in capsys.readouterr().err


def test_the_lowest_and_highest_bins_are_numbers():
    for bin in ("-17300", "16383"):
        Tally([whole(bins={bin: 1})]).whole.to_json()


def test_what_is_asked_wrongly_is_a_sentence(tmp_path, capsys):
    texts = tmp_path / "prompts.txt"
    texts.write_text("def add(a, b):\n")
    out = tmp_path / "out.jsonl"
    out.write_text("")
    make_copy(tmp_path / "b.apr")
    pair = [str(MODEL), str(tmp_path / "b.apr")]
    for arguments, sentence in (
        ([*pair, "-o", str(out)], "either --prompts FILE or --tokens-file FILE"),
        ([*pair, "--prompts", str(texts)], "give -o OUT.jsonl"),
        ([*pair, "--prompts", str(texts), "-o", str(out)], "--resume goes on with it"),
        ([*pair, "--prompts", str(texts), "-o", str(texts), "--resume"], "is one of the files that this command reads"),
        ([str(tmp_path / "none.jsonl")], "does not exist; `workbench sweep A B -o"),
        ([*pair, "--prompts", str(texts), "-o", "o", "--workers", "2", "--cluster", "tcp://x:1"], "give one of them"),
    ):
        assert run(["sweep", *arguments]) == 2
        assert sentence in capsys.readouterr().err
