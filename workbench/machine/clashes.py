"""Foreign packages in the place of ours, and the command that mends it.

The index has packages "kernels" and "store" of other people. Where one is found first, ours is not found. Where one is
installed into the same folder, whichever came later has overwritten files of the other, and uninstalling either takes
files away from both; installers do all that without a word.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

OURS = ("kernels", "store")
_MARK = "Part of layer-workbench"  # in the __init__.py of ours


def clash(package: str) -> str | None:
    """Say in a sentence what is wrong with our `package`, and how to mend it; None if nothing is."""
    root = Path(__file__).resolve().parents[2]
    ours = root / package / "__init__.py"
    spec = find_spec(package)
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    foreign = next(iter(sorted(root.glob(f"{package}-*.dist-info"))), None)
    who = f"the foreign package {package} {_version(foreign)}" if foreign else f"a foreign package {package!r}"
    if found is None or not ours.exists():
        state = f"that is gone from {ours.parent}, as happens when a foreign package {package!r} is uninstalled"
    elif found != ours:
        state = f"Python finds {found}; uninstall the foreign package {package!r}"
    elif _MARK not in ours.read_text(errors="replace"):
        state = f"{who} has been installed over that in {ours.parent}"
    elif foreign:
        state = f"{who} is installed in the same folder, {ours.parent}, and each has overwritten files of the other"
    else:
        return None
    return (
        f"workbench needs its own package {package!r}, but {state}; install layer-workbench in an environment of its "
        f"own, or mend this one: {_mend(root, package)}"
    )


def _version(dist_info: Path) -> str:
    return dist_info.stem.partition("-")[2]


def _mend(root: Path, package: str) -> str:
    """Return the shell command that takes the foreign package away and puts ours back."""
    ours = next(iter(sorted(root.glob("layer_workbench-*.dist-info"))), None)
    uv = ours is not None and _text(ours / "INSTALLER").strip() == "uv"
    pip = f"uv pip {{}} --python {sys.executable}" if uv else f"{sys.executable} -m pip {{}}"
    remove = pip.format("uninstall") + ("" if uv else " -y") + f" {package}"
    return f"{remove} && {pip.format('install')} --force-reinstall --no-deps {_source(ours)}"


def _source(ours: Path | None) -> str:
    """Return what was installed: a folder or an address, else our name on the index."""
    import json

    try:
        url = json.loads(_text(ours / "direct_url.json"))["url"] if ours else ""
    except (ValueError, KeyError, TypeError):
        url = ""
    return str(url).removeprefix("file://") or "layer-workbench"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
