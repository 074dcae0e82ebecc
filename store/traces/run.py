"""What a run was: one forward of one artifact, with everything needed to repeat it."""

import dataclasses
import json
import os
import platform
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from kernels.config import ModelConfig
from kernels.machine.sources import source_digest
from store.errors import StoreError
from store.typed_fields import typed_fields

DISTRIBUTION = "layer-workbench"
_LIBRARIES = ("numpy", "numba", "llvmlite", "h5py", "gguf", "safetensors")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Provenance of a trace.

    artifact : path of the model file or folder; size in bytes; sha256 of its content, hexadecimal.
    numeric_path : how the arithmetic was done ("f64", "f32", "ggml", "apr").
    tokens : the token ids that went in; prompt : the text they came from, if any.
    settings : whatever else decides the numbers. versions, machine : what computed them.
    created : time of the run, UTC, ISO 8601; empty where it must not be in the bytes of a file.
    """

    artifact: str
    format: str
    size: int
    sha256: str
    numeric_path: str
    tokens: tuple[int, ...]
    prompt: str | None
    settings: dict[str, Any]
    config: ModelConfig
    versions: dict[str, str]
    machine: dict[str, Any]
    created: str

    @property
    def question(self) -> tuple[str, str, tuple[int, ...]]:
        """What was asked: which model, on which path, over which tokens."""
        return self.sha256, self.numeric_path, self.tokens

    @property
    def identity(self) -> str:
        """Equal for two runs whose numbers must be the same; where the file lies and when it ran do not count."""
        decisive = (self.sha256, self.numeric_path, self.tokens, self.settings, dataclasses.asdict(self.config))
        return json.dumps([*decisive, self.versions, self.machine.get("processor")], sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return dataclasses.asdict(self) | {"tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, record: object) -> "RunRecord":
        """Rebuild a record; StoreError names the field that is missing or of the wrong kind."""
        fields = typed_fields(cls, record, "run")
        fields["config"] = ModelConfig(**typed_fields(ModelConfig, fields["config"], "run config"))
        if not 0 < fields["config"].num_hidden_layers < 10_000:
            raise StoreError("The run config gives num_hidden_layers outside of 1 to 9999.")
        if min(fields["tokens"], default=-1) < 0:
            raise StoreError("The run record holds no tokens, or a negative one.")
        return cls(**fields)


def now() -> str:
    """Return the present time, UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def versions() -> dict[str, str]:
    """Return the versions of everything that has a part in the numbers; "kernels" is a digest of their source."""
    from importlib import metadata

    found = {"python": platform.python_version(), "kernels": source_digest()}
    for name in (DISTRIBUTION, *_LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


@cache
def describe_machine() -> dict[str, Any]:
    """Return processor, architecture, operating system and usable CPUs of this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": usable,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
