"""Stages of layers with experts; transformers_script.py imports it by its plain name.

Runs in the interpreter that has torch: nothing of this project can be imported here.
"""

from __future__ import annotations

from typing import Any

from recurrent_layers_script import part, watch

Array = Any  # a torch tensor

ACTIVATION = ("act_fn", "activation_fn", "act")
PAIRS = ("expert_gate", "expert_up", "expert_silu", "expert_swigl", "expert_out")  # of a token and an expert
# Of layers with experts: the router, and what is computed beside them; what a chosen expert counts at least.
ROUTERS, BESIDE, LEAST = ("gate", "router"), ("shared_expert", "shared_experts", "shared_mlp"), 2.0**-126


def watch_experts(block: Any, put: Any, beside: Any) -> None:
    """Watch a feed-forward half with experts. beside : what the layer adds to what the block gives."""

    def whole(stage: str) -> Any:
        return lambda _x, y: put(stage, y[None] if y.dim() == 2 else y)

    router = next(getattr(block, name) for name in ROUTERS if hasattr(block, name))
    if type(block).__name__ == "Llama4TextMoe":
        watch_all_experts(block, router, put)
        beside = block.shared_expert
        watch_beside(beside, whole)
        watch(block, whole("ffn_out"))
        return
    watch(router, whole("router"))
    if beside is not None:
        listen_to_experts(block.experts, put, "expert_sum")
        watch_linear(beside, block, put)
        return
    beside = next((getattr(block, name) for name in BESIDE if hasattr(block, name)), None)
    listen_to_experts(block.experts, put, "ffn_out" if beside is None else "expert_sum")
    if beside is not None:
        watch_beside(beside, whole)
        watch(block, whole("ffn_out"))
    if hasattr(block, "shared_expert_gate"):
        watch(block.shared_expert_gate, whole("shared_router"))
        gated: dict[str, Array] = {}
        watch(beside.down_proj, lambda _x, y: gated.update(out=y))
        watch(block.shared_expert_gate, lambda _x, y: put("shared_gated", (y.sigmoid() * gated["out"])[None]))


def listen_to_experts(module: Any, put: Any, sum_stage: str, factors: Array = None) -> None:
    """Listen to what experts compute, which are calls of a function.

    factors : of every expert, which its weights of the tokens are multiplied by and what it gives is here.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    products: list[tuple[Array, Array]] = []
    linear = (torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
    added = (torch.add, torch.Tensor.add, torch.Tensor.__add__)

    class Listener(TorchFunctionMode):  # type: ignore[misc]
        """Keeps inputs and outputs of all products, with the biases that are added to them at once."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function in linear:
                products.append((args[0], result))
            elif function in added and products and args[0] is products[-1][1]:
                products[-1] = products[-1][0], result
            return result

    listener, by_turns = Listener(), type(module).__name__ == "GptOssExperts"

    def activated(gate: Array) -> Array:
        bounded = gate.clamp(max=module.limit) if by_turns else gate
        return bounded * torch.sigmoid(bounded * module.alpha) if by_turns else module.act_fn(gate)

    def enter(*_: Any) -> None:
        products.clear()
        listener.__enter__()

    def leave_experts(_module: Any, inputs: Any, output: Array) -> None:
        listener.__exit__(None, None, None)
        _, experts, weights = inputs
        count = module.gate_up_proj.shape[0]
        weights = weights if factors is None else weights / factors[experts]
        counts = weights.new_zeros(len(experts), count)
        put("expert_weights", counts.scatter(1, experts, weights.clamp(min=LEAST))[None])
        runs: dict[str, Array] = {}
        places = experts.argsort(dim=1).argsort(dim=1)  # of every expert among those of its token
        found = torch.unique(experts).tolist()
        for expert, (_, gate_up), (swigl, out) in zip(found, products[::2], products[1::2], strict=True):
            rank, token = torch.where((experts == expert).T)
            out = out if factors is None else out * factors[expert]
            gate, up = (gate_up[..., ::2], gate_up[..., 1::2]) if by_turns else gate_up.chunk(2, dim=-1)
            for name, values in zip(PAIRS, (gate, up, activated(gate), swigl, out), strict=True):
                whole_run = runs.setdefault(name, values.new_zeros(*experts.shape, values.shape[-1]))
                whole_run[token, places[token, rank]] = values
        for name, values in runs.items():
            put(name, values.flatten(start_dim=1)[None])
        put(sum_stage, output[None])

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave_experts)


def watch_beside(beside: Any, whole: Any) -> None:
    """Watch what is computed for every token beside the experts. whole : sends what a module gives as a stage."""
    watch(beside.gate_proj, whole("shared_gate"))
    watch(part(beside, ACTIVATION), whole("shared_silu"))
    watch(beside.up_proj, whole("shared_up"))
    swigl = whole("shared_swigl")
    watch(beside.down_proj, lambda x, _y: swigl(None, x))
    watch(beside.down_proj, whole("shared_out"))


def watch_all_experts(block: Any, router: Any, put: Any) -> None:
    """Watch experts of which each is given every token times its weight, 0 where it was not chosen (llama4)."""
    import torch
    from torch.overrides import TorchFunctionMode

    products: list[Array] = []
    counts: dict[str, Array] = {}

    class Listener(TorchFunctionMode):  # type: ignore[misc]
        """Keeps inputs and outputs of all products."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function is torch.bmm:
                products.extend((args[0], result))
            return result

    listener = Listener()

    def routed(_module: Any, _inputs: Any, output: Any) -> None:
        scores, logits = output
        chosen = logits.topk(block.top_k, dim=1).indices.sort(dim=1).values
        put("router", logits[None])
        kept = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen).clamp(min=LEAST))
        put("expert_weights", kept[None])
        counts.update(chosen=chosen)

    def enter(_module: Any, _inputs: Any) -> None:
        products.clear()
        listener.__enter__()

    def leave_experts(_module: Any, _inputs: Any, output: Array) -> None:
        listener.__exit__(None, None, None)
        given, gate_up, swigl, out = products
        gate, up = gate_up.chunk(2, dim=-1)
        parts = (given, gate, up, block.experts.act_fn(gate), swigl, out)
        for name, values in zip(("expert_input", *PAIRS), parts, strict=True):
            own = values.transpose(0, 1).gather(1, counts["chosen"][:, :, None].expand(-1, -1, values.shape[-1]))
            put(name, own.flatten(start_dim=1)[None])
        put("expert_sum", output.view(out.shape).sum(dim=0)[None])

    router.register_forward_hook(routed)
    block.experts.register_forward_pre_hook(enter)
    block.experts.register_forward_hook(leave_experts)


def watch_linear(beside: Any, block: Any, put: Any) -> None:
    """Watch what granite has beside its experts; what the layer makes of both is added up once more."""
    sums: dict[str, Array] = {}

    def fused(_x: Array, y: Array) -> None:
        gate, up = y.chunk(2, dim=-1)
        for stage, values in (("shared_gate", gate), ("shared_silu", beside.activation(gate)), ("shared_up", up)):
            put(stage, values)

    def out(x: Array, y: Array) -> None:
        put("shared_swigl", x)
        put("shared_out", y)
        put("ffn_out", sums["experts"] + y)

    watch(block, lambda _x, y: sums.update(experts=y))
    watch(beside.input_linear, fused)
    watch(beside.output_linear, out)
