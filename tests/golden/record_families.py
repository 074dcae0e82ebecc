"""Record what transformers and llama.cpp make of small models of a family: transformers-FAMILY-*.npz, llama-cpp-*.npz.

usage: python -m tests.golden.record_families PYTHON FAMILY... (PYTHON has torch, transformers and llama-cpp-python)
The family "optional" is a llama with every tensor that llama.cpp looks for.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from kernels import models
from tests.artifacts import tiny_gguf, tiny_model, tiny_safetensors
from tests.gguf_files import write_gguf
from tests.memory_model import HYBRID, MemoryModel, with_optional

GOLDEN = Path(__file__).parent
TOKENS = (5, 100, 7, 7, 31)
SHAPE = {"head_dim": 32, "seed": 5}  # heads that are not hidden / heads wide
SMALL = {"heads": 2, "kv_heads": 1, "head_dim": 32, "hidden": 32, "ffn": 64, "seed": 5}
TYPE = "Q8_0"
OTHERS = (
    *("lfm2", "qwen35", "qwen35moe", "qwen3next", "granitehybrid", "granitehybrid-experts", "falcon_h1"),
    *("smollm3", "olmo2", "gemma", "gemma2", "granite", "seed_oss", "exaone4"),
    *("glm4", "phi3", "arcee", "ernie4_5", "hunyuan_v1_dense", "olmo3"),
    *("starcoder2", "cohere", "cohere2", "gpt_neox", "phi", "nemotron", "jais2", "olmo"),
    *("mixtral", "qwen3moe", "qwen2moe", "olmoe", "granitemoe", "dots1", "gpt_oss", "glm4_moe"),
    *("minimax_m2", "ernie4_5_moe", "exaone_moe", "hunyuan_moe", "lfm2moe", "afmoe"),
)
# Those of which transformers has no model of its own; llama.cpp's own suite of architectures has one of each.
ONLY_GGUF = (
    *("exaone", "internlm2", "xverse", "baichuan", "minicpm", "pangu_embedded", "nanbeige", "deci", "dream", "llada"),
    *("qwen3vl", "chatglm", "qwen", "plamo", "hunyuan_vl", "maincoder", "openelm", "orion", "codeshell"),
    *("deepseek", "bailingmoe", "llada_moe", "rnd1"),
    "qwen3vlmoe",
    *("bailingmoe2", "mellum", "dbrx", "qwen2vl", "paddleocr", "granite_swa"),
)
FURTHER = ("mistral3", "llama4", "gemma4", "gemma4-e2b", "gemma4-a4b")  # whose settings APR has no place for
LATENT = ("deepseek2", "deepseek3")  # likewise, with other stages of attention
# Of families whose layers differ.
_TWO = ("deepseek", "dots1", "ernie4_5_moe", "olmo3", "gpt_oss", "glm4_moe", "bailingmoe2", "exaone_moe", "mellum")
LAYERS = {
    "smollm3": 4,
    **{"llama4": 4, "gemma4-e2b": 4, "afmoe": 4, "lfm2moe": 2, "granitehybrid-experts": 2},
    **dict.fromkeys(
        (
            *_TWO,
            *LATENT,
            "granite_swa",
            "gemma4",
            "gemma4-a4b",
            "lfm2",
            "qwen35",
            "qwen35moe",
            "qwen3next",
            "granitehybrid",
        ),
        2,
    ),
}
# What llama.cpp takes for granted: a head of their own none, or heads of hidden / heads channels.
OF_FAMILY = {
    "gemma": {"tied": True},
    **{name: {"head_dim": 48, "kv_heads": 2} for name in LATENT},
    "gemma2": {"tied": True},
    "gemma4": {"head_dim": 16, "kv_heads": 2, "tied": True},
    **{name: {"head_dim": 16, "tied": True} for name in ("lfm2", "lfm2moe")},
    "gemma4-e2b": {"head_dim": 16, "tied": True},
    "gemma4-a4b": {"head_dim": 16, "kv_heads": 2, "tied": True},
    "granitehybrid-experts": {"head_dim": 16},
    "granitehybrid": {"head_dim": 16},
    "falcon_h1": {"head_dim": 16},
    "olmo2": {"head_dim": 16},
    "exaone4": {"head_dim": 16},
    "phi3": {"head_dim": 16},
    "starcoder2": {"head_dim": 16},
    **{name: {"head_dim": 16} for name in ("gpt_neox", "phi", "nemotron", "orion", "olmo", "codeshell")},
    **{name: {"head_dim": 16} for name in ("internlm2", "xverse", "baichuan", "pangu_embedded")},
    **{name: {"head_dim": 16} for name in ("dream", "qwen", "plamo")},
    "chatglm": {"head_dim": 16},
    "openelm": {"tied": True},
    "olmo3": {"head_dim": 16},
    "cohere": {"head_dim": 16, "tied": True},
    "cohere2": {"head_dim": 16, "tied": True},
    "dots1": {"heads": 2, "kv_heads": 2},
    "olmoe": {"head_dim": 16, "heads": 2, "kv_heads": 2, "hidden": 32},
    "qwen2moe": {"head_dim": 16},
    "deepseek": {"head_dim": 16},
    "llada_moe": {"head_dim": 16},
    **{name: {"head_dim": 16} for name in ("bailingmoe2", "dbrx", "qwen2vl")},
}
FIRST = ("llama", "mistral", "qwen2", "qwen3", "gemma3")  # recorded in SHAPE, and in float64 too


def shape(family: str) -> dict[str, int]:
    """Sizes of the model of a family that transformers runs: of some, layers differ only when there are more."""
    layers = HYBRID if family in ("exaone4", "starcoder2", "gpt_neox", "olmo", "llama4") else LAYERS.get(family, 2)
    return SHAPE if family in FIRST else SMALL | OF_FAMILY.get(family, {}) | {"layers": layers}


def gguf_shape(family: str) -> dict[str, int]:
    """The same for llama.cpp."""
    return shape(family) | {"layers": LAYERS.get(family, 1)}


def optional_model() -> MemoryModel:
    """A llama with all the biases and factors that llama.cpp looks for."""
    return with_optional(tiny_model("llama", TYPE, **SMALL, layers=1))


def record(python: str, engine: str, model: Path, output: Path, *more: str) -> dict[str, np.ndarray]:
    """The stages that an engine has of a model, by "LAYER.STAGE"."""
    tokens = ",".join(map(str, TOKENS))
    command = [sys.executable, "-m", "workbench", "record", str(model), "--python", python, "--tokens", tokens]
    subprocess.run([*command, "-o", str(output), "--force", "--engine", engine, *more], check=True)
    from store.traces.open import open_trace

    trace = open_trace(output)
    return {f"{-1 if s.layer is None else s.layer}.{s.stage}": np.asarray(trace.read(s)) for s in trace.sites()}


def main(python: str, *families: str) -> None:
    """Record every family with every engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "optional" in families:
            write_gguf(folder / "o.gguf", optional_model())
            found = record(python, "llama.cpp", folder / "o.gguf", folder / "o.npz")
            np.savez_compressed(GOLDEN / f"llama-cpp-optional-{TYPE.lower()}.npz", **found)
            families = tuple(family for family in families if family != "optional")
        for family in families:
            of = models.family(family.partition("-")[0])
            if of.model_types:
                tiny_safetensors(folder / family, family, **shape(family))
            dtypes = () if family in ONLY_GGUF else ("float32", "float64") if family in FIRST else ("float32",)
            for dtype in dtypes:
                found = record(python, "transformers", folder / family, folder / "t.npz", "--dtype", dtype)
                np.savez_compressed(GOLDEN / f"transformers-{family}-{dtype}.npz", **found)
            if of.gguf is not None or family in ("mixtral", "deepseek3"):
                tiny_gguf(folder / "m.gguf", family, TYPE, **gguf_shape(family))
                found = record(python, "llama.cpp", folder / "m.gguf", folder / "l.npz")
                np.savez_compressed(GOLDEN / f"llama-cpp-{family}-{TYPE.lower()}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
