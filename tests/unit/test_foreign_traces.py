"""Importing the dumps of other engines: the values, the populations, and everything that a dump leaves unsaid."""

import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.kinds.rotate import Rotation
from kernels.ops import rotate
from kernels.stages import Site
from store.errors import StoreError
from store.traces.channels import halves_from_adjacent, rope_pairs, stage_channels
from store.traces.kind import is_trace
from store.traces.open import open_trace
from tests.artifacts import tiny_gguf, tiny_safetensors
from tests.foreign_dumps import run, write_aprt, write_aprt_file, write_llama_dump, write_stage_dump
from tests.gguf_files import interleaved_rows
from tests.memory_model import random_model, spine, with_optional
from tests.stores import MISSING, expected_values, run_record, write_store
from tests.stores import TOKENS as STORE_TOKENS

TOKENS = (5, 100, 7, 7, 31)
META = {"tokens": list(TOKENS), "transformers": "5.23.0", "dtype": "float32"}
ALL = tuple(range(len(TOKENS)))
QWEN2, LLAMA = random_model("qwen2"), random_model("llama", kv_heads=1, tied=True, seed=1)
STAGES = {model.config.architecture: run(model, TOKENS) for model in (QWEN2, LLAMA)}
MODELS = {"qwen2": QWEN2, "llama": LLAMA}


def assert_holds(trace, stages, positions=lambda site: ALL):
    """The trace has exactly these stages, at these positions, bit for bit."""
    assert trace.sites() == [site for site in spine(trace.layers) if site in stages]
    for site in trace.sites():
        rows = positions(site)
        assert trace.positions(site) == rows, site
        assert np.array_equal(trace.read(site), stages[site][list(rows)]), site
        assert trace.shape(site) == trace.read(site).shape
        assert np.array_equal(trace.stages[site].values(), trace.read(site))


def without(stages, *names):
    return {site: values for site, values in stages.items() if site.stage not in names}


# llama.cpp


@pytest.mark.parametrize("batches", [None, (1, 4), (2, 2, 1)])
@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_every_node_of_a_llama_cpp_dump_becomes_its_stage(tmp_path, architecture, flash, batches):
    model, stages = MODELS[architecture], STAGES[architecture]
    write_llama_dump(tmp_path / "dump", model, stages, TOKENS, batches=batches, flash=flash, kv="f16")
    trace = open_trace(tmp_path / "dump.npz")
    assert trace.engine == "llama.cpp"
    assert trace.tokens == TOKENS
    assert trace.settings == {"repack": 0, "flash": int(flash), "kv": "f16"}
    assert trace.observed["flash_attention"] == ("on" if flash else "off")
    assert trace.observed["type_k"] == trace.observed["type_v"] == "f16"
    assert trace.observed["batches"] == (batches or (5,))
    assert any("lash attention" in note for note in trace.notes) == flash
    assert_holds(trace.bind(TOKENS, model.config), without(stages, "ffn_silu"))


def test_of_a_product_with_bias_and_factor_the_last_node_is_the_stage(tmp_path):
    model = with_optional(random_model("llama", kv_heads=1))
    stages = run(model, TOKENS)
    write_llama_dump(tmp_path / "dump", model, stages, TOKENS)
    trace = open_trace(tmp_path / "dump.npz").bind(TOKENS, model.config)
    assert all(np.array_equal(trace.read(Site(n, "ffn_out")), stages[Site(n, "ffn_out")]) for n in (0, 1))


def test_silu_is_never_taken_from_a_recorder_that_computed_it_itself(tmp_path):
    write_llama_dump(tmp_path / "dump", QWEN2, STAGES["qwen2"], TOKENS)
    derived = {"repack": 0, "flash": 0, "kv": "f32", "tokens": list(TOKENS)}
    write_stage_dump(tmp_path / "pruned", STAGES["qwen2"], derived)
    for name in ("dump.npz", "pruned.npz"):
        trace = open_trace(tmp_path / name)
        assert trace.engine == "llama.cpp"
        assert trace.status(Site(0, "ffn_silu")) == "unmeasured"
        assert "fuses it into ffn_swigl" in trace.remarks[Site(0, "ffn_silu")]
        with pytest.raises(StoreError, match="fuses it into ffn_swigl"):
            trace.read(Site(0, "ffn_silu"))


def test_a_model_without_biases_has_no_bias_stage(tmp_path):
    write_llama_dump(tmp_path / "llama", LLAMA, STAGES["llama"], TOKENS)
    write_stage_dump(tmp_path / "hooks", STAGES["llama"], META)
    write_stage_dump(tmp_path / "other", STAGES["llama"], {"tokens": list(TOKENS)})
    bias = Site(1, "qkv_bias")
    assert open_trace(tmp_path / "llama.npz").status(bias) == "absent"
    assert open_trace(tmp_path / "hooks.npz").status(bias) == "absent"
    assert open_trace(tmp_path / "other.npz").status(bias) == "unmeasured"  # whoever wrote it did not say


def test_q_and_k_of_a_llama_model_keep_ggmls_order_until_the_model_is_given(tmp_path):
    stages = STAGES["llama"]
    write_llama_dump(tmp_path / "dump", LLAMA, stages, TOKENS)
    trace = open_trace(tmp_path / "dump.npz")
    site, other = Site(0, "q_post_rope"), Site(0, "attn_norm")
    assert trace.observed["rope_pairs"] == "adjacent"
    assert any("ggml's order" in note for note in trace.notes)
    assert not np.array_equal(trace.read(site), stages[site])
    assert np.array_equal(trace.read(other), stages[other])
    bound = trace.bind(TOKENS, LLAMA.config)
    assert bound.reordered
    assert [note for note in bound.notes if "order" in note] == [bound.notes[-1]]
    assert_holds(bound.bind(TOKENS, LLAMA.config), without(stages, "ffn_silu"))  # a second time changes nothing
    alone = trace.in_canonical_order(trace.observed["head_dim"], trace.observed["kv_size"])
    assert_holds(alone, without(stages, "ffn_silu"))
    with pytest.raises(StoreError, match="rotates the adjacent of its heads"):
        trace.bind(TOKENS, replace(LLAMA.config, architecture="qwen2"))


@pytest.mark.parametrize("batches", [None, (3, 2)])
@pytest.mark.parametrize("outputs", [(4,), (1, 3, 4), (0,)])
def test_rows_that_the_last_layer_dropped_keep_their_token_positions(tmp_path, outputs, batches):
    write_llama_dump(tmp_path / "dump", QWEN2, STAGES["qwen2"], TOKENS, batches=batches, outputs=outputs)
    trace = open_trace(tmp_path / "dump.npz").bind(TOKENS, QWEN2.config)
    order = spine(2)
    dropped = set(order[order.index(Site(1, "post_attn_residual")) :])
    assert_holds(trace, without(STAGES["qwen2"], "ffn_silu"), lambda site: outputs if site in dropped else ALL)
    assert f"positions {', '.join(map(str, outputs))} only" in trace.notes[-1]


def test_positions_that_cannot_be_known_are_not_made_up(tmp_path):
    stages = dict(STAGES["qwen2"])
    for site in (Site(1, "attn_out"), Site(0, "layer_output")):  # rows 1 and 4 cannot be told apart
        stages[site] = stages[site][[0, 1, 2, 3, 1]]
    write_llama_dump(tmp_path / "dump", QWEN2, stages, TOKENS, outputs=(4,))
    trace = open_trace(tmp_path / "dump.npz").bind(TOKENS, QWEN2.config)
    assert trace.positions(Site(None, "lm_head")) is None
    assert trace.shape(Site(None, "lm_head")) == (1, 128)


@pytest.mark.parametrize("flash", [False, True])
def test_one_token_is_one_row_of_every_node(tmp_path, flash):
    stages = run(QWEN2, (9,))
    write_llama_dump(tmp_path / "dump", QWEN2, stages, (9,), flash=flash)
    trace = open_trace(tmp_path / "dump.npz")
    assert any("cannot be told" in note for note in trace.notes)
    assert_holds(trace.bind((9,), QWEN2.config), without(stages, "ffn_silu"), lambda site: (0,))


def test_the_logits_of_the_api_stand_in_for_a_missing_last_node(tmp_path):
    stages = STAGES["qwen2"]
    write_llama_dump(tmp_path / "dump", QWEN2, stages, TOKENS)
    with np.load(tmp_path / "dump.npz") as dump:
        arrays = {name: value for name, value in dump.items() if "result_output" not in name}
    np.savez(tmp_path / "dump", logits=stages[Site(None, "lm_head")], **arrays)
    assert_holds(open_trace(tmp_path / "dump.npz"), without(stages, "ffn_silu"))


# Stage dumps


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stage_dump_is_read_as_it_was_written(tmp_path, dtype, compressed):
    stages = run(QWEN2, TOKENS, {"float32": "f32", "float64": "f64"}[dtype])
    write_stage_dump(tmp_path / "dump", stages, META | {"dtype": dtype}, compressed)
    trace = open_trace(tmp_path / "dump.npz")
    assert trace.engine == "transformers"
    assert trace.settings == {"transformers": "5.23.0", "dtype": dtype}
    assert {trace.dtype(site) for site in trace.sites()} == {dtype}
    assert trace.read(Site(0, "attn_norm")).dtype == dtype
    assert any("float64" in note for note in trace.notes) == (dtype == "float64")
    assert "computed again" in trace.remarks[Site(0, "qkv_matmul")]
    assert_holds(trace.bind(TOKENS, QWEN2.config), stages)


@pytest.mark.parametrize(
    ("tag", "dtype"), [("F64", "float64"), ("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16")]
)
def test_safetensors_stage_dumps_of_every_float_type(tmp_path, tag, dtype):
    bits = (np.arange(5 * 64, dtype=np.uint32) << 16 | 0x3F80_0000).view(np.float32).reshape(5, 64)
    stored = {"F64": bits.astype("<f8"), "F32": bits, "F16": bits.astype("<f2"), "BF16": bits.view("<u4") >> 16}[tag]
    raw = (stored.astype("<u2") if tag == "BF16" else stored).tobytes()
    tensors = {"stage|-1|embedding": {"dtype": tag, "shape": [5, 64], "data_offsets": [0, len(raw)]}}
    header = json.dumps({"__metadata__": {"__meta__": json.dumps(META)}} | tensors).encode()
    (tmp_path / "dump.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + raw)
    trace = open_trace(tmp_path / "dump.safetensors")
    site = Site(None, "embedding")
    assert trace.tokens == TOKENS
    assert trace.dtype(site) == dtype
    assert trace.positions(site) == ALL
    expected = bits.astype("<f2").astype(np.float32) if tag == "F16" else bits
    assert np.array_equal(trace.read(site), expected)


def test_bfloat16_arrays_of_an_npz_are_widened_exactly(tmp_path):
    values = STAGES["qwen2"][Site(None, "embedding")].view(np.uint32) >> 16
    np.savez(tmp_path / "dump", **{"stage|-1|embedding": values.astype("<u2").view("V2"), "__meta__": json.dumps(META)})
    trace = open_trace(tmp_path / "dump.npz")
    assert trace.dtype(Site(None, "embedding")) == "bfloat16"
    assert np.array_equal(trace.read(Site(None, "embedding")).view(np.uint32), values << 16)


def test_parts_of_qkv_are_joined_and_stages_without_a_place_are_named(tmp_path):
    whole = STAGES["qwen2"][Site(0, "qkv_bias")]
    parts = {f"stage|0|qkv_bias.{p}": v for p, v in zip("qkv", np.split(whole, [64, 96], axis=1), strict=True)}
    np.savez(tmp_path / "dump", **parts, **{"stage|0|moe_router": np.zeros((5, 4))})
    trace = open_trace(tmp_path / "dump.npz")
    assert np.array_equal(trace.read(Site(0, "qkv_bias")), whole)
    assert trace.engine == "unknown"
    assert "moe_router" in trace.notes[0]
    assert trace.tokens is None
    assert trace.positions(Site(0, "qkv_bias")) is None
    assert "token ids are not there" in trace.not_carried[0]
    assert trace.bind(TOKENS, QWEN2.config).positions(Site(0, "qkv_bias")) == ALL


# APRT and llama-debug


def test_an_aprt_folder_gets_its_rows_from_the_tokens_and_the_model(tmp_path):
    stages = STAGES["qwen2"]
    write_aprt(tmp_path, stages)
    write_aprt_file(tmp_path / "layer-1/attn_scores.bin", np.zeros(100, np.float32), 1)
    trace = open_trace(tmp_path)
    assert trace.engine == "apr"
    assert trace.tokens is None
    assert trace.settings == {}
    assert "attn_scores" in trace.notes[0]
    assert any("Shapes are not there" in text for text in trace.not_carried)
    with pytest.raises(StoreError, match="carries no record of its run"):
        trace.run.to_json()
    with pytest.raises(StoreError, match="does not say how long a row of layer 0 ffn_gate is"):
        trace.read(Site(0, "ffn_gate"))
    last = {Site(None, "lm_head"): (4,)}
    assert_holds(trace.bind(TOKENS, QWEN2.config), stages, lambda site: last.get(site, ALL))
    single = open_trace(tmp_path / "layer-1/ffn_out.bin")
    assert single.sites() == [Site(1, "ffn_out")]


def test_tokens_or_models_that_a_dump_is_not_of_are_refused(tmp_path):
    write_aprt(tmp_path / "aprt", STAGES["qwen2"])
    write_stage_dump(tmp_path / "dump", STAGES["qwen2"], META | {"architecture": "qwen2"})
    folder, dump = open_trace(tmp_path / "aprt"), open_trace(tmp_path / "dump.npz")
    with pytest.raises(StoreError, match="holds 5 rows of 64 channels where the prompt has 4 tokens"):
        folder.bind(TOKENS[:4], QWEN2.config)
    with pytest.raises(StoreError, match="holds 320 values, which are not whole rows of 48 channels"):
        folder.bind(TOKENS, replace(QWEN2.config, hidden_size=48))
    with pytest.raises(StoreError, match="holds 2 layers where the model has 1"):
        folder.bind(TOKENS, replace(QWEN2.config, num_hidden_layers=1))
    with pytest.raises(StoreError, match="token 100 at position 1, not 99"):
        dump.bind((5, 99, 7, 7, 31), QWEN2.config)
    with pytest.raises(StoreError, match="5 tokens, not 4"):
        dump.bind(TOKENS[:4], QWEN2.config)
    with pytest.raises(StoreError, match="qwen2 model, not from llama"):
        dump.bind(TOKENS, LLAMA.config)
    with pytest.raises(StoreError, match="layer 0 ffn_gate has 96 channels where the model has 128"):
        dump.bind(TOKENS, replace(QWEN2.config, intermediate_size=128))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"APRT", "less than the header"),
        (struct.pack("<4sII", b"APRT", 1, 3) + bytes(8), "20 bytes where its header tells 3 values"),
        (struct.pack("<4sII", b"APRT", 1, 0xFFFFFFFF), "12 bytes where its header tells 4294967295 values"),
        (struct.pack("<4sII", b"APRT", 0, 1) + bytes(4), "says it is of layer 0, but stands where layer 1"),
        (struct.pack("<4sII", b"XXXX", 1, 1) + bytes(4), "does not begin with APRT"),
    ],
)
def test_a_malformed_aprt_file_is_named(tmp_path, content, words):
    write_aprt(tmp_path, STAGES["qwen2"])
    (tmp_path / "layer-1/ffn_up.bin").write_bytes(content)
    with pytest.raises(StoreError, match=words) as error:
        open_trace(tmp_path)
    assert "layer-1/ffn_up.bin" in str(error.value)


def test_two_files_of_one_whole_model_stage_must_agree(tmp_path):
    write_aprt(tmp_path, STAGES["qwen2"])
    logits = STAGES["qwen2"][Site(None, "lm_head")][-1]
    write_aprt_file(tmp_path / "layer-0/lm_head.bin", logits, 0)
    assert Site(None, "lm_head") in open_trace(tmp_path).sites()
    write_aprt_file(tmp_path / "layer-0/lm_head.bin", logits + 1, 0)
    with pytest.raises(StoreError, match="hold different values of the same stage"):
        open_trace(tmp_path)


def test_saved_logits_are_those_of_the_last_token(tmp_path):
    logits = STAGES["qwen2"][Site(None, "lm_head")][-1]
    (tmp_path / "llamacpp-m.bin").write_bytes(logits.tobytes())
    assert not is_trace(tmp_path / "llamacpp-m.bin")  # nothing tells what it is without the token ids
    (tmp_path / "llamacpp-m-tokens.bin").write_bytes(np.array(TOKENS, "<i4").tobytes())
    trace = open_trace(tmp_path / "llamacpp-m.bin")
    assert trace.tokens == TOKENS
    assert trace.engine == "llama.cpp"
    assert_holds(trace.bind(TOKENS, QWEN2.config), {Site(None, "lm_head"): np.tile(logits, (5, 1))}, lambda site: (4,))
    assert trace.bind(TOKENS, replace(QWEN2.config, vocab_size=96)).config.vocab_size == 128  # one of them is padded
    with pytest.raises(StoreError, match="128 channels where the model has 96"):  # an embedding, and no logits
        trace.bind(TOKENS, replace(QWEN2.config, vocab_size=96, hidden_size=128))
    with pytest.raises(StoreError, match="holds token ids; give the file of the logits"):
        open_trace(tmp_path / "llamacpp-m-tokens.bin")
    (tmp_path / "llamacpp-m-tokens.bin").write_bytes(np.array([5, -1], "<i4").tobytes())
    with pytest.raises(StoreError, match="token id -1"):
        open_trace(tmp_path / "llamacpp-m.bin")


# What is a trace, and what is not


def test_models_are_no_traces_and_traces_are(tmp_path):
    tiny_gguf(tmp_path / "m.gguf")
    tiny_safetensors(tmp_path / "hf")
    write_aprt(tmp_path / "aprt", STAGES["qwen2"])
    write_stage_dump(tmp_path / "dump", STAGES["qwen2"], META)
    os.mkfifo(tmp_path / "pipe")
    for name in ("m.gguf", "hf", "hf/model.safetensors", "hf/config.json", "nothing", "pipe"):
        assert not is_trace(tmp_path / name), name
        with pytest.raises(StoreError):
            open_trace(tmp_path / name)
    assert is_trace(tmp_path / "aprt")
    assert is_trace(tmp_path / "dump.npz")


def test_the_checksum_covers_every_file_of_a_folder(tmp_path):
    write_aprt(tmp_path, STAGES["qwen2"])
    before = open_trace(tmp_path).sha256
    assert open_trace(tmp_path).sha256 == before
    changed = STAGES["qwen2"][Site(1, "ffn_up")].copy()
    changed[0, 0] += 1
    write_aprt_file(tmp_path / "layer-1/ffn_up.bin", changed, 1)
    assert open_trace(tmp_path).sha256 != before


# The order of channels


@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**32))
def test_reordering_channels_undoes_what_gguf_does_to_rows(heads, half, seed):
    weight = random_model(heads=heads, kv_heads=heads, head_dim=2 * half, hidden=4, seed=seed % 100).weight(
        "model.layers.0.self_attn.q_proj.weight"
    )
    ggml = interleaved_rows(weight, heads)
    order = halves_from_adjacent("q_post_rope", 2 * half * heads, 2 * half, 0)
    assert np.array_equal(ggml[order], weight.rows)


@given(st.sampled_from(["neox", "norm"]), st.integers(2, 6), st.integers(2, 16), st.integers(0, 2**32))
def test_the_pairs_that_rotate_together_are_told_from_the_tensors(rope, tokens, half, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, 4 * half))
    y = rotate(x, rng.uniform(0.5, 5, (tokens, half)), Rotation(2 * half, 1e4, rope))
    expected = "halves" if rope == "neox" else "adjacent"
    assert rope_pairs(x.astype(np.float32), y.astype(np.float32), 2 * half) == expected
    assert rope_pairs(x, x, 2 * half) is None
    partly = Rotation(4 * half, 1e4, rope, rotary_dim=2 * half)
    y = rotate(x, rng.uniform(0.5, 5, (tokens, half)), partly)
    assert rope_pairs(x, y, 4 * half) == expected
    assert rope_pairs(x, y * np.nan, 2 * half) is None


def test_every_stage_has_the_channels_that_the_forward_gives_it():
    model = random_model(heads=6, kv_heads=2, head_dim=10, hidden=44, ffn=52, vocab=32)
    channels = stage_channels(model.config)
    assert {site.stage: values.shape[1] for site, values in run(model, (1, 2)).items()} == channels


def test_our_own_stores_read_like_any_other_trace(tmp_path):
    write_store(tmp_path / "a.h5")
    trace = open_trace(tmp_path / "a.h5")
    assert trace.engine == "workbench"
    assert trace.tokens == STORE_TOKENS
    assert trace.config == trace.run.config == run_record().config
    assert trace.settings["numeric_path"] == "f32"
    assert trace.settings["sha256"] == "5" * 64
    assert trace.status(Site(0, MISSING)) == "absent"
    assert trace.status(Site(9, "attn_norm")) == "absent"
    for site in trace.sites():
        assert np.array_equal(trace.read(site), expected_values(site))
        assert trace.positions(site) == tuple(range(5))
    assert not is_trace(tmp_path / "b.h5")


@pytest.mark.parametrize("count", [1, 2])
def test_norms_of_the_heads_of_one_token_are_one_row(tmp_path, count):
    """Of one token llama.cpp's nodes do not write the axis of tokens."""
    heads = np.arange(32 * count, dtype=np.float32).reshape(count, 4, 8)
    nodes = {
        "00000|inp_embd|GET_ROWS": np.zeros((count, 16), np.float32),
        "00001|model.layers.{}.self_attn.q_layernorm-0|MUL": heads.squeeze(),
    }
    np.savez(tmp_path / "t.npz", __meta__=json.dumps({"tokens": list(range(count))}), **nodes)
    assert np.array_equal(open_trace(tmp_path / "t.npz").read(Site(0, "q_norm")), heads.reshape(count, 32))
