"""`workbench inspect`: what a model file or a trace holds; of two models, whether they are fed alike."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.options import PATH, json_option, print_json, prompt_option, prompt_options, statistics_options
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from store.stored_model import StoredModel, TensorInfo
    from store.traces.statistics_table import Scope, StatisticsTable
    from store.traces.trace import Trace
    from workbench.pair.prompt import Prompt


@click.command()
@click.argument("sources", metavar="X | A B", nargs=-1, required=True, type=PATH)
@click.option(
    "--allow-host",
    "hosts",
    metavar="HOST",
    multiple=True,
    help="Of an address: where it sends to this host, follow.",
)
@prompt_options
@statistics_options
@json_option
def command(
    sources: tuple[Path, ...],
    hosts: tuple[str, ...],
    prompt: "Prompt | None",
    statistics: bool,
    scope: "Scope | None",
    as_json: bool,
) -> int:
    """Show what one model or trace holds, or whether two models are fed alike.

    Of a model its configuration, tensors, types, tokenizer and problems, also where it cannot be run; of a trace its
    run and coverage. With --stats the statistics of every stage of a trace; a saved table of them is shown in any case.

    Of two models, before anything is run, all that decides what they are fed: tokenizers on sample texts, BOS, EOS,
    added tokens, chat templates on three conversations, sizes of the embedding, context and rotary settings. Exit code
    0: fed alike, 1: differently, 2: something could not be compared.

    X may be an address, https://... or hf://OWNER/MODEL/FILE: its size is said, and its header and tensor table are
    fetched, no more.

    \b
    Example:  workbench inspect model.gguf
              workbench inspect hf://Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf
              workbench inspect model.gguf model/ --chat "Hello"
              workbench inspect model.h5 --stats --scope last
    """  # noqa: D301
    from store.address import address_of

    addresses = [address for source in sources if (address := address_of(source)) is not None]
    if addresses and (len(sources) > 1 or statistics or scope is not None):
        raise click.UsageError("an address is inspected alone; download the file for more")
    if hosts and not addresses:
        raise click.UsageError("--allow-host is of an address")
    if addresses:
        return _inspect_address(addresses[0], frozenset(hosts), as_json)
    if len(sources) == 2:
        if statistics or scope is not None:
            raise click.UsageError("--stats and --scope are of one trace; `workbench compare` sets two side by side")
        from workbench.cli.feeding import inspect_two

        return inspect_two(sources[0], sources[1], prompt, as_json)
    if len(sources) > 2:
        raise click.UsageError(f"one or two are inspected, not {len(sources)}; give X, or A and B")
    if prompt is not None:
        raise click.UsageError(
            f"{prompt_option(prompt)} is of two models, which may tokenize it differently; give A and B"
        )
    return _inspect(sources[0], statistics, scope, as_json)


def _inspect(source: Path, statistics: bool, scope: "Scope | None", as_json: bool) -> int:
    """Show what one model or trace holds."""
    from store.open import open_model
    from store.traces.kind import is_trace
    from store.traces.open import open_trace
    from store.traces.statistics import open_statistics

    if scope is not None and not statistics:
        raise click.UsageError("--scope belongs to --stats")
    if is_trace(source):
        trace = open_trace(source, partial=True)
        if statistics:
            record, lines = _statistics(_computed(trace, scope or "all"))
        else:
            record, lines = _of_other_engine(trace) if trace.record is None else _store(trace)
    elif (table := open_statistics(source)) is not None:
        if scope not in (None, table.scope):
            raise click.UsageError(f"{source} holds statistics of --scope {table.scope} only")
        record, lines = _statistics(table)
    elif statistics:
        raise click.UsageError(f"{source} is no trace; run a model with workbench trace --stats")
    else:
        record, lines = _model(open_model(source))
    if as_json:
        print_json(record)
    else:
        echo("\n".join(lines))
    return 0


def _inspect_address(address: str, hosts: frozenset[str], as_json: bool) -> int:
    """Show what the header of a model file behind an address says."""
    from store.open import open_address
    from store.text import printable
    from workbench.cli.tables import bytes_text

    def size_is(size: int) -> None:
        said = f"{printable(address, 1000)} has {bytes_text(size)}; its header and tensor table are fetched."
        click.echo(said, err=True)

    record, lines = _model(open_address(address, hosts, size_is), address)
    if as_json:
        print_json(record)
    else:
        echo("\n".join(lines))
    return 0


def _computed(trace: "Trace", scope: "Scope") -> "StatisticsTable":
    """The statistics of a trace."""
    from workbench.cells.run_statistics import trace_statistics, trace_table
    from workbench.cli.statistics import LiveTable, scope_text

    cells, total = {}, len(trace.sites())
    with LiveTable(scope_text(scope, trace.tokens)) as live:
        for done, (site, found) in enumerate(trace_statistics(trace, scope), 1):
            cells[site] = found
            live.add(site, found)
            live(done, total, str(site))
    return trace_table(trace, scope, cells)


def _statistics(table: "StatisticsTable") -> tuple[dict[str, Any], list[str]]:
    from workbench.cli.statistics import table_lines

    return table.to_json(), table_lines(table)


def _model(model: "StoredModel", address: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """What a model holds; address : where it is if its values are not at hand."""
    from store.kinds import kind_of

    types: dict[str, dict[str, int]] = {}
    for tensor in model.tensors.values():
        of_type = types.setdefault(tensor.stored_as, {"tensors": 0, "bytes": 0})
        of_type["tensors"] += 1
        of_type["bytes"] += tensor.nbytes
    record = {
        "path": address or str(model.path),
        "format": model.format,
        "size": model.size,
        "kind": kind_of(model),
        "files": [str(file) for file in model.files],
        "runnable": model.refusal is None,
        "why_not": None if model.refusal is None else str(model.refusal),
        "config": _config(model),
        "settings": _settings(model),
        "types": types,
        "tensors": [
            {
                "name": tensor.name,
                "stored_as": tensor.raw_name,
                "type": tensor.stored_as,
                "shape": list(tensor.shape),
                "bytes": tensor.nbytes if tensor.nbytes or tensor.type.block else None,
                "file": tensor.file.name,
                "offset": tensor.offset,
                "rows_reordered": model.permuted(tensor.name),
                "parts": [] if tensor.packing is None else [_part(part) for part in tensor.packing.parts.values()],
            }
            for tensor in model.tensors.values()
        ],
        "tokenizer": _tokenizer(model),
        "problems": [*model.problems, *(_not_numbers(model) if address is None else ())],
    }
    return record, _model_lines(record)


def _part(part: "TensorInfo") -> dict[str, Any]:
    """A stored part of a tensor."""
    return {
        "name": part.raw_name,
        "type": part.type.name,
        "shape": list(part.shape),
        "bytes": part.nbytes,
        "file": part.file.name,
        "offset": part.offset,
    }


def _not_numbers(model: "StoredModel") -> Iterator[str]:
    """Tensors that hold NaN or infinite values, of those that can be read."""
    from store.text import printable
    from workbench.cli.progress import ProgressLine
    from workbench.tensors.nonfinite import nonfinite

    names = [name for name, info in model.tensors.items() if info.unread is None and info.nbytes]
    with ProgressLine() as progress:
        for done, name in enumerate(names):
            progress(done, len(names), f"values of {printable(name)}")
            if (found := nonfinite(model.weight(name))) is not None:
                yield f"{printable(name)}: {found.words}."


def _config(model: "StoredModel") -> dict[str, Any]:
    """The hyper-parameters of a model that can be run, in canonical terms; else the settings as the file has them."""
    from dataclasses import asdict

    from store.artifact import Artifact
    from workbench.session.plain import plain

    if isinstance(model, Artifact):
        return asdict(model.config)
    stored: dict[str, Any] = plain(model.metadata)
    return stored


def _settings(model: "StoredModel") -> list[dict[str, Any]]:
    """What becomes of every key of a model that can be run."""
    from kernels.models import family
    from store.artifact import Artifact
    from store.known_settings import settings_of

    if not isinstance(model, Artifact):
        return []
    of = family(model.config.architecture)
    return [setting._asdict() for setting in settings_of(model.format, of, model.metadata)]


def _model_lines(record: dict[str, Any]) -> list[str]:
    from store.text import printable
    from workbench.cli.tables import aligned, bytes_text, shape_text

    lines = [f"{printable(record['path'])}: {record['format']}, {bytes_text(record['size'])}"]
    lines += [f"It is {printable(record['kind'], 300)}.", ""]
    lines += [] if record["runnable"] else [f"It cannot be run: {printable(record['why_not'], 1000)}", ""]
    lines += ["configuration" + ("" if record["runnable"] else ", as the file has it")]
    config = [(printable(name, 80), printable(_short(value))) for name, value in record["config"].items()]
    lines += aligned(config, indent="  ")
    if record["settings"]:
        lines += ["", "keys of the file"]
        keys = [(setting["key"], setting["value"], setting["use"]) for setting in record["settings"]]
        lines += aligned([("key", "value", "for the numbers"), *keys], indent="  ")
    tokenizer = (f"{name} {printable(str(value))}" for name, value in record["tokenizer"].items() if value is not None)
    lines += ["", f"tokenizer: {', '.join(tokenizer)}", "", f"{len(record['tensors'])} tensors"]
    counts = [(kind, of["tensors"], bytes_text(of["bytes"])) for kind, of in record["types"].items()]
    lines += aligned([("type", "tensors", "size"), *counts], right=frozenset({1, 2}), indent="  ")
    rows: list[tuple[str, ...]] = [("tensor", "type", "shape", "size", "offset")]
    for tensor in record["tensors"]:
        where = f"{tensor['offset']}{' (rows reordered)' if tensor['rows_reordered'] else ''}"
        size = "?" if tensor["bytes"] is None else bytes_text(tensor["bytes"])
        rows.append((printable(tensor["name"]), tensor["type"], shape_text(tensor["shape"]), size, where))
        for part in tensor["parts"]:
            name, sizes = f"  {printable(part['name'])}", (shape_text(part["shape"]), bytes_text(part["bytes"]))
            rows.append((name, part["type"], *sizes, str(part["offset"])))
    lines += ["", *aligned(rows, indent="  ")]
    problems = [f"  {printable(problem, 1000)}" for problem in record["problems"]]
    none = "no problems found" if record["runnable"] else "no other problems found"
    return [*lines, "", *(["problems", *problems] if problems else [none])]


def _tokenizer(model: "StoredModel") -> dict[str, Any]:
    vocabulary = model.vocabulary
    if vocabulary is None:
        return {"kind": "none; --prompt cannot be used"}
    kinds = {
        "hf_json": "tokenizer.json",
        "bpe": "byte-level BPE",
        "whitespace": "BPE of words between white space",
        "spm": "SentencePiece",
        "unigram": "Unigram",
        "wordpiece": "WordPiece",
    }
    return {
        "kind": kinds[vocabulary.kind],
        "pre": vocabulary.pre,
        "tokens": len(vocabulary.tokens) if vocabulary.tokens is not None else None,
        "bos": vocabulary.bos_id,
        "eos": vocabulary.eos_id,
    }


def _short(value: object) -> str:
    from store.text import printable

    if isinstance(value, tuple) and isinstance(value[0], str):
        counts = {kind: value.count(kind) for kind in dict.fromkeys(value)}
        return printable(", ".join(f"{count} × {kind}" for kind, count in counts.items()))
    if isinstance(value, tuple) and isinstance(value[0], bool):
        some = f"in {sum(value)} of {len(value)} layers, not in {_numbers(value)}"
        return "in all layers" if all(value) else some
    if isinstance(value, tuple):
        return f"{len(value)} factors from {value[0]:g} to {value[-1]:g}"
    return printable(str(value))


def _numbers(value: tuple[bool, ...]) -> str:
    """The layers without something, of which the first are named."""
    without = [str(layer) for layer, there in enumerate(value) if not there]
    return ", ".join(without[:8]) + (", ..." if len(without) > 8 else "")


def _store(trace: "Trace") -> tuple[dict[str, Any], list[str]]:
    from collections import Counter

    from kernels.models import execution_order
    from store.text import printable
    from workbench.cli.tables import aligned, bytes_text

    run = trace.run.to_json()
    layers = trace.run.config.num_hidden_layers
    states = {site: trace.status(site) for site in execution_order(trace.run.config)}
    coverage = Counter(states.values())
    record = {
        "path": str(trace.path),
        "format": "trace",
        "run": run,
        "complete_layers": trace.completed_layers,
        "layers": layers,
        "coverage": {state: coverage[state] for state in ("ok", "absent", "unmeasured")},
        "stages": [
            {
                "layer": site.layer,
                "stage": site.stage,
                "status": state,
                "shape": trace.shape(site) if state == "ok" else None,
            }
            for site, state in states.items()
        ],
    }
    unfinished = (
        "" if trace.completed_layers == layers else f", UNFINISHED: {trace.completed_layers} of {layers} layers"
    )
    lines = [f"{printable(str(trace.path))}: trace, {bytes_text(trace.path.stat().st_size)}{unfinished}", "", "run"]
    facts = {**{k: v for k, v in run.items() if not isinstance(v, dict)}, **run["settings"]}
    facts["tokens"] = ",".join(map(str, run["tokens"]))
    lines += aligned([(printable(name), printable(str(value))) for name, value in facts.items()], indent="  ")
    for group in ("versions", "machine", "config"):
        pairs = aligned([(printable(n), printable(str(value))) for n, value in run[group].items()], indent="  ")
        lines += ["", group, *pairs]
    lines += [
        "",
        "stages",
        f"  {coverage['ok']} measured, {coverage['absent']} not in the model, {coverage['unmeasured']} unmeasured",
    ]
    return record, lines


def _of_other_engine(trace: "Trace") -> tuple[dict[str, Any], list[str]]:
    from kernels.models import ordered
    from kernels.models import sites as all_sites
    from kernels.stages import SPINE
    from store.text import printable
    from workbench.cli.tables import aligned
    from workbench.session.plain import plain

    sites = trace.sites()
    expected = len(all_sites(trace.layers, ordered({*SPINE, *(site.stage for site in sites)})))
    record = {
        "path": str(trace.path),
        "format": "foreign trace",
        "engine": trace.engine,
        "sha256": trace.sha256,
        "tokens": None if trace.tokens is None else list(trace.tokens),
        "layers": trace.layers,
        "settings": plain(trace.settings),
        "stages": [
            {"layer": site.layer, "stage": site.stage, "shape": trace.shape(site), "dtype": trace.dtype(site)}
            for site in sites
        ],
        "notes": list(trace.notes),
        "not_carried": list(trace.not_carried),
    }
    facts = {"engine": trace.engine, "sha256": trace.sha256, "layers": trace.layers, **plain(trace.settings)}
    facts["tokens"] = "not recorded" if trace.tokens is None else ",".join(map(str, trace.tokens))
    lines = [f"{printable(str(trace.path))}: trace of {printable(trace.engine)}", "", "run"]
    lines += aligned([(printable(str(name)), printable(str(value))) for name, value in facts.items()], indent="  ")
    lines += ["", "stages", f"  {len(sites)} of {expected} measured"]
    for title, sentences in (("notes", trace.notes), ("what the format does not say", trace.not_carried)):
        lines += ["", title, *(f"  {printable(sentence, 1000)}" for sentence in sentences)] if sentences else []
    return record, lines
