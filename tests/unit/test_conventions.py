"""How often a convention was applied: told by weights alone, beside another file, and by the command."""

import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType
from store.files.apr_writer import write_apr
from store.open import open_model
from tests.artifacts import apr_metadata, apr_tensors, tiny_model
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor, write_safetensors, write_safetensors_entries, write_safetensors_file
from tests.memory_model import MemoryModel
from workbench.__main__ import run
from workbench.conventions.ledger import ledgers
from workbench.conventions.plus_one import BF16, F16, F32, FEWEST, GRIDS, TIMES, plus_one
from workbench.conventions.rotary_order import in_pairs, likeness, orders

SCHEMA = json.loads((files("workbench") / "schemas" / "conventions.schema.json").read_text(encoding="utf-8"))
NORM = "norm.weight"


def trained(size: int, seed: int = 0) -> np.ndarray:
    """Norm weights as gemma has them in training, less 1: from about -1 up to hundreds, mostly a few, in bfloat16."""
    rng = np.random.default_rng(seed)
    return BF16.nearest(rng.lognormal(0.7, 1.0, size) - 1 + 0.3 * rng.standard_normal(size))


def added(values: np.ndarray, *kept: str) -> np.ndarray:
    """1 added once for every type that the sum was kept in."""
    for name in kept:
        values = GRIDS[name].nearest(values + 1)
    return values


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("times", TIMES)
def test_norms_show_how_often_1_was_added(stored, times):
    found = plus_one([added(GRIDS[stored].nearest(trained(640)), *[stored] * times)], stored)
    assert times in found.possible
    if (stored, times) != ("BF16", 2):  # where adding it twice in 8 bits leaves little to see
        assert found.possible == (times,)


def test_what_was_added_in_16_bits_and_again_in_32_shows_twice():
    assert plus_one([added(trained(640), "BF16", "F32")], "F32").possible == (2,)


def test_doubled_in_bfloat16_shows_in_many_layers_together():
    layers = [added(trained(640, seed), "BF16", "BF16") for seed in range(30)]
    assert all(plus_one([layer], "BF16").possible != (1,) for layer in layers)
    assert plus_one(layers, "BF16").possible == (2,)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (np.random.default_rng(0).lognormal(0, 1, 640), "F32"),  # trained in float32
        (BF16.nearest(1 + 0.1 * np.random.default_rng(0).standard_normal(640)), "BF16"),  # nothing below 1/2
        (np.ones(640), "F32"),
        (added(trained(FEWEST - 1), "F32"), "F32"),
        (np.full(640, np.nan), "F32"),
    ],
)
def test_norms_that_do_not_tell_are_not_told(values, stored):
    assert set(plus_one([F32.nearest(values)], stored).possible) >= {0, 1}


def test_weights_of_a_family_that_adds_nothing_show_0():
    values = F16.nearest(np.random.default_rng(0).lognormal(-1, 0.5, 640))
    assert plus_one([values], "F32").possible == (0,)
    assert plus_one([BF16.nearest(values)], "BF16").possible == (0,)


def rotating(heads: int, kv_heads: int, size: int, columns: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of q and k of which those that rotate together are alike, as attention learns them."""
    rng = np.random.default_rng(seed)
    k = rng.standard_normal((kv_heads, size, columns))
    q = rng.standard_normal((heads, size, columns)) + np.roll(
        np.repeat(k, heads // kv_heads, axis=0), size // 2, axis=1
    )
    return q.reshape(-1, columns), k.reshape(-1, columns)


def reordered(rows: np.ndarray, size: int, times: int) -> np.ndarray:
    return rows.reshape(-1, size, rows.shape[1])[:, in_pairs(size, times)].reshape(rows.shape)


@pytest.mark.parametrize("times", [(0, 0), (1, 1), (2, 2), (1, 0), (0, 1)])
def test_rows_show_how_often_they_were_put_into_pairs(times):
    q, k = (reordered(rows, 64, n) for rows, n in zip(rotating(8, 4, 64), times, strict=True))
    found = orders([likeness(q, k, 8, 4)])
    assert tuple(order.possible for order in found) == ((times[0],), (times[1],))


@pytest.mark.parametrize("seed", range(20))
def test_random_rows_show_nothing(seed):
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((8 * 32, 64)), rng.standard_normal((4 * 32, 64))
    assert [order.possible for order in orders([likeness(q, k, 8, 4)])] == [(), ()]


def gemma3(shift: int = 0) -> MemoryModel:
    """A small gemma3 with norms like trained ones, which should have the 1 once, and `shift` more."""
    model = tiny_model("gemma3", hidden=256, head_dim=64)
    norms = {
        name: float_tensor(name, F32.nearest(trained(weight.shape[0], seed) + 1 + shift))
        for seed, (name, weight) in enumerate(model.weights.items())
        if name.endswith(NORM)
    }
    return replace(model, weights=model.weights | norms)


def mlx(folder, model: MemoryModel) -> None:
    """A folder of bfloat16 whose norms hold the 1 already."""
    write_safetensors(folder, model)
    entries = {}
    for name, weight in model.weights.items():
        values = BF16.nearest(dequantize(weight).astype(np.float64)).astype(np.float32)
        entries[name] = ("BF16", weight.shape, (values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    write_safetensors_entries(folder / "model.safetensors", entries)


def written(tmp_path, container: str, model: MemoryModel):
    path = tmp_path / container
    if container == "gguf":
        write_gguf(path, model)
    elif container == "apr":
        write_apr(path, apr_metadata(model), apr_tensors(model))
    elif container == "mlx":
        mlx(path, model)
    else:
        write_safetensors(path, model)
    return path


def printed(arguments, capsys, status):
    assert run([*map(str, arguments), "--json"]) == status
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, SCHEMA)
    return record


CONTAINERS = ("gguf", "apr", "safetensors")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_healthy_copy_is_left_alone(container, tmp_path, capsys):
    record = printed(["conventions", written(tmp_path, container, gemma3())], capsys, 0)
    assert record["mistakes"] == []
    assert record["counts"]["as_said"] >= 10


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("shift", "words"), [(1, "applied twice to 13"), (-1, "never applied to 13")])
def test_a_1_doubled_or_missing_is_named_without_another_copy(container, shift, words, tmp_path, capsys):
    path = written(tmp_path, container, gemma3(shift))
    record = printed(["conventions", path], capsys, 1)
    if container != "gguf":  # where the 1 is taken off by who writes: one more is then one
        words = {1: "applied once to 13", -1: "subtracted once to 13"}[shift]
    assert record["mistakes"][0]["words"].startswith(f"+1 {words} norm tensors, as model.layers.0.")
    assert run(["conventions", str(path)]) == 1
    assert f"✗ +1 {words}" in capsys.readouterr().out


def test_norms_that_hold_the_1_already_are_named_in_an_mlx_folder(tmp_path, capsys):
    record = printed(["conventions", written(tmp_path, "mlx", gemma3())], capsys, 1)
    assert record["mistakes"][0]["words"].startswith("+1 applied once to")
    assert len(record["mistakes"][0]["tensors"]) >= 6
    beside = printed(["conventions", tmp_path / "mlx", "--against", written(tmp_path, "gguf", gemma3())], capsys, 1)
    assert len(beside["mistakes"][0]["tensors"]) == 13


def test_beside_another_file_every_norm_is_told_and_the_right_one_is_not_accused(tmp_path, capsys):
    right, twice = written(tmp_path, "apr", gemma3()), written(tmp_path, "gguf", gemma3(1))
    record = printed(["conventions", twice, "--against", right], capsys, 1)
    assert record["mistakes"][0]["words"].startswith("+1 applied twice to 13 norm tensors")
    assert {e["more"] for t in record["tensors"] for e in t["conventions"] if e["convention"] == "plus_one"} == {1}
    assert printed(["conventions", right, "--against", twice], capsys, 0)["mistakes"] == []


def test_rows_in_the_other_order_are_told_beside_another_file(tmp_path):
    model = tiny_model("llama", hidden=256, head_dim=64)
    write_gguf(tmp_path / "right.gguf", model)
    name = "model.layers.1.self_attn.q_proj.weight"
    rows = float_tensor(name, reordered(model.values()[name], 64, -1))
    write_gguf(tmp_path / "wrong.gguf", replace(model, weights=model.weights | {name: rows}))
    found, other = ledgers(*(open_model(tmp_path / f"{which}.gguf") for which in ("wrong", "right")))
    ((words, entries),) = found.differences()
    assert [(entry.tensor, entry.more) for entry in entries] == [(name, -1)]
    assert "once less than in right.gguf" in words
    assert [e.more for _, entries in other.differences() for e in entries] == [1]
    assert found.mistakes() == other.mistakes() == []  # the weights do not tell which of them is wrong


def test_pairs_put_twice_are_named_without_another_copy(tmp_path, capsys):
    model, weights = tiny_model("llama", hidden=256, head_dim=64), {}
    for layer in range(model.config.num_hidden_layers):
        for part, rows in zip("qk", rotating(4, 2, 64, 256, layer), strict=True):
            name = f"model.layers.{layer}.self_attn.{part}_proj.weight"
            weights[name] = float_tensor(name, reordered(rows, 64, 1))
    write_gguf(tmp_path / "twice.gguf", replace(model, weights=model.weights | weights))
    record = printed(["conventions", tmp_path / "twice.gguf"], capsys, 1)
    assert record["mistakes"][0]["words"].startswith("rows put twice into rotary pairs in 4 tensors of q and k")


def test_a_model_that_cannot_be_run_is_read(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    of_scan = {
        "model.layers.0.linear_attn.A_log": -np.exp(np.linspace(0, 2.7, 16)),
        "model.layers.0.input_layernorm.weight": trained(640),
    }
    write_safetensors_file(path, {name: float_tensor(name, values) for name, values in of_scan.items()})
    record = printed(["conventions", path], capsys, 1)
    assert not record["runnable"]
    assert [m["words"] for m in record["mistakes"]] == [
        "-exp taken once of 1 tensor, as model.layers.0.linear_attn.A_log (never is right)"
    ]
    norm = next(t for t in record["tensors"] if t["name"].endswith(NORM))
    assert norm["conventions"][0]["verdict"] == "as_said"


@pytest.mark.parametrize(("shift", "status"), [(0, 0), (1, 1), (-1, 1)])
def test_norms_of_qwen35_are_told_though_it_cannot_be_run(shift, status, tmp_path, capsys):
    model = gemma3(shift)
    of = replace(model, config=replace(model.config, architecture="qwen35", layer_types=None, rope_local_theta=None))
    write_gguf(tmp_path / "q.gguf", of)
    record = printed(["conventions", tmp_path / "q.gguf"], capsys, status)
    assert (record["architecture"], record["runnable"]) == ("qwen35", False)
    assert [m["words"].partition(", as")[0] for m in record["mistakes"]] == {
        0: [],
        1: ["+1 applied twice to 13 norm tensors"],
        -1: ["+1 never applied to 13 norm tensors"],
    }[shift]


def test_an_mlx_folder_of_a_family_that_cannot_be_run_is_told(tmp_path, capsys):
    mlx(tmp_path / "q", gemma3())
    (tmp_path / "q/config.json").write_text(json.dumps({"model_type": "qwen3_5_text"}))
    record = printed(["conventions", tmp_path / "q"], capsys, 1)
    assert record["mistakes"][0]["words"].startswith("+1 applied once to")


def test_a_file_without_tensors_has_no_answer(tmp_path, capsys):
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    assert run(["conventions", str(tmp_path / "no.gguf")]) == 2
    assert "no.gguf" in capsys.readouterr().err


def test_grids_are_those_of_numpy():
    values = np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-3, 7).repeat(100)
    assert np.array_equal(F32.nearest(values), values.astype(np.float32))
    small = values[np.abs(values) < 65000]
    assert np.array_equal(F16.nearest(small), small.astype(np.float16))
    assert TensorType["BF16"].format.mantissa == BF16.digits


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("gguf", "apr", "+1 applied once in B to 13 norm tensors"),
        ("safetensors", "mlx", "+1 applied once in B to 13 norm tensors"),
        ("apr", "gguf", "+1 applied twice in B to 13 norm tensors"),
    ],
)
def test_bisection_names_all_norms_at_once(right, wrong, words, tmp_path, capsys):
    model, sides = gemma3(), [tmp_path / "a", tmp_path / "b"]
    for side, container, shift in zip(sides, (right, wrong), (0, wrong != "mlx"), strict=True):
        side.mkdir()
        written(side, container, gemma3(shift) if shift else model).rename(side / "model")
    for a, b, named in ((*sides, words), (*sides[::-1], words.replace("in B", "in A"))):
        assert run(["bisect", str(a / "model"), str(b / "model"), "--tokens", "1,2,3", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["culprit"]["cause"] == "norm_offset"
        assert found["culprit"]["explanation"].startswith(f"{named}, as model.layers.0.input_layernorm.weight")
        assert len(found["others"]) == 12


def test_bisection_says_that_norms_differ_where_neither_file_tells_whose_mistake_it_is(tmp_path, capsys):
    model = tiny_model("gemma3", hidden=256, head_dim=64)
    norms = {name: float_tensor(name, x + np.float32(1)) for name, x in model.values().items() if name.endswith(NORM)}
    write_gguf(tmp_path / "a.gguf", model)
    write_gguf(tmp_path / "b.gguf", replace(model, weights=model.weights | norms))
    assert run(["bisect", str(tmp_path / "a.gguf"), str(tmp_path / "b.gguf"), "--tokens", "1,2,3"]) == 1
    text = capsys.readouterr().out
    assert "+1 added once more in B than in A, as both are read, in 13 tensors" in text
    assert "and 11 more of this cause" in text


def test_a_folder_and_a_gguf_of_qwen35_are_read_alike(tmp_path):
    model, name = gemma3(), "model.layers.0.post_attention_layernorm.weight"
    of = replace(model, config=replace(model.config, architecture="qwen35", layer_types=None, rope_local_theta=None))
    write_gguf(
        tmp_path / "q.gguf", replace(of, weights={n: w for n, w in of.weights.items() if "feedforward" not in n})
    )
    linear = "model.layers.0.linear_attn.norm.weight"
    write_safetensors_file(
        tmp_path / "model.safetensors",
        {
            name: float_tensor(name, model.values()[name] - np.float32(1)),
            linear: float_tensor(linear, np.ones(4)),
        },
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_5_text"}))
    read = [dequantize(open_model(path).weight(name)) for path in (tmp_path / "q.gguf", tmp_path)]
    assert np.array_equal(*read)
    assert np.array_equal(dequantize(open_model(tmp_path).weight(linear)), np.ones(4))
