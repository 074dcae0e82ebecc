"""Find the first place where two copies of a language model part ways, and say why."""

import sys
from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _intruder(package: str) -> str | None:
    """A sentence about a foreign package that would be imported in place of ours, or None.

    PyPI has foreign packages called "kernels" and "store"; an installed one shadows ours.
    """
    spec = find_spec(package)
    expected = Path(__file__).resolve().parents[1] / package / "__init__.py"
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if found == expected:
        return None
    return (
        f"workbench needs its own package {package!r} from {expected.parent}, but Python finds {found or 'nothing'}; "
        f"uninstall the foreign package {package!r} or install layer-workbench in an environment of its own"
    )


for _package in ("kernels", "store"):
    if _sentence := _intruder(_package):
        if Path(sys.argv[0]).stem in ("workbench", "-m"):  # started as a program: no traceback for its user
            print(f"workbench: {_sentence}", file=sys.stderr)  # noqa: T201
            raise SystemExit(2)
        raise ImportError(_sentence)
