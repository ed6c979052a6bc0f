"""Figures, tables and a report page from run directories. Imports no TensorFlow."""

import importlib.util
import sys


def check_packages() -> None:
    """Exits with a message and status 2 if a package that only plots need is missing."""
    needed = "jinja2", "matplotlib", "scipy", "rich", "ruamel"
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: plots/ needs {', '.join(missing)}: run `source .venv/bin/activate` in the "
            "checkout first (`make setup` makes .venv), or pip install 'jinja2>=3.1' "
            "'matplotlib>=3.8' 'scipy>=1.15'",
            file=sys.stderr,
        )
        sys.exit(2)
