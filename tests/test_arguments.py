"""Public functions take what Python people pass: NumPy's numbers, paths, lists, arrays."""

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets, posteriors, priors, schedules

INT, FLOAT, SINGLE = np.int64, np.float64, np.float32


def make(**parts):
    torch.manual_seed(0)
    return pv.VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8), **parts)


def array(num=12):
    return np.random.default_rng(0).integers(0, 2, (num, 6)).astype(np.float32)


NETS = {"encoder": nets.MLP(INT(8)), "decoder": nets.MLP([INT(8)])}
DECLARED = {
    "VAE": lambda: pv.VAE([INT(6)], INT(2), **NETS),
    "VAE of one number": lambda: pv.VAE(INT(6), INT(2), **NETS),
    "VAE of an array": lambda: pv.VAE(np.array([2, 3]), INT(2), **NETS),
    "HierarchicalVAE": lambda: pv.HierarchicalVAE((6,), [INT(2), INT(2)]),
    "ConditionalVAE": lambda: pv.ConditionalVAE((6,), INT(2), condition_dim=INT(3)),
    "Vamp": lambda: make(prior=priors.Vamp(num_components=INT(3))),
    "GaussianMixture": lambda: make(prior=priors.GaussianMixture(num_components=INT(3))),
    "StudentT": lambda: make(prior=priors.StudentT(df=FLOAT(4))),
    "LowRankNormal": lambda: make(posterior=posteriors.LowRankNormal(rank=INT(1))),
    "Gaussian": lambda: make(likelihood=likelihoods.Gaussian(FLOAT(0.5))),
    "Gaussian of single precision": lambda: make(likelihood=likelihoods.Gaussian(SINGLE(0.5))),
    "learned Gaussian": lambda: make(likelihood=likelihoods.Gaussian("learned", SINGLE(0.5))),
    "Categorical": lambda: pv.VAE((6,), 2, likelihood=likelihoods.Categorical(INT(3))),
}


@pytest.mark.parametrize("name", [*DECLARED])
def test_declarations(name):
    vae = DECLARED[name]()
    assert "np." not in repr(vae)
    given = np.zeros(2, dtype=int) if name == "ConditionalVAE" else 2
    assert len(vae.sample(given)) == 2


ESTIMATORS = {
    "ELBO": lambda: estimators.ELBO(INT(2)),
    "IWAE": lambda: estimators.IWAE(num_particles=INT(3)),
    "MIWAE": lambda: estimators.MIWAE(INT(2), INT(2)),
    "Renyi": lambda: estimators.Renyi(FLOAT(0.5), INT(3)),
    "CIWAE": lambda: estimators.CIWAE(FLOAT(0.5), INT(3)),
    "FreeBits": lambda: estimators.FreeBits(nats=SINGLE(0.1), per=INT(1)),
    "Capacity": lambda: estimators.Capacity(capacity=FLOAT(2), gamma=INT(5)),
    "BetaTC": lambda: estimators.BetaTC(data_size=INT(100), total_correlation=FLOAT(2)),
}


@pytest.mark.parametrize("name", [*ESTIMATORS])
def test_estimators(name):
    vae = make()
    assert ESTIMATORS[name]().bound(vae.model, vae.guide, torch.as_tensor(array())).shape == (12,)


def test_settings_reach_the_programs_as_they_are():
    """Whatever is no array: a dictionary, a function, an object."""
    vae, seen = make(), []
    settings = {"weight": 1.0}, abs, vae, "text", 3, None

    def model(x, *given):
        seen.append(given)
        return vae.model(x)

    def guide(x, *given):
        seen.append(given)
        return vae.guide(x)

    found = estimators.ELBO().bound(model, guide, array(), *settings)
    assert found.shape == (12,)
    assert len(seen) >= 2
    assert all(one is other for given in seen for one, other in zip(given, settings, strict=True))
    with pytest.raises(TypeError, match="can be read once only"):
        estimators.ELBO().bound(vae.model, vae.guide, iter(array()))


FIT = [
    {"epochs": INT(1), "batch_size": INT(5), "seed": INT(3), "patience": INT(2)},
    {"lr": SINGLE(1e-3), "clip_norm": FLOAT(1.0), "beta": SINGLE(0.5), "seed": np.uint8(3)},
    {"beta": schedules.Linear(INT(0), FLOAT(1), steps=INT(4)), "shuffle": np.bool_(False)},
    {"device": "cpu", "valid": [array(4)], "drop_last": np.True_, "batch_size": np.int32(5)},
]


@pytest.mark.parametrize("options", FIT)
@pytest.mark.parametrize("kind", [lambda x: x, lambda x: [x], lambda x: (torch.as_tensor(x),)])
def test_fit(options, kind):
    given = {"valid": array(4), "epochs": 1, "progress": False, "capture": False, **options}
    assert len(pv.fit(make().model, make().guide, kind(array()), **given)) == 1


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_files(kind, tmp_path):
    vae = make()
    files = {"log": kind(tmp_path / "log"), "checkpoint": kind(tmp_path / "state")}
    vae.fit(array(), epochs=1, progress=False, capture=False, **files)
    vae.fit(array(), epochs=2, progress=False, capture=False, resume=True, **files)
    evidence = vae.log_marginal(array(), num_particles=3, parts=kind(tmp_path / "parts"))
    evidence.save(kind(tmp_path / "evidence.nc"))
    assert len(pv.Evidence.load(kind(tmp_path / "evidence.nc"))) == 12


EVIDENCE = [
    {"num_particles": INT(4), "seed": INT(1)},
    {"num_particles": np.uint16(4), "memory_budget": INT(2**20), "max_plate_nesting": INT(1)},
    {"num_particles": INT(4), "target_standard_error": FLOAT(0.5), "max_particles": INT(8)},
    {"method": pv.ImportanceSampling(INT(4), refine_steps=INT(2), prior_share=FLOAT(0.2))},
    {"method": pv.AIS(num_temperatures=INT(2), num_chains=INT(2), target_acceptance=FLOAT(0.6))},
]


@pytest.mark.parametrize("options", EVIDENCE)
def test_evidence(options, tmp_path):
    found = make().log_marginal([array(3)], **options)
    assert np.isfinite(found.interval(FLOAT(0.9))[0])
    found.save(tmp_path / "evidence.nc")  # settings must be what a file can hold
    assert pv.Evidence.load(tmp_path / "evidence.nc").settings == found.settings


def test_bdmc_and_comparison():
    vae = make()
    found = pv.bdmc(
        vae.model, vae.guide, num_data=INT(3), method=pv.ImportanceSampling(INT(4)), seed=INT(1)
    )
    assert len(found) == 3
    table = pv.compare_estimators(
        vae.model, vae.guide, [array()], {"IWAE": estimators.IWAE(INT(3))},
        num_particles=[INT(1), INT(2)], num_replicates=INT(4), reference_particles=INT(10),
        gradient_reference=False, seed=INT(0),
    )  # fmt: skip
    assert repr(table)


def test_models():
    vae = make()
    assert len(vae.sample(INT(3))) == 3
    assert vae.initialize_from(array()) is vae
    assert vae.reconstruct(array()).shape == (12, 6)
    assert vae.encode(array()).mean.shape == (12, 2)


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float64(2), "2", 0, -1])
def test_no_counts(value):
    for call in (
        lambda: make().fit(array(), epochs=value, progress=False),
        lambda: estimators.ELBO(value),
        lambda: pv.ImportanceSampling(value),
        lambda: pv.VAE((6,), value),
    ):
        with pytest.raises((TypeError, ValueError), match=r"integer|at least|>="):
            call()
