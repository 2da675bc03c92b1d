"""Models take NumPy arrays and tensors of any floating dtype, and refuse what would be taken for
something else.
"""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import pyrovae as pv
from pyrovae import likelihoods, nets, priors

MLP = nets.MLP(8)
NETS = {"encoder": MLP, "decoder": MLP, "likelihood": likelihoods.Gaussian(0.5)}
MODELS = {
    "vae": lambda: pv.VAE((2, 3), 2, **NETS),
    "clustering": lambda: pv.ClusteringVAE((2, 3), 2, 3, **NETS),
    "hierarchical": lambda: pv.HierarchicalVAE((2, 3), 2, **NETS),
    "conditional": lambda: pv.ConditionalVAE((2, 3), 2, 4, **NETS),
}
models = pytest.mark.parametrize("name", MODELS)


def made(name):
    torch.manual_seed(0)
    return MODELS[name]()


def data(name, dtype=torch.float32):
    x = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (x.to(dtype), torch.arange(5) % 4) if name == "conditional" else (x.to(dtype),)


def calls(name):
    """What takes data, each as a function of model and data."""
    found = {
        "encode": lambda vae, *x: vae.encode(*x).mean,
        "call": lambda vae, *x: vae(*x).mean,
        "reconstruct": lambda vae, *x: vae.reconstruct(*x),
        "initialize_from": lambda vae, *x: nets.last_bias(
            vae.initialize_from(x if len(x) > 1 else x[0]).likelihood.decoder
        ),
    }
    if name in ("vae", "clustering"):
        found["interpolate"] = lambda vae, x: vae.interpolate(x[:2], x[2:4], steps=3)
    if name == "clustering":
        found["cluster"] = lambda vae, x: vae.cluster(x)
    return found


@models
@pytest.mark.parametrize("double", [False, True], ids=["float model", "double model"])
def test_arrays_and_tensors_of_any_precision_give_the_same(name, double):
    for call in calls(name).values():
        results = []
        for form in (torch.float32, torch.float64, np.float32, np.float64):
            vae = made(name).double() if double else made(name)
            given = data(name, form if isinstance(form, torch.dtype) else torch.float64)
            if not isinstance(form, torch.dtype):
                given = tuple(
                    a.astype(form) if a.dtype == np.float64 else a
                    for a in (t.numpy() for t in given)
                )
            torch.manual_seed(2)
            results.append(call(vae, *given).detach())
        for result in results:
            assert result.dtype == (torch.float64 if double else torch.float32)
            assert_close(result, results[0], rtol=1e-5, atol=1e-6)


@models
@pytest.mark.parametrize("given", ["integer", "masked", "ragged", "shape", "nan"])
def test_what_is_not_data_is_refused_with_what_to_do(name, given):
    x, *rest = data(name)
    bad, kind, message = {
        "integer": (x.numpy().astype(np.uint8), TypeError, r"found torch.uint8. Use x.float\(\)"),
        "masked": (
            np.ma.masked_less(x.numpy(), 0.5),
            ValueError,
            "values are masked.*observe_part",
        ),
        "ragged": ([[1.0], [1.0, 2.0]] * 2, ValueError, "lists of unequal lengths"),
        "nan": (x.masked_fill(x > 0.9, np.nan), ValueError, r"NaN or infinite values, in \d of"),
        "shape": (x[:, 0].numpy(), ValueError, r"shape \(B, 2, 3\), found \([25], 3\)"),
    }[given]
    for call in calls(name).values():
        with pytest.raises(kind, match=message):
            call(made(name), bad, *rest)


def test_lists_read_only_and_reversed_arrays_are_taken_without_a_warning(recwarn):
    vae, (x,) = made("vae"), data("vae")
    assert_close(vae.encode(x.tolist()).mean, vae.encode(x).mean)
    frozen = x.numpy().copy()
    frozen.setflags(write=False)
    expected = vae.encode(x).mean
    assert_close(vae.encode(frozen).mean, expected)
    assert_close(vae.encode(x.numpy()[::-1]).mean, expected.flip(0))
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint16, np.int32])
def test_labels_of_any_integer_type(dtype):
    vae, (x, y) = made("conditional"), data("conditional")
    assert_close(vae.encode(x, y.numpy().astype(dtype)).mean, vae.encode(x, y).mean)
    hot = np.eye(4)[y.numpy()]
    assert_close(vae.encode(x.numpy(), hot).mean, vae.encode(x, y).mean)
    torch.manual_seed(0)
    first = vae.sample(y.numpy().astype(dtype), mean=True)
    torch.manual_seed(0)
    assert_close(vae.sample(y, mean=True), first)
    with pytest.raises(ValueError, match=r"Labels must lie in 0 ... 3, found 0 to 4"):
        vae.sample(np.array([0, 4], dtype))


def test_a_vamp_prior_starts_at_arrays():
    vae = pv.VAE((2, 3), 2, prior=priors.Vamp(3, start="data"), **NETS)
    vae.initialize_from(data("vae")[0].double().numpy())
    rows = {tuple(r) for r in data("vae")[0].flatten(1).tolist()}
    assert all(tuple(r) in rows for r in vae.prior.pseudo_inputs().flatten(1).tolist())


@pytest.mark.parametrize("name", ["vae", "clustering"])
def test_a_data_set_a_loader_and_a_tuple_of_one_array_are_that_array(name):
    """Labels in the items are left out, as in training."""
    vae, (x,) = made(name), data(name)
    items = TensorDataset(x, torch.arange(len(x)))
    for form in (items, DataLoader(items, batch_size=2), (x,), [x]):
        assert_close(vae.encode(form).mean, vae.encode(x).mean)
        assert vae.reconstruct(form).shape == vae.interpolate(form, x, 5).shape[1:] == x.shape
