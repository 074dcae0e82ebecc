"""Run one forward in Hugging Face transformers and send its stages to the process that started this file.

Runs alone, in the interpreter that has torch and transformers: nothing of this project can be imported here.
Input: a JSON object on stdin. Output on stdout: frames of a header (u32 length, JSON) and the bytes it announces.
The forward itself is left as it is: hooks look at what goes into and comes out of its modules.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
from functools import partial
from typing import Any

from expert_layers_script import ACTIVATION, watch_experts
from gemma4_script import watch_layer_embeddings, watch_normed_experts
from recurrent_layers_script import (
    multiplied,
    part,
    watch,
    watch_fused_block,
    watch_gate,
    watch_gate_apart,
    watch_mixer,
)

Array = Any  # a torch tensor

# What models call the parts of a decoder, of attention, and of a feed-forward block.
LAYERS, LAST_NORM = ("layers",), ("norm", "final_layer_norm", "final_layernorm", "embedding_norm")
FIRST_NORM = ("input_layernorm", "operator_norm")
ATTENTION, OUTPUT, BY_GROUP = ("self_attn", "attention"), ("o_proj", "dense", "out_proj"), ("query_key_value",)
GATE = ("gate_proj", "w1")
UP, DOWN = ("up_proj", "c_fc", "dense_h_to_4h", "fc1", "w3"), ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2")

# What turns q and k, and which of it gives the first of every adjacent pair before all second ones.
ROTATIONS = ("apply_rotary_pos_emb", "apply_rotary_emb", "apply_rotary_pos_emb_interleave")
INTERLEAVED = ROTATIONS[2]

# Of layers that have norms behind attention and the feed-forward block: the one behind, and the one before if there is.
AFTER_FFN, FFN_NORM = "post_feedforward_layernorm", "pre_feedforward_layernorm"

BLOCK = ("mlp", "block_sparse_moe", "feed_forward")


class Parent:
    """The process that started this one; whatever else prints goes to stderr from here on."""

    def __init__(self) -> None:
        self.stream = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, payload: bytes = b"", **header: Any) -> None:
        text = json.dumps({**header, "bytes": len(payload)}).encode()
        self.stream.write(len(text).to_bytes(4, "little") + text + payload)
        self.stream.flush()


class Stages:
    """Sends stage tensors as (tokens, channels): float64 of a float64 model, else float32, which holds 16 bits too.

    tokens : how many the present call of the model is given. rows : of the calls so far, where there are several.
    turned : layers of which the present call has turned the queries.
    """

    def __init__(self, parent: Parent, torch: Any, double: bool, layers: int, calls: list[int]) -> None:
        self.parent = parent
        self.torch = torch
        self.dtype = torch.float64 if double else torch.float32
        self.layers = layers
        self.calls = calls
        self.tokens = calls[0]
        self.layer = 0
        self.rows: dict[str, list[Any]] = {}
        self.turned: set[int] = set()

    def begin(self, tokens: int) -> None:
        """Be told that the next call comes."""
        self.tokens = tokens
        self.turned.clear()

    def put(self, layer: int, stage: str, values: Array) -> None:
        """Send what a call gives, or keep it until all calls were made."""
        rows = values.detach()[0].flatten(start_dim=1).to(self.dtype).contiguous().cpu().numpy()
        key = f"stage|{layer}|{stage}"
        if len(self.calls) > 1:
            self.rows.setdefault(key, []).append(rows.copy())
        else:
            self.send(key, rows)

    def send(self, key: str, rows: Any) -> None:
        self.parent.send(rows.tobytes(), kind="array", name=key, dtype=rows.dtype.str, shape=rows.shape)

    def end(self) -> None:
        """Send what several calls gave, their tokens one after the other."""
        import numpy as np

        for key, parts in self.rows.items():
            self.send(key, np.concatenate(parts))


def body_of(model: Any) -> Any:
    """The model without its head; some do not say which of their parts that is."""
    body = model.base_model
    return body if part(body, LAYERS) is not None else body.model


def watch_model(model: Any, stages: Stages, compiled: bool) -> None:
    """Watch every module whose input or output is a stage; of layers that are compiled only what they return."""
    body = body_of(model)
    layers = part(body, LAYERS)
    layers[0].register_forward_pre_hook(partial(embedded, stages), with_kwargs=True)
    watch(part(body, LAST_NORM), lambda _x, y: stages.put(-1, "final_norm", y))
    if hasattr(body, "embed_tokens_per_layer") and not compiled:
        watch_layer_embeddings(body, stages.put)
    for n, layer in enumerate(layers):
        if compiled:  # the hooks stay outside of what is compiled
            layer.forward = stages.torch.compile(layer.forward)
        else:
            if (norm := part(layer, FIRST_NORM)) is not None:
                watch(norm, lambda _x, y, n=n: stages.put(n, "attn_norm", y))
            if not watch_mixer(layer, partial(stages.put, n)):
                watch_attention(layer, multiplied(layer, partial(stages.put, n)), stages)
            watch_mlp(layer, multiplied(layer, partial(stages.put, n)))
        enter = partial(setattr, stages, "layer", n)
        layer.register_forward_pre_hook(lambda _module, _inputs, enter=enter: enter())
        watch(layer, partial(leave, stages, n, hasattr(layer, "layer_scalar")))


def embedded(stages: Stages, _layer: Any, inputs: Any, named: Any) -> None:
    """Send what the first layer reads: some models scale what the embedding gives."""
    stages.put(-1, "embedding", inputs[0] if inputs else named["hidden_states"])


def leave(stages: Stages, layer: int, scaled: bool, _x: Array, y: Array) -> None:
    """Send what a layer returns, and that it is done. scaled : it is the sum no more."""
    if not scaled:
        stages.put(layer, "post_ffn_residual", y)
    stages.put(layer, "layer_output", y)
    stages.parent.send(kind="progress", done=layer + 1, total=stages.layers)


def watch_attention(layer: Any, put: Any, stages: Stages) -> None:
    """Watch the attention half of a layer; the product of a projection with bias is computed once more without it."""
    attention, torch = part(layer, ATTENTION), stages.torch
    gate = getattr(attention, "gate_proj", None)
    shares = getattr(attention, "is_kv_shared_layer", False)  # keys and values with another one
    projections = [part for part in "qkv" if getattr(attention, f"{part}_proj", None) is not None]
    products: dict[str, Array] = {}
    biased: dict[str, Array] = {}

    def projected(letter: str, module: Any, x: Array, y: Array) -> None:
        biased[letter] = y
        products[letter] = y if module.bias is None else torch.nn.functional.linear(x, module.weight)
        if len(products) == len(projections):
            put("qkv_matmul", torch.cat([products[part] for part in projections], dim=-1))
            if any(getattr(attention, f"{part}_proj").bias is not None for part in projections):
                put("qkv_bias", torch.cat([biased[part] for part in projections], dim=-1))
            products.clear()

    def normed(stage: str, x: Array, y: Array) -> None:
        """Put the heads of every token side by side: some models have the heads first."""
        tokens_first = x.shape[1] == stages.tokens and (x.shape[2] != stages.tokens or x.stride(1) >= x.stride(2))
        put(stage, y if tokens_first else y.transpose(1, 2))

    def output(x: Array, y: Array) -> None:
        put("attn_gated" if gate is not None else "attention", x)
        put("attn_out", y)

    def fused(module: Any, order: Any, x: Array, y: Array) -> None:
        put("qkv_matmul", order(y if module.bias is None else torch.nn.functional.linear(x, module.weight)))
        if module.bias is not None:
            put("qkv_bias", order(y))

    if hasattr(attention, "qkv_proj"):
        watch(attention.qkv_proj, partial(fused, attention.qkv_proj, lambda y: y))
    if (module := part(attention, BY_GROUP)) is not None:
        watch(module, partial(fused, module, partial(in_order, torch, attention.config)))
    if hasattr(attention, "kv_b_proj"):
        watch_latents(attention, put)
    last = part(attention, OUTPUT)
    with_gate = hasattr(attention, "k_proj") and attention.q_proj.out_features == 2 * last.in_features
    if with_gate:
        watch_gate(attention, put)
    for letter in "qkv" if hasattr(attention, "k_proj") else "q" if shares else "":
        module = getattr(attention, f"{letter}_proj")
        if not with_gate and module is not None:
            watch(module, partial(projected, letter, module))
        if (norm := part(attention, (f"{letter}_norm", f"{letter}_layernorm"))) is not None:
            watch(norm, partial(normed, f"{letter}_norm"))
    for letter, word in (("q", "query"), ("k", "key")):
        if hasattr(attention, f"{word}_layernorm"):
            watch(getattr(attention, f"{word}_layernorm"), partial(normed, f"{letter}_rope_norm"))
    if hasattr(attention, "qk_norm"):
        both = itertools.cycle("qk")  # one module norms q and then k, tokens first
        watch(attention.qk_norm, lambda _x, y: put(f"{next(both)}_rope_norm", y))
    if gate is not None:
        watch_gate_apart(attention, put)
    if not with_gate:
        watch(last, output)
    if hasattr(layer, AFTER_FFN) or hasattr(layer, "pre_mlp_layernorm"):
        watch(layer.post_attention_layernorm, lambda _x, y: put("post_attn_norm", y))
    if hasattr(layer, "post_self_attn_layernorm"):
        watch(layer.post_self_attn_layernorm, lambda _x, y: put("post_attn_norm", y))


def watch_latents(attention: Any, put: Any) -> None:
    """Watch latent attention, whose queries may be made of a latent too."""
    watch(attention.q_proj if attention.q_lora_rank is None else attention.q_b_proj, lambda _x, y: put("q_matmul", y))
    if attention.q_lora_rank is not None:
        watch(attention.q_a_proj, lambda _x, y: put("q_a", y))
        watch(attention.q_a_layernorm, lambda _x, y: put("q_a_norm", y))
    watch(attention.kv_a_proj_with_mqa, lambda _x, y: put("kv_a", y))
    watch(attention.kv_a_layernorm, lambda _x, y: put("kv_a_norm", y))


def in_order(torch: Any, config: Any, y: Array) -> Array:
    """Put the query heads first, of a product that has those of every key head beside it and its value head."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", heads)
    rows = y.unflatten(-1, (groups, heads // groups + 2, -1))
    parts = rows[..., :-2, :], rows[..., -2:-1, :], rows[..., -1:, :]
    return torch.cat([heads.flatten(start_dim=-3) for heads in parts], dim=-1)


def watch_mlp(layer: Any, put: Any) -> None:
    """Watch the feed-forward half of a layer."""
    import torch

    if hasattr(layer, "router") and hasattr(layer, "experts"):
        watch_normed_experts(layer, put)
        return
    block = part(layer, BLOCK)
    activation = part(block, ACTIVATION)
    gated = part(block, (*GATE, "gate_up_proj")) is not None

    def norm(x: Array, y: Array) -> None:
        if not getattr(layer, "use_parallel_residual", False):
            put("post_attn_residual", x)
        put("ffn_norm", y)

    def gate(x: Array, y: Array) -> None:
        if hasattr(layer, AFTER_FFN) and not hasattr(layer, FFN_NORM):  # nothing is normed before the block
            put("post_attn_residual", x)
        put("ffn_gate", y)
        if activation is None:
            put("ffn_silu", torch.nn.functional.silu(y))

    def down(x: Array, y: Array) -> None:
        if gated:
            put("ffn_swigl", x)
        put("ffn_out", y)

    def fused(x: Array, y: Array) -> None:
        half = y.shape[-1] // 2
        gate(x, y[..., :half])
        put("ffn_up", y[..., half:])

    others = (FFN_NORM, "pre_mlp_layernorm", "post_attention_layernorm", "ffn_norm", "pre_ff_layernorm")
    own = (FFN_NORM,) if hasattr(layer, AFTER_FFN) else others
    if (before := part(layer, own)) is not None:
        watch(before, norm)
    if block is None:
        watch_fused_block(layer.shared_mlp, put)
        return
    if hasattr(block, "experts"):
        watch_experts(block, put, getattr(layer, "shared_mlp", None))
    elif hasattr(block, "gate_up_proj"):
        watch(block.gate_up_proj, fused)
    else:
        if gated:
            watch(part(block, GATE), gate)
        watch(part(block, UP), lambda _x, y: put("ffn_up", y))
    if not hasattr(block, "experts"):
        if activation is not None:
            watch(activation, lambda _x, y: put("ffn_silu", y))
        watch(part(block, DOWN), down)
    if hasattr(layer, AFTER_FFN):
        watch(layer.post_feedforward_layernorm, lambda _x, y: put("post_ffn_norm", y))
    if hasattr(layer, "post_mlp_layernorm"):
        watch(layer.post_mlp_layernorm, lambda _x, y: put("post_ffn_norm", y))


def watch_rope(model: Any, stages: Stages) -> None:
    """Look at what the rotation returns; it is a function of the modelling module and not a module itself.

    Some models give it the channels that turn only, and put the others beside them; these are seen by attention.
    """
    modelling: Any = importlib.import_module(type(model).__module__)
    attend, config = modelling.eager_attention_forward, model.config
    alone, turned = config.model_type.startswith("gemma4"), stages.turned
    size = 0 if alone else getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    parted, tempered = set(), scales_by_position(config)
    tokens_first = config.model_type.startswith("llama4")

    def put(q: Array, k: Array) -> None:
        if tokens_first:
            q, k = q.transpose(1, 2), k.transpose(1, 2)
        stages.put(stages.layer, "q_post_rope", q.transpose(1, 2))
        stages.put(stages.layer, "k_post_rope", k.transpose(1, 2))

    def rotated(name: str, rotate: Any, *arguments: Any, **options: Any) -> Any:
        if alone:  # one call for each, tokens first
            y = rotate(*arguments, **options)
            stages.put(stages.layer, f"{'k' if stages.layer in turned else 'q'}_post_rope", y)
            turned.add(stages.layer)
            return y
        q, k = rotate(*arguments, **options)
        if name == INTERLEAVED:
            put(*(x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(start_dim=-2) for x in (q, k)))
        elif q.shape[-1] == size:
            put(q, k)
        else:
            parted.add(stages.layer)
        return q, k

    def attended(module: Any, q: Array, k: Array, *arguments: Any, **options: Any) -> Any:
        if stages.layer in parted:
            put(q, k)
        if tempered or (getattr(config, "attn_temperature_tuning", False) and not module.use_rope):
            stages.put(stages.layer, "q_tempered", q.transpose(1, 2))
        return attend(module, q, k, *arguments, **options)

    for name in (name for name in ROTATIONS if hasattr(modelling, name)):
        setattr(modelling, name, partial(rotated, name, getattr(modelling, name)))
    modelling.eager_attention_forward = attended


def scales_by_position(config: Any) -> bool:
    """Tell whether queries that are rotated are multiplied by a factor of their positions."""
    rope = getattr(config, "rope_parameters", None)
    return isinstance(rope, dict) and rope.get("llama_4_scaling_beta") is not None


def forward(model: Any, stages: Stages, tokens: Array) -> None:
    """Run the tokens (1, all of them), in several calls with the cache of keys and values of those before."""
    start, known = 0, None
    for count in stages.calls:
        stages.begin(count)
        with stages.torch.no_grad():
            cached = len(stages.calls) > 1
            given: dict[str, Any] = {"past_key_values": known} if known is not None else {}
            made = model(input_ids=tokens[:, start : start + count], use_cache=cached, **given)
        stages.put(-1, "lm_head", made.logits)
        start, known = start + count, getattr(made, "past_key_values", None)
    stages.end()


def cpu_capability(torch: Any) -> str:
    """What torch says of the vectors it computes with."""
    return str(torch.backends.cpu.get_cpu_capability())


def run(job: dict[str, Any], parent: Parent) -> None:
    """Run the job and send what it gives; tell the parent if the engine is not installed."""
    sys.modules["kernels"] = None  # type: ignore[assignment] # ours must not pass for the helper of that name
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        parent.send(kind="missing", text=str(error.name))
        return
    on_gpu = job["device"].startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise RuntimeError("torch finds no CUDA device; leave out --device, or give a --python whose torch has CUDA")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = job["tf32"]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job["model"],
        dtype=getattr(torch, job["dtype"]),
        attn_implementation=job["attn_implementation"],
        local_files_only=True,
    )
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    model = model.to(job["device"]).eval()
    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    calls = job.get("calls") or [len(job["tokens"])]
    stages = Stages(parent, torch, job["dtype"] == "float64", len(part(body_of(model), LAYERS)), calls)
    watch_model(model, stages, job["compile"])
    if not job["compile"]:
        watch_rope(model, stages)
    forward(model, stages, torch.tensor([job["tokens"]], device=job["device"]))
    meta = {
        "engine": "transformers",
        "engine_version": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "transformers": transformers.__version__,
        "torch": str(torch.__version__),
        "class": type(model).__name__,
        "dtype": job["dtype"],
        "attention": model.config._attn_implementation,
        "tf32": job["tf32"],
        "compile": job["compile"],
        "calls": calls,
        "threads": torch.get_num_threads(),
        "system_info": torch.cuda.get_device_name() if on_gpu else f"CPU capability {cpu_capability(torch)}",
    }
    parent.send(json.dumps(meta).encode(), kind="text", name="__meta__")


def main() -> None:
    """Read the job, run it, and send what comes of it."""
    job = json.load(sys.stdin)
    parent = Parent()
    try:
        run(job, parent)
    except Exception as error:
        parent.send(kind="error", text=f"{type(error).__name__}: {error}")
        sys.exit(1)
    parent.send(kind="end")


if __name__ == "__main__":
    main()
