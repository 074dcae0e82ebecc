"""llama, and every decoder that is made like it: norms, grouped rotary attention, a feed-forward block."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar

from kernels import expert_settings, experts, layer_embeddings
from kernels.config import ModelConfig
from kernels.expert_settings import COUNTS, GGUF_OTHERS, GGUF_USED, USED
from kernels.experts import ExpertParts
from kernels.family import Family, Has, Keys, Settings, Tensor
from kernels.graph import LAYER_INPUT, Heads, Stage
from kernels.kinds.activation import Activation, Silu
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.elementwise import Add, AddBoth, Clip, Copy, Multiply
from kernels.kinds.embed import Embed
from kernels.kinds.gated import Gated
from kernels.kinds.gelu import GeluErf, GeluTanh
from kernels.kinds.norm import LayerNorm, Norm, RmsNorm
from kernels.kinds.product import Product
from kernels.kinds.rotate import Rotate, Rotation, Unrotated
from kernels.kinds.temperature import Tempered
from kernels.stages import SPINE, Site

_BEFORE: dict[str, tuple[str, ...]] = {
    "q_post_rope": ("qkv_clip", "q_norm", "k_norm", "v_norm", "q_a", "q_a_norm", "q_matmul", "kv_a", "kv_a_norm"),
    "attention": (
        *("q_rope_norm", "k_rope_norm", "q_absorbed", "q_latent", "k_latent", "q_tempered", "latent_attention"),
    ),
    "attn_out": (
        *("attn_gate", "attn_gated", "conv_in", "scan_in", "delta_qkv", "delta_z", "delta_b", "delta_a", "conv_gated"),
        *("convolved", "conv_silu", "conv_out", "delta_q", "delta_k", "delta_beta", "delta_decay", "delta"),
        *("delta_norm", "delta_silu", "delta_gated", "scan_dt", "scan_step", "scan", "scan_z", "scan_silu"),
        *("scan_gated", "scan_norm", "scan_out"),
    ),
    "post_attn_residual": ("post_attn_norm",),
    "ffn_out": experts.NAMES,
    "post_ffn_residual": ("post_ffn_norm",),
    "layer_output": layer_embeddings.NAMES,
}
# Norms behind the two blocks: the stage, and the module.
AFTER: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "attn_out": ("post_attn_norm", "post_attention_layernorm"),
        "ffn_out": ("post_ffn_norm", "post_feedforward_layernorm"),
    }
)


SINKS = "self_attn.sinks.weight"
_NAMED: Mapping[str, Activation] = MappingProxyType({"gelu": GeluErf(), "gelu_new": GeluTanh()})


def decoder_stages(*more: str, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The stages of a layer: the spine without some, and with others at their places."""
    names = (name for spine in SPINE for name in (*_BEFORE.get(spine, ()), spine))
    return tuple(name for name in names if name in more or (name in SPINE and name not in without))


class Decoder(Family):
    """One layer is like the other; biases of q, k and v, and of the output projection, where they are stored.

    attn_norm, ffn_norm : the norms before the two blocks; None for none. after : those behind them, by the last stage
    of the block. norm_weights, norm_biases : norms have such. head_norms : every head of q and k is normed before it is
    rotated, or all of them together where norms_together; after it where norms_rotated. norm_modules : what those are
    called; head_norm_weights : they have such. sinks : every head has one more score than keys. queries_scaled :
    llama.cpp scales queries, not scores. ffn_biases, head_bias : the feed-forward block, or the head, may have biases.
    gated : what the feed-forward block activates is multiplied with another product. activation : of the gate, or of
    all where there is none. added_last : what llama.cpp adds last where the blocks stand side by side. expert_parts :
    what those of its models have that have experts.
    """

    stages = SPINE
    attn_norm: ClassVar[str | None] = "input_layernorm"
    ffn_norm: ClassVar[str | None] = "post_attention_layernorm"
    after: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({})
    expert_parts: ClassVar[ExpertParts | None] = None
    added_last: ClassVar[str] = "attended"
    norm_weights: ClassVar[bool] = True
    norm_biases: ClassVar[bool] = False
    head_norms: ClassVar[bool] = False
    norms_together: ClassVar[bool] = False
    norms_rotated: ClassVar[bool] = False
    head_norm_weights: ClassVar[bool] = True
    norm_modules: ClassVar[tuple[str, str]] = ("q_norm", "k_norm")
    sinks: ClassVar[bool] = False
    queries_scaled: ClassVar[bool] = False
    ffn_biases: ClassVar[bool] = False
    head_bias: ClassVar[bool] = False
    scaled = tuple(f"self_attn.{part}_proj" for part in "qkvo")
    gated: ClassVar[bool] = True
    activation: ClassVar[Activation] = Silu()

    def stages_of(self, config: ModelConfig) -> tuple[str, ...]:
        there = experts.names(config, self.expert_parts)
        left = () if self._heads_normed(config) else ("q_norm", "k_norm")
        return tuple(name for name in self.stages if name not in (*experts.NAMES, *left) or name in there)

    def first(self, config: ModelConfig) -> tuple[Stage, ...]:
        embedding = ("model.embed_tokens.weight",)
        return (Stage(Site(None, "embedding"), Embed(config.embedding_scale), config.hidden_size, (), embedding),)

    def layer(self, config: ModelConfig, number: int, has: Has) -> tuple[Stage, ...]:
        attention, feed_forward = (of(config, number, has) for of in (self.attention, self._feed_forward))
        output = Stage(Site(number, "layer_output"), Copy(), config.hidden_size, ("post_ffn_residual",))
        if config.parallel:
            read = (LAYER_INPUT, "attn_out", "ffn_out")
            both = Stage(Site(number, "post_ffn_residual"), AddBoth(self.added_last), config.hidden_size, read)
            return (*attention, *feed_forward, both, output)
        return (
            *attention,
            *self._added(config, number, "attn_out", LAYER_INPUT, "post_attn_residual"),
            *feed_forward,
            *self._added(config, number, "ffn_out", "post_attn_residual", "post_ffn_residual"),
            output,
        )

    def last(self, config: ModelConfig, has: Has) -> tuple[Stage, ...]:
        head = Product(times=config.logits_scale, cap=config.logits_cap)
        used = ("lm_head.weight", *filter(has, ("lm_head.bias",) if self.head_bias else ()))
        return (
            self._normed(config, Site(None, "final_norm"), "model.norm", "layer_output"),
            Stage(Site(None, "lm_head"), head, config.vocab_size, ("final_norm",), used),
        )

    def tensors(self, config: ModelConfig) -> Iterator[Tensor]:
        """Those of a decoder; shapes as Hugging Face stores them, (rows, columns)."""
        hidden = config.hidden_size
        yield Tensor("model.embed_tokens.weight", (config.vocab_size, hidden))
        for layer in range(config.num_hidden_layers):
            name = f"model.layers.{layer}.".__add__
            for tensor in self._of_norm(self.attn_norm and name(self.attn_norm)):
                yield Tensor(tensor, (hidden,))
            yield from self.of_attention(config, layer)
            norms = [self.after[block][1] if block in self.after else None for block in ("attn_out", "ffn_out")]
            for norm in filter(None, (norms[0], self.ffn_norm)):
                for tensor in self._of_norm(name(norm)):
                    yield Tensor(tensor, (hidden,))
            ffn = config.of_layer(layer).intermediate_size
            shapes = {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
            dense, parts = not config.has_experts(layer), ("gate", "up", "down") if self.gated else ("up", "down")
            if not dense and self.expert_parts is not None:
                yield from experts.tensors(config, layer, self.expert_parts)
            for part in parts if dense else ():
                yield Tensor(name(f"mlp.{part}_proj.weight"), shapes[part])
            for part in parts if self.ffn_biases and dense else ():
                yield Tensor(name(f"mlp.{part}_proj.bias"), shapes[part][:1], optional=True)
            absent = (*(() if dense else ("mlp.",)), *(("self_attn.",) if config.recurs(layer) else ()))
            for module in (module for module in self.scaled if not module.startswith(absent)):
                yield Tensor(name(f"{module}.output_scale"), (1,), optional=True)
            for tensor in self._of_norm(norms[1] and name(norms[1])):
                yield Tensor(tensor, (hidden,))
        for tensor in self._of_norm("model.norm"):
            yield Tensor(tensor, (hidden,))
        if not config.tie_word_embeddings:
            yield Tensor("lm_head.weight", (config.vocab_size, hidden))
        if self.head_bias:
            yield Tensor("lm_head.bias", (config.vocab_size,), optional=True)

    def of_attention(self, config: ModelConfig, layer: int) -> Iterator[Tensor]:
        """The tensors of attention in a layer, or of what stands there in its place."""
        name, hidden, kv = f"model.layers.{layer}.".__add__, config.hidden_size, config.kv_size
        for letter, size in (("q", config.q_size), ("k", kv), ("v", kv)):
            yield Tensor(name(f"self_attn.{letter}_proj.weight"), (size, hidden))
        for letter, size in (("q", config.q_size), ("k", kv), ("v", kv), ("o", hidden)):
            yield Tensor(name(f"self_attn.{letter}_proj.bias"), (size,), optional=True)
        normed = self.norm_modules if self.head_norm_weights and self._heads_normed(config) else ()
        for module, size in zip(normed, (config.q_size, kv), strict=bool(normed)):
            yield Tensor(name(f"self_attn.{module}.weight"), (size if self.norms_together else config.head_dim,))
        if self.sinks:
            yield Tensor(name(SINKS), (config.num_attention_heads,))
        if self.output_gate:
            yield Tensor(name("self_attn.gate_proj.weight"), (config.q_size, hidden))
            yield Tensor(name("self_attn.gate_proj.bias"), (config.q_size,), optional=True)
        yield Tensor(name("self_attn.o_proj.weight"), (hidden, config.q_size))

    def attention(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        c, name = config, f"model.layers.{layer}.".__add__
        heads = Heads(c.head_dim, (("q", c.q_size), ("k", c.kv_size), ("v", c.kv_size)))
        weights, biases = (
            tuple(name(f"self_attn.{part}_proj.{kind}") for part in "qkv") for kind in ("weight", "bias")
        )
        biased, channels = any(map(has, biases)), c.q_size + 2 * c.kv_size
        qkv = "qkv_bias" if biased else "qkv_matmul"
        x = LAYER_INPUT
        if self.attn_norm:
            yield self._norm(config, layer, "attn_norm", self.attn_norm, x)
            x = "attn_norm"
        used = (*weights, *filter(has, (name(f"self_attn.{part}_proj.output_scale") for part in "qkv")))
        yield Stage(Site(layer, "qkv_matmul"), Product(), channels, (x,), used, heads)
        if biased:
            yield Stage(Site(layer, "qkv_bias"), Bias(), channels, ("qkv_matmul",), biases, heads)
        if c.clip_qkv is not None:
            yield Stage(Site(layer, "qkv_clip"), Clip(c.clip_qkv), channels, (qkv,), (), heads)
            qkv = "qkv_clip"
        rotation = rotation_of(config, layer)
        of_heads = [("q", 0, c.q_size, qkv), ("k", c.q_size, c.kv_size, qkv)]
        if self.normed(c, layer) and not self.norms_rotated:
            yield from self._head_norms(config, layer, "_norm", (qkv, 0), (qkv, c.q_size))
            of_heads = [("q", 0, c.q_size, "q_norm"), ("k", 0, c.kv_size, "k_norm")]
        for part, start, size, source in of_heads:
            turned = Heads(c.head_dim, (("", size),))
            turn = Rotate(rotation, start, size) if c.rotates(layer) else Unrotated(start, size)
            yield Stage(Site(layer, f"{part}_post_rope"), turn, size, (source,), (), turned)
        attention = Attention(
            *(c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.attention_scale or c.head_dim**-0.5),
            *(c.q_size + c.kv_size, c.causal, c.window(layer), c.attention_cap),
            chunk=c.chunk(layer),
            scaled_first=self.queries_scaled,
            adjacent=self.interleaved and c.rope_type == "neox",
        )
        read = ("q_post_rope", "k_post_rope", qkv)
        if self.normed(c, layer) and self.norms_rotated:
            yield from self._head_norms(config, layer, "_rope_norm", ("q_post_rope", 0), ("k_post_rope", 0))
            read = ("q_rope_norm", "k_rope_norm", qkv)
        used = (name(SINKS),) if self.sinks else ()
        if (tempered := self.temperature(c, layer)) is not None:
            yield Stage(
                Site(layer, "q_tempered"), tempered, c.q_size, read[:1], (), Heads(c.head_dim, (("", c.q_size),))
            )
            read = ("q_tempered", *read[1:])
        yield Stage(Site(layer, "attention"), attention, c.q_size, read, used, Heads(c.head_dim, (("", c.q_size),)))
        if self.output_gate:
            gate = self._used(layer, "self_attn.gate_proj", has)
            yield Stage(Site(layer, "attn_gate"), Product(), c.q_size, (x,), gate)
            yield Stage(Site(layer, "attn_gated"), Gated(), c.q_size, ("attention", "attn_gate"))
        attended = "attn_gated" if self.output_gate else "attention"
        used = self._used(layer, "self_attn.o_proj", has)
        yield Stage(Site(layer, "attn_out"), Product(), c.hidden_size, (attended,), used)

    def _heads_normed(self, config: ModelConfig) -> bool:
        return self.head_norms and (config.normed_heads or not self.norms_differ)

    def _head_norms(self, config: ModelConfig, layer: int, suffix: str, *reads: tuple[str, int]) -> Iterator[Stage]:
        """The norms of q and of k. reads : the stage that each is of, and where in it its channels start."""
        sizes = (config.q_size, config.kv_size)
        for part, module, size, (read, start) in zip("qk", self.norm_modules, sizes, reads, strict=True):
            together = 0 if self.norms_together else config.head_dim
            norm = RmsNorm(config.rms_norm_eps, together, start, size, self.less_one)
            weight = (f"model.layers.{layer}.self_attn.{module}.weight",) if self.head_norm_weights else ()
            heads = Heads(config.head_dim, (("", size),))
            yield Stage(Site(layer, f"{part}{suffix}"), norm, size, (read,), weight, heads)

    def _feed_forward(self, config: ModelConfig, layer: int, has: Has) -> Iterator[Stage]:
        hidden, ffn = config.hidden_size, config.intermediate_size
        gate, up, down = (self._used(layer, f"mlp.{part}_proj", has) for part in ("gate", "up", "down"))
        product, activation = Product(bias_scaled=True), self.activation_of(config)
        x = LAYER_INPUT if config.parallel else "post_attn_residual"
        if config.parallel and not self.ffn_norm:
            x = "attn_norm"
        elif self.ffn_norm:
            yield self._norm(config, layer, "ffn_norm", self.ffn_norm, x)
            x = "ffn_norm"
        if self.expert_parts is not None and config.has_experts(layer):
            yield from experts.stages(config, layer, x, activation, self.expert_parts, has)
            return
        if self.gated:
            yield Stage(Site(layer, "ffn_gate"), product, ffn, (x,), gate)
        yield Stage(Site(layer, "ffn_up"), product, ffn, (x,), up)
        yield Stage(Site(layer, "ffn_silu"), activation, ffn, ("ffn_gate" if self.gated else "ffn_up",))
        if self.gated:
            gated = Multiply(plain_zeros=isinstance(activation, GeluTanh))  # which is 0 up to -10
            yield Stage(Site(layer, "ffn_swigl"), gated, ffn, ("ffn_silu", "ffn_up"))
        yield Stage(Site(layer, "ffn_out"), product, hidden, ("ffn_swigl" if self.gated else "ffn_silu",), down)

    def normed(self, config: ModelConfig, layer: int) -> bool:
        """Whether heads of a layer are normed."""
        del layer
        return self._heads_normed(config)

    def temperature(self, config: ModelConfig, layer: int) -> Tempered | None:
        """What queries of a layer are multiplied by, by their positions; None for nothing."""
        del layer
        if config.temperature is None or not config.temperature_length:
            return None
        return Tempered(config.temperature, config.temperature_length)

    def activation_of(self, config: ModelConfig) -> Activation:
        """The activation of a model: that which it names, or that of its family."""
        return _NAMED.get(config.activation or "", self.activation)

    def _added(self, config: ModelConfig, layer: int, block: str, before: str, name: str) -> Iterator[Stage]:
        """What a block gives, normed by some families, added to what was there before it."""
        if block in self.after:
            block, module = self.after[block][0], self.after[block][1]
            last = "attn_out" if name == "post_attn_residual" else "ffn_out"
            yield self._norm(config, layer, block, module, last)
        yield Stage(Site(layer, name), Add(config.residual_scale), config.hidden_size, (before, block))

    def _used(self, layer: int, module: str, has: Has) -> tuple[str, ...]:
        """The tensors of a projection: its weight, and what else there is and counts."""
        more = (".bias", ".output_scale") if module in self.scaled else (".bias",)
        name = f"model.layers.{layer}.{module}".__add__
        return (name(".weight"), *filter(has, map(name, more)))

    def _norm(self, config: ModelConfig, layer: int, stage: str, module: str, read: str) -> Stage:
        return self._normed(config, Site(layer, stage), f"model.layers.{layer}.{module}", read)

    def _normed(self, config: ModelConfig, site: Site, module: str, read: str) -> Stage:
        kind: type[Norm] = LayerNorm if self.layer_norms else RmsNorm
        norm = kind(config.rms_norm_eps, less_one=self.less_one)
        return Stage(site, norm, config.hidden_size, (read,), tuple(self._of_norm(module)))

    def _of_norm(self, module: str | None) -> Iterator[str]:
        """The tensors of a norm; none where there is no norm."""
        if module and self.norm_weights:
            yield f"{module}.weight"
        if module and self.norm_biases:
            yield f"{module}.bias"


def rotation_of(c: ModelConfig, layer: int) -> Rotation:
    """How the heads of a layer turn."""
    if c.rope_local_theta is not None and c.slides(layer):
        return Rotation(c.head_dim, c.rope_local_theta, c.rope_type, rotary_dim=c.rotary_dim)
    stretched = c.rope_factors, c.rope_attention_factor
    return Rotation(c.head_dim, c.rope_theta, c.rope_type, *stretched, c.rotary_dim, c.rope_ramp)


class Llama(Decoder):
    """Defaults of LlamaConfig in transformers 5.24; llama-model.cpp and models/llama.cpp in llama-cpp-python 0.3.36."""

    model_types: ClassVar[tuple[str, ...]] = ("llama",)
    defaults = MappingProxyType(
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
        }
    )
    stages = decoder_stages(*experts.NAMES)
    expert_parts = ExpertParts(scaled=True)
    gguf = "llama"
    interleaved = True
    rope_freqs = True
    ffn_biases = True
    scaled = (*Decoder.scaled, *(f"mlp.{part}_proj" for part in ("gate", "up", "down")))
    more = r"attn_output\.bias|ffn_(?:gate|up|down)\.bias"
    keys = MappingProxyType(
        {
            "safetensors": Keys(
                used=frozenset(("attention_bias", "mlp_bias")),
                ignored={"sliding_window": (), "layer_types": ("full_attention",)},
                irrelevant=("use_sliding_window", "max_window_layers"),
            ),
            "gguf": Keys(used=GGUF_USED, ignored=GGUF_OTHERS),
            "apr": Keys(used=frozenset((COUNTS[1], USED))),  # of a mixtral, of which GGUF says that it is a llama
        }
    )

    def of_hugging_face(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        if not fields.integer(COUNTS[1], low=0):
            return config
        return expert_settings.of_hugging_face(config, fields, "intermediate_size")

    def to_hugging_face(self, config: ModelConfig) -> dict[str, object]:
        return {COUNTS[1]: config.num_experts, USED: config.num_experts_per_tok} if config.num_experts else {}

    def of_gguf(self, config: ModelConfig, fields: Settings) -> ModelConfig:
        """Of mixtral, too: all layers have experts, whose weights add up to 1."""
        return expert_settings.of_gguf(config, fields, config.intermediate_size)

    def loaded_biases(self, fields: Settings) -> frozenset[str]:
        attention = [f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "qkv", "o")]
        mlp = [f"mlp.{part}_proj.bias" for part in ("gate", "up", "down")]
        named = (("attention_bias", attention), ("mlp_bias", mlp))
        return frozenset(name for key, names in named if fields.flag(key) for name in names)


FAMILY = Llama()
