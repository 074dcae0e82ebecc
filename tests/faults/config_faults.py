"""Mistakes in the hyper-parameters that a file carries beside its tensors."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kernels.config import ModelConfig
from kernels.models import Graph, family
from kernels.stages import Site
from store.files.apr_writer import write_apr
from tests.artifacts import apr_metadata, apr_tensors
from tests.faults.cases import Expected
from tests.faults.storing import Format, write
from tests.memory_model import MemoryModel


@dataclass(frozen=True)
class ConfigFault:
    """change : B's configuration. file : an edit of B's file that the configuration does not hold.

    stage : where it shows; None for the first stage that does something else.
    """

    kind: str
    stage: str | None
    cause: str
    change: Callable[[ModelConfig], dict[str, object]] = lambda c: {}
    fits: Callable[[ModelConfig, Format], bool] = lambda c, format: True
    file: Callable[[MemoryModel, Path], None] | None = None

    def expected(self, config: ModelConfig) -> Expected:
        """The first stage of the kind that does something else with the changed setting."""
        own, other = (Graph(c) for c in (config, replace(config, **self.change(config))))
        pairs = zip(own.stages(), other.stages(), strict=True)
        changed = (one.site for one, two in pairs if self.stage in (None, one.site.stage) and one.kind != two.kind)
        plain = next(
            n for n in range(config.num_hidden_layers) if config.window(n) is None or not config.rope_local_theta
        )
        return Expected((next(changed, Site(plain, self.stage or "")),), ("config",), (self.cause,))

    def write(self, model: MemoryModel, format: Format, path: Path) -> Path:
        changed = replace(model, config=replace(model.config, **self.change(model.config)))
        written = write(changed, format, path)
        if self.file is not None:
            self.file(changed, written)
        return written


def _finer_heads(c: ModelConfig) -> dict[str, object]:
    """Twice as many heads, each half as wide: all tensors keep their shapes."""
    return {
        "num_attention_heads": 2 * c.num_attention_heads,
        "num_key_value_heads": 2 * c.num_key_value_heads,
        "head_dim": c.head_dim // 2,
    }


def _can_be_halved(c: ModelConfig, format: Format) -> bool:
    """GGUF stores q and k of llama in an order that depends on the heads; there it would be a weight fault as well."""
    of = family(c.architecture)
    norms = "q_norm" in of.stages  # whose weight says how wide a head is
    return not norms and (format.container != "gguf" or not of.interleaved)


def _says_its_pairs(c: ModelConfig, format: Format) -> bool:
    """In an APR file of llama the field is known to be wrong so often that the names of the tensors decide."""
    return format.container == "apr" and c.architecture == "qwen2"


def _other_pairs(model: MemoryModel, path: Path) -> None:
    write_apr(path, apr_metadata(model, rope_type=0, original_format="gguf"), apr_tensors(model))


def _linear_scaling(model: MemoryModel, path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    settings = config["rope_parameters"]
    settings.get("full_attention", settings).update({"rope_type": "linear", "factor": 4.0})
    (path / "config.json").write_text(json.dumps(config))


def _alike(c: ModelConfig, format: Format) -> bool:
    """Whether all layers rotate alike."""
    return c.rope_local_theta is None


def _slides(c: ModelConfig, format: Format) -> bool:
    """Whether the first layer has a window and a rotary base of its own."""
    return not _alike(c, format)


def _has_window(c: ModelConfig, format: Format) -> bool:
    return c.sliding_window is not None


def _says_scale(c: ModelConfig, format: Format) -> bool:
    return _slides(c, format) and format.container != "gguf"


def _has(key: str, none: object) -> Callable[[ModelConfig, Format], bool]:
    """Whether a setting of the family's own says something, and the file can say otherwise."""
    fixed = key in ("rotated_layers", "attention_cap", "logits_cap")  # in GGUF, or the family's own if not said
    return lambda c, format: getattr(c, key) != none and not (fixed and format.container == "gguf")


def _without(key: str, none: object, c: ModelConfig) -> dict[str, object]:
    return {key: none}


def _base(base: float) -> Callable[[ModelConfig], dict[str, object]]:
    return lambda c: {"rope_theta": base}


def _window(size: int) -> Callable[[ModelConfig], dict[str, object]]:
    return lambda c: {"sliding_window": size}


CONFIG_FAULTS = (
    *(
        ConfigFault(f"rope_theta {base:g}", "q_post_rope", "rope_theta", _base(base), _alike)
        for base in (5000.0, 10100.0, 500000.0, 1e6 + 1)
    ),
    *(
        ConfigFault(f"rms_norm_eps {eps:g}", None, "rms_norm_eps", lambda c, eps=eps: {"rms_norm_eps": eps})
        for eps in (1e-3, 3e-5, 1e-12)
    ),
    ConfigFault("head_grouping", "q_post_rope", "head_grouping", _finer_heads, _can_be_halved),
    ConfigFault("rope_type", "q_post_rope", "rope_type", fits=_says_its_pairs, file=_other_pairs),
    ConfigFault(
        "rope scaling",
        "q_post_rope",
        "rope_theta",
        fits=lambda c, f: f.container == "safetensors" and _alike(c, f),
        file=_linear_scaling,
    ),
    *(
        ConfigFault(f"sliding_window {size}", "attention", "causal_mask", _window(size), _has_window)
        for size in (1, 2, 4)
    ),
    ConfigFault("rope_local_theta", "q_post_rope", "rope_theta", lambda c: {"rope_local_theta": c.rope_theta}, _slides),
    ConfigFault(
        "query_pre_attn_scalar", "attention", "attention_scale", lambda c: {"attention_scale": 0.1}, _says_scale
    ),
    *(
        ConfigFault(f"{key} left out", stage, cause, partial(_without, key, none), _has(key, none))
        for key, stage, cause, none in (
            ("embedding_scale", "embedding", "scaled", 1.0),
            ("residual_scale", "post_attn_residual", "scaled", 1.0),
            ("logits_scale", "lm_head", "scaled", 1.0),
            ("attention_cap", "attention", "attention_scale", None),
            ("logits_cap", "lm_head", "scaled", None),
            ("rotated_layers", "q_post_rope", "rope_position", None),
        )
    ),
)
