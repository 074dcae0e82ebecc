"""`workbench record`: the trace of a forward in another engine, captured live."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.options import PATH, OneOf, force_option, json_option, print_json, token_options
from workbench.cli.sources import say_notes
from workbench.cli.tables import echo
from workbench.record.llama_cpp_script import CACHE_TYPES

if TYPE_CHECKING:
    from store.traces.trace import Trace
    from workbench.pair.prompt import Prompt

ENGINES = ("llama.cpp", "transformers")  # those of workbench.record.jobs.FORMATS; a test keeps them alike


def _cache_types(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    """Check the types of K and V that the user gave."""
    names = [] if given is None else given.split(",")
    if len(names) > 2 or any(name not in CACHE_TYPES for name in names):
        raise click.BadParameter(f"give one type, or those of K and V with a comma, of {', '.join(CACHE_TYPES)}")
    return given


def _device(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    if given is not None and not re.fullmatch(r"cpu|cuda(:\d{1,2})?", given):
        raise click.BadParameter("give cpu, cuda or cuda:N")
    return given


@click.command()
@click.argument("model", metavar="MODEL", type=PATH)
@click.option("-o", "--output", metavar="OUT.npz", type=PATH, required=True, help="The trace.")
@click.option("--engine", type=OneOf(ENGINES), help="Engine to run; by default the one of the format.")
@token_options
@click.option(
    "--python",
    metavar="PATH",
    default=sys.executable,
    envvar="WORKBENCH_ENGINE_PYTHON",
    help="Python that has the engine installed; by default $WORKBENCH_ENGINE_PYTHON, or this one.",
)
@click.option("--repack/--no-repack", default=None, help="llama.cpp: rearrange the weights; off unless asked for.")
@click.option("--flash", type=OneOf(["on", "off", "auto"]), help="llama.cpp: flash attention; off by default.")
@click.option(
    "--kv",
    metavar="TYPE|K,V",
    callback=_cache_types,
    help=f"llama.cpp: type of the KV cache, or of K and of V; f32 by default. {' '.join(CACHE_TYPES)}",
)
@click.option("--threads", type=click.IntRange(1, 512), help="Threads; by default all CPUs.")
@click.option("--batch", type=click.IntRange(1, 65536), help="llama.cpp: tokens computed at a time; 512 by default.")
@click.option(
    "--dtype",
    type=OneOf(["float32", "float64", "bfloat16", "float16"]),
    help="transformers: float32 by default.",
)
@click.option(
    "--attn-implementation",
    type=OneOf(["eager", "sdpa", "flash_attention_2", "flash_attention_3"]),
    help="transformers: how attention is computed; eager by default, where a model of its own defaults takes sdpa.",
)
@click.option("--device", metavar="cpu|cuda[:N]", callback=_device, help="transformers: cpu by default.")
@click.option("--tf32/--no-tf32", default=None, help="transformers on a GPU: products may cut their inputs to TF32.")
@click.option(
    "--compile/--no-compile",
    default=None,
    help="transformers: compile every layer; only what layers give is recorded then.",
)
@force_option
@json_option
def command(
    model: Path,
    output: Path,
    engine: str | None,
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    python: str,
    force: bool,
    as_json: bool,
    **settings: Any,  # noqa: ANN401
) -> int:
    """Record what llama.cpp or transformers computes at every stage, to compare it with a model or another trace.

    llama.cpp's own settings are: --repack --flash auto --kv f16.

    \b
    Example:  workbench record model.gguf -o engine.npz --tokens 482,803,10 --python ~/llama/bin/python
              workbench compare engine.npz model.gguf
    """  # noqa: D301
    from store.open import open_artifact
    from store.outputs import require_writable
    from workbench.cli.progress import ProgressLine
    from workbench.pair.tokens import shared_tokens
    from workbench.record.jobs import engine_of, record_model

    artifact = open_artifact(model)
    engine = engine_of(artifact, engine)
    require_writable(output, [model, *artifact.inputs], force)
    chosen = _settings(engine, settings)
    shared = shared_tokens([artifact], tokens, prompt)
    say_notes(shared)
    with ProgressLine() as line:
        trace = record_model(
            engine,
            artifact,
            shared.ids,
            chosen,
            output,
            python,
            line,
            replace=force,
            hashed=lambda done, total: line(done, total, f"bytes of {artifact.path.name} hashed"),
        )
    trace = trace.bind(shared.ids, artifact.config)
    if as_json:
        print_json(_summary(trace))
    else:
        echo("\n".join(_lines(trace)))
    return 0


def _settings(engine: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an engine; UsageError for one that only the other engine has."""
    from workbench.record.jobs import SETTINGS

    settings = dict(SETTINGS[engine])
    for name, value in given.items():
        if value is not None and name not in settings:
            raise click.UsageError(f"--{name} is no setting of {engine}; leave it out")
        if value is not None:
            settings[name] = value
    if settings.get("tf32") and not settings["device"].startswith("cuda"):
        raise click.UsageError("--tf32 is a setting of GPUs; give --device cuda too, or leave it out")
    return settings


def _summary(trace: "Trace") -> dict[str, Any]:
    from kernels.models import ordered
    from kernels.models import sites as all_sites
    from kernels.stages import SPINE

    sites = all_sites(trace.layers, ordered({*SPINE, *(site.stage for site in trace.sites())}))
    statuses = [trace.status(site) for site in sites]
    return {
        "output": str(trace.path),
        "sha256": trace.sha256,
        "engine": trace.engine,
        "tokens": list(trace.tokens or ()),
        "settings": trace.settings,
        "observed": dict(trace.observed),
        "stages": {status: statuses.count(status) for status in ("ok", "absent", "unmeasured")},
        "notes": list(trace.notes),
    }


def _lines(trace: "Trace") -> list[str]:
    from store.text import printable

    summary = _summary(trace)
    counts = ", ".join(f"{count} {status}" for status, count in summary["stages"].items() if count)
    version = printable(str(trace.settings["engine_version"]))
    lines = [f"wrote {printable(str(trace.path), 1000)}: {len(summary['tokens'])} tokens, stages {counts} ({version})"]
    return lines + [f"note: {printable(note, 1000)}" for note in trace.notes]
