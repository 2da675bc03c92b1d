"""One step of training, and the drop-in for :class:`pyro.infer.SVI`."""

from pyrovae.objective import Report
from pyrovae.svi.drop_in import SVI
from pyrovae.svi.step import Networks, Step

__all__ = ["Networks", "Report", "SVI", "Step"]
