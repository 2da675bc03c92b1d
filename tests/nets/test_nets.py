"""Network recipes: sizes for any shape, formulas, initialisations, and no datum
that sees another.
"""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import nets
from pyrovae.nets import MLP, Conv, GatedMLP, Log1p, OneHot, Residual
from pyrovae.nets.conv import _Block
from pyrovae.nets.recipe import ACTIVATIONS, INITIALISATIONS

RECIPES = [
    MLP(),
    MLP(7),
    MLP(6, 5, activation="tanh", init="glorot"),
    GatedMLP(6, 5),
    GatedMLP(4, init="default"),
    Conv(3, 4, hidden=5),
    Conv(3, hidden=5, activation="gelu", init="he"),
    Residual(3, 4, hidden=5, blocks=1),
    Residual(3, blocks=2, hidden=5, activation="relu", init="default"),
    Log1p(MLP(4)),
    Log1p(Conv(2, hidden=3)),
    OneHot(2, MLP(4)),
]
recipes = pytest.mark.parametrize("recipe", RECIPES, ids=repr)
images = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)


def test_every_recipe_is_here():
    others = {"Bfloat16Networks", "Recipe", "last_bias"}
    assert {type(r).__name__ for r in RECIPES} == set(nets.__all__) - others


@recipes
@settings(max_examples=15, deadline=None)
@given(image=images, features=st.integers(1, 5), outputs=st.integers(1, 3))
def test_sizes(recipe, image, features, outputs):
    """Encoder and decoder for images of every size, odd ones and single pixels included."""
    encoder = recipe.build(image, (features,))
    assert encoder(torch.rand(2, *image)).shape == (2, features)
    decoder = recipe.build((features,), (outputs, *image))
    found = decoder(torch.rand(2, features))
    assert found.shape[0] == 2
    assert found[0].numel() == outputs * math.prod(image)
    if isinstance(recipe, Conv | Residual):
        channels = outputs * math.prod(image[:-2])
        assert found.shape == (2, channels, *image[-2:])


widths = st.lists(st.integers(1, 5), min_size=1, max_size=3)
words = {
    "activation": st.sampled_from(sorted(ACTIVATIONS)),
    "init": st.sampled_from(INITIALISATIONS),
}
drawn = {
    "MLP": (widths, words),
    "GatedMLP": (widths, {"init": words["init"]}),
    "Conv": (widths, {**words, "hidden": st.integers(1, 5)}),
    "Residual": (widths, {**words, "hidden": st.integers(1, 5), "blocks": st.integers(1, 2)}),
}


@pytest.mark.parametrize("name", drawn)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data(), image=images, features=st.integers(1, 4), outputs=st.integers(1, 2))
def test_recipes_of_any_widths_for_images_of_any_size(name, data, image, features, outputs):
    """Encoder and decoder together: each datum by itself, finite, and with gradients for every
    parameter.
    """
    args, options = drawn[name]
    chosen = {key: data.draw(strategy) for key, strategy in options.items()}
    recipe = Log1p(getattr(nets, name)(*data.draw(args), **chosen))
    assert repr(eval(repr(recipe), vars(nets))) == repr(recipe)
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    encoder, decoder = (
        recipe.build(image, (features,)).double(),
        recipe.net.build((features,), (outputs, *image)).double(),
    )
    x = torch.rand(3, *image, dtype=torch.float64)
    out = decoder(encoder(x))
    assert out.isfinite().all()
    assert_close(decoder(encoder(x[1:2])), out[1:2])
    parameters = [*encoder.parameters(), *decoder.parameters()]
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.square().sum(), parameters))


@recipes
def test_one_datum_never_sees_another(recipe):
    """The same result alone as in a batch, in training mode, so that densities are each datum's
    own.
    """
    torch.manual_seed(0)
    encoder = recipe.build((2, 6, 5), (4,)).double().train()
    x = torch.rand(5, 2, 6, 5, dtype=torch.float64)
    assert_close(encoder(x)[2:3], encoder(x[2:3]))


@recipes
def test_every_output_depends_on_every_input_side(recipe):
    """No dead path: gradients reach the input and all outputs move."""
    torch.manual_seed(0)
    decoder = recipe.build((3,), (2, 1, 6, 5)).double()
    z = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    out = decoder(z).flatten(1)
    assert (out.std(0) > 0).double().mean() > 0.9  # a ReLU net may leave a few outputs constant
    (gradient,) = torch.autograd.grad(out.square().sum(), z)
    assert (gradient.abs().sum(0) > 0).all()


@recipes
def test_prints_as_declared_copies_and_pickles(recipe):
    assert repr(eval(repr(recipe), vars(nets))) == repr(recipe)
    assert repr(copy.deepcopy(recipe)) == repr(pickle.loads(pickle.dumps(recipe))) == repr(recipe)
    net = recipe.build((4, 4), (2,))
    x = torch.rand(3, 4, 4)
    assert_close(pickle.loads(pickle.dumps(net))(x), net(x))


def test_mlp_is_its_formula():
    net = MLP(4, activation="tanh").build((2, 3), (5,)).double()
    x = torch.rand(7, 2, 3, dtype=torch.float64)
    first, last = (m for m in net if isinstance(m, nn.Linear))
    expected = (x.flatten(1) @ first.weight.T + first.bias).tanh() @ last.weight.T + last.bias
    assert_close(net(x), expected)


def test_gated_mlp_is_its_formula():
    net = GatedMLP(4).build((3,), (5,)).double()
    x = torch.rand(7, 3, dtype=torch.float64)
    both, last = (m for m in net.modules() if isinstance(m, nn.Linear))
    value, gate = F.linear(x, both.weight, both.bias).split(4, -1)
    hidden = value * gate.sigmoid()
    assert_close(net(x), F.linear(hidden, last.weight, last.bias))


def test_log1p_is_its_formula():
    torch.manual_seed(0)
    inner = MLP(4).build((3,), (2,))
    torch.manual_seed(0)
    net, x = Log1p(MLP(4)).build((3,), (2,)), torch.tensor([[0.0, 1.0, 1e6]])
    assert_close(net(x), inner((1 + x).log()))


def test_residual_blocks_start_as_the_identity_and_learn():
    torch.manual_seed(0)
    net = Residual(4, blocks=2, hidden=5).build((3, 8, 8), (2,)).double()
    blocks = [m for m in net.modules() if isinstance(m, _Block)]
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    assert len(blocks) == 2
    for block in blocks:
        assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.rand(2, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    assert all((p.grad != 0).any() for block in blocks for p in block.parameters())
    block = blocks[0]
    expected = x + block.last(F.silu(block.first(F.silu(x))))
    assert_close(block(x), expected)


@pytest.mark.parametrize("build", [MLP, GatedMLP, Conv, Residual])
def test_initialisations_have_their_spread(build):
    """He: standard deviation sqrt(2 / fan-in); Glorot: uniform with its bound; default: torch's
    own, untouched.
    """
    torch.manual_seed(0)

    def layers(init):
        widths = (40, 40)
        net = build(*widths, init=init).build((1, 16, 16), (50,))
        skip = {id(b.last) for b in net.modules() if isinstance(b, _Block)}
        return [
            m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d) and id(m) not in skip
        ]

    for layer in layers("he"):
        count, fan_in = layer.weight.numel(), layer.weight[0].numel()
        # A standard deviation from n normal draws has the relative error 1/sqrt(2n): five of them.
        assert layer.weight.std().item() == pytest.approx(
            math.sqrt(2 / fan_in), rel=5 / math.sqrt(2 * count)
        )
        assert (layer.bias == 0).all()
    for layer in layers("glorot"):
        area = layer.weight[0, 0].numel()
        bound = math.sqrt(6 / (area * (layer.weight.shape[0] + layer.weight.shape[1])))
        assert bound * 0.95 < layer.weight.abs().max().item() <= bound
    for layer in layers("default"):
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert bound * 0.9 < layer.weight.abs().max().item() <= bound
        assert (layer.bias != 0).any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    net = MLP(3, activation=name).build((2,), (1,))
    assert_close(
        net[1](torch.tensor([-1.0, 2.0])),
        getattr(F, name, getattr(torch, name, None))(torch.tensor([-1.0, 2.0])),
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP(3, 0), r"Hidden widths must be positive integers, found \(3, 0\)"),
        (lambda: MLP(2.5), "positive integers"),
        (lambda: MLP(True), "positive integers"),
        (lambda: MLP(3, activation="swish"), "Unknown activation 'swish'. Choose one of relu"),
        (
            lambda: GatedMLP(3, init="xavier"),
            "Unknown initialisation 'xavier'. Choose one of default, he, glorot",
        ),
        (lambda: Conv(), "Conv channels must be one or more positive integers"),
        (lambda: Conv(3, dims=4), "dims must be 1, 2 or 3, found 4"),
        (lambda: OneHot(1, MLP()), "num_levels >= 2"),
        (lambda: Conv(3, dims=3).build((4, 4), (5,)), r"needs images, \(D, H, W\) or"),
        (lambda: Conv(3, hidden=0), "hidden must be positive integers"),
        (lambda: Residual(3, blocks=0), "blocks must be positive integers"),
        (
            lambda: Conv(3).build((4,), (5,)),
            r"Conv needs images.*found \(4,\) -> \(5,\). Use MLP, or dims=1",
        ),
    ],
)
def test_wrong_declarations_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_log1p_takes_recipes_only():
    with pytest.raises(TypeError, match=r"takes a recipe such as nets.MLP\(128\), found Linear"):
        Log1p(nn.Linear(2, 2))


SPACES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}


@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize("kind", [Conv, Residual])
def test_channels_last_is_channels_first_with_the_data_moved(kind, dims):
    """The same weights, for signals, images and volumes."""

    def make(**options):
        return kind(3, 4, hidden=5, **({"blocks": 1} if kind is Residual else {}), **options)

    space, channels = SPACES[dims], 2
    first, last = make(dims=dims), make(dims=dims, channels_last=True)
    assert repr(eval(repr(last), vars(nets))) == repr(last)
    nets_ = []
    for recipe, shape in ((first, (channels, *space)), (last, (*space, channels))):
        torch.manual_seed(0)
        encoder = recipe.build(shape, (4,)).double()
        nets_.append((encoder, recipe.build((4,), (3, *shape)).double()))
    x = torch.rand(6, channels, *space, dtype=torch.float64)
    z = nets_[0][0](x)
    assert z.shape == (6, 4)
    assert_close(nets_[1][0](x.movedim(1, -1)), z)
    outputs = nets_[0][1](z).unflatten(1, (3, channels))
    assert_close(nets_[1][1](z), outputs.movedim(2, -1))
    plain = make(dims=dims).build(space, (4,))  # without channels
    assert plain(torch.rand(6, *space)).shape == (6, 4)
    assert make(dims=dims).build((4,), (1, *space))(torch.rand(6, 4)).shape == (6, 1, *space)


@pytest.mark.parametrize("dims", SPACES)
def test_a_convolution_sees_its_neighbours_alone(dims):
    """A first layer of kernel 3 and stride 2: a change of the last element moves the last
    output only, in every dimension of space.
    """
    space = SPACES[dims]
    net = Conv(3, hidden=5, dims=dims).build((2, *space), (4,)).double()
    layer = next(m for m in net.modules() if hasattr(m, "kernel_size"))
    assert layer.kernel_size == (3,) * dims
    x = torch.rand(1, 2, *space, dtype=torch.float64)
    other = x.clone()
    other[(0, 0, *[-1] * dims)] += 1
    moved = (layer(x) != layer(other)).any(1)[0]
    expected = torch.zeros_like(moved)
    expected[(-1,) * dims] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("last", [False, True])
def test_a_bias_for_each_channel_starts_at_its_mean(last):
    torch.manual_seed(0)
    shape = (6, 2) if last else (2, 6)
    vae = pv.VAE(shape, 2, likelihood=pv.likelihoods.Gaussian(),
                 decoder=Conv(4, hidden=4, dims=1, channels_last=last))  # fmt: skip
    data = torch.stack([torch.full((5, 6), 0.3), torch.full((5, 6), -2.0)], 2 if last else 1)
    vae.initialize_from(data)
    found = nets.last_bias(vae.likelihood.decoder)
    assert_close(found.detach(), torch.tensor([0.3, -2.0]))
    assert vae.sample(3).shape == (3, *shape)


def test_one_hot_levels():
    x = torch.tensor([[0.0, 0.5, 1.0]])
    net = OneHot(3, MLP()).build((3,), (2,))
    assert torch.equal(net[0](x), torch.eye(3)[None])


def test_last_bias():
    net = Conv(3).build((2,), (3, 8, 8))
    assert nets.last_bias(net).shape == (3,)
    assert nets.last_bias(MLP(3).build((2,), (2, 5))).shape == (10,)
    assert nets.last_bias(nn.Sequential(nn.Linear(2, 2, bias=False))) is None
    assert nets.last_bias(nn.Identity()) is None


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("recipe", [Conv(4), Residual(4, blocks=1)], ids=repr)
def test_images_with_channels_last_are_refused(recipe, channels):
    image = (28, 27, channels)
    with pytest.raises(ValueError, match=r"looks like \(H, W, C\).*movedim\(-1, 1\)"):
        recipe.build(image, (5,))
    with pytest.raises(ValueError, match=r"looks like \(H, W, C\).*movedim\(-1, 1\)"):
        recipe.build((5,), (2, *image))
    moved = torch.zeros(6, *image).movedim(-1, 1)
    assert recipe.build(tuple(moved.shape[1:]), (5,))(moved).shape == (6, 5)
    # Many outputs for each element of a narrow image are no channels in the wrong place.
    assert recipe.build((5,), (9, 8, channels))(torch.zeros(6, 5)).shape == (6, 9, 8, channels)
