"""Figures, tables and a report page from run directories. Imports no TensorFlow."""

import importlib.util
import sys

_missing = [
    name for name in ("jinja2", "matplotlib", "scipy") if importlib.util.find_spec(name) is None
]
if _missing:  # here, because the programs import these packages before they run
    print(
        f"error: plots/ needs {', '.join(_missing)}: run make setup, or pip install "
        "'jinja2>=3.1' 'matplotlib>=3.8' 'scipy>=1.15'",
        file=sys.stderr,
    )
    sys.exit(2)
