"""DeepMind Lab's stand-in, for the tests that need it."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def lab(monkeypatch):
    """Makes the stand-in importable, also in workers, which find modules as this process does."""
    monkeypatch.syspath_prepend(Path(__file__).with_name("dmlab_standin"))
    import deepmind_lab

    yield deepmind_lab
    del sys.modules["deepmind_lab"]
