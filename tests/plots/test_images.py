"""Samples, reconstructions and the latent space show the numbers that they are given."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae import nets, plots
from pyrovae.plots.images import grid, is_image, pairs


def level(axes, row, column, size=8, columns=8):
    """The grey level in the middle of a pixel of a grid of images of ``size`` pixels, in [0, 1]."""
    picture = np.asarray(axes.get_images()[0].get_array())
    zoom = round(640 / (columns * size))
    gap = max(2, zoom // 2)
    place = [gap * (i // size + 1) + i * zoom + zoom // 2 for i in (row, column)]
    return picture[place[0], place[1], 0] / 255


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), True),
        ((1, 8, 8), True),
        ((3, 8, 8), True),
        ((2, 8, 8), False),
        ((64,), False),
        ((8, 1), False),
    ],
)
def test_what_is_an_image(shape, expected):
    assert is_image(shape) is expected


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_every_pixel_is_where_it_belongs(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((6, *(() if channels is None else (channels,)), 5, 4), generator=generator)
    shown = grid(images, columns=3)
    flat = images.reshape(6, -1, 5, 4).expand(-1, 3, -1, -1)
    # Three images of four pixels in about 640: a factor of 53, and half of that between images.
    zoom, gap = 53, 26
    for n in range(6):
        top, left = gap + n // 3 * (5 * zoom + gap), gap + n % 3 * (4 * zoom + gap)
        for i in range(5):
            for j in range(4):
                square = shown[
                    top + i * zoom : top + (i + 1) * zoom, left + j * zoom : left + (j + 1) * zoom
                ]
                expected = (flat[n, :, i, j] * 255).round().int().tolist()
                assert (square.reshape(-1, 3) == expected).all(), (n, i, j)


def test_values_beyond_the_span_are_clipped():
    images = torch.tensor([-2.0, 0.0, 2.0, 4.0]).reshape(1, 1, 4).expand(1, 4, 4)
    row = grid(images, columns=1, low=0.0, high=2.0)[400, :, 0]
    assert [row[80 + 160 * j] for j in range(4)] == [0, 0, 255, 255]


def test_reconstructions_stand_below_their_data():
    data, seen = torch.zeros(5, 4, 4), torch.ones(5, 4, 4)
    column = grid(pairs(data, seen, 5), columns=5)[:, 50, 0]
    levels = [int(v) for v, before in zip(column[1:], column, strict=False) if v != before]
    assert levels == [0, 128, 255, 128]


def test_a_last_row_that_is_not_full_keeps_the_pairs():
    data = torch.arange(1.0, 8.0).reshape(7, 1, 1).expand(7, 4, 4)
    found = pairs(data, -data, 3)[:, 0, 0]
    assert found.tolist() == [1, 2, 3, -1, -2, -3, 4, 5, 6, -4, -5, -6, 7, 0, 0, -7]


def test_samples_of_images():
    images = torch.rand(16, 8, 8)
    axes = plots.samples(images)
    assert level(axes, 8 + 3, 8 + 5) == pytest.approx(float(images[9, 3, 5]), abs=0.003)
    data, draws = plots.samples(images, data=1 - images)
    assert [axes.get_title("left") for axes in (data, draws)] == ["data", "samples"]
    assert level(data, 0, 0) == pytest.approx(1 - float(images[0, 0, 0]), abs=0.003)
    assert level(draws, 0, 0) == pytest.approx(float(images[0, 0, 0]), abs=0.003)


def test_samples_of_a_table():
    table = torch.tensor([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0]])
    axes = plots.samples(table, names=["a", "b"])
    shown = np.asarray(axes.get_images()[0].get_array())
    np.testing.assert_allclose(shown[:, 0], np.array([-1, 0, 1]) * np.sqrt(1.5))
    assert (shown[:, 1] == 0).all()  # one value only has no spread
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]


def test_marginals_are_the_quantiles_in_units_of_the_data():
    rng = np.random.default_rng(0)
    data, draws = rng.normal(5, 2, (400, 3)), rng.normal(7, 4, (300, 3))
    axes = plots.samples(draws, data=data)
    medians = [line.get_xdata() for line in axes.get_lines()]
    np.testing.assert_allclose(
        medians[1], (np.median(draws, 0) - data.mean(0)) / data.std(0), rtol=1e-12
    )
    ends = axes.collections[2].get_segments()[1]  # the thin line of the second column of draws
    expected = (np.percentile(draws[:, 1], [5, 95]) - data[:, 1].mean()) / data[:, 1].std()
    np.testing.assert_allclose([end[0] for end in ends], expected, rtol=1e-12)


def test_many_columns_show_those_that_vary_most():
    data = np.random.default_rng(0).poisson(np.linspace(0.1, 50, 40), (500, 40)).astype(float)
    axes = plots.marginals(data, data)
    shown = [int(text.get_text().split()[1]) for text in axes.get_yticklabels()]
    expected = np.sort(np.argsort(-data.std(0) / data.mean(0))[:12])
    assert shown == expected.tolist()


def test_reconstructions_of_a_table():
    data = np.random.default_rng(0).normal(3, 2, (20, 4))
    axes = plots.reconstructions(data, data + 1)
    cells = axes.get_lines()[-1]
    np.testing.assert_allclose(
        cells.get_ydata() - cells.get_xdata(), np.tile(1 / data.std(0), 20), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.samples(torch.rand(3, 8, 8), data=torch.rand(3, 4, 4)), "another|but data"),
        (lambda: plots.samples(torch.rand(0, 8, 8)), "N of 1 or more"),
        (lambda: plots.reconstructions(torch.rand(3, 8, 8), torch.rand(2, 8, 8)), "Data have"),
        (lambda: plots.marginals(torch.rand(9, 3), torch.rand(9, 2)), "3 columns"),
        (lambda: plots.codes(torch.rand(9)), r"\(N, D\)"),
        (lambda: plots.codes(torch.rand(9, 2), torch.ones(8)), "as many labels"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_codes_stand_where_they_are():
    z, y = torch.randn(30, 2), torch.arange(30) % 3
    axes = plots.codes(z, y, names=["cat", "dog", "hen"])
    for i, line in enumerate(axes.get_lines()):
        np.testing.assert_allclose(line.get_xydata(), z[y == i], rtol=1e-6)
    assert [text.get_text() for text in axes.texts] == ["cat", "dog", "hen"]
    colours = {line.get_color() for line in axes.get_lines()}
    marks = {line.get_marker() for line in axes.get_lines()}
    assert len(colours) == len(marks) == 3


def test_codes_of_many_dimensions_are_principal_components():
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [9.0, 1.0, 4.0, 0.1, 0.1]
    )
    axes = plots.codes(z)
    values = torch.linalg.eigvalsh(torch.cov(z.T, correction=0)).flip(0)
    place = axes.get_lines()[0].get_xydata()
    np.testing.assert_allclose(place.var(0), values[:2], rtol=1e-4)
    assert f"({float(values[0] / values.sum()):.0%})" in axes.get_xlabel()
    place = plots.codes(z[:1]).get_lines()[0].get_xydata()  # one code is its own centre
    np.testing.assert_array_equal(place, np.zeros((1, 2)))


def test_codes_of_one_dimension_and_of_real_labels():
    z = torch.linspace(0, 1, 50)[:, None]
    axes = plots.codes(z, (z[:, 0] > 0.5).long())
    assert len(axes.get_legend().get_texts()) == 2
    coloured = plots.codes(torch.rand(50, 2), z[:, 0])
    np.testing.assert_allclose(coloured.collections[0].get_array(), z[:, 0])


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return pv.VAE((8, 8), 2, encoder=nets.MLP(16), decoder=nets.MLP(16)).eval()


def test_interpolation_is_that_of_the_model(vae):
    x = torch.rand(4, 8, 8).round()
    axes = plots.interpolation(vae, x[:2], x[2:], steps=5)
    path = vae.interpolate(x[:2], x[2:], 5)
    found = level(axes, 8 + 2, 3 * 8 + 4, columns=5)
    assert found == pytest.approx(float(path[3, 1, 2, 4]), abs=0.003)
    with pytest.raises(ValueError, match="steps"):
        plots.interpolation(vae, x[:2], x[2:], steps=1)
    deep = pv.HierarchicalVAE((8, 8), latent_dims=(2, 2))
    with pytest.raises(TypeError, match="no interpolate"):
        plots.interpolation(deep, x[:2], x[2:])


def test_traversal_changes_one_element(vae):
    x = torch.rand(1, 8, 8).round()
    axes = plots.traversal(vae, x, units=[1], steps=3, reach=2.0)
    z = vae.encode(x).mean.clone()
    z[0, 1] = 2.0
    with torch.no_grad():
        expected = float(vae.decode(z)[0, 3, 3])
    assert level(axes, 3, 2 * 8 + 3, columns=3) == pytest.approx(expected, abs=0.003)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["-2", "0", "2"]
    given = pv.ConditionalVAE((8, 8), 2, 3)
    plots.traversal(given, (x, torch.tensor([1])), steps=3)
    with pytest.raises(ValueError, match="units must lie"):
        plots.traversal(vae, x, units=[2])
    with pytest.raises(ValueError, match="one datum"):
        plots.traversal(vae, torch.cat([x, x]))
    with pytest.raises(TypeError, match="one latent z"):
        plots.traversal(pv.HierarchicalVAE((8, 8), latent_dims=(2, 2)), x)


def test_tables_have_a_traversal_too():
    table = pv.VAE(5, 3, likelihood=pv.likelihoods.Gaussian())
    axes = plots.traversal(table, torch.zeros(1, 5), steps=4)
    assert axes.get_images()[0].get_array().shape == (12, 5)
    axes = plots.interpolation(table, torch.zeros(2, 5), torch.ones(2, 5), steps=4)
    assert axes.get_images()[0].get_array().shape == (8, 5)


def test_manifold_stands_at_the_quantiles_of_the_prior(vae):
    state = torch.get_rng_state()
    axes = plots.manifold(vae, num=4)
    assert torch.equal(torch.get_rng_state(), state)
    # At 1/8, 3/8, 5/8 and 7/8 of a standard normal; the quantiles of 10,000 draws are off by 0.02.
    ends = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.125, 0.875]))
    z = torch.stack([ends[1], ends[1]])[None]  # the corner at the upper right
    with torch.no_grad():
        expected = vae.decode(z)[0]
    assert level(axes, 3, 3 * 8 + 3, columns=4) == pytest.approx(float(expected[3, 3]), abs=0.01)
    z = torch.stack([ends[0], ends[1]])[None]  # z[0] small, z[1] large: the upper left
    with torch.no_grad():
        expected = vae.decode(z)[0]
    assert level(axes, 3, 3, columns=4) == pytest.approx(float(expected[3, 3]), abs=0.01)
    with pytest.raises(ValueError, match="latent_dim=2"):
        plots.manifold(pv.VAE((8, 8), 3))
    with pytest.raises(TypeError, match="has a condition"):
        plots.manifold(pv.ConditionalVAE((8, 8), 2, 3))
