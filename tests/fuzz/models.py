"""Models whose header, metadata, tensor table, alignment or data is changed, also so that all sizes still fit.

How often which part of a file is changed, of a hundred changes (`weights`; a field, one entry left out or put in twice
with its count kept right in 4 of 5 cases, bytes between fields, or two fields of a kind exchanged):

| | metadata | tensor table | header | alignment | data |
|---|---|---|---|---|---|
| GGUF | 36 | 36 | 14 | 7 | 7 |
| APR (metadata in every second file beside that) | 0 | 56 | 22 | 11 | 11 |
| SafeTensors (the table as JSON in 3 of 4 files beside that) | 0 | 33 | 50 | 0 | 17 |

One GGUF of eight is big-endian, one of eight is in two parts of which one is changed; one APR of eight is a shard
beside a manifest, one of eight is compressed. One file of ten gets stray bytes on top.
"""

import json
import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from kernels.rows.dequantize import dequantize
from store.files.apr_writer import AprTensor, write_apr
from store.open import open_model
from tests.artifacts import (
    apr_metadata,
    apr_tensors,
    tiny_apr,
    tiny_gguf,
    tiny_model,
    tiny_realizar_apr,
    tiny_safetensors,
)
from tests.fuzz.values import changed_json, json_bytes, number, spoiled, text
from tests.gguf_files import write_gguf
from tests.hf_files import hf_config
from tests.packed_models import CONFIGS, write_case, write_packed

SMALL: dict[str, Any] = {"layers": 1, "hidden": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 32, "vocab": 260}
INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 7: "<B", 10: "<Q", 11: "<q"}
FLOATS = {6: "<f", 12: "<d"}


@dataclass(frozen=True)
class Field:
    """A part of a file: the area it belongs to, how it is packed ("" for bytes, "text" for length and bytes).

    item : number of the entry of its area that it is part of, if any. counts : the area whose entries it counts.
    length : what a text claims, if not its own.
    """

    area: str
    packed: str
    value: Any
    item: int | None = None
    counts: str = ""
    length: int | None = None

    def content(self) -> bytes:
        if self.packed == "text":
            return struct.pack("<Q", len(self.value) if self.length is None else self.length) + self.value
        return struct.pack(self.packed, self.value) if self.packed else self.value


def changed_field(rng: random.Random, field: Field) -> Field:
    """A field with another value of its kind, cut down to what fits in its bytes."""
    if field.packed == "text":
        if rng.random() < 0.3:
            return replace(field, length=number(rng, len(field.value)) % 2**64)
        if rng.random() < 0.3:
            return replace(field, value=spoiled(rng, field.value))
        return replace(field, value=text(rng, field.value.decode(errors="replace")).encode(errors="surrogatepass"))
    if field.packed == "":
        return replace(field, value=spoiled(rng, field.value))
    size = struct.calcsize(field.packed)
    raw = number(rng, int.from_bytes(field.content(), "little")) % 2 ** (8 * size)
    return replace(field, value=struct.unpack(field.packed, raw.to_bytes(size, "little"))[0])


def changed_fields(rng: random.Random, fields: list[Field], weights: dict[str, int]) -> bytes:
    """A file with one to three of its fields or entries changed, in areas chosen by weight."""
    content = b"".join(field.content() for field in changed(rng, fields, weights))
    return spoiled(rng, content) if rng.random() < 0.1 else content


def changed(rng: random.Random, fields: list[Field], weights: dict[str, int]) -> list[Field]:
    fields = list(fields)
    for _ in range(rng.choice((1, 1, 2, 3))):
        area = rng.choices(list(weights), list(weights.values()))[0]
        at = rng.choice([n for n, field in enumerate(fields) if field.area == area] or range(len(fields)))
        match rng.randrange(12):
            case 0 | 1 | 2 if fields[at].item is not None:
                fields = changed_entries(rng, fields, fields[at])
            case 3:
                del fields[at]
            case 4:
                fields.insert(at, Field("alignment", "", bytes(rng.choice((1, 4, 31, 32, 64)))))
            case 5 | 6:
                alike = [field for field in fields if field.packed == fields[at].packed]
                fields[at] = replace(fields[at], value=rng.choice(alike).value)
            case _:
                fields[at] = changed_field(rng, fields[at])
        if not fields:
            break
    return fields


def big_endian(fields: list[Field]) -> bytes:
    """The same fields with every number the other way round."""
    content = b""
    for field in fields:
        if field.packed == "text":
            content += field.content()[:8][::-1] + field.value
        else:
            content += field.content()[::-1] if field.packed not in ("", "<4s") else field.content()
    return content


def changed_entries(rng: random.Random, fields: list[Field], chosen: Field) -> list[Field]:
    """Leave an entry out, or put it in once more, mostly counted."""
    entry = [field for field in fields if (field.area, field.item) == (chosen.area, chosen.item)]
    more = rng.random() < 0.5
    others = [field for field in fields if field not in entry]
    beginnings = [
        n for n in range(1, len(others)) if others[n].area == chosen.area and others[n].item != others[n - 1].item
    ]
    if more and beginnings:  # in another place, as entries of their own
        at = rng.choice(beginnings)
        others[at:at] = [*entry, *entry]
    step = 1 if more else -1
    if rng.random() < 0.8:
        others = [replace(f, value=max(0, f.value + step) % 2**32) if f.counts == chosen.area else f for f in others]
    return others


class GgufFuzz:
    """GGUF."""

    weights: ClassVar = {"metadata": 5, "table": 5, "header": 2, "alignment": 1, "data": 1}

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "m.gguf"
            model = tiny_gguf(path, "llama", "Q8_0", vocabulary="spm", **SMALL)
            self.fields = self._read(path.read_bytes())
            write_gguf(Path(folder) / "p.gguf", model, part=6)
            self.parts = [self._read(path.read_bytes()) for path in sorted(Path(folder).glob("p-*.gguf"))]

    def _read(self, content: bytes) -> list[Field]:
        self._at, self._item, self._content = 0, 0, content
        self.fields: list[Field] = []
        self._take("header", "<4s")
        self._take("header", "<I")
        tensors, keys = (self._take("header", "<Q", counts=area) for area in ("table", "metadata"))
        for self._item in range(keys):
            self._text("metadata")
            self._value(self._take("metadata", "<I"))
        for self._item in range(tensors):
            self._text("table")
            for _ in range(self._take("table", "<I")):
                self._take("table", "<Q")
            self._take("table", "<I")
            self._take("table", "<Q")
        self.fields.append(Field("alignment", "", bytes(-self._at % 32)))
        self.fields.append(Field("data", "", content[self._at + -self._at % 32 :]))
        return self.fields

    def _take(self, area: str, packed: str, counts: str = "") -> Any:
        value = struct.unpack_from(packed, self._content, self._at)[0]
        self._at += struct.calcsize(packed)
        self.fields.append(Field(area, packed, value, None if area == "header" else self._item, counts))
        return value

    def _text(self, area: str) -> None:
        (size,) = struct.unpack_from("<Q", self._content, self._at)
        self.fields.append(Field(area, "text", self._content[self._at + 8 : self._at + 8 + size], self._item))
        self._at += 8 + size

    def _value(self, kind: int) -> None:
        if kind == 8:
            self._text("metadata")
        elif kind == 9:
            element, count = self._take("metadata", "<I"), self._take("metadata", "<Q")
            start = self._at
            for _ in range(count):  # of a vocabulary, as one field
                self._value(element)
                self.fields.pop()
            self.fields.append(Field("metadata", "", self._content[start : self._at], self._item))
        else:
            self._take("metadata", (INTEGERS | FLOATS)[kind])

    def write(self, rng: random.Random, folder: Path) -> Path:
        """Write a changed file into an empty folder; what is to be opened."""
        path, kind = folder / "m.gguf", rng.random()
        if kind < 0.125:
            path.write_bytes(big_endian(changed(rng, self.fields, self.weights)))
            return path
        if kind < 0.25:
            return self._parts(rng, folder)
        path.write_bytes(changed_fields(rng, self.fields, self.weights))
        return path

    def _parts(self, rng: random.Random, folder: Path) -> Path:
        """Two files, of which one is changed."""
        paths = [folder / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
        chosen = rng.randrange(2)
        for n, (path, fields) in enumerate(zip(paths, self.parts, strict=True)):
            whole = b"".join(field.content() for field in fields)
            path.write_bytes(changed_fields(rng, fields, self.weights) if n == chosen else whole)
        return rng.choice(paths)


class AprFuzz:
    """APR v2: of ours, and of realizar's converter."""

    weights: ClassVar = {"metadata": 0, "header": 2, "table": 5, "alignment": 1, "data": 1}

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            tiny_apr(Path(folder) / "m.apr", "qwen2", "Q4_0", **SMALL)
            tiny_realizar_apr(Path(folder) / "r.apr", "llama", "Q8_0", **SMALL)
            own_types(Path(folder) / "o.apr")
            dequantize(open_model(Path(folder) / "o.apr").weight("lm_head.weight"))  # loads the compiler
            self.files = [self._parts((Path(folder) / name).read_bytes()) for name in ("m.apr", "r.apr", "o.apr")]

    @staticmethod
    def _parts(content: bytes) -> tuple[tuple[Any, ...], Any, list[Field], bytes]:
        header = struct.unpack_from("<4sBBHIQIQQI20s", content)
        count, start, size, index, data = header[4:9]
        table: list[Field] = []
        at = index
        for n in range(count):
            (length,) = struct.unpack_from("<H", content, at)
            name, kind, dims = content[at + 2 : at + 2 + length], content[at + 2 + length], content[at + 3 + length]
            table += [Field("table", "<H", length, n), Field("table", "", name, n)]
            table += [Field("table", "<B", kind, n), Field("table", "<B", dims, n)]
            at += 4 + length
            table += [Field("table", "<Q", value, n) for value in struct.unpack_from(f"<{dims + 2}Q", content, at)]
            at += 8 * (dims + 2)
        return header, json.loads(content[start : start + size]), table, content[data:]

    def write(self, rng: random.Random, folder: Path) -> Path:
        """Write a changed file into an empty folder; what is to be opened."""
        header, metadata, table, data = rng.choice(self.files)
        if rng.random() < 0.5:
            metadata = changed_json(rng, metadata)
        words = json_bytes(rng, metadata)
        words = words.ljust(len(words) + -len(words) % 64)
        index = b"".join(field.content() for field in table)
        room = len(index) + -len(index) % 64
        facts = [*header[:5], 64, len(words), 64 + len(words), 64 + len(words) + room, *header[9:]]
        codes = ["4s", "B", "B", "H", "I", "Q", "I", "Q", "Q", "I", "20s"]
        counts = ["", "", "", "", "table", *[""] * 6]
        fields = [
            Field("header", f"<{code}", *rest) for code, *rest in zip(codes, facts, [None] * 11, counts, strict=True)
        ]
        fields += [Field("metadata", "", words), *table, Field("alignment", "", bytes(room - len(index)))]
        fields.append(Field("data", "", data))
        only_metadata, kind = rng.random() < 0.3, rng.random()
        whole = b"".join(field.content() for field in fields)
        content = whole if only_metadata else changed_fields(rng, fields, self.weights)
        if kind < 0.125:
            return self._shard(rng, folder, content, [field.value.decode() for field in table if field.packed == ""])
        if kind < 0.25:
            content = packed(rng, content)
        (folder / "m.apr").write_bytes(content)
        return folder / "m.apr"

    @staticmethod
    def _shard(rng: random.Random, folder: Path, content: bytes, names: list[str]) -> Path:
        """A shard with a manifest of one or two, of which one may be there."""
        name = "x-00001-of-00001.apr"
        (folder / name).write_bytes(content)
        files = [{"filename": name, "index": n, "size": len(content), "tensors": len(names)} for n in range(2)]
        manifest = {"version": 1, "shards": files[: rng.choice((1, 1, 2))], "weight_map": dict.fromkeys(names, 0)}
        (folder / "x.json").write_bytes(json_bytes(rng, changed_json(rng, manifest)))
        return folder / rng.choice((name, "x.json", "x.json"))


def own_types(path: Path) -> None:
    """A file of AprQ4, AprQ8 and padded rows, whose bytes are any."""
    model = tiny_model("qwen2", **SMALL)
    types = {128: 18, 129: 0, 8: 18, 9: 0, 12: 144, 14: 210}
    tensors = []
    for n, tensor in enumerate(apr_tensors(model)):
        count, code = tensor.data.nbytes // 4, list(types)[n % len(types)]
        rows = tensor.shape[0] if len(tensor.shape) == 2 else 1
        size = 4 + count if not types[code] else rows * types[code] if code in (12, 14) else -(-count // 32) * 18
        data = np.random.default_rng(n).integers(0, 100, size).astype(np.uint8)
        tensors.append(AprTensor(tensor.name, tensor.type, tensor.shape, data, code))
    write_apr(path, apr_metadata(model, sharding={"shard_count": 1, "shard_index": 0}), tensors)


def packed(rng: random.Random, content: bytes) -> bytes:
    """The file compressed behind its header, the stream spoiled in every second one."""
    if len(content) < 64:
        return content
    try:
        import lz4.block
        import zstandard
    except ImportError:  # then what is read is that the package is missing
        return content[:6] + bytes([content[6] | 3]) + content[7:64] + b"x" + content[64:]
    if rng.random() < 0.5:
        flag, stream = 1, lz4.block.compress(content[64:], store_size=True)
    else:
        flag, stream = 2, zstandard.ZstdCompressor().compress(content[64:])
    stream = spoiled(rng, stream) if rng.random() < 0.5 else stream
    return content[:6] + bytes([content[6] | flag]) + content[7:64] + stream


class SafetensorsFuzz:
    """A SafeTensors file with its config.json, or both in shards with an index; weights in parts in every third one."""

    def __init__(self) -> None:
        self.folders: list[dict[str, bytes]] = []
        for shards in (1, 2):
            with TemporaryDirectory() as name:
                model = tiny_safetensors(Path(name), "llama", shards=shards, **SMALL)
                self.folders += 8 * [{path.name: path.read_bytes() for path in Path(name).iterdir()}]
        for case in (*CONFIGS, "ct nvfp4", "ct 4 bits zero points", "bnb nf4 nested"):
            with TemporaryDirectory() as name:
                packed = write_packed(Path(name), model, case) if case in CONFIGS else write_case(Path(name), case)
                self.folders.append({path.name: path.read_bytes() for path in packed.iterdir()})
        self.config = hf_config(model)

    def write(self, rng: random.Random, folder: Path) -> Path:
        """Write a changed model into an empty folder; what is to be opened."""
        files = dict(rng.choice(self.folders))
        chosen = rng.choice(sorted(files))
        if rng.random() < 0.04:
            del files[chosen]
        elif chosen.endswith(".json"):
            tree = json.loads(files[chosen])
            for _ in range(rng.choice((1, 1, 2, 4))):
                tree = changed_json(rng, tree)
            files[chosen] = json_bytes(rng, tree)
        else:
            files[chosen] = self._changed(rng, files[chosen])
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder if rng.random() < 0.5 else folder / rng.choice(sorted(files) or ["config.json"])

    @staticmethod
    def _changed(rng: random.Random, content: bytes) -> bytes:
        (size,) = struct.unpack_from("<Q", content)
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        if rng.random() < 0.75:
            header = changed_json(rng, header)
        words = json_bytes(rng, header)
        fields = [Field("header", "<Q", len(words)), Field("table", "", words), Field("data", "", data)]
        if rng.random() < 0.3:
            return changed_fields(rng, fields, {"header": 3, "table": 2, "data": 1})
        return b"".join(field.content() for field in fields)
