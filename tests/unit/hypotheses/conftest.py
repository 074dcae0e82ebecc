"""A session in which every claim was tested."""

import shutil

import pytest

from tests.claims import CONTRACT, write_claims
from workbench.cli.pair import run_session
from workbench.demo import demo_session
from workbench.jobs.testing import try_session
from workbench.session.session import Session


@pytest.fixture(scope="session")
def tested(tmp_path_factory):
    """The demo's session with every claim tested; its folder is not to be written to."""
    folder = tmp_path_factory.mktemp("tested") / "session"
    session = demo_session("permuted_rope", folder=folder)
    run_session(session)
    write_claims(session)
    (folder / "contract.yaml").write_text(CONTRACT)
    session.found = {each.number: each for each in try_session(session, None, lambda *_: None)}
    return session


@pytest.fixture
def session(tested, tmp_path):
    """A copy of it."""
    shutil.copytree(tested.folder, tmp_path / "session")
    return Session.open(tmp_path / "session")
