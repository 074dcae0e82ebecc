"""Command lines that give the numbers of a session again, run in its folder."""

from pathlib import Path

from workbench.cells.comparison import Comparison
from workbench.demo import entry_of
from workbench.jobs.patched import Part
from workbench.report.markdown import command
from workbench.session.session import Session, relative_to

_MAX_TOKENS = 64  # of a command line that a reader copies; beyond, the session itself says which


def typed_path(session: Session, path: str | Path) -> str:
    """Return a path as it is typed in the session's folder, where files of the session have their plain names."""
    name = relative_to(session.folder, path)
    return f"./{name}" if name.startswith("-") else name


def proof(session: Session, comparison: Comparison, part: Part | None) -> list[str]:
    """Return the command line that bisects the pair, and the one that exchanges a part, if there is one."""
    pair = _pair(session, comparison)
    lines = [command("workbench", "bisect", *pair)]
    return lines if part is None else [*lines, command("workbench", "patch", *pair, *_option(part))]


def again(session: Session, comparison: Comparison, with_models: bool) -> list[str]:
    """Return the command lines behind the tables. with_models : both model files are there."""
    scope, pair = comparison.scope, _sides(session)
    shown = ["--metric", comparison.metric.key]
    if scope.kind != "all":
        shown += ["--scope", "last" if scope.kind == "last" else str(scope.position)]
    tokens = ["--tokens", ",".join(map(str, comparison.a.tokens))]
    lines = [
        *_made_by(session),
        command("workbench", "open", "."),
        command("workbench", "compare", *pair, *tokens, *_paths(session), *shown, "--json"),
    ]
    return [*lines, command("workbench", "weights", *pair)] if with_models else lines


def _pair(session: Session, comparison: Comparison) -> list[str]:
    tokens = comparison.a.tokens
    if len(tokens) > _MAX_TOKENS:
        return ["."]
    return [*_sides(session), "--tokens", ",".join(map(str, tokens)), *_paths(session)]


def _sides(session: Session) -> list[str]:
    return [typed_path(session, side.path) for side in (session.spec.a, session.spec.b)]


def _paths(session: Session) -> list[str]:
    sides = ("--path-a", session.spec.a), ("--path-b", session.spec.b)
    return [word for option, side in sides if side.numeric_path for word in (option, side.numeric_path)]


def _option(part: Part) -> list[str]:
    match part.exchanged:
        case "tensors":
            return [word for name in part.tensors for word in ("--tensor", name)]
        case "settings":
            return ["--settings"]
        case "paths":
            return ["--path"]
        case "stage":
            layer, stage = part.site
            return ["--stage", stage if layer is None else f"{layer}:{stage}"]


def _made_by(session: Session) -> list[str]:
    """Return the command line that makes a demo's session, if it is one."""
    made = entry_of(session)
    if made is None:
        return []
    fault = ["--fault", str(made["fault"]), "--layer", str(made.get("layer"))] if made.get("fault") else []
    return [command("workbench", "demo", *fault, "--session", ".")]
