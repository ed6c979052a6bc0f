"""DeepMind Lab's stand-in, for the tests that need it."""

import sys

import pytest
from lab_standin import STANDIN


@pytest.fixture
def lab(monkeypatch):
    """The stand-in, importable here and in workers, which find modules as this process does."""
    monkeypatch.syspath_prepend(STANDIN)
    import deepmind_lab

    yield deepmind_lab
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepmind_lab"]:
        del sys.modules[name]
