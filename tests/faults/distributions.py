"""What weights may look like, and what an importance matrix may: the kinds that make quantizers do unusual things."""

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
_SIZE = 0.04  # root mean square of ordinary weights


def _scaled(values: np.ndarray) -> np.ndarray:
    return (_SIZE * values).astype(np.float32)


def _few(rng: Rng, rows: int, columns: int) -> np.ndarray:
    levels = rng.standard_normal(8)
    return _scaled(levels[rng.integers(0, 8, (rows, columns))])


def _outliers(rng: Rng, rows: int, columns: int) -> np.ndarray:
    values = rng.standard_normal((rows, columns))
    values[np.arange(rows), rng.integers(0, columns, rows)] *= 1000
    return _scaled(values)


def _half_zeros(rng: Rng, rows: int, columns: int) -> np.ndarray:
    return _scaled(rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.5))


def _by_rows(size: Callable[[Rng, int], np.ndarray]) -> Callable[[Rng, int, int], np.ndarray]:
    return lambda rng, rows, columns: _scaled(rng.standard_normal((rows, columns)) * size(rng, rows)[:, None])


def _small_blocks(rng: Rng, rows: int, columns: int) -> np.ndarray:
    size = 10.0 ** -rng.uniform(0, 6, (rows, -(-columns // 32)))
    return _scaled(rng.standard_normal((rows, columns)) * np.repeat(size, 32, axis=1)[:, :columns])


DISTRIBUTIONS: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    "gaussian": lambda rng, rows, columns: _scaled(rng.standard_normal((rows, columns))),
    "laplace": lambda rng, rows, columns: _scaled(rng.laplace(size=(rows, columns))),
    "student t3": lambda rng, rows, columns: _scaled(rng.standard_t(3, (rows, columns))),
    "ternary": lambda rng, rows, columns: _scaled(rng.integers(-1, 2, (rows, columns)) * rng.uniform(0.5, 1.5)),
    "ternary rows": lambda rng, rows, columns: _scaled(
        rng.integers(-1, 2, (rows, columns)) * rng.uniform(0.5, 1.5, (rows, 1))
    ),
    "eight levels": _few,
    "uniform": lambda rng, rows, columns: _scaled(rng.uniform(-1, 1, (rows, columns))),
    "one sign a row": lambda rng, rows, columns: _scaled(
        np.abs(rng.standard_normal((rows, columns))) * rng.choice([-1, 1], (rows, 1))
    ),
    "binary rows": lambda rng, rows, columns: _scaled(
        rng.choice([-1, 1], (rows, columns)) * rng.uniform(0.5, 1.5, (rows, 1))
    ),
    "sparse": lambda rng, rows, columns: _scaled(
        rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.03)
    ),
    "constant rows": lambda rng, rows, columns: _scaled(np.repeat(rng.standard_normal((rows, 1)), columns, axis=1)),
    "half zeros": _half_zeros,
    "one outlier a row": _outliers,
    "small rows": _by_rows(lambda rng, rows: np.where(rng.random(rows) < 0.5, 1e-6, 1.0)),
    "small blocks": _small_blocks,
    "tiny": _by_rows(lambda rng, rows: np.full(rows, 10.0 ** -rng.uniform(3, 7))),
    "mixed rows": _by_rows(lambda rng, rows: 10.0 ** -rng.uniform(0, 4, rows)),
    "mixed columns": lambda rng, rows, columns: _scaled(
        rng.standard_normal((rows, columns)) * np.exp(1.5 * rng.standard_normal(columns))
    ),
}


def _two_channels(rng: Rng, columns: int) -> np.ndarray:
    weights = np.exp(0.5 * rng.standard_normal(columns))
    weights[rng.choice(columns, 2, replace=False)] *= 1e4
    return weights


IMPORTANCES: dict[str, Callable[[Rng, int], np.ndarray | None]] = {
    "none": lambda rng, columns: None,
    "flat": lambda rng, columns: np.ones(columns),
    "log-normal": lambda rng, columns: np.exp(2 * rng.standard_normal(columns)),
    "two channels": _two_channels,
}
