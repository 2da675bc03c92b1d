"""Training with networks in bfloat16: near float32, and nothing but products is rounded."""

import pytest
import torch
from sklearn.datasets import load_digits

import pyrovae as pv
from pyrovae import VAE, estimators, nets
from pyrovae.svi import Step

DIGITS = torch.from_numpy((load_digits().data / 16 > 0.5).astype("float32"))


def build():
    torch.manual_seed(0)
    return VAE(64, 8, encoder=nets.MLP(64), decoder=nets.MLP(64))


def gradients(networks, *, capture=True):
    vae = build()
    parameters = list(vae.parameters())
    step = Step(
        vae.model, vae.guide, estimators.ELBO(), torch.optim.SGD(parameters, lr=0.0), parameters,
        capture=capture, compile=False, networks=networks,
    )  # fmt: skip
    torch.manual_seed(1)
    step.gradients(DIGITS[:128])
    return [parameter.grad for parameter in parameters], step


@pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])
def test_gradients_are_close_and_single(capture):
    exact, _ = gradients("full", capture=capture)
    rounded, _ = gradients("bfloat16", capture=capture)
    for left, right in zip(exact, rounded, strict=True):
        assert right.dtype == torch.float32
        assert not torch.equal(left, right)
        # bfloat16 rounds by up to 2^-9 in each of the four layers, forward and backward.
        assert (left - right).norm() < 8 * 2**-8 * left.norm()


def test_only_products_are_rounded():
    _, step = gradients("bfloat16")
    [graph] = step._unclipped.graphs
    low = {
        str(node.target)
        for node in graph.module.graph.nodes
        if getattr(node.meta.get("val"), "dtype", None) == torch.bfloat16
    }
    moved = {"aten.t.default", "aten._to_copy.default", "aten.view.default", "aten.detach.default"}
    # The gradient of a bias is a sum over the batch within its layer.
    assert low - moved <= {"aten.addmm.default", "aten.mm.default", "aten.sum.dim_IntList"}
    assert "aten.addmm.default" in low


def test_a_run_ends_where_float32_does():
    bounds = {}
    for networks in ("full", "bfloat16"):
        vae = build()
        history = pv.fit(
            vae.model, vae.guide, DIGITS[:1500], valid=DIGITS[1500:], epochs=8, lr=3e-3,
            progress=False, networks=networks, compile=False,
        )  # fmt: skip
        assert all(p.dtype == torch.float32 for p in vae.parameters())
        bounds[networks] = history["valid_bound"]
    # Between seeds the last bounds differ by some 0.2 nats.
    assert bounds["bfloat16"][-1] == pytest.approx(bounds["full"][-1], abs=0.4)
    assert bounds["full"][-1] > bounds["full"][0] + 5


def test_other_words_are_refused():
    vae = build()
    with pytest.raises(ValueError, match="networks must be 'full' or 'bfloat16', found 'float16'"):
        pv.fit(vae.model, vae.guide, DIGITS[:20], epochs=1, networks="float16")


@pytest.mark.slow
def test_compiled():
    vae = build()
    parameters = list(vae.parameters())
    common = vae.model, vae.guide, estimators.ELBO(), torch.optim.SGD(parameters, lr=0.0)
    reports = []
    for compile in (True, False):
        step = Step(*common, parameters, compile=compile, networks="bfloat16")
        torch.manual_seed(1)
        reports.append(step(DIGITS[:128]))
        assert [g.kind for g in step.compiled.graphs] == ["compiled" if compile else "captured"]
    # A compiler may keep a product's result in float32 where the graph rounds it.
    torch.testing.assert_close(*reports, rtol=2**-7, atol=0)
