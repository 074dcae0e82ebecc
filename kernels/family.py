"""What a family of models says of itself: its graph and tensors, and how files spell its settings and tensors.

Reading and checking files is up to `store`; here stands, as data, what differs from family to family.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.config import FULL, SLIDING, ModelConfig, RopeType
from kernels.graph import Stage
from kernels.stages import Site

Has = Callable[[str], bool]  # whether a model has a tensor of that name
Values = Mapping[str, tuple[object, ...]]
Factors = Mapping[str, tuple[NDArray[np.float32], ...]]  # one after the other: for all, or (rows, 1)


class Tensor(NamedTuple):
    """A tensor that models of a family have.

    optional : some do not, and are computed without. loose : files may have axes of length 1 more or less.
    """

    name: str
    shape: tuple[int, ...]
    optional: bool = False
    loose: bool = False


class Settings(Protocol):
    """Typed look-ups in the settings of a file; their errors name file and key, and None is a key that is absent."""

    def find(self, *keys: str) -> tuple[str, object]:
        """The first key that is there, and its value."""

    def integer(self, *keys: str, low: int = 1) -> int | None:
        """A whole number."""

    def number(self, *keys: str) -> float | None:
        """A number above zero."""

    def single(self, *keys: str) -> float | None:
        """The same of a file that keeps numbers in single precision: its shortest decimal."""

    def text(self, *keys: str) -> str | None:
        """A string."""

    def flag(self, *keys: str) -> bool | None:
        """A truth value."""

    def within(self, *keys: str) -> "Settings":
        """The settings in the first of some objects that is there and not empty; none at all where none is."""

    def wrong(self, words: str) -> Exception:
        """The error that the settings cannot be; words follow the name of the file."""

    def unsupported(self, words: str) -> Exception:
        """The error that this program does not compute what the settings ask for."""


class Keys(NamedTuple):
    """Settings of one container, beyond those that all families have there, by what becomes of them.

    used : obeyed. ignored : the container's engine ignores them for this family, with values that change nothing
    anywhere. irrelevant : patterns of keys that no forward looks at.
    """

    used: frozenset[str] = frozenset()
    ignored: Values = MappingProxyType({})
    irrelevant: tuple[str, ...] = ()


def given_layer_types(config: ModelConfig, fields: Settings) -> tuple[str, ...] | None:
    """What `layer_types` says of every layer, sliding or full; None where it is absent."""
    given, layers = fields.find("layer_types")[1], config.num_hidden_layers
    if given is None:
        return None
    if isinstance(given, list) and len(given) >= layers and all(kind in (FULL, SLIDING) for kind in given):
        return tuple(given[:layers])
    raise fields.unsupported(f"has layer_types other than {FULL} and {SLIDING}, or fewer than layers.")


def every(pattern: int, config: ModelConfig) -> tuple[str, ...]:
    """Types of layers of which every so manyth is full; 0 for none."""
    layers = range(1, config.num_hidden_layers + 1)
    return tuple(FULL if pattern and number % pattern == 0 else SLIDING for number in layers)


# What llama.cpp reads of the heads of sliding layers; without windows nothing comes of it.
OF_SLIDING = ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa")


def gguf_layer_types(config: ModelConfig, fields: Settings, pattern: int) -> tuple[str, ...]:
    """What GGUF says of every layer: by a list, by a number, or by that of the family; heads must be alike in all."""
    for name in OF_SLIDING:
        if (size := fields.integer(name, low=0)) not in (None, 0, config.head_dim):
            raise fields.unsupported(
                f"gives {name} as {size} where heads have {config.head_dim} channels; only layers with "
                "the same heads, which rotate as a whole, are supported."
            )
    key, given = fields.find("attention.sliding_window_pattern")
    if not isinstance(given, list):
        found = fields.integer("attention.sliding_window_pattern", low=0)
        return every(pattern if found is None else found, config)
    if len(given) < config.num_hidden_layers or not all(slides in (0, 1) for slides in given):
        raise fields.wrong(f"gives {key} for fewer layers than it has, or not as true and false; convert it again.")
    return tuple(SLIDING if slides else FULL for slides in given[: config.num_hidden_layers])


def rotating_where_sliding(config: ModelConfig, window: int | None, types: tuple[str, ...] | None) -> ModelConfig:
    """The configuration with layers of these types, of which those without a window do not rotate."""
    if window is None or types is None:
        return config
    rotated = tuple(kind == SLIDING for kind in types)
    rotates = None if all(rotated) else rotated
    return replace(config, sliding_window=window, layer_types=types, rotated_layers=rotates)


def plain_sections(config: ModelConfig, fields: Settings, key: str, in_turn: bool = False) -> tuple[int, ...] | None:
    """The pairs of a head by what they turn with (time, height, width, and another), if the pairs of text turn alike.

    Positions of text are the same in the first three, and llama.cpp counts 0 in the fourth. in_turn : pairs take turns
    and do not stand in blocks, in families that always have sections. None where llama.cpp takes no notice, which
    needs pairs of the first two.
    """
    _, given = fields.find(key)
    sections = (*given, 0, 0, 0)[:4] if isinstance(given, list) else (0, 0)
    if not all(type(size) is int and size >= 0 for size in sections):
        raise fields.wrong(f"gives {key} as something else than whole numbers; convert it again.")
    if in_turn and not any(sections):
        raise fields.wrong(f"does not say {key}, which llama.cpp asks for here; convert it again.")
    if not in_turn and not (sections[0] and sections[1]):
        return None
    for pair in range((config.rotary_dim or config.head_dim) // 2):
        sector = pair % sum(sections)
        reach = 3 * sections[sector % 3] if in_turn else sum(sections[:3])
        if sector >= reach:
            raise fields.unsupported(f"has {key} {list(sections)}, with which some pairs do not turn with the text.")
    return sections


class Family(ABC):
    """Models that are computed alike.

    stages : of a layer in execution order, with those that only some models have. norms_differ : norms of heads are
    among those. output_gate : what attention gives is multiplied by a sigmoid, whose product stands beside the queries
    in files, or is a tensor of its own where gates_apart. tiled : heads of values that share one of keys stand apart
    in GGUF, and here; Hugging Face has them side by side. headless : some layers have something else in place of
    attention, which GGUF shows by no heads of keys.
    two_heads : layers without a window have heads of a size and number of their own, and may have no values.
    biased : models of this family are known to have the biases that others may lack.

    model_types : what Hugging Face calls them. defaults : what transformers takes for an absent key; null is there.
    activations : the key that names the activation, and the names of the one that is computed.
    spelled : keys under which transformers keeps settings that others have under another name. modules : what its files
    call modules, with N for the number of a layer, by the canonical name. layer_norms : its norms take the mean away.
    local_base : the key of the rotary base of sliding layers, where those rotate otherwise than the others; their
    settings may stand in rope_parameters by kinds of layers, too.
    latent : keys and values are made of latents, so that files give the sizes of heads otherwise.
    causal : tokens do not see later ones, unless a file says so.
    pairs : which channels of a head turn together in the rows as Hugging Face stores them. partly : the key of the
    share of each head that turns and what transformers takes for an absent one; None where it turns all.
    rope_kinds : the names of scaled rotation that it takes, and what each stands for; None for all as they are.
    rope_usual : how it scales where a file does not say. by_columns : experts are stacked with rows exchanged with
    columns; by_turns : with the rows of gate and up by turns.
    less_one : transformers adds 1 to the norm weights that it reads; here they are what values are multiplied with.

    not_loaded : biases of a layer that transformers leaves where they are and llama.cpp adds.
    in_apr : APR has a place for its models. told : keys of transformers that an APR file must have, because nothing
    else in it tells and there is no default.

    gguf : what llama.cpp calls them. gguf_family : the family as which its GGUF files are read, if that is another one
    with the same stages. predicts : the last layers there may predict further tokens and are not run.
    epsilon_read : it takes the epsilon of the norms from a file, and not 0 for it.
    gguf_modules : what its names of modules stand for, where not for what they usually do.
    interleaved : its files store the rows of q and k for the rotation of adjacent pairs. rope_freqs : it
    looks for divisors of the frequencies in a tensor. long_rope : in two, one for short and one for long texts.
    more : further tensors of a layer that it accepts, as a pattern of its names. after_head : tensors with which it
    changes the logits, and what it does. scaled : the projections whose output it multiplies by a stored factor, if
    there is one; it loads and ignores those of others. gguf_unused : tensors that it loads and does not use otherwise,
    those of a layer without its number; they are left out.

    keys : by container.
    """

    stages: ClassVar[tuple[str, ...]]
    output_gate: ClassVar[bool] = False
    gates_apart: ClassVar[bool] = False
    tiled: ClassVar[bool] = False
    headless: ClassVar[bool] = False
    two_heads: ClassVar[bool] = False
    norms_differ: ClassVar[bool] = False
    biased: ClassVar[bool] = False
    model_types: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, object]] = {}
    activations: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("silu", "swish"))
    spelled: ClassVar[Mapping[str, str]] = {}
    modules: ClassVar[Mapping[str, str]] = {}
    layer_norms: ClassVar[bool] = False
    local_base: ClassVar[str | None] = None
    latent: ClassVar[bool] = False
    causal: ClassVar[bool] = True
    pairs: ClassVar[RopeType] = "neox"
    partly: ClassVar[tuple[str, float] | None] = None
    rope_kinds: ClassVar[Mapping[str, str] | None] = None
    rope_usual: ClassVar[Mapping[str, object]] = {}
    by_columns: ClassVar[bool] = False
    by_turns: ClassVar[bool] = False
    less_one: ClassVar[bool] = False
    not_loaded: ClassVar[tuple[str, ...]] = ()
    in_apr: ClassVar[bool] = True
    told: ClassVar[tuple[str, ...]] = ()
    gguf: ClassVar[str | None] = None
    predicts: ClassVar[bool] = False
    gguf_family: ClassVar[str | None] = None
    epsilon_read: ClassVar[bool] = True
    gguf_modules: ClassVar[Mapping[str, str]] = {}
    interleaved: ClassVar[bool] = False
    rope_freqs: ClassVar[bool] = False
    long_rope: ClassVar[bool] = False
    more: ClassVar[str] = ""
    after_head: ClassVar[Mapping[str, str]] = {"output.scale": "multiplies the logits with"}
    scaled: ClassVar[tuple[str, ...]] = ()
    gguf_unused: ClassVar[tuple[str, ...]] = ()
    keys: ClassVar[Mapping[str, Keys]] = {}

    def stages_of(self, config: ModelConfig) -> tuple[str, ...]:
        """The stages that a layer of a model with these settings may have, in execution order."""
        del config
        return self.stages

    def key(self, setting: str) -> str:
        """The key of config.json for a setting that most families have."""
        return self.spelled.get(setting, setting)

    @abstractmethod
    def first(self, config: ModelConfig) -> tuple[Stage, ...]:
        """What comes before the layers."""

    @abstractmethod
    def layer(self, config: ModelConfig, number: int, has: Has) -> tuple[Stage, ...]:
        """A layer of a model that has these tensors; whoever would read a stage that is absent reads what it read."""

    def elsewhere(self, config: ModelConfig, number: int) -> Mapping[str, Site]:
        """Where stages stand that a layer reads by these names, though they are of an earlier layer or of the model.

        LAYER_INPUT is not among them.
        """
        del config, number
        return {}

    def unused(self, config: ModelConfig, number: int) -> frozenset[str]:
        """Tensors that files may have of a layer though nobody computes with them, without the name of the layer."""
        del config, number
        return frozenset()

    @abstractmethod
    def last(self, config: ModelConfig, has: Has) -> tuple[Stage, ...]:
        """What comes after the layers, of a model that has these tensors."""

    @abstractmethod
    def tensors(self, config: ModelConfig) -> Iterator[Tensor]:
        """Every tensor that the forward uses, in execution order."""

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        """The biases that transformers loads into a layer by these settings, without the name of the layer."""
        del fields
        return frozenset()

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The configuration with what config.json says of this family only; APR keeps the same keys."""
        del fields
        return config

    def factors(self, config: ModelConfig, fields: Settings) -> Factors:
        """What a folder's tensors are multiplied by to be those of a GGUF file, by their names in a layer or whole."""
        del config, fields
        return {}

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        """The keys of config.json from which `of_hugging_face` makes this configuration."""
        del config
        return {}

    def reads_gguf(self, fields: Settings) -> bool:
        """Whether a file of its architecture is of this family, where several have one name there."""
        del fields
        return True

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """The configuration with what GGUF's keys say of this family only."""
        del fields
        return config

    def refused_by_llama_cpp(self, config: ModelConfig) -> Iterator[str]:
        """Why llama.cpp would refuse a model that is computed here, if it would."""
        del config
        yield from ()
