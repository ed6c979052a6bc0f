"""Every recipe's update is made of operations that XLA has: it is translated, but not compiled."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from small_agent import RECIPE_SIZES, make_agent, make_batch

RECIPES: dict[str, dict[str, Any]] = {
    "v1": {"precision": "float16", "discount__enabled": True},
    "v3": {**RECIPE_SIZES, "preset": "v3", "behavior__starts": 5},
    "explorer": {"disagreement__until": 100},
    "planner": {"behavior__policy": "planner"},
    "contrastive": {"loss__representation": "contrastive"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_xla_has_the_operations_of_an_update(recipe: str) -> None:
    agent = make_agent(**RECIPES[recipe], jit="on")
    inputs = *agent._update_inputs(make_batch(size=4), 0), True
    assert "ENTRY" in agent._update.experimental_get_compiler_ir(*inputs)(stage="hlo")
    # TensorFlow keeps int32 variables on the CPU, where XLA for a GPU cannot use them.
    assert not [name for name, v in agent._variables().items() if v.dtype in (tf.int32, "int32")]
