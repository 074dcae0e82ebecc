"""Traces and sessions whose attributes, arrays, archive or text is changed."""

import io
import json
import random
import shutil
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np

from store.traces.written import mark_ours
from tests.foreign_dumps import run, write_aprt, write_llama_dump, write_stage_dump
from tests.fuzz.values import NUMBERS, ODD, changed_json, json_bytes, number, spoiled, text
from tests.memory_model import random_model
from tests.stores import run_record, write_store

SESSION = Path(__file__).parents[2] / "sessions/tiny-qwen2-permuted-rope"
STRAY = [np.zeros((2, 3), np.float32), np.arange(5), np.array(["a", "b"], dtype=object), np.float64("nan"), np.zeros(0)]


class StoreFuzz:
    """Stores of ours (HDF5), finished and not."""

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "t.h5"
            write_store(path, run_record(layers=1))
            self.content = path.read_bytes()

    def write(self, rng: random.Random, folder: Path) -> Path:
        """Write a changed store into an empty folder; what is to be opened."""
        path = folder / "t.h5"
        if rng.random() < 0.5:  # the bytes of HDF5's own structures lie anywhere
            content = self.content
            for _ in range(rng.choice((1, 1, 2, 5))):
                content = spoiled(rng, content, 0, rng.choice((100, 2000, len(content))))
            path.write_bytes(content)
        else:
            path.write_bytes(self.content)
            with h5py.File(path, "r+") as file:
                for _ in range(rng.choice((1, 1, 2))):
                    self._change(rng, file)
        mark_ours(path)  # or each would be opened by a process of its own
        return path

    @staticmethod
    def _change(rng: random.Random, file: h5py.File) -> None:
        things: list[Any] = [file]
        file.visititems(lambda _, thing: things.append(thing))
        thing = rng.choice([file, *things])
        names = list(thing.attrs)
        match rng.randrange(6):
            case 0 if names:
                del thing.attrs[rng.choice(names)]
            case 1 | 2 if names:
                name = rng.choice(names)
                old = thing.attrs[name]
                new: Any = rng.choice(STRAY[:2])
                if isinstance(old, str):
                    new = _changed_text(rng, old)
                elif isinstance(old, np.integer | int):
                    new = number(rng, int(old)) % 2**63
                thing.attrs[name] = new
            case 3 if thing.name != "/":
                del file[thing.name]
            case 4 if isinstance(thing, h5py.Dataset) and thing.size < 10**6:
                name, values = thing.name, thing[()]
                del file[name]
                file[name] = rng.choice(
                    [values.T, values[:1], values.astype(np.float64), values.astype(">f4"), values * np.nan]
                )
            case _:
                where = rng.choice([some.name for some in things])
                if where == "/":
                    return
                del file[where]
                match rng.randrange(5):
                    case 0:
                        file[where] = h5py.SoftLink(rng.choice(["/", where, "/nowhere"]))
                    case 1:
                        file[where] = h5py.ExternalLink(rng.choice(["t.h5", "nowhere.h5", "/dev/zero"]), "/")
                    case 2:
                        file.create_dataset(where, shape=(rng.randint(1, 99), 1 << 40), dtype="f4", chunks=(1, 64))
                    case 3:
                        file.create_group(where)
                    case _:
                        file.create_dataset(where, data=np.zeros((4, 8), np.float32), compression="gzip")


def _changed_text(rng: random.Random, value: str) -> Any:
    try:
        tree = json.loads(value)
    except ValueError:
        return text(rng, value).replace("\0", "").encode(errors="replace").decode()
    return json_bytes(rng, changed_json(rng, tree)).decode(errors="replace").replace("\0", "")


def _changed_array_text(rng: random.Random, content: bytes) -> bytes:
    try:
        tree = changed_json(rng, json.loads(str(np.load(io.BytesIO(content)))))
    except Exception:  # it was changed before, and whatever NumPy makes of it
        return spoiled(rng, content)
    stream = io.BytesIO()
    np.save(stream, np.array(json_bytes(rng, tree).decode(errors="replace")))
    return stream.getvalue()


class DumpFuzz:
    """Traces of other engines: archives of arrays, and folders of APRT files."""

    def __init__(self) -> None:
        model = random_model(layers=1, hidden=8, heads=2, kv_heads=1, head_dim=4, ffn=8, vocab=16)
        stages = run(model, (1, 2))
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_llama_dump(folder / "llama.npz", model, stages, (1, 2))
            write_stage_dump(folder / "stages.npz", stages, {"tokens": [1, 2], "config": {"num_hidden_layers": 1}})
            write_aprt(folder / "aprt", stages)
            self.archives = [self._members(folder / file) for file in ("llama.npz", "stages.npz")]
            root = folder / "aprt"
            self.files = {path.relative_to(root): path.read_bytes() for path in root.rglob("*.bin")}

    @staticmethod
    def _members(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def write(self, rng: random.Random, folder: Path) -> Path:
        """Write a changed trace into an empty folder; what is to be opened."""
        if rng.random() < 0.25:
            return self._aprt(rng, folder)
        path, members = folder / "x.npz", list(rng.choice(self.archives).items())
        for _ in range(rng.choice((0, 1, 1, 2))):
            self._change(rng, members)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, content in members:
                with warnings.catch_warnings(action="ignore"):  # a name twice
                    archive.writestr(zipfile.ZipInfo(name), content)
        content = stream.getvalue()
        path.write_bytes(spoiled(rng, content) if rng.random() < 0.4 else content)
        return path

    @staticmethod
    def _change(rng: random.Random, members: list[tuple[str, bytes]]) -> None:
        at = rng.randrange(len(members))
        name, content = members[at]
        new = _changed_array_text(rng, content) if "__" in name and rng.random() < 0.9 else content
        match rng.randrange(6):
            case 0:
                del members[at]
            case 1:
                members.append((name, new))
            case 2:
                members[at] = (text(rng, name).replace("\0", "").encode(errors="replace").decode() or "x", new)
            case 3:
                members[at] = (name, spoiled(rng, new, 0, 130))  # the header of the array
            case 4:
                members[at] = (name, spoiled(rng, new))
            case _:
                members[at] = (name, new)

    def _aprt(self, rng: random.Random, folder: Path) -> Path:
        files = dict(self.files)
        place = rng.choice(sorted(files))
        match rng.randrange(4):
            case 0:
                del files[place]
            case 1:
                files[Path(rng.choice(["layer-99", "layer-x", "layer--1", "layer-²"])) / place.name] = files[place]
            case _:
                files[place] = spoiled(rng, files[place], 0, rng.choice((12, 200)))
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder if rng.random() < 0.8 else folder / rng.choice(sorted(files))


class SessionFuzz:
    """Session folders: session.json, the log, the notes."""

    def write(self, rng: random.Random, folder: Path) -> Path:
        """Write a changed session into an empty folder; what is to be opened."""
        notes = rng.sample(sorted(path.relative_to(SESSION) for path in SESSION.glob("hypotheses/*.md")), 2)
        (folder / "hypotheses").mkdir()
        files = [Path("session.json"), Path("log.jsonl"), *notes]
        for file in files:
            shutil.copyfile(SESSION / file, folder / file)
        chosen = folder / rng.choice(files)
        content = chosen.read_bytes()
        if chosen.suffix == ".json":
            tree = json.loads(content)
            for _ in range(rng.choice((1, 1, 3))):
                tree = changed_json(rng, tree)
            chosen.write_bytes(json_bytes(rng, tree))
        elif chosen.suffix == ".jsonl" and rng.random() < 0.7:
            lines = content.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json_bytes(rng, changed_json(rng, json.loads(lines[at])))
            chosen.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"", b"{")))
        elif chosen.suffix == ".md" and rng.random() < 0.7:
            chosen.write_bytes(self._note(rng, content))
        else:
            chosen.write_bytes(spoiled(rng, content))
        return folder

    @staticmethod
    def _note(rng: random.Random, content: bytes) -> bytes:
        lines = content.split(b"\n")
        at = rng.randrange(min(len(lines), 14))
        key = lines[at].partition(b":")[0]
        value = rng.choice(
            (json.dumps(rng.choice(ODD)), repr(rng.choice(NUMBERS)), repr(text(rng)), "*a", "!!python/x y", "&a [*a]")
        )
        lines[at] = key + b": " + value.encode(errors="replace")
        return b"\n".join(lines)
