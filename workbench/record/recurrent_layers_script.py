"""Stages of layers that have something else in place of attention; transformers_script.py imports it by its plain name.

Runs in the interpreter that has torch: nothing of this project can be imported here. What a layer computes by plain
functions is listened to by standing in their place in its modelling module.
"""

from __future__ import annotations

import sys
from typing import Any

Array = Any  # a torch tensor


def watch(module: Any, see: Any) -> None:
    """Call see(input, output) after a module has run; the output stays what it is."""

    def hook(_module: Any, inputs: Any, output: Any) -> None:
        see(inputs[0] if inputs else None, output[0] if isinstance(output, tuple) else output)

    module.register_forward_hook(hook)


def part(module: Any, names: tuple[str, ...]) -> Any:
    """The part of a module that goes by one of some names; None if it has none."""
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def during(module: Any, name: str, see: Any) -> None:
    """Call see(arguments, options, result) of a function of the modelling module while a module runs."""
    modelling: Any = sys.modules[type(module).__module__]
    plain = getattr(modelling, name)

    def listening(*arguments: Any, **options: Any) -> Any:
        result = plain(*arguments, **options)
        see(arguments, options, result)
        return result

    module.register_forward_pre_hook(lambda _module, _inputs: setattr(modelling, name, listening))
    module.register_forward_hook(lambda _module, _inputs, _output: setattr(modelling, name, plain))


def watch_short_convolution(mixer: Any, put: Any) -> None:
    """Watch a convolution between two gates, as lfm2 has it."""
    watch(mixer.in_proj, lambda _x, y: put("conv_in", y))

    def convolved(arguments: Any, _options: Any, result: Array) -> None:
        put("conv_gated", arguments[0].transpose(1, 2))
        put("convolved", result.transpose(1, 2))

    def out(x: Array, y: Array) -> None:
        put("conv_out", x)
        put("attn_out", y)

    during(mixer, "causal_conv1d_fn", convolved)
    watch(mixer.out_proj, out)


def watch_delta_net(mixer: Any, put: Any) -> None:
    """Watch a gated delta net, as qwen3_5 and qwen3_next have it.

    Heads of values that share one of keys are put apart where their matrices have no tensor in common (qwen3_5), as
    llama.cpp has them. What is normed, activated or decays inside of a function is computed once more.
    """
    import torch

    groups, heads = mixer.num_k_heads, mixer.num_v_heads
    apart = hasattr(mixer, "in_proj_qkv")

    def tiled(y: Array, keys: int = 0) -> Array:
        """The heads of values behind so many channels of keys in tiles."""
        values = y[..., keys:].unflatten(-1, (groups, heads // groups, -1))
        values = values.transpose(-3, -2) if apart else values
        return torch.cat([y[..., :keys], values.flatten(start_dim=-3)], dim=-1)

    def convolved(arguments: Any, _options: Any, result: Array) -> None:
        keys = 2 * mixer.key_dim
        put("delta_qkv", tiled(arguments[0].transpose(1, 2), keys))
        plain = torch.nn.functional.conv1d(
            arguments[0], arguments[1].unsqueeze(1), padding=arguments[1].shape[-1] - 1, groups=arguments[0].shape[1]
        )
        put("convolved", tiled(plain[..., : result.shape[-1]].transpose(1, 2), keys))
        put("conv_silu", tiled(result.transpose(1, 2), keys))

    def ruled(arguments: Any, options: Any, result: Any) -> None:
        for stage, x in zip(("delta_q", "delta_k"), arguments[:2], strict=True):
            put(stage, (x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + 1e-6)).flatten(start_dim=-2))
        put("delta_beta", tiled(options["beta"]))
        put("delta_decay", tiled(options["g"]))
        put("delta", tiled(result[0].flatten(start_dim=-2)))

    def gated(_module: Any, inputs: Any, output: Array) -> None:
        x, z = inputs
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + mixer.layer_norm_epsilon) * mixer.norm.weight
        parts = (("delta_z", z), ("delta_silu", torch.nn.functional.silu(z)), ("delta_norm", normed))
        for stage, values in (*parts, ("delta_gated", output)):
            put(stage, tiled(values.reshape(1, -1, heads * values.shape[-1])))

    def both(_x: Array, y: Array) -> None:
        rows = y.unflatten(-1, (groups, 2, heads // groups))
        put("delta_b", rows[..., 0, :].flatten(start_dim=-2))
        put("delta_a", rows[..., 1, :].flatten(start_dim=-2))

    if apart:
        watch(mixer.in_proj_b, lambda _x, y: put("delta_b", tiled(y)))
        watch(mixer.in_proj_a, lambda _x, y: put("delta_a", tiled(y)))
    else:
        watch(mixer.in_proj_ba, both)
    during(mixer, "causal_conv1d_fn", convolved)
    during(mixer, "torch_chunk_gated_delta_rule", ruled)
    mixer.norm.register_forward_hook(gated)
    watch(mixer.out_proj, lambda _x, y: put("attn_out", y))


def watch_scan(mixer: Any, put: Any) -> None:
    """Watch the convolution and the scan of a state space."""
    import torch

    def convolved(arguments: Any, _options: Any, result: Array) -> None:
        x, weight, bias = arguments[:3]
        padding = weight.shape[-1] - 1
        plain = torch.nn.functional.conv1d(x, weight.unsqueeze(1), bias, padding=padding, groups=x.shape[1])
        put("convolved", plain[..., : result.shape[-1]].transpose(1, 2))
        put("conv_silu", result.transpose(1, 2))

    def scanned(arguments: Any, options: Any, result: Any) -> None:
        step = arguments[1] + options["dt_bias"]
        put("scan_dt", step)
        put("scan_step", torch.nn.functional.softplus(step))
        values = result[0] if isinstance(result, tuple) else result
        put("scan", values.reshape(*values.shape[:2], mixer.intermediate_size))

    during(mixer, "causal_conv1d_fn", convolved)
    during(mixer, "mamba2_chunk_scan", scanned)


def watch_state_space(mixer: Any, put: Any, last: str = "attn_out", times: float = 1.0) -> None:
    """Watch a state space with one decay a head (Mamba 2); what is inside of functions is computed once more.

    last : the stage of what it gives, which the layer multiplies with `times`.
    """
    import torch

    silu = torch.nn.functional.silu

    def normed(_module: Any, inputs: Any, output: Array) -> None:
        x, z = inputs
        gate(z)
        put("scan_gated", x * silu(z))
        put("scan_norm", output)

    def gate(z: Array) -> None:
        put("scan_z", z)
        put("scan_silu", silu(z))

    def projected(_x: Array, y: Array) -> None:
        y = y * getattr(mixer, "mup_vector", 1)
        put("scan_in", y)
        if not has_norm:
            gate(y[..., : mixer.intermediate_size])

    def out(x: Array, y: Array) -> None:
        if not has_norm:
            put("scan_gated", x)
        put(last, y * times)

    has_norm = not isinstance(mixer.norm, torch.nn.Identity)
    watch(mixer.in_proj, projected)
    watch_scan(mixer, put)
    if has_norm:
        mixer.norm.register_forward_hook(normed)
    watch(mixer.out_proj, out)


def watch_fused_block(block: Any, put: Any) -> None:
    """Watch a feed-forward block whose gate and up are one product, with other names (granite)."""

    def fused(_x: Array, y: Array) -> None:
        gate, up = y.chunk(2, dim=-1)
        for stage, values in (("ffn_gate", gate), ("ffn_up", up), ("ffn_silu", block.activation(gate))):
            put(stage, values)

    def out(x: Array, y: Array) -> None:
        put("ffn_swigl", x)
        put("ffn_out", y)

    watch(block.input_linear, fused)
    watch(block.output_linear, out)


def multiplied(layer: Any, put: Any) -> Any:
    """`put` of a layer that multiplies what its products give (falcon_h1): with what is given on."""
    import torch

    if not hasattr(layer, "ssm_out_multiplier"):
        return put
    attention, block = layer.self_attn, layer.feed_forward
    sizes = (getattr(attention, f"{letter}_proj").out_features for letter in "qkv")
    numbers = zip((1.0, attention.key_multiplier, 1.0), sizes, strict=True)
    factors = {
        "qkv_matmul": torch.cat([torch.full((size,), number) for number, size in numbers]),
        "attn_out": layer.attn_out_multiplier,
        "ffn_gate": block.gate_multiplier,
        "ffn_out": block.down_multiplier,
    }
    return lambda stage, values: put(stage, values * factors.get(stage, 1))


def watch_mixer(layer: Any, put: Any) -> bool:
    """Watch what a layer has in place of attention, or beside it; returns whether it is in its place."""
    if hasattr(layer, "conv"):
        watch_short_convolution(layer.conv, put)
    elif hasattr(layer, "linear_attn"):
        watch_delta_net(layer.linear_attn, put)
    elif hasattr(layer, "ssm_out_multiplier"):  # beside attention
        watch_state_space(layer.mamba, put, "scan_out", layer.ssm_out_multiplier)
        return False
    elif getattr(layer, "mamba", None) is not None:
        watch_state_space(layer.mamba, put)
    else:
        return False
    return True


def watch_gate_apart(attention: Any, put: Any) -> None:
    """Watch the gate of attention that has a product of its own (afmoe)."""
    watch(attention.gate_proj, lambda _x, y: put("attn_gate", y))
    during(attention, "eager_attention_forward", lambda _a, _o, y: put("attention", y[0].flatten(start_dim=-2)))


def watch_gate(attention: Any, put: Any) -> None:
    """Watch attention whose queries and their gates are one product, head by head."""
    import torch

    size, found = attention.head_dim, dict[str, Array]()

    def projected(letter: str, module: Any, x: Array, y: Array) -> None:
        found[letter] = y
        found[f"{letter} plain"] = y if module.bias is None else torch.nn.functional.linear(x, module.weight)
        if "k" not in found or "q" not in found or "v" not in found:
            return
        for stage, more in (("qkv_matmul", " plain"), ("qkv_bias", "")):
            q = found[f"q{more}"].unflatten(-1, (-1, 2 * size))[..., :size].flatten(start_dim=-2)
            if more or attention.q_proj.bias is not None:
                put(stage, torch.cat([q, found[f"k{more}"], found[f"v{more}"]], dim=-1))
        put("attn_gate", found["q"].unflatten(-1, (-1, 2 * size))[..., size:].flatten(start_dim=-2))
        found.clear()

    for letter in "qkv":
        module = getattr(attention, f"{letter}_proj")
        module.register_forward_hook(lambda m, inputs, output, letter=letter: projected(letter, m, inputs[0], output))

    def attended(_arguments: Any, _options: Any, result: Any) -> None:
        put("attention", result[0].flatten(start_dim=-2))

    def out(x: Array, y: Array) -> None:
        put("attn_gated", x)
        put("attn_out", y)

    during(attention, "eager_attention_forward", attended)
    watch(attention.o_proj, out)
