"""What an agent has learnt and counted, to and from the arrays of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamer.ops.shapes import check_shape

_CALLS = "policy_calls"  # what the random stream of acting is keyed by


def to_arrays(variables: Mapping[str, Any], policy_calls: int) -> dict[str, np.ndarray]:
    """TensorFlow variables by name, and the number of policy calls, as arrays."""
    arrays = {name: np.asarray(variable) for name, variable in variables.items()}
    return arrays | {_CALLS: np.asarray(policy_calls, np.int64)}


def from_arrays(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> int:
    """Puts back what `to_arrays` gave; returns the number of policy calls.

    Raises:
        ValueError: If names or shapes differ from the variables'; nothing is changed then.
    """
    differing = {*variables, _CALLS} ^ set(arrays)
    if differing:
        raise ValueError(f"the arrays are not this agent's; differing: {sorted(differing)[:5]}")
    for name, variable in variables.items():
        check_shape(name, arrays[name], tuple(variable.shape))
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return int(arrays[_CALLS])
