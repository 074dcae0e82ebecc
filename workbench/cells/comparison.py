"""Two runs whose models are known, compared."""

from dataclasses import asdict, dataclass
from typing import Any

from store.traces.run import RunRecord
from workbench.cells.compared_cells import ComparedCells


@dataclass(frozen=True, eq=False)
class Comparison(ComparedCells):
    """A pair of runs and its cells."""

    a: RunRecord
    b: RunRecord

    @property
    def token_count(self) -> int:
        """Tokens that went into both runs."""
        return len(self.a.tokens)

    @property
    def config_differences(self) -> dict[str, tuple[Any, Any]]:
        """Settings of the two models that are not the same, with A's and B's value."""
        a, b = asdict(self.a.config), asdict(self.b.config)
        return {name: (a[name], b[name]) for name in a if a[name] != b[name]}

    def sides_json(self) -> dict[str, Any]:
        """Return what the two runs are."""
        vocabulary = min(self.a.config.vocab_size, self.b.config.vocab_size)
        return {
            "a": _side_json(self.a),
            "b": _side_json(self.b),
            "tokens": list(self.a.tokens),
            "prompt": self.a.prompt,
            "population": {"a": _population(self.a), "b": _population(self.b), "vocab_size": vocabulary},
        }


def _side_json(run: RunRecord) -> dict[str, Any]:
    return {
        "path": run.artifact,
        "format": run.format,
        "size": run.size,
        "sha256": run.sha256,
        "numeric_path": run.numeric_path,
        "settings": run.settings,
    }


def _population(run: RunRecord) -> dict[str, Any]:
    config = run.config
    return {
        "tokens": len(run.tokens),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
    }
