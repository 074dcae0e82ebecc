"""Exchanging parts of a session's pair: what is exchanged, what the log keeps of it, and how it reads."""

from collections.abc import Iterator

from kernels.stages import Site
from store.text import printable
from workbench.bisect.models.cell import Side
from workbench.bisect.models.patch import (
    Agreement,
    Experiment,
    Logits,
    conclusion,
    patch_path,
    patch_settings,
    patch_stage,
    patch_tensors,
)
from workbench.bisect.pair import model_sides
from workbench.bisect.traces.announced import Progress
from workbench.cells.metrics import format_value
from workbench.cells.stage_tensors import stage_tensors
from workbench.jobs.logged_side import sides_of
from workbench.jobs.patched import Exchanged, Part, Patched, keep_patch
from workbench.pair.pair import Pair
from workbench.session.session import Session

_NAMED = 3  # tensors that are called by their names


def parts_of(pair: Pair, site: Site) -> Iterator[Part]:
    """What can be exchanged at a stage: what it gives on, the tensors that it uses, the arithmetic of the whole run."""
    a, b = model_sides(pair)
    yield Part(site, "stage")
    names = tuple(name for name in stage_tensors(site, a.model.config) if name in a.model or name in b.model)
    if names:
        yield Part(site, "tensors", names)
    if a.path is not b.path:
        yield Part(site, "paths")


def exchange(session: Session, pair: Pair, part: Part, progress: Progress, known: Logits | None = None) -> Experiment:
    """Exchange a part of a session's pair and keep what came of it in the log.

    known : as in workbench.bisect.models.patch. Raises WorkbenchError for a recorded trace, which cannot be run.
    """
    made = _experiment(model_sides(pair), part, pair.ids, progress, known)
    pair.require_unchanged()
    sides = sides_of(session, pair)
    patched = Patched(
        "",
        sides["a"],
        sides["b"],
        part.site,
        part.exchanged,
        part.tensors,
        made.part,
        conclusion(made),
        made.tokens,
        made.left,
        made.brought,
        made.b.to_a.kl_mean,
        made.b_patched.to_a.kl_mean,
        made.b.to_a.top1_changed,
        made.b_patched.to_a.top1_changed,
    )
    keep_patch(session, patched)
    return made


def _experiment(
    sides: tuple[Side, Side], part: Part, ids: tuple[int, ...], progress: Progress, known: Logits | None
) -> Experiment:
    match part.exchanged:
        case "stage":
            return patch_stage(*sides, part.site, ids, progress, known)
        case "tensors":
            names = part.tensors
            return patch_tensors(*sides, frozenset(names), _called(names, part.site), ids, progress, known)
        case "settings":
            return patch_settings(*sides, ids, progress, known)
        case "paths":
            return patch_path(*sides, ids, progress, known)


def _called(names: tuple[str, ...], site: Site) -> str:
    """What several tensors of a layer are called: q_proj.weight and k_proj.weight of layer 3."""
    if len(names) == 1:
        return names[0]
    short = [".".join(name.rsplit(".", 2)[-2:]) for name in names]
    what = " and ".join(short) if len(names) <= _NAMED else f"{len(names)} tensors"
    return f"{what} of {site if site.layer is None else f'layer {site.layer}'}"


def exchange_lines(part: Part, made: Experiment) -> Iterator[str]:
    """An exchange for a reader: the conclusion, the four runs against A and B, the double swap; in 76 columns."""
    yield f"{_TITLES[part.exchanged]} exchanged: {printable(made.part)}"
    yield conclusion(made)
    yield f"{'':<18}{'KL to A':>9} {'max':>9} {'top-1≠':>7}  {'KL to B':>9} {'max':>9} {'top-1≠':>7}"
    names = ("A", "B", "A with B's part", "B with A's part")
    for name, run in zip(names, made.runs, strict=True):
        yield f"{name:<18}{_figures(run.to_a, made.tokens)}  {_figures(run.to_b, made.tokens)}"
    yield f"{'double swap':<18}{_figures(made.both, made.tokens)}  B with A's against A with B's"
    exact = [run.to_exact for run in made.runs]
    if None not in exact:
        yield ""
        yield f"{'':<18}{'KL':>9} {'max':>9} {'top-1≠':>7}  to A's weights in float64"
        for name, found in zip(names, exact, strict=True):
            assert found is not None
            yield f"{name:<18}{_figures(found, made.tokens)}"
    yield ""


_TITLES: dict[Exchanged, str] = {
    "stage": "Output",
    "tensors": "Tensors",
    "settings": "Settings",
    "paths": "Weights x paths",
}


def _figures(found: Agreement, tokens: int) -> str:
    mean, largest = (
        "?" if value is None else "same" if found.identical else format_value(value)
        for value in (found.kl_mean, found.kl_max)
    )
    return f"{mean:>9} {largest:>9} {f'{found.top1_changed}/{tokens}':>7}"
