"""A mistake of a runtime: an edit of a Hugging Face model (torch_side), where it fits, and what it is found as."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kernels.config import ModelConfig
from kernels.stages import Site
from tests.faults.cases import Expected
from tests.faults.models import Plain

_WHOLE = ("embedding", "final_norm", "lm_head")


@dataclass(frozen=True)
class RuntimeFault:
    """An edit, its value, and what it must be found as; cells name stages of the first layer that is edited.

    value : a function of the configuration where it depends on the model. once : not per layer (whole-model stages).
    biased : a model with biases only. further : causes of settings that are wrong besides. dtype, count : of the run,
    where the usual ones do not show the mistake. loud : in a model of which one channel of the gated product is beyond
    half precision. families : whose models alone have what is edited; none for any. sliding : in layers with a window,
    or in those without one; None for any. only : whether a model of these has what is edited.
    """

    kind: str
    edit: str
    value: object
    stages: tuple[str, ...]
    factors: tuple[str, ...]
    causes: tuple[str, ...]
    once: bool = False
    biased: bool = False
    square: bool = False  # MHA only
    grouped: bool = False  # more than one key and value head, fewer than heads
    untied: bool = False
    silu: bool = False
    further: tuple[str, ...] = ()
    dtype: str = ""
    count: int = 7
    loud: bool = False
    families: tuple[str, ...] = ()
    sliding: bool | None = None
    only: Callable[[ModelConfig], bool] = lambda c: True

    def layers(self, config: ModelConfig) -> list[int]:
        """The layers of a model that can have it."""
        every = range(config.num_hidden_layers)
        slides = {n: config.window(n) is not None for n in every}
        return [n for n in every if self.sliding in (None, slides[n]) and self.value != self._right(config, n)]

    def _right(self, config: ModelConfig, layer: int) -> object:
        """The value that is no mistake in a layer, of what differs between models."""
        activation = {"gemma3": "gelu_tanh"}.get(config.architecture, "silu")
        local = config.rope_local_theta if config.window(layer) else None
        right = {"mask": config.window(layer), "theta": local or config.rope_theta, "activation": activation}
        return config.rms_norm_eps if self.edit.startswith("eps") else right.get(self.edit)


def each(kind, edit, values, stages, factors, causes, **more) -> Iterator[RuntimeFault]:
    """The same edit with several values."""
    for value in values:
        yield RuntimeFault(f"{kind} {value}", edit, value, stages, factors, causes, **more)


def fits(fault: RuntimeFault, plain: Plain) -> bool:
    """Whether a model can have the fault."""
    c = plain.config
    if fault.families and c.architecture not in fault.families:
        return False
    if fault.biased and c.architecture != "qwen2":
        return False
    if fault.square and c.num_attention_heads != c.num_key_value_heads:
        return False
    if fault.grouped and not 1 < c.num_key_value_heads < c.num_attention_heads:
        return False
    if fault.untied and c.tie_word_embeddings:
        return False
    return bool(fault.layers(c)) and fault.only(c)


def expected_of(fault: RuntimeFault, layer: int) -> Expected:
    cells = tuple(Site(None if stage in _WHOLE else layer, stage) for stage in fault.stages)
    return Expected(cells, fault.factors, fault.causes, further=fault.further)


def value_of(fault: RuntimeFault, plain: Plain) -> object:
    """Values that depend on the model."""
    return fault.value(plain.config) if callable(fault.value) else fault.value
