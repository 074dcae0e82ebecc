"""Masks of a prompt that runs in chunks: which mistake an engine made of them, in words with its numbers."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.config import SLIDING
from kernels.stages import Site
from tests.foreign_dumps import run_changed
from tests.unit.test_trace_causes import MODEL, ROTATED, asked, tokens_of


def attended(known, seen):
    """Attention with a mask (tokens, keys), written down literally."""
    c, count = MODEL.config, len(seen)
    q, k = (known[stage].reshape(count, -1, c.head_dim).astype(np.float64) for stage in ROTATED)
    v = known["qkv_bias"][:, c.q_size + c.kv_size :].reshape(count, -1, c.head_dim)
    scores = np.where(seen, np.einsum("qhd,khd->hqk", q, k.repeat(2, 1)) * c.head_dim**-0.5, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v.repeat(2, 1))
    return out.reshape(count, -1).astype(np.float32)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda t, k: np.where(t >= 24, k <= t - 24, k <= t), "from token 24 on, token t sees the keys up to t - 24"),
        (lambda t, k: np.where(t >= 24, k <= t - 5, k <= t), "from token 24 on, token t sees the keys up to t -5"),
        (lambda t, k: (k <= t) & ((t < 24) | (k >= 24)), "no key before token 24"),
        (lambda t, k: (k <= t) & (k >= t // 8 * 8), "chunks of 8 tokens see none but their own keys"),
        (lambda t, k: k <= t - t // 8 * 8, "in chunks of 8"),
        (lambda t, k: k < (t // 8 + 1) * 8, "tokens see all of their chunk of 8"),
    ],
    ids=[
        "not shifted",
        "shifted too little",
        "second chunk alone",
        "chunks alone",
        "chunks not shifted",
        "open chunks",
    ],
)
def test_the_mask_of_a_later_chunk(rule, words):
    at = np.arange(40)
    seen = rule(at[:, None], at[None, :])

    def change(site, right, known):
        return attended(known, seen) if site.stage == "attention" else right

    found = asked(run_changed(MODEL, tokens_of(40), change), 40)
    assert (found.culprit.site, found.culprit.factor, found.culprit.cause, found.others) == (
        Site(0, "attention"),
        "graph",
        "causal_mask",
        (),
    )
    assert words in found.culprit.explanation


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda t, k: np.where(t >= 24, k <= t - 24, k <= t), "up to t - 24 only, within the window"),
        (lambda t, k: (k <= t) & ((t < 24) | (k >= 24)), "no key before token 24 is seen, within the window"),
    ],
    ids=["not shifted", "second chunk alone"],
)
def test_the_mask_of_a_later_chunk_in_layers_with_a_window(rule, words):
    """The window is counted from where the mask takes a token to be."""
    layers = MODEL.config.num_hidden_layers
    model = replace(MODEL, config=replace(MODEL.config, sliding_window=6, layer_types=(SLIDING,) * layers))
    t, k = np.arange(40)[:, None], np.arange(40)[None, :]
    taken = t - 24 * (t >= 24) if "up to" in words else t
    seen = rule(t, k) & (k > taken - 6)

    def change(site, right, known):
        return attended(known, seen) if site.stage == "attention" else right

    found = asked(run_changed(model, tokens_of(40), change), 40, model)
    assert (found.culprit.site, found.culprit.cause, found.others) == (Site(0, "attention"), "causal_mask", ())
    assert words in found.culprit.explanation
