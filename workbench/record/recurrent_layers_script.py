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


def watch_mixer(layer: Any, put: Any) -> bool:
    """Watch what a layer has in place of attention; returns whether it has."""
    if hasattr(layer, "conv"):
        watch_short_convolution(layer.conv, put)
        return True
    return False
