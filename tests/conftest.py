"""Keeps TensorFlow quiet in tests; set here, before any test imports it."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
