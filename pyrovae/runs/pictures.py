"""The pictures of a run: some are files of its folder, all are on its page."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pyrovae import files, plots
from pyrovae.data import Splits
from pyrovae.evidence import Evidence, where_the_nats_go
from pyrovae.plots.images import is_image, pairs, span
from pyrovae.runs import figures
from pyrovae.runs.conditions import arguments, condition_of, drawing
from pyrovae.runs.run import Run
from pyrovae.runs.terminal import attempt, seeded
from pyrovae.training.history import History

__all__ = ["Picture", "pictures_of"]

_MOST_CODES = 2_000
_MOST_FOR_NATS = 300  # the work grows with its square
_PARTICLES = 16


class Picture(NamedTuple):
    """A picture of a page."""

    content: bytes
    """A PNG, or an SVG that is light or dark as the page is."""
    caption: str


class _Album:
    """Pictures as far as they can be made; each that cannot be is a warning."""

    def __init__(self, run: Run):
        self.run, self.made = run, dict[str, Picture]()

    def add(self, name: str, caption: str, make: Callable[[], bytes]) -> None:
        def keep() -> None:
            self.made[name] = Picture(make(), caption)

        attempt(f"{name}.png", keep)

    def draw(
        self, name: str, caption: str, draw: Callable[[Any], Any], *, file: bool = False
    ) -> None:
        """A drawing by matplotlib; with ``file``, also as a PNG in the folder."""

        def make() -> bytes:
            if not file:
                return figures.svg(draw)
            drawing, content = figures.svg_and_png(draw)
            self._write(name, content)
            return drawing

        self.add(name, caption, make)

    def grid(self, name: str, caption: str, images: Any, *, file: bool = True, **how: Any) -> None:
        """Images in rows; with ``file``, also in the folder."""

        def make() -> bytes:
            content = figures.image_grid(images, **how)
            if file:
                self._write(name, content)
            return content

        self.add(name, caption, make)

    def _write(self, name: str, content: bytes) -> None:
        path = self.run.path / f"{name}.png"
        if not path.exists():
            files.write(path, content)


def pictures_of(
    run: Run, vae: Any, splits: Splits, evidence: Evidence | None, history: History
) -> dict[str, Picture]:
    """All pictures of a finished run, by name."""
    album = _Album(run)
    album.draw(
        "learning_curve",
        "Bound on log p(x) over the epochs, at beta = 1, and its two terms in training: bound = "
        "reconstruction − KL.",
        history.plot,
        file=True,
    )
    if evidence is not None:
        album.draw(
            "evidence",
            "log p(x) of each test datum with two standard errors, and the Pareto k of its weights."
            if figures.has_k(evidence)
            else "log p(x) of each test datum with two standard errors.",
            lambda figure: figures.evidence_figure(evidence, figure),
            file=True,
        )
    attempt("samples.png", lambda: _data(album, vae, splits))
    attempt("codes.png", lambda: _codes(album, vae, splits))
    if evidence is not None:
        attempt("nats.png", lambda: _nats(album, vae, splits, evidence))
    return album.made


def _data(album: _Album, vae: Any, splits: Splits) -> None:
    """Samples beside data, and reconstructions."""
    run, image = album.run, is_image(vae.data_shape)
    device = next(vae.parameters()).device
    shown = [data.to(device) for data in _first(vae, splits, 40 if image else 200)]
    condition = condition_of(vae, splits).get("condition")
    how: Any = {"mean": image, "condition": condition, "splits": lambda: splits}
    draws = drawing(vae, 64 if image else 1000, **how)
    # Both in one seeded stretch, whatever becomes of the files.
    samples, seen = seeded(run.config.seed, lambda: (draws.draw(), vae.reconstruct(*shown)))
    if not image:
        samples, seen = (torch.as_tensor(vae.likelihood.read(x)) for x in (samples, seen))
        _table(album, vae, splits, (samples, shown[0], seen), draws.given)
        return
    low, high = span(splits.train[:10_000])
    ends: Any = {"low": low, "high": high}
    album.grid("data", "Test data.", splits.test[:64], columns=8, file=False, **ends)
    caption = f"Samples: E[x | z] for z drawn from the prior{draws.given}."
    album.grid("samples", caption, samples, columns=draws.columns, **ends)
    caption = "Test data (upper rows), and their reconstructions below."
    album.grid("reconstructions", caption, pairs(shown[0], seen, 10), columns=10, **ends)


def _table(
    album: _Album, vae: Any, splits: Splits, shown: tuple[Any, Any, Any], given: str
) -> None:
    samples, data, seen = shown
    names = getattr(vae.likelihood, "names", None) or splits.columns
    test = splits.test[:1000]
    album.draw(
        "samples",
        f"Test data and samples of the model{given}, column by column: the median, the middle half "
        "(thick), and 90 % (thin).",
        lambda figure: plots.marginals(test, samples, figure, names=names),
    )
    album.draw(
        "reconstructions",
        "E[x | z] for z drawn from q(z | x), against the test datum x, cell by cell. The closer to "
        "the line, the more z holds of x.",
        lambda figure: plots.reconstructions(data, seen, figure),
    )


def _codes(album: _Album, vae: Any, splits: Splits) -> None:
    given = _first(vae, splits, _MOST_CODES)
    codes = vae.embed(given[0] if len(given) == 1 else tuple(given))
    labels, by = None, ""
    if splits.labels is not None and splits.labels[2].dim() == 1:
        labels, by = splits.labels[2][:_MOST_CODES], ", coloured by their labels"
    album.draw(
        "codes",
        f"Codes of test data: the means of q(z | x){by}. "
        + (
            ""
            if codes.shape[1] < 3
            else "Principal components, with their shares of the variance. "
        ),
        lambda figure: plots.codes(codes, labels, figure, names=splits.classes),
    )


def _nats(album: _Album, vae: Any, splits: Splits, evidence: Evidence) -> None:
    given = _first(vae, splits, _MOST_FOR_NATS)
    data = vae.read(given[0] if len(given) == 1 else tuple(given))
    settings: Any = {"num_particles": _PARTICLES, "seed": album.run.config.seed}
    model, guide = vae.programs
    level = evidence.log_marginal.values[: len(given[0])]
    nats = where_the_nats_go(model, guide, data, **settings).beside(level)
    album.draw(
        "nats",
        f"Where the nats go, over {len(level):,} test data. The right end is the reconstruction. "
        "The KL, what z costs, is taken off it, which leaves the ELBO. The line is log p(x): what "
        "lies between is lost by the guide.",
        nats.plot,
    )
    album.draw(
        "units",
        "What each latent element carries. An element near zero is not used.",
        lambda figure: plots.units(nats, figure),
    )


def _first(vae: Any, splits: Splits, num: int) -> list[Any]:
    """The first test data, and what the programs take beside them."""
    found = arguments(vae, splits, "test")
    return [part[:num] for part in (found if isinstance(found, tuple) else (found,))]
