"""Run functions of tensors as captured graphs: capture, graph passes, Inductor, CUDA graphs."""

from pyrovae.compilation.capture import Graph, Uncapturable, capture
from pyrovae.compilation.compiled import Compiled, compile
from pyrovae.compilation.inductor import pays_back

__all__ = ["Compiled", "Graph", "Uncapturable", "capture", "compile", "pays_back"]
