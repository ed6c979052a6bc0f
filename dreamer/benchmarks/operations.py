"""How many operations an update executes: TensorFlow's after its rewrites, or XLA's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dreamer.agent.agent import Agent

#: Operations that launch no work: they name, pass on or read tensors.
_PASSIVE = (
    "Const NoOp Identity IdentityN _Arg _Retval Arg Retval _DeviceArg _DeviceRetval Reshape "
    "Squeeze ExpandDims Shape StopGradient PreventGradient ReadVariableOp VarHandleOp Switch Merge "
    "_Switch _Merge _Recv _Send _HostRecv _HostSend Size Rank Enter Exit Snapshot"
)
_CALL = re.compile(r" (?:custom-call|dot|convolution)\(")


def executed_operations(update: Callable[[], object]) -> int:
    """Counts the operations that do work when TensorFlow runs a function for the first time.

    Later TensorFlow does not tell. The body of a loop counts once.
    """
    from tensorflow.python.eager import context

    inner, passive = context.context(), frozenset(_PASSIVE.split())
    inner.enable_run_metadata()
    try:
        update()
        graphs = inner.export_run_metadata().function_graphs
    finally:
        inner.disable_run_metadata()
    counts = [
        sum(node.op not in passive for part in graph.partition_graphs for node in part.node)
        for graph in graphs
    ]
    return max(counts, default=0)  # the others make the arguments


def compiled_operations(agent: Agent, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Compiles an update with XLA once more; returns the seconds, and counts of its program.

    These are the fusions, and the calls of libraries (matrix products, convolutions, sorting). The
    body of a loop counts once.
    """
    start = time.perf_counter()
    program = agent.compiled(batch)
    return {
        "compile_seconds": time.perf_counter() - start,
        "fusions": program.count(" fusion("), "library_calls": len(_CALL.findall(program)),
    }  # fmt: skip
