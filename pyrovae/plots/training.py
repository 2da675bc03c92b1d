"""What happened in training."""

from typing import Any

import numpy as np

from pyrovae.plots.style import GREY, palette, panels, styled

__all__ = ["learning_curve"]


@styled
def learning_curve(history: Any, axes: Any = None) -> Any:
    """Bounds, reconstruction and KL over the epochs, in nats per datum.

    The first tenth of the epochs may leave the frame: it is steep, and what matters comes after.

    Args:
        history: A :class:`~pyrovae.History`.
        axes: Three axes, or a figure; by default a new figure of pyplot.

    Returns:
        The three axes: bounds (higher is better), reconstruction, KL.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the history has no epoch yet.

    >>> import torch
    >>> import pyrovae as pv
    >>> vae, x = pv.VAE(6, 2), torch.rand(40, 6).round()
    >>> history = vae.fit(x[:20], valid=x[20:], epochs=3, capture=False)
    >>> axes = learning_curve(history)
    >>> [line.get_label() for line in axes[0].get_lines()][:2]
    ['training', 'validation']
    """
    if not len(history):
        raise ValueError("The history has no epochs yet: train for one at least.")
    ratios = {"height_ratios": (2, 1, 1), "sharex": True}
    above, middle, below = panels(axes, 3, 1, 4.8, **ratios)[:, 0]
    epochs, colours = history["epoch"], palette(3)
    mark: Any = {"marker": "o" if len(history) == 1 else ""}
    shown = [history["train_bound"]]
    above.plot(epochs, history["train_bound"], color=colours[0], label="training", **mark)
    if np.isfinite(history["valid_bound"]).any():
        shown.append(history["valid_bound"])
        look: Any = {"ls": "--", "color": colours[1], "label": "validation", **mark}
        above.plot(epochs, history["valid_bound"], **look)
    _zoom_in(above, shown)
    above.set_ylabel("bound, nats/datum")
    for place, name in ((middle, "reconstruction"), (below, "KL")):
        values = history[name.lower()]
        place.plot(epochs, values, **mark, color=colours[2 if name == "KL" else 0])
        place.set_ylabel(f"{name},\nnats/datum")
        _zoom_in(place, [values])
    if history.best_epoch is not None:
        for place in (above, middle, below):
            place.axvline(history.best_epoch, color=GREY, ls=":", lw=1.2)
        above.get_lines()[-1].set_label(f"weights kept (epoch {history.best_epoch})")
    handles = above.get_legend_handles_labels()
    above.figure.legend(*handles, loc="outside upper center", ncols=3, columnspacing=1.2)
    below.set_xlabel("epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    return np.array([above, middle, below])


def _zoom_in(axes: Any, curves: list[np.ndarray]) -> None:
    if len(curves[0]) >= 20:
        late = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
        late = late[np.isfinite(late)]
        if len(late):
            room = 0.08 * (late.max() - late.min()) or 0.1
            axes.set_ylim(late.min() - room, late.max() + room)
