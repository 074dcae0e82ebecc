"""Dumps as other engines write them, made from a forward of ours; every writer returns what a reader must find."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kernels.forward import evaluate, forward
from kernels.graph import At
from kernels.models import Graph
from kernels.paths import numeric_path
from kernels.stages import Site
from tests.memory_model import MemoryModel

Stages = dict[Site, np.ndarray]
Change = Callable[[Site, np.ndarray, Mapping[str, np.ndarray]], np.ndarray]


def run(model: MemoryModel, tokens: tuple[int, ...], path: str = "f32") -> Stages:
    return dict(forward(model, tokens, numeric_path(path)))


def run_changed(model: MemoryModel, tokens: tuple[int, ...], change: Change, path: str = "f32") -> Stages:
    """A run of which change(site, values, what the layer has so far) says what every stage really returns."""
    known: dict[str, np.ndarray] = {}
    found: Stages = {}
    graph = Graph.of(model)
    for stage in graph.stages():
        at, site = At(model, numeric_path(path), tokens, stage), stage.site
        inputs = {role: np.ascontiguousarray(found[place], at.path.dtype) for role, place in graph.reads(stage).items()}
        found[site] = known[site.stage] = change(site, evaluate(at, inputs), known)
        if site.stage == "qkv_matmul":
            known["qkv_bias"] = found[site]  # of a model without biases
        if site.stage in ("embedding", "layer_output"):
            known["layer_input"] = found[site]
    return found


def write_stage_dump(path: Path, stages: Stages, meta: dict[str, object], compressed: bool = False) -> None:
    """As hooks in transformers write it."""
    arrays = {f"stage|{-1 if site.layer is None else site.layer}|{site.stage}": v for site, v in stages.items()}
    (np.savez_compressed if compressed else np.savez)(path, __meta__=json.dumps(meta), **arrays)


def write_aprt(folder: Path, stages: Stages) -> None:
    """As `apr trace --save-tensor all` writes it: the embedding in layer-0, of lm_head the last token."""
    for site, values in stages.items():
        layer = 0 if site.stage == "embedding" else site.layer
        place = folder if layer is None else folder / f"layer-{layer}"
        place.mkdir(parents=True, exist_ok=True)
        values = values[-1:] if site.stage == "lm_head" else values
        write_aprt_file(place / f"{site.stage}.bin", values, layer)


def write_aprt_file(path: Path, values: np.ndarray, layer: int | None) -> None:
    header = struct.pack("<4sII", b"APRT", 0xFFFFFFFF if layer is None else layer, values.size)
    path.write_bytes(header + values.astype("<f4").tobytes())


def write_llama_dump(
    path: Path,
    model: MemoryModel,
    stages: Stages,
    tokens: tuple[int, ...],
    batches: tuple[int, ...] | None = None,
    outputs: tuple[int, ...] | None = None,
    flash: bool = False,
    kv: str = "f32",
    meta: dict[str, object] | None = None,
) -> None:
    """As the eval callback of llama.cpp hands the nodes out: q, v, k, no silu, ggml's channel order for llama."""
    graph = _LlamaGraph(model, stages, flash, kv)
    start = 0
    outputs = tuple(range(len(tokens))) if outputs is None else outputs
    for size in batches or (len(tokens),):
        here = slice(start, start + size)
        graph.batch(here, [at for at in outputs if here.start <= at < here.stop])
        start += size
    settings = {"tokens": list(tokens), "repack": 0, "flash": int(flash), "kv": kv} | (meta or {})
    np.savez(path, __meta__=json.dumps(settings), __index__=json.dumps(graph.index), **graph.arrays)


class _LlamaGraph:
    def __init__(self, model: MemoryModel, stages: Stages, flash: bool, kv: str) -> None:
        self.model, self.config = model, model.config
        self.stages = stages
        self.flash = flash
        self.kv = kv
        self.index: list[dict[str, object]] = []
        self.arrays: dict[str, np.ndarray] = {}

    def node(self, name: str, op: str, values: np.ndarray | None, *src: str, type: str = "f32") -> str:
        seq = len(self.index)
        self.index.append({"seq": seq, "name": name, "op": op, "type": type, "src": list(src)})
        if values is not None:
            while values.ndim > 2 and values.shape[0] == 1:
                values = values[0]
            self.arrays[f"{seq:05d}|{name}|{op}"] = np.ascontiguousarray(values)
        return name

    def batch(self, rows: slice, outputs: list[int]) -> None:
        c, last = self.config, self.config.num_hidden_layers - 1
        whole = {stage: self.stages[Site(None, stage)] for stage in ("embedding", "final_norm", "lm_head")}
        before = self.node("embd", "GET_ROWS", whole["embedding"][rows], "token_embd.weight", "tokens")
        for n in range(c.num_hidden_layers):
            at = {stage: self.stages.get(Site(n, stage)) for stage in _LAYER}
            kept = outputs if n == last else rows
            self.node(f"norm-{n}", "RMS_NORM", at["attn_norm"][rows] * 0, before)
            self.node(f"attn_norm-{n}", "MUL", at["attn_norm"][rows], f"norm-{n}")
            self.projections(n, at, rows)
            for part in "kv":
                self.node(f"cache_{part}_l{n} (view)", "SET_ROWS", None, type=self.kv)
            self.attention(n, at["attention"][rows])
            out = f"attn_out-{n}" if c.architecture == "llama" else f"node_{100 + n}"
            self.node(out, "MUL_MAT", at["attn_out"][rows], f"blk.{n}.attn_output.weight", "x")
            residual = self.stages[Site(None, "embedding") if n == 0 else Site(n - 1, "layer_output")]
            if n == last:
                self.node("node_200", "GET_ROWS", at["attn_out"][kept], out, "out_ids")
                self.node("node_201", "GET_ROWS", residual[kept], before, "out_ids")
            self.node(f"ffn_inp-{n}", "ADD", at["post_attn_residual"][kept], out, before)
            self.node(f"norm-{n}", "RMS_NORM", at["ffn_norm"][kept] * 0, f"ffn_inp-{n}")
            self.node(f"ffn_norm-{n}", "MUL", at["ffn_norm"][kept], f"norm-{n}")
            self.node(f"ffn_gate-{n}", "MUL_MAT", at["ffn_gate"][kept], f"blk.{n}.ffn_gate.weight", f"ffn_norm-{n}")
            self.node(f"ffn_up-{n}", "MUL_MAT", at["ffn_up"][kept], f"blk.{n}.ffn_up.weight", f"ffn_norm-{n}")
            self.node(f"ffn_swiglu-{n}", "SWIGLU", at["ffn_swigl"][kept], f"ffn_gate-{n}", f"ffn_up-{n}")
            self.down(n, at["ffn_out"][kept])
            before = self.node(f"l_out-{n}", "ADD", at["post_ffn_residual"][kept], f"ffn_out-{n}", f"ffn_inp-{n}")
        self.node("norm", "RMS_NORM", whole["final_norm"][outputs] * 0, before)
        self.node("result_norm", "MUL", whole["final_norm"][outputs], "norm", "output_norm.weight")
        self.node("result_output", "MUL_MAT", whole["lm_head"][outputs], "output.weight", "result_norm")

    def down(self, n: int, values: np.ndarray) -> None:
        """The last product of a layer; with a bias and a factor only what comes of all has the name of the stage."""
        weight, through = f"blk.{n}.ffn_down.weight", f"ffn_swiglu-{n}"
        if f"model.layers.{n}.mlp.down_proj.output_scale" not in self.model:
            self.node(f"ffn_out-{n}", "MUL_MAT", values, weight, through)
            return
        product = self.node(f"ffn_down-{n}", "MUL_MAT", values * 0, weight, through)
        biased = self.node(f"node_{300 + n}", "ADD", values * 2, product, f"blk.{n}.ffn_down.bias")
        self.node(f"ffn_out-{n}", "MUL", values, biased, f"blk.{n}.ffn_down.scale")

    def projections(self, n: int, at: dict[str, np.ndarray], rows: slice) -> None:
        c, first = self.config, 0
        spans = {}
        for letter, size in (("q", c.q_size), ("k", c.kv_size), ("v", c.kv_size)):
            spans[letter] = slice(first, first + size)
            first += size
        for letter in "qvk":
            name = f"{letter.upper()}cur-{n}"
            self.node(name, "MUL_MAT", self.ggml_order(letter, at["qkv_matmul"][rows, spans[letter]]), "w", "x")
            if at["qkv_bias"] is not None:
                self.node(name, "ADD", self.ggml_order(letter, at["qkv_bias"][rows, spans[letter]]), name, "b")
            if letter != "v":
                rotated = self.ggml_order(letter, at[f"{letter}_post_rope"][rows])
                self.node(name, "ROPE", rotated.reshape(len(rotated), -1, c.head_dim), name, "inp_pos")

    def ggml_order(self, letter: str, values: np.ndarray) -> np.ndarray:
        """Channel s*head_dim/2+i of a head goes to 2i+s, as the rows of a llama GGUF do."""
        if self.config.architecture != "llama" or letter == "v":
            return values
        half = self.config.head_dim // 2
        heads = values.reshape(len(values), -1, 2, half)
        return np.stack([heads[:, :, 0], heads[:, :, 1]], axis=-1).reshape(values.shape)

    def attention(self, n: int, values: np.ndarray) -> None:
        if self.flash:
            heads = values.reshape(len(values), -1, self.config.head_dim)
            self.node(f"node_{n}", "FLASH_ATTN_EXT", heads, f"Qcur-{n} (view) (permuted)", f"cache_k_l{n} (view)")
            return
        self.node(f"kq_soft_max-{n}", "SOFT_MAX", np.zeros((4, len(values), 8), np.float32), f"kq-{n}")
        self.node(f"kqv_out-{n}", "CONT", values, f"kqv-{n} (permuted)")


_LAYER = (
    *("attn_norm", "qkv_matmul", "qkv_bias", "q_post_rope", "k_post_rope", "attention", "attn_out"),
    *("post_attn_residual", "ffn_norm", "ffn_gate", "ffn_up", "ffn_swigl", "ffn_out", "post_ffn_residual"),
)
