"""The stage tensors of one run that were written down, by this program or by another engine."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.models import Graph, family, layer_stages, read_as, sites, stages_of
from kernels.stages import LAST_STAGES, Site
from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.arrays import as_store_error, widened
from store.traces.channels import ROTATED, halves_from_adjacent, site_channels
from store.traces.run import RunRecord

LLAMA_CPP = "llama.cpp"
MAX_LAYERS = 10_000
GGML_ORDER = "Heads rotate adjacent pairs: q and k are in ggml's order for llama models, not in Hugging Face's."
UNKNOWN_ORDER = "Which channels of a head rotate together cannot be told: of llama models q and k are in ggml's order."
_HASH_CHUNK = 1 << 20

LOGITS = Site(None, LAST_STAGES[-1])

Status = Literal["ok", "absent", "unmeasured"]


@dataclass(frozen=True, slots=True, eq=False)
class StoredStage:
    """One stage tensor, located and measured, read when it is asked for.

    count : number of values.
    dtype : as stored, "float16", "bfloat16", "float32" or "float64".
    load : reads the values, in any shape, row after row.
    channels : values per row; None where the format does not say.
    positions : token position of every row; None where nothing says.
    last_token : the format keeps a single row of this stage, the last token's.
    checksum : CRC-32 of the values as they lie in the file, where the format keeps one; `load` checks it.
    """

    count: int
    dtype: str
    load: Callable[[], NDArray[Any]]
    channels: int | None = None
    positions: tuple[int, ...] | None = None
    last_token: bool = False
    checksum: int | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        """(rows, channels), or None where the format does not say."""
        return None if self.channels is None else (self.count // self.channels, self.channels)

    def values(self) -> NDArray[np.floating[Any]]:
        """Read the values, (rows, channels): native float64 where they are stored so, else float32.

        Writable, as kernels are compiled for writable arrays; nothing that is written to them reaches the file.
        """
        assert self.shape is not None
        with as_store_error():
            values = widened(self.load(), self.dtype)
        return values if values.shape == self.shape else values.reshape(self.shape)

    def bound(self, tokens: int, channels: int) -> "StoredStage":
        """Return the stage with its rows told by a prompt of `tokens` tokens; StoreError says what does not fit."""
        if self.channels not in (None, channels):
            raise StoreError(f"has {self.channels} channels where the model has {channels}")
        rows, rest = divmod(self.count, channels)
        if rest:
            raise StoreError(f"holds {self.count} values, which are not whole rows of {channels} channels")
        positions = self.positions
        if positions is None and rows == tokens:
            positions = tuple(range(tokens))
        elif positions is None and self.last_token and rows == 1:
            positions = (tokens - 1,)
        beyond = rows > tokens or max(positions or (0,)) >= tokens
        if beyond or (positions is None and self.channels is None):
            raise StoreError(f"holds {rows} rows of {channels} channels where the prompt has {tokens} tokens")
        return dataclasses.replace(self, channels=channels, positions=positions)


@dataclass(frozen=True, eq=False)
class Trace:
    """A trace as it was found: what it holds, and what its format leaves unsaid.

    path : the file or folder. engine : what computed it ("apr", "llama.cpp", "transformers", "workbench" ...).
    tokens : token ids that went in; None where the format does not carry them.
    settings : exactly what the trace says of the run, beside the tokens and the model's configuration.
    stages : where each tensor lies; none is read before it is asked for.
    files : the files that it lies in.
    observed : what the recorded tensors themselves prove of the run, whatever the settings say.
    not_carried : sentences, one for each thing that the format does not say.
    notes : sentences about what is unlike a plain dump of all tokens.
    remarks : per stage, what is special about it; for a stage that is not there, why.
    absent : stages that the model is known not to have.
    config : of the model, where the format carries it or the trace is bound to one.
    record : of the run in full; None where the format carries none and nobody has made one.
    reordered : q and k channels stand in Hugging Face's order and not as the engine had them.
    completed_layers : layers that are marked whole, fewer than the model has only in an unfinished store; None where
    the format marks none. states : layer_output in float64, per layer, of our own runs that compute in float64.
    """

    path: Path
    engine: str
    tokens: tuple[int, ...] | None
    settings: dict[str, Any]
    stages: Mapping[Site, StoredStage] = field(repr=False)
    files: tuple[ModelFile, ...] = field(repr=False)
    observed: Mapping[str, Any] = field(default_factory=dict)
    not_carried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: Mapping[Site, str] = field(default_factory=dict, repr=False)
    absent: frozenset[Site] = field(default_factory=frozenset, repr=False)
    config: ModelConfig | None = field(default=None, repr=False)
    record: RunRecord | None = field(default=None, repr=False)
    reordered: bool = False
    completed_layers: int | None = None
    states: Mapping[int, StoredStage] = field(default_factory=dict, repr=False)

    @property
    def run(self) -> RunRecord:
        """The record of the run, of a trace that must have one; StoreError if it has none."""
        if self.record is None:
            raise StoreError(f"{printable(str(self.path))} carries no record of its run; give a store in its place.")
        return self.record

    @property
    def layers(self) -> int:
        """Decoder layers of the model where they are known, else up to the last one recorded."""
        if self.config is not None:
            return self.config.num_hidden_layers
        return max((site.layer + 1 for site in self.stages if site.layer is not None), default=0)

    def sites(self) -> list[Site]:
        """Return where this trace holds a tensor, in execution order."""
        inner = layer_stages() if self.config is None else stages_of(self.config)
        return [site for site in sites(self.layers, inner) if site in self.stages]

    def status(self, site: Site) -> Status:
        """Return "ok", "absent" (the model has no such stage) or "unmeasured" (the engine's value is not there)."""
        if site in self.stages:
            return "ok"
        if self.config is not None and site.layer is not None and self._graph.stage(site) is None:
            return "absent"
        return "absent" if site in self.absent else "unmeasured"

    @cached_property
    def _graph(self) -> Graph:
        """The stages that the model may have."""
        assert self.config is not None
        return Graph(self.config)

    def read(self, site: Site) -> NDArray[np.floating[Any]]:
        """Return the values, (tokens, channels): float64 where they are stored so, else float32.

        Those of our own stores stay mapped, copy-on-write, and stages that share storage share the array. StoreError
        if they are not those that were written, as a checksum tells.
        """
        stage = self._stage(site)
        if stage.shape is None:
            raise StoreError(
                f"{printable(str(self.path))} does not say how long a row of {site} is; "
                "give the model and the tokens that it was recorded with."
            )
        return stage.values()

    def intact(self) -> bool:
        """Read everything, and tell whether all of it is what was written."""
        try:
            for site in self.sites():
                self.read(site)
        except StoreError:
            return False
        return True

    def positions(self, site: Site) -> tuple[int, ...] | None:
        """Return the token position of every row, or None where nothing says."""
        return self._stage(site).positions

    def shape(self, site: Site) -> tuple[int, int] | None:
        """Return (rows, channels) without reading, or None where nothing says."""
        return self._stage(site).shape

    def dtype(self, site: Site) -> str:
        """Return the type of the values as stored: "float16", "bfloat16", "float32" or "float64"."""
        return self._stage(site).dtype

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, or of the "name  sha256" lines of its files when there are several."""
        return self.hashed()

    def hashed(self, progress: Callable[[int, int], object] = lambda *_: None) -> str:
        """Compute `sha256`. progress : called with bytes done and bytes in all."""
        done, total = 0, sum(file.size for file in self.files)
        digests = []
        for file in self.files:
            digest = hashlib.sha256()
            with file.path.open("rb") as stream:
                while chunk := stream.read(_HASH_CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    progress(done, total)
            digests.append(digest.hexdigest())
        if len(digests) == 1:
            return digests[0]
        names = [file.path.relative_to(self.path).as_posix() for file in self.files]
        lines = "".join(f"{name}  {digest}\n" for name, digest in zip(names, digests, strict=True))
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()

    def bind(self, tokens: tuple[int, ...], config: ModelConfig) -> "Trace":
        """Return the trace with its rows and channels told by the tokens and the model that it was recorded with.

        Checks every size against them, but for the length of the vocabulary, which may be the trace's own. The q and k
        channels of llama.cpp's llama models, and of those stored alike, get the order that Hugging Face has.
        StoreError, one sentence, for whatever cannot belong together.
        """
        name = printable(str(self.path))
        self._check(name, tokens, config)
        config = dataclasses.replace(config, vocab_size=_vocabulary(self.stages.get(LOGITS), len(tokens), config))
        of_sites = site_channels(config)
        channels = {site.stage: count for site, count in of_sites.items()}
        stages: dict[Site, StoredStage] = {}
        for site, stage in self.stages.items():
            if site.stage not in channels:
                raise StoreError(
                    f"{name}: has {site}, which {config.architecture} models do not have; give the model of this trace."
                )
            try:
                stages[site] = stage.bound(len(tokens), of_sites.get(site, channels[site.stage]))
            except StoreError as error:
                raise StoreError(f"{name}: {site} {error}; give the model and the tokens of this trace.") from None
        bound = dataclasses.replace(self, tokens=tokens, stages=stages, config=config)
        adjacent = self.engine == LLAMA_CPP and family(config.architecture).interleaved and not self.reordered
        return bound.in_canonical_order(config.head_dim, config.kv_size) if adjacent else bound

    def in_canonical_order(self, head_dim: int, kv_size: int) -> "Trace":
        """Return the trace with q and k channels put from rotating adjacent pairs into rotating halves.

        That is the order of Hugging Face, and of the canonical view of a llama GGUF file. For dumps whose
        `observed["rope_pairs"]` is "adjacent", or that are known to come from llama.cpp's llama architecture.
        """
        stages = dict(self.stages)
        for site, stage in self.stages.items():
            if site.stage in ROTATED and stage.channels is not None:
                order = halves_from_adjacent(site.stage, stage.channels, head_dim, kv_size)
                stages[site] = dataclasses.replace(stage, load=partial(_gathered, stage, order))
        kept = tuple(note for note in self.notes if note not in (GGML_ORDER, UNKNOWN_ORDER))
        note = "The q and k channels of every head were put from ggml's order (adjacent pairs) into Hugging Face's."
        return dataclasses.replace(self, stages=stages, notes=(*kept, note), reordered=True)

    def _check(self, name: str, tokens: tuple[int, ...], config: ModelConfig) -> None:
        """Raise StoreError where the dump itself says that it is of other tokens or of another model."""
        if self.tokens is not None and self.tokens != tokens:
            raise StoreError(f"{name} was recorded with {_difference(self.tokens, tokens)}; run both on its tokens.")
        architecture = self.settings.get("architecture", config.architecture)
        if read_as(str(architecture)) != read_as(config.architecture):
            raise StoreError(
                f"{name} was recorded from a {printable(str(architecture), 40)} model, not from {config.architecture}; "
                "give the model that it was recorded with."
            )
        if self.layers > config.num_hidden_layers:
            raise StoreError(
                f"{name} holds {self.layers} layers where the model has {config.num_hidden_layers}; "
                "give the model that it was recorded with."
            )
        adjacent = family(config.architecture).interleaved or config.rope_type == "norm"
        expected = "adjacent" if adjacent else "halves"
        if self.engine == LLAMA_CPP and self.observed.get("rope_pairs", expected) != expected:
            raise StoreError(
                f"{name} rotates the {self.observed['rope_pairs']} of its heads, as llama.cpp never does for a "
                f"{config.architecture} model; give the model that it was recorded with."
            )

    def _stage(self, site: Site) -> StoredStage:
        if site not in self.stages:
            why = self.remarks.get(site, self.status(site))
            raise StoreError(f"{printable(str(self.path))} holds no tensor of {site} ({why}); record the trace again.")
        return self.stages[site]


def _gathered(stage: StoredStage, order: NDArray[np.intp]) -> NDArray[Any]:
    assert stage.shape is not None
    return stage.load().reshape(stage.shape)[:, order]


def _difference(recorded: tuple[int, ...], tokens: tuple[int, ...]) -> str:
    if len(recorded) != len(tokens):
        return f"{len(recorded)} tokens, not {len(tokens)}"
    first = next(i for i, (x, y) in enumerate(zip(recorded, tokens, strict=True)) if x != y)
    return f"token {recorded[first]} at position {first}, not {tokens[first]}"


def _vocabulary(stage: StoredStage | None, tokens: int, config: ModelConfig) -> int:
    """Return how many tokens the logits of a trace have: as many as the model's vocabulary unless they prove otherwise.

    Rows as long as the hidden size are an embedding, saved in the place of logits, and prove nothing.
    """
    if stage is None:
        return config.vocab_size
    channels = stage.channels
    if channels is None and stage.count % config.vocab_size:
        rows = 1 if stage.last_token else len(stage.positions or range(tokens))
        channels = None if stage.count % rows else stage.count // rows
    return config.vocab_size if channels in (None, config.hidden_size) else channels
