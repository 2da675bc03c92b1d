"""Replay of a graph as a CUDA graph: one launch instead of hundreds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.compilation.capture import Graph

__all__ = ["record"]

WARM_UP = 3  # libraries allocate memory and choose algorithms at their first calls


def record(graph: Graph, inputs: Sequence[Tensor]) -> None:
    """Record a graph on the device of its inputs, and replay it from then on.

    Random draws go on from the device's generator, which a CUDA graph advances at each replay. What
    the graph changes in place is as before afterwards.

    Raises:
        RuntimeError: If an operation cannot be recorded. The graph is then as it was.
    """
    run, device = graph.run, (*inputs, *graph.constants)[0].device
    held = [tensor.clone() for tensor in inputs]
    before = [tensor.detach().clone() for tensor in graph.written]
    state = torch.cuda.get_rng_state(device)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.no_grad(), torch.cuda.device(device):
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    run(*graph.constants, *held)
            torch.cuda.current_stream(device).wait_stream(side)
            recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(recorded):
                outputs = run(*graph.constants, *held)
    finally:
        with torch.no_grad():
            for tensor, value in zip(graph.written, before, strict=True):
                tensor.copy_(value)
        torch.cuda.set_rng_state(state, device)
    num_constants = len(graph.constants)

    def replay(*arguments: Tensor) -> Sequence[Tensor]:
        for target, source in zip(held, arguments[num_constants:], strict=True):
            target.copy_(source, non_blocking=True)
        recorded.replay()
        return [output.clone() for output in outputs]  # the next replay writes over its outputs

    graph.run, graph.kind = replay, "cuda graph"
