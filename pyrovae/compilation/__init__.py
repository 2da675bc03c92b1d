"""Run functions of tensors as captured graphs: capture, graph passes, Inductor, CUDA graphs."""

from pyrovae.compilation.capture import Graph, Uncapturable, capture
from pyrovae.compilation.compiled import Compiled, compile
from pyrovae.compilation.inductor import pays_back
from pyrovae.compilation.threads import one_thread

__all__ = ["Compiled", "Graph", "Uncapturable", "capture", "compile", "one_thread", "pays_back"]
