#!/usr/bin/env bash
# In a Mistral, `layer_types` decides how keys are cached and not how far tokens see: no kind of layer it names is computed.
#
# Version: transformers 5.24.0, torch 2.13.0, CPU.
# Behaviour: with a sliding_window every layer of a Mistral slides, also those that `layer_types` calls full_attention: the
#   logits have the same bits as without the key. The cache believes the key all the same. Where all layers are "full" it
#   keeps every key and the masks still slide, so nothing shows. Where they are mixed, a prompt in one piece is answered
#   (all layers sliding), and token by token it goes well as long as the window is not full; then a mask of one length
#   meets keys of another and a RuntimeError ends it. Where any layer is "sliding" and sliding_window is null, the first
#   cached call is a TypeError. A logged line advises Ministral, whose `layer_types` are obeyed.
# Why it matters: a converter that trusts the key, or a check of a copy that runs one short prompt without generating,
#   sees a model that does not exist: full layers that slide, in a file that works in every short test.
# Output seen on 2026-11-28 (two layers, window 8, 24 tokens):
#   layer_types                            logits as without the key  token by token
#   full_attention, full_attention         True                       as in one piece
#   sliding_attention, sliding_attention   True                       as in one piece
#   sliding_attention, full_attention      True                       RuntimeError after 8 tokens
#   full_attention, sliding_attention      True                       RuntimeError after 8 tokens
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>"$work/warnings" <<'PY'
import torch
from transformers import MistralConfig, MistralForCausalLM

FULL, SLIDING = "full_attention", "sliding_attention"
sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "sliding_window": 8}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
tokens = torch.arange(3, 27)[None]


def model(**keys):
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**sizes, **keys)).eval()


@torch.no_grad()
def token_by_token(copy):
    cache, rows = None, []
    for token in tokens[0]:
        try:
            output = copy(token[None, None], past_key_values=cache, use_cache=True)
        except RuntimeError:
            return f"RuntimeError after {len(rows)} tokens"
        cache = output.past_key_values
        rows.append(output.logits[0, 0])
    with torch.no_grad():
        whole = copy(tokens, use_cache=False).logits[0]
    return "as in one piece" if torch.allclose(torch.stack(rows), whole, atol=1e-5) else "otherwise"


with torch.no_grad():
    usual = model()(tokens, use_cache=False).logits
    unlimited = model()
    unlimited.config.sliding_window = None
    assert not torch.allclose(unlimited(tokens, use_cache=False).logits, usual, atol=1e-3), "the window shows"
print(f"{'layer_types':<38} logits as without the key  token by token")
for types in ([FULL, FULL], [SLIDING, SLIDING], [SLIDING, FULL], [FULL, SLIDING]):
    copy = model(layer_types=types)
    with torch.no_grad():
        same = torch.equal(copy(tokens, use_cache=False).logits, usual)
    steps = token_by_token(copy)
    print(f"{', '.join(types):<38} {same!s:<26} {steps}")
    assert same, "layer_types is obeyed now"
    assert steps == ("as in one piece" if types[0] == types[1] else "RuntimeError after 8 tokens")
PY
