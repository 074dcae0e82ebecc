"""transformers with hooks that copy what every module takes in and gives out.

Job: model (a Hugging Face folder), dtype, tokens, threads.
"""

from typing import Any

import torch
import transformers

from benchmarks.peers.serving import clock, job, serve


def main() -> None:
    """Load the model once, run the tokens as often as asked."""
    wanted = job()
    torch.set_num_threads(wanted["threads"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        wanted["model"], dtype=getattr(torch, wanted["dtype"]), attn_implementation="eager", local_files_only=True
    ).eval()
    seconds = clock(wanted)
    copies: list[torch.Tensor] = []

    def hook(_module: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401
        kept = (*inputs, *(output if isinstance(output, tuple) else (output,)))
        copies.extend(value.clone() for value in kept if isinstance(value, torch.Tensor))

    body = model.model
    watched = [body.embed_tokens, body.norm, model.lm_head]
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        watched += [layer, layer.input_layernorm, layer.post_attention_layernorm]
        watched += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        watched += [mlp.gate_proj, mlp.up_proj, mlp.act_fn, mlp.down_proj]
    for module in watched:
        module.register_forward_hook(hook)
    tokens = torch.tensor([wanted["tokens"]])

    def run() -> float:
        copies.clear()
        start = seconds()
        with torch.no_grad():
            model(input_ids=tokens, use_cache=False)
        return seconds() - start

    serve(run)


if __name__ == "__main__":
    main()
