"""Padded vocabularies, tensors that nothing uses, names with something before them: copies that differ in nothing."""

import json

import numpy as np
import pytest

from kernels.forward import forward
from kernels.paths import numeric_path
from store.open import open_artifact, open_model
from tests.artifacts import tiny_model
from tests.foreign_dumps import write_stage_dump
from tests.gguf_files import change_type, write_gguf
from tests.hf_files import entries_of, float_tensor, hf_config, write_safetensors, write_safetensors_entries
from workbench.__main__ import run

TOKENS = "5,100,7,7,31"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PREFIXES = {
    "model.language_model.": "lm_head.weight",
    "language_model.model.": "language_model.lm_head.weight",
    "model.text_model.": "lm_head.weight",
    "base_model.model.model.": "base_model.model.lm_head.weight",
    "_orig_mod.model.": "_orig_mod.lm_head.weight",
    "module.model.": "module.lm_head.weight",
    "transformer.": "lm_head.weight",
}


def printed(arguments, capsys, status=0):
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def padded(model, rows, value=0.0):
    """The model with more rows in embedding and head."""
    wide = tiny_model(model.config.architecture, vocab=model.config.vocab_size + rows)
    wide.weights = dict(model.weights)
    for name in (EMBEDDING, HEAD):
        values = model.values()[name]
        wide.weights[name] = float_tensor(name, np.vstack([values, np.full((rows, values.shape[1]), value)]))
    return wide


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("copies"), tiny_model("qwen2")
    write_safetensors(folder / "plain", model)
    write_safetensors(folder / "padded", padded(model, 16))
    broken = padded(model, 16)
    name = "model.layers.1.mlp.up_proj.weight"
    broken.weights[name] = float_tensor(name, -broken.values()[name])
    write_safetensors(folder / "broken", broken)
    return folder


@pytest.mark.parametrize(("a", "b"), [("plain", "padded"), ("padded", "plain")])
def test_the_rows_that_both_have_are_compared(copies, capsys, a, b):
    pair = [copies / a, copies / b]
    found = printed(["bisect", *pair, "--tokens", TOKENS], capsys)
    assert found["verdict"] == "alike"
    assert any("rows 128 to 143, all zero" in note for note in found["notes"])
    compared = printed(["compare", *pair, "--tokens", TOKENS], capsys)
    assert (compared["compared"], compared["population"]["vocab_size"]) == (compared["expected"], 128)
    assert compared["cells"][-1]["shape"] == [5, 128]
    assert compared["cells"][-1]["logits"]["kl_b_a_max"] == 0
    tensors = {tensor["name"]: tensor for tensor in printed(["weights", *pair], capsys)["tensors"]}
    assert tensors[EMBEDDING]["status"] == tensors[HEAD]["status"] == "identical"
    assert "rows 128 to 143, all zero" in tensors[HEAD]["findings"][0]


def test_a_fault_beside_a_padded_vocabulary_is_found(copies, capsys):
    found = printed(["bisect", copies / "plain", copies / "broken", "--tokens", TOKENS], capsys, 1)
    assert (found["culprit"]["layer"], found["culprit"]["stage"]) == (1, "ffn_up")
    assert found["culprit"]["cause"] == "sign_flipped"


def test_a_token_of_the_padding_is_refused(copies, capsys):
    error = printed(["bisect", copies / "plain", copies / "padded", "--tokens", "1,130"], capsys, 2)["error"]
    assert "130" in error
    assert "127" in error


@pytest.mark.parametrize(("model", "recorded"), [("plain", "padded"), ("padded", "plain")])
def test_a_trace_of_the_padded_engine_is_checked_with_the_plain_model(copies, tmp_path, capsys, model, recorded):
    ids = tuple(map(int, TOKENS.split(",")))
    artifact = open_artifact(copies / recorded)
    stages = {site: y.astype(np.float32) for site, y in forward(artifact, ids, numeric_path("f32"))}
    write_stage_dump(tmp_path / "dump", stages, {"engine": "port", "tokens": list(ids), "dtype": "float32"})
    pair = [copies / model, tmp_path / "dump.npz"]
    found = printed(["bisect", *pair, "--path-a", "f32"], capsys)
    assert found["verdict"] in ("alike", "numerics_only")
    assert found["cells_checked"] > 30
    assert any("over 128" in note for note in found["notes"])
    compared = printed(["compare", *pair, "--path-a", "f32"], capsys)
    assert compared["cells"][-1]["shape"] == [5, 128]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_stands_before_all_names_is_taken_away_and_told(copies, tmp_path, capsys, prefix):
    model = tiny_model("qwen2")
    entries = {
        PREFIXES[prefix] if name == HEAD else name.replace("model.", prefix, 1): entry
        for name, entry in entries_of(model.weights).items()
    }
    tower = {"vision_tower.layers.0.self_attn.q_proj.weight": ("F32", (2, 2), bytes(16))}
    write_safetensors(tmp_path, model)
    write_safetensors_entries(tmp_path / "model.safetensors", entries | tower)
    found = printed(["bisect", copies / "plain", tmp_path, "--tokens", TOKENS], capsys)
    assert found["verdict"] == "alike"
    assert any("vision_tower.layers.0" in note for note in found["notes"])
    problems = printed(["inspect", tmp_path], capsys)["problems"]
    assert any(prefix.partition(".")[0] in problem for problem in problems)


def test_the_decoder_is_what_has_an_embedding_and_of_two_none_is_chosen(copies, tmp_path, capsys):
    model = tiny_model("qwen2")
    entries = entries_of(model.weights)
    write_safetensors(tmp_path, model)

    def stored(parts):
        write_safetensors_entries(tmp_path / "model.safetensors", parts)
        return ["bisect", copies / "plain", tmp_path, "--tokens", TOKENS]

    text = {f"text.{name}": entry for name, entry in entries.items()}
    tower = {f"tower.layers.{n}.input_layernorm.weight": ("F32", (2,), bytes(8)) for n in range(40)}
    assert printed(stored(text | tower), capsys)["verdict"] == "alike"
    other = {f"speech.{name}": entry for name, entry in entries.items()}
    error = printed(stored(text | other), capsys, 2)["error"]
    assert all(f"{part}.{EMBEDDING}" in error for part in ("text", "speech"))
    half = {
        name.replace("model.", "text.model.", 1) if "layers.1." in name else name: entries[name] for name in entries
    }
    assert "text.model.layers.1.input_layernorm.weight" in printed(stored(half), capsys, 2)["error"]


def test_a_text_model_within_another_has_its_own_settings(copies, tmp_path, capsys):
    model = tiny_model("qwen2")
    write_safetensors(tmp_path, model)
    config = {"model_type": "llava", "hidden_size": 7, "text_config": hf_config(model), "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert printed(["bisect", copies / "plain", tmp_path, "--tokens", TOKENS], capsys)["verdict"] == "alike"


def test_an_unused_tensor_of_one_side_is_told(tmp_path, capsys):
    model = tiny_model("qwen2")
    write_gguf(tmp_path / "a.gguf", model)
    model.weights["rope_freqs.weight"] = float_tensor("rope_freqs.weight", np.full(8, 2.0))
    write_gguf(tmp_path / "b.gguf", model)
    pair = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for command in ("bisect", "compare"):
        notes = printed([command, *pair, "--tokens", TOKENS], capsys)["notes"]
        assert any("rope_freqs.weight" in note and note.startswith("B carries") for note in notes), command
    record = printed(["weights", *pair], capsys, 1)
    assert [t["name"] for t in record["tensors"] if not t["in_band"]] == ["rope_freqs.weight"]


def test_weights_of_what_cannot_be_run_are_compared(tmp_path, capsys):
    model = tiny_model("llama")
    write_gguf(tmp_path / "a.gguf", model)
    write_gguf(tmp_path / "b.gguf", model, expert_count=8)
    write_safetensors(tmp_path / "c", model)
    (tmp_path / "c/config.json").write_text(json.dumps(hf_config(model) | {"model_type": "other"}))
    change_type(tmp_path / "b.gguf", "blk.1.ffn_up.weight", 24)
    for a, b in (("a.gguf", "b.gguf"), ("b.gguf", "c")):
        record = printed(["weights", tmp_path / a, tmp_path / b], capsys, 2)
        assert record["error"].startswith("1 of ")
        assert (record["expected"] - record["compared"], record["unknown"], record["outside_band"]) == (1, 1, 0)
        unread = next(tensor for tensor in record["tensors"] if tensor["in_band"] is None)
        assert (unread["name"], unread["status"]) == ("model.layers.1.mlp.up_proj.weight", "unread")
        assert "type I8 cannot be read yet" in unread["note"]
    record = printed(["weights", tmp_path / "b.gguf", tmp_path / "b.gguf"], capsys)  # told by the bytes alone
    assert (record["expected"] - record["compared"], record["unknown"]) == (0, 0)
    damaged = bytearray((tmp_path / "b.gguf").read_bytes())
    info = open_model(tmp_path / "b.gguf").info("model.layers.1.mlp.up_proj.weight")
    damaged[info.offset] ^= 1
    (tmp_path / "d.gguf").write_bytes(damaged)
    assert printed(["weights", tmp_path / "b.gguf", tmp_path / "d.gguf"], capsys, 2)["unknown"] == 1
    record = printed(["inspect", tmp_path / "b.gguf"], capsys)
    assert (record["runnable"], record["config"]["llama.expert_count"]) == (False, 8)
    assert "expert_used_count" in record["why_not"]
    assert run(["inspect", str(tmp_path / "b.gguf")]) == 0
    assert "It cannot be run:" in capsys.readouterr().out


def test_norms_that_a_converter_added_one_to_are_compared_as_what_they_multiply(tmp_path, capsys):
    """Of files that cannot be run; the post_attention_norm of this family is the norm behind attention."""
    model = tiny_model("qwen2")
    write_safetensors(tmp_path / "b", model)
    config = json.loads((tmp_path / "b/config.json").read_text()) | {"model_type": "gemma2"}
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    norms = [name for name in model.weights if name.endswith("norm.weight")]
    for name in norms:
        model.weights[name] = float_tensor(name, model.values()[name] + np.float32(1))
    object.__setattr__(model.config, "architecture", "gemma2")
    write_gguf(tmp_path / "a.gguf", model)
    tensors = printed(["weights", tmp_path / "a.gguf", tmp_path / "b"], capsys)["tensors"]
    assert {tensor["name"] for tensor in tensors} >= set(norms)
    assert all(tensor["status"] == "identical" or tensor["rel_rms"] < 1e-6 for tensor in tensors)


def test_a_shard_alone_is_compared_as_far_as_it_goes(copies, tmp_path, capsys):
    write_safetensors(tmp_path, tiny_model("qwen2"), shards=3)
    record = printed(["weights", copies / "plain", tmp_path / "model-00002-of-00003.safetensors"], capsys, 2)
    assert (record["compared"], record["expected"], record["outside_band"]) == (9, 27, 0)


def test_an_adapter_beside_a_model_is_named_where_it_could_be_the_difference(copies, tmp_path, capsys):
    write_safetensors(tmp_path, tiny_model("qwen2"))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    for command in ("bisect", "compare"):
        arguments = [command, copies / "plain", tmp_path, "--tokens", "1,2,3"]
        notes = printed(arguments, capsys)["notes"]
        assert any(note.startswith("B: ") and "an adapter (adapter_model.safetensors)" in note for note in notes)
