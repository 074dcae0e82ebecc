"""Models whose header, metadata, tensor table, alignment or data is changed, also so that all sizes still fit."""

import json
import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from tests.artifacts import hf_config, tiny_apr, tiny_gguf, tiny_realizar_apr, tiny_safetensors
from tests.fuzz.values import changed_json, json_bytes, number, spoiled, text
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
    content = b"".join(field.content() for field in fields)
    return spoiled(rng, content) if rng.random() < 0.1 else content


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
            tiny_gguf(path, "llama", "Q8_0", vocabulary="spm", **SMALL)
            content = path.read_bytes()
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
        path = folder / "m.gguf"
        path.write_bytes(changed_fields(rng, self.fields, self.weights))
        return path


class AprFuzz:
    """APR v2: of ours, and of realizar's converter."""

    weights: ClassVar = {"metadata": 0, "header": 2, "table": 5, "alignment": 1, "data": 1}

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            tiny_apr(Path(folder) / "m.apr", "qwen2", "Q4_0", **SMALL)
            tiny_realizar_apr(Path(folder) / "r.apr", "llama", "Q8_0", **SMALL)
            self.files = [self._parts((Path(folder) / name).read_bytes()) for name in ("m.apr", "r.apr")]

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
        path = folder / "m.apr"
        only_metadata = rng.random() < 0.3
        whole = b"".join(field.content() for field in fields)
        path.write_bytes(whole if only_metadata else changed_fields(rng, fields, self.weights))
        return path


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
