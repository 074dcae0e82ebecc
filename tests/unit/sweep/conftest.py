import pytest

from workbench.sweep import kept


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Where runs of A are kept: nothing of the user's, and nothing of another test."""
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "runs")
    return tmp_path / "runs"
