"""From a model's outputs to what a person asks for, as an ONNX graph.

Source: `bench.stages.optim.probabilities`, operation by operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench_export.conversion.graph import Nodes

if TYPE_CHECKING:
    from bench.kinds import Task

__all__ = ["postprocess"]


def postprocess(outputs: str, *, task: Task, loss: str, num_outputs: int, threshold: float | None) -> Nodes:
    """Nodes from `outputs`, float32 N,num_outputs, to `probabilities` N,K; of pairs to `score` and `decision`, both N.

    The score is the probability of "same", the decision whether it reaches the threshold (compared as float32). Raises
    BenchError for pairs without a threshold.
    """
    nodes = Nodes(outputs)
    if task == "classification":
        _probabilities(nodes, outputs, loss, num_outputs, output="probabilities")
        return nodes
    if threshold is None:
        raise BenchError("pairs need a threshold to be decided by", hint="a run that was evaluated on pairs has one")
    chances = _probabilities(nodes, outputs, loss, num_outputs)
    score = nodes.add("Gather", chances, nodes.constant(1, np.int64), axis=1, output="score")
    nodes.add("GreaterOrEqual", score, nodes.constant(threshold, np.float32), output="decision")
    return nodes


def _probabilities(nodes: Nodes, outputs: str, loss: str, num_outputs: int, *, output: str | None = None) -> str:
    """N,K that go with the loss."""
    if loss == "contrastive":
        same = nodes.add("Exp", nodes.add("Neg", outputs))
        return _with_complement(nodes, same, output)
    if loss == "bce":
        chances = nodes.add("Sigmoid", outputs)
        if num_outputs == 1:
            return _with_complement(nodes, chances, output)
        total = nodes.add("ReduceSum", chances, nodes.integers(1))
        return nodes.add("Div", chances, nodes.add("Clip", total, nodes.constant(1e-12, np.float32)), output=output)
    return nodes.add("Softmax", outputs, axis=1, output=output)


def _with_complement(nodes: Nodes, chances: str, output: str | None) -> str:
    rest = nodes.add("Sub", nodes.constant(1.0, np.float32), chances)
    return nodes.add("Concat", rest, chances, axis=1, output=output)
