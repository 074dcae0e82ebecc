"""LongRoPE: which of two rotary scalings a model is run with, and which one a trace is judged by."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.forward import forward
from kernels.paths import numeric_path
from kernels.stages import Site
from store.open import open_artifact
from tests.family_faults import TOKENS, Recorded, model_of
from tests.foreign_dumps import run, write_stage_dump
from tests.gguf_files import write_gguf
from tests.hf_files import float_tensor
from workbench.bisect.pair import bisect_pair
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.stages import Reader
from workbench.pair.pair import open_pair
from workbench.sweep import kept
from workbench.sweep.measuring import base, measured
from workbench.sweep.parts import Part
from workbench.sweep.planning import plan
from workbench.sweep.question import ask

SHORT, LONG = (9.0, 8.0, 7.0, 6.0, 5.0, 4.0), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
ORIGINAL = 64


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "m.gguf"
    model = model_of("phi3")
    for name, values in (("rope_factors_short.weight", SHORT), ("rope_factors_long.weight", LONG)):
        model.weights[name] = float_tensor(name, np.array(values, np.float32))
    write_gguf(path, model, rope__scaling__original_context_length=ORIGINAL)
    return path


def answer(folder, file, recorded: tuple[float, ...], tokens=TOKENS, **meta):
    """The answer on the file and a dump of a run with some factors."""
    model = open_artifact(file)
    model = replace(model, config=replace(model.config, rope_factors=recorded, length_limit=None))
    settings = {"tokens": list(tokens), "engine": "llama.cpp", "engine_version": "1", **meta}
    write_stage_dump(folder / "run.npz", run(model, tokens, "ggml"), settings)
    return bisect_pair(open_pair((file, folder / "run.npz"), (None, None), None, None)).bisection


def test_llama_cpp_is_judged_by_the_room_of_its_context(tmp_path, file):
    found = answer(tmp_path, file, LONG, n_ctx=256)
    assert found.verdict in ("alike", "numerics_only")
    (said,) = (note for note in found.notes if "n_ctx" in note)
    assert "room for 256 tokens" in said
    assert "the original one has 64" in said


def test_a_context_of_no_more_than_the_original_one_takes_the_short_factors(tmp_path, file):
    found = answer(tmp_path, file, SHORT, n_ctx=ORIGINAL)
    assert found.verdict in ("alike", "numerics_only")
    assert not [note for note in found.notes if "n_ctx" in note]


def test_other_factors_than_those_of_the_context_are_found(tmp_path, file):
    found = answer(tmp_path, file, SHORT, n_ctx=256)
    assert (found.verdict, found.first_divergent) == ("divergent", Site(0, "q_post_rope"))
    assert found.culprit.cause == "rope_theta"


def test_a_context_that_is_not_said_is_not_guessed_in_silence(tmp_path, file):
    found = answer(tmp_path, file, SHORT)
    assert found.verdict in ("alike", "numerics_only")
    assert any("does not say for how many tokens its context had room" in note for note in found.notes)


def test_a_text_beyond_the_original_context_takes_the_long_factors(tmp_path, file):
    tokens = (*TOKENS, *(1,) * (ORIGINAL + 1 - len(TOKENS)))
    found = answer(tmp_path, file, LONG, tokens=tokens, engine="transformers", dtype="float32")
    assert found.verdict in ("alike", "numerics_only")
    pair = open_pair((file, file), ("f32", "ggml"), tokens, None)
    assert [model.config.rope_factors for model in pair.models] == [LONG, LONG]


def test_the_long_factors_in_a_short_text_are_named():
    model = model_of("phi3")
    config = replace(model.config, rope_factors=SHORT, rope_long_factors=LONG, length_limit=ORIGINAL)
    model = replace(model, config=config)
    other = replace(model, config=replace(config, rope_factors=LONG))
    right, wrong = (run(of, TOKENS) for of in (model, other))
    site = Site(0, "q_post_rope")
    reader = Reader(model, numeric_path("f32"), Recorded(right | {site: wrong[site]}), TOKENS)
    found = bisect_trace(reader).culprit
    assert (found.site, found.cause) == (site, "rope_theta")
    assert "those for texts of more than 64 tokens" in found.explanation


def test_a_sweep_runs_what_a_bisection_does(tmp_path, monkeypatch, file):
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "runs")
    long, short = tuple(range(ORIGINAL + 2)), tuple(range(ORIGINAL))
    (tmp_path / "ids.txt").write_text("\n".join(" ".join(map(str, ids)) for ids in (long, short)))
    question = ask((file, file), ("f32", "f32"))
    for prompt in plan(question, "prompt", tmp_path / "ids.txt", of_ids=True).prompts:
        model = open_artifact(file).for_length(len(prompt.tokens))
        *_, (_, logits) = forward(model, prompt.tokens, numeric_path("f32"))
        found = base(question, prompt)
        assert np.array_equal(found.reference.logits, logits)
        assert measured(question, found, Part({}))["identical"]
