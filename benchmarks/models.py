"""Random models of real shape, written into a cache folder chunk by chunk and kept for the next run."""

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, product
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import gguf
import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import Tensor, tensors
from kernels.config import ModelConfig
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import TensorType
from store.artifact import Artifact
from store.files.apr_writer import convert_to_apr
from store.layout import stored_bytes
from store.names import gguf_name
from store.open import open_artifact
from tests.gguf_files import byte_tokens
from tests.random_weights import random_rows

Chunks = Callable[[Tensor], Iterator[NDArray[np.uint8]]]

_CHUNK_VALUES = 1 << 22
_GGUF_ALIGNMENT = 32


class ModelFolder:
    """Makes models on demand; a file that is there is used again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def gguf(self, name: str, config: ModelConfig, mix: str, vocabulary: bool = False) -> Path:
        """A GGUF of random blocks, with a made-up vocabulary of words if asked for."""
        path = self.folder / f"{name}-{mix}.gguf"
        return self._made(path, lambda new: write_gguf(new, config, tensors(config, mix), _random, vocabulary))

    def apr(self, model: Path) -> Path:
        """An APR v2 copy of a GGUF."""
        return self._made(model.with_suffix(".apr"), lambda new: convert_to_apr(open_artifact(model), new))

    def safetensors(self, name: str, config: ModelConfig, type: str) -> Path:
        """A Hugging Face folder of random F16 or BF16 matrices."""
        path = self.folder / f"{name}-{type}"
        return self._made(path, lambda new: write_folder(new, config, _float(tensors(config, type)), _random))

    def bfloat16_copy(self, model: Path) -> Path:
        """A Hugging Face folder with the values of a GGUF, cut to BF16."""

        def write(new: Path) -> None:
            source = open_artifact(model)
            write_folder(new, source.config, _float(tensors(source.config, "BF16")), _values_of(source))

        return self._made(model.with_name(f"{model.stem}-BF16"), write)

    def requantized(self, model: Path, type: str) -> Path:
        """A GGUF with the values of another one, its matrices rounded once more."""

        def write(new: Path) -> None:
            source = open_artifact(model)
            write_gguf(new, source.config, tensors(source.config, type), _rounded_values_of(source), vocabulary=False)

        return self._made(model.with_name(f"{model.stem}-{type}.gguf"), write)

    def _made(self, path: Path, write: Callable[[Path], object]) -> Path:
        if not path.exists():
            new = path.with_name(f"new-{path.name}")
            write(new)
            new.rename(path)
        return path


def _random(tensor: Tensor) -> Iterator[NDArray[np.uint8]]:
    name, type, shape = tensor
    rng = np.random.default_rng(crc32(name.encode()))
    if len(shape) == 1:
        around = 1.0 if name.endswith("weight") else 0.0
        yield _stored((around + 0.1 * rng.standard_normal(shape)).astype(np.float32), type)
        return
    for rows in _row_counts(shape):
        yield random_rows(rng, type, rows, shape[1])


def _values_of(source: Artifact) -> Chunks:
    def chunks(tensor: Tensor) -> Iterator[NDArray[np.uint8]]:
        name, type, shape = tensor
        weight, start = source.weight(name), 0
        for rows in _row_counts(shape):
            values = dequantize_rows(weight.type, weight.rows[start : start + rows], shape[-1])
            yield _stored(values, type)
            start += rows

    return chunks


def _rounded_values_of(source: Artifact) -> Chunks:
    floats = _values_of(source)

    def chunks(tensor: Tensor) -> Iterator[NDArray[np.uint8]]:
        name, type, shape = tensor
        for values in floats((name, TensorType.F32, shape)):
            yield gguf.quants.quantize(values.view(np.float32), gguf.GGMLQuantizationType(type)).view(np.uint8)

    return chunks


def _stored(values: NDArray[np.float32], type: TensorType) -> NDArray[np.uint8]:
    """Values in a float type; BF16 takes the upper half of their bits."""
    if type == TensorType.BF16:
        return values.view(np.uint16)[..., 1::2].copy().view(np.uint8)
    return values.astype(np.float16 if type == TensorType.F16 else np.float32).view(np.uint8)


def _row_counts(shape: tuple[int, ...]) -> Iterator[int]:
    total = shape[0] if len(shape) == 2 else 1
    step = max(1, _CHUNK_VALUES // shape[-1])
    for start in range(0, total, step):
        yield min(step, total - start)


def _float(of: list[Tensor]) -> list[Tensor]:
    """The same tensors with vectors in the type of the matrices, as Hugging Face stores them."""
    type = of[0][1]
    return [(name, type, shape) for name, _, shape in of]


def write_gguf(path: Path, config: ModelConfig, of: list[Tensor], chunks: Chunks, vocabulary: bool) -> None:
    """Write a GGUF v3 that llama.cpp can load."""
    writer = gguf.GGUFWriter(path, config.architecture)
    writer.add_context_length(config.max_position_embeddings or 2048)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _add_vocabulary(writer, config.vocab_size if vocabulary else 0)
    for name, type, shape in of:
        raw_type = gguf.GGMLQuantizationType(type)
        writer.add_tensor_info(gguf_name(name), shape, np.dtype(np.float32), stored_bytes(type, shape), raw_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("ab") as file:
        _pad(file, _GGUF_ALIGNMENT)
        for tensor in of:
            _write(file, chunks(tensor))
            _pad(file, _GGUF_ALIGNMENT)


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """A byte-pair vocabulary of that many tokens: single bytes, then pairs, then triples of them."""
    if size == 0:
        writer.add_tokenizer_model("none")
        return
    single = byte_tokens("bpe", 257)[1:]
    pairs = product(single, single)
    triples = product(map("".join, product(single, single)), single)
    merges = list(islice(chain(pairs, triples), size - len(single)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*single, *map("".join, merges)])
    writer.add_token_types([1] * size)
    writer.add_token_merges([" ".join(parts) for parts in merges])


def write_folder(folder: Path, config: ModelConfig, of: list[Tensor], chunks: Chunks) -> None:
    """Write config.json and model.safetensors."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_hugging_face(config, of[0][1])))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, type, shape in of:
        start, end = end, end + stored_bytes(type, shape)
        header[name] = {"dtype": type.name, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in of:
            _write(file, chunks(tensor))


def _hugging_face(config: ModelConfig, type: TensorType) -> dict[str, object]:
    kind = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[config.architecture]
    return {
        "architectures": [kind],
        "model_type": config.architecture,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_position_embeddings,
        "torch_dtype": {TensorType.F16: "float16", TensorType.BF16: "bfloat16"}[type],
    }


def _write(file: BinaryIO, chunks: Iterable[NDArray[np.uint8]]) -> None:
    for chunk in chunks:
        file.write(np.ascontiguousarray(chunk).data)


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))
