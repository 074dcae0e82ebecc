"""Find the first place where two copies of a language model part ways, and say why."""

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _require_own(package: str) -> None:
    """Raise ImportError if `package` would be imported from elsewhere than beside this one.

    PyPI has foreign packages called "kernels" and "store"; an installed one shadows ours.
    """
    spec = find_spec(package)
    expected = Path(__file__).resolve().parents[1] / package / "__init__.py"
    found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if found != expected:
        where = found or "nowhere"
        raise ImportError(
            f"workbench needs its own package {package!r} from {expected.parent}, but Python finds {where}; "
            f"uninstall the foreign package {package!r} or install layer-workbench in an environment of its own"
        )


_require_own("kernels")
_require_own("store")
