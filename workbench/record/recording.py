"""Recording a trace in an engine: starts the engine's script, and writes what it sends as one complete file."""

import json
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from store.errors import StoreError
from store.text import printable
from store.traces.open import open_trace
from store.traces.trace import Trace
from store.whole_files import give_name, temporary_beside
from workbench.machine.endings import how_it_ended

Progress = Callable[[int, int, str], object]

_SCRIPTS = Path(__file__).parent
_PACKAGES = {"llama.cpp": "llama-cpp-python", "transformers": "torch transformers"}
_TO_GO, _TO_STOP = 120.0, 10.0  # seconds for an engine to unload what it has, which takes long on a busy machine
_MAX_HEADER, _MAX_PAYLOAD, _MAX_COMPLAINTS = 1 << 16, 1 << 34, 1 << 20


class RecordError(WorkbenchError, ValueError):
    """A trace that could not be recorded."""


def record(
    engine: str,
    job: dict[str, Any],
    meta: dict[str, Any],
    output: Path,
    python: str,
    progress: Progress,
    *,
    replace: bool = True,
    checked: Callable[[], None] = lambda: None,
) -> Trace:
    """Run one forward in an engine and write its trace to `output`; returns the trace, opened.

    engine : "llama.cpp" or "transformers". job : model, tokens and settings, as the engine's script wants them.
    meta : what this side knows of the model; it joins what the engine says of itself in `__meta__`.
    python : the interpreter in which the engine is installed. replace : whether a file that is there is replaced.
    checked : called when the trace is whole; what it raises keeps the file from appearing.

    The file appears when it is complete and has been read back; before, or if anything fails, nothing is there and
    what was there stays. RecordError, one sentence, when the engine is missing or fails.
    """
    script = _SCRIPTS / f"{engine.replace('.', '_')}_script.py"
    try:
        with tempfile.TemporaryFile() as complaints, temporary_beside(output) as (temporary, file):
            child = _started(python, script, job, complaints)
            with _Frames(child) as frames, zipfile.ZipFile(file, "w") as archive:
                whole = _write(frames, archive, meta, engine, python, progress)
            if not whole or child.returncode != 0:
                advice = f"check that {printable(python)} is a Python with a working {engine}"
                if child.returncode < 0 and job.get("repack"):
                    advice = "record without --repack: the kernels for rearranged weights crash in some builds (AMX)"
                words = _last_words(child, complaints)
                raise RecordError(f"{engine} ended before the trace was whole ({words}); {advice}")
            file.flush()
            _read_back(temporary, output, engine)
            checked()
            give_name(file, temporary, output, replace)
    except OSError as error:
        raise RecordError(
            f"{printable(str(output))} cannot be written ({error.strerror}); give -o another path."
        ) from None
    return open_trace(output)


def _read_back(temporary: Path, output: Path, engine: str) -> None:
    try:
        open_trace(temporary)
    except StoreError as error:
        why = str(error).replace(temporary.name, printable(output.name))
        raise RecordError(f"{engine} gave a trace that cannot be read back: {why}") from None


class _Frames:
    """What the engine's script sends, frame by frame; an error here ends the script, which else ends by itself."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        assert child.stdout is not None
        self.child = child
        self.stream = child.stdout

    def next(self) -> tuple[dict[str, Any], bytes] | None:
        """Return header and payload of the next frame; None where the stream ends, or breaks off."""
        size = int.from_bytes(self.stream.read(4), "little")
        if not 0 < size <= _MAX_HEADER:
            return None
        text = self.stream.read(size)
        if len(text) < size:
            return None
        header: dict[str, Any] = json.loads(text)
        if header["bytes"] > _MAX_PAYLOAD:
            return None
        payload = self.stream.read(header["bytes"])
        return (header, payload) if len(payload) == header["bytes"] else None

    def __enter__(self) -> "_Frames":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.child.terminate()
        try:
            self.child.wait(timeout=_TO_GO if kind is None else _TO_STOP)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.stream.close()


def _started(python: str, script: Path, job: dict[str, Any], complaints: IO[bytes]) -> "subprocess.Popen[bytes]":
    try:
        child = subprocess.Popen(  # noqa: S603 - the interpreter is the user's choice
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
        )
    except OSError as error:
        raise RecordError(
            f"--python {printable(python)} cannot be run ({error.strerror}); give the path of a Python interpreter."
        ) from None
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin:  # if it ended at once, its last words say why
        child.stdin.write(json.dumps(job).encode())
    return child


def _write(
    frames: _Frames, archive: zipfile.ZipFile, meta: dict[str, Any], engine: str, python: str, progress: Progress
) -> bool:
    """Write the frames into the archive as they come; returns whether the last one came."""
    progress(0, 0, f"starting {engine}")
    while (frame := frames.next()) is not None:
        header, payload = frame
        kind = header["kind"]
        if kind == "array":
            values = np.frombuffer(payload, header["dtype"]).reshape(header["shape"])
            _add(archive, header["name"], values)
        elif kind == "text":
            text = payload.decode()
            if header["name"] == "__meta__":
                text = json.dumps(meta | json.loads(text))
            _add(archive, header["name"], np.array(text))
        elif kind == "progress":
            progress(header["done"], header["total"], f"layers in {engine}")
        elif kind == "missing":
            raise RecordError(
                f"{printable(python)} has no module {printable(header['text'])}; install {_PACKAGES[engine]} there, or "
                f"give --python of an interpreter that has {engine}."
            )
        elif kind == "error":
            raise RecordError(f"{engine} could not record the trace: {printable(header['text'], 400)}")
        else:
            return True
    return False


def _add(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, values, allow_pickle=False)


def _last_words(child: "subprocess.Popen[bytes]", complaints: IO[bytes]) -> str:
    """Return why a script ended early: the assertion that failed, else the last line it wrote, and its signal."""
    complaints.seek(0)
    lines = [line.strip() for line in complaints.read(_MAX_COMPLAINTS).decode(errors="replace").splitlines()]
    telling = [line for line in lines if "GGML_ASSERT" in line] or [line for line in lines if line] or ["no message"]
    return f"it {how_it_ended(child.returncode)}: {printable(telling[-1])}"
