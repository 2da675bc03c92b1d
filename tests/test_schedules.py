"""Schedules against their formulas, and the ones that listen against what they
are to bring about.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.estimators import Capacity
from pyrovae.schedules import GECO, Constant, ControlVAE, Cyclical, Linear, Schedule
from pyrovae.testing import LinearGaussian


def test_linear_reaches_its_ends():
    ramp = Linear(0.2, 1.0, steps=4)
    assert [ramp(t) for t in (0, 1, 2, 3, 4, 100)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert ramp.warmup_steps == 4


def test_cycles_ramp_hold_and_begin_again():
    cycle = Cyclical(0.0, 1.0, period=10, ratio=0.4, cycles=2)
    once = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert [cycle(t) for t in range(20)] == pytest.approx(once * 2)
    assert [cycle(t) for t in (20, 21, 1_000)] == [1.0, 1.0, 1.0]
    assert all(cycle(t) == 1.0 for t in range(cycle.warmup_steps, 40))
    assert cycle(cycle.warmup_steps - 1) < 1.0


@settings(deadline=None)
@given(st.integers(1, 50), st.floats(0.05, 1.0), st.integers(0, 500))
def test_endless_cycles_repeat_and_stay_between_their_ends(period, ratio, step):
    cycle = Cyclical(0.1, 0.9, period=period, ratio=ratio, cycles=None)
    assert 0.1 <= cycle(step) <= 0.9
    assert cycle(step) == cycle(step + period)


def settle(schedule, respond, steps):
    """Follow a schedule whose environment answers each beta at once."""
    for step in range(steps):
        schedule.update(*respond(schedule(step)))
    return respond(schedule(steps))


def rate_distortion(beta):
    """The best reconstruction and KL of a Gaussian source at each beta, in nats: R = log(1 / beta),
    D = beta.
    """
    beta = min(max(beta, 1e-6), 1.0)
    return -beta, math.log(1 / beta)


def test_geco_meets_its_constraint():
    reconstruction, _ = settle(GECO(-0.3, rate=0.1, momentum=0.5), rate_distortion, 2_000)
    assert reconstruction == pytest.approx(-0.3, abs=1e-3)


def test_geco_follows_its_update():
    geco = GECO(5.0, rate=0.1, momentum=0.75)
    geco.update(3.0, 0.0)
    geco.update(7.0, 0.0)
    average = 0.75 * 2.0 + 0.25 * -2.0
    assert geco(2) == pytest.approx(math.exp(-0.1 * 2.0 - 0.1 * average))


def test_controlvae_holds_its_kl():
    controller = ControlVAE(1.5, proportional=0.01, integral=1e-2)
    _, kl = settle(controller, rate_distortion, 5_000)
    assert kl == pytest.approx(1.5, abs=1e-3)


def test_controlvae_follows_its_update():
    controller = ControlVAE(2.0, proportional=0.5, integral=0.1, low=0.1)
    controller.update(0.0, 3.0)
    assert controller(1) == pytest.approx(0.5 / (1 + math.exp(-1.0)) + 0.1 + 0.1)
    controller.update(0.0, 2.5)
    assert controller(2) == pytest.approx(0.5 / (1 + math.exp(-0.5)) + 0.15 + 0.1)


def test_controlvae_does_not_wind_up():
    controller = ControlVAE(1.0, integral=0.01)
    for _ in range(10_000):
        controller.update(0.0, 50.0)
    assert controller(0) == 1.0
    for _ in range(200):
        controller.update(0.0, 0.0)
    assert (
        controller(0) < 0.5
    )  # each of the 200 steps took a hundredth away once beta was off its end


@pytest.mark.parametrize("make", [lambda: GECO(-0.3), lambda: ControlVAE(1.5)])
def test_state_goes_on_where_it_stopped(make):
    whole, first, second = make(), make(), make()
    answers = [(-0.5 + 0.01 * i, 2.0 - 0.01 * i) for i in range(20)]
    for answer in answers:
        whole.update(*answer)
    for answer in answers[:10]:
        first.update(*answer)
    second.load_state_dict(first.state_dict())
    for answer in answers[10:]:
        second.update(*answer)
    assert second(20) == whole(20)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-1.0),
        lambda: Linear(steps=0),
        lambda: Cyclical(period=0),
        lambda: Cyclical(period=5, ratio=0.0),
        lambda: Cyclical(period=5, cycles=0),
        lambda: GECO(math.nan),
        lambda: GECO(0.0, rate=0.0),
        lambda: GECO(0.0, low=2.0),
        lambda: ControlVAE(-1.0),
        lambda: ControlVAE(1.0, low=1.0),
        lambda: ControlVAE(1.0, integral=-1.0),
    ],
)
def test_arguments_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"must|needs"):
        make()


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.5),
        Linear(steps=7),
        Cyclical(period=5, cycles=None),
        GECO(-3.0, rate=0.5),
        ControlVAE(2.0, high=3.0),
    ],
    ids=repr,
)
def test_repr_rebuilds_it(schedule):
    assert repr(eval(repr(schedule))) == repr(schedule)


def trained(schedule: Schedule, *, seed: int = 0, **options):
    oracle = LinearGaussian(shift=1.0, seed=3)
    x = oracle.sample(64)
    return pv.fit(
        oracle.model,
        oracle.guide,
        x,
        beta=schedule,
        epochs=30,
        batch_size=16,
        lr=1e-2,
        seed=seed,
        **options,
    )


def test_fit_feeds_a_controller_and_leaves_the_given_one_alone():
    schedule = ControlVAE(0.5, proportional=0.2, integral=0.02, high=20.0)
    history = trained(schedule)
    assert schedule(0) == 0.0
    assert history["kl"][0] > 1.5
    assert (
        abs(history["kl"][-1] - 0.5) < 0.25
    )  # batches of 16 make the KL of one step vary by about 0.1
    assert (history["beta"] == trained(schedule)["beta"]).all()


def test_a_controller_needs_an_estimator_that_reports():
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match="listens to the reconstruction"):
        pv.fit(
            oracle.model,
            oracle.guide,
            oracle.sample(4),
            beta=ControlVAE(1.0),
            estimator=Trace_ELBO(),
            epochs=1,
        )


def test_fit_resumes_a_controller(tmp_path):
    schedule = GECO(-4.0, rate=0.05, momentum=0.5)
    oracle = LinearGaussian(shift=1.0, seed=3)
    x = oracle.sample(64)
    whole = pv.fit(oracle.model, oracle.guide, x, beta=schedule, epochs=4, batch_size=16, seed=0)
    path = tmp_path / "state.pt"
    oracle = LinearGaussian(shift=1.0, seed=3)
    pv.fit(
        oracle.model,
        oracle.guide,
        x,
        beta=schedule,
        epochs=2,
        batch_size=16,
        seed=0,
        checkpoint=path,
    )
    rest = pv.fit(
        oracle.model,
        oracle.guide,
        x,
        beta=schedule,
        epochs=4,
        batch_size=16,
        seed=0,
        checkpoint=path,
        resume=True,
    )
    assert rest["beta"] == pytest.approx(whole["beta"], rel=1e-6)
    assert len(set(whole["beta"])) == 4


@pytest.mark.parametrize("before", [1.0, GECO(-20.0)])
def test_a_controller_cannot_go_on_from_another_schedule(tmp_path, before):
    oracle = LinearGaussian()
    x, path = oracle.sample(10), tmp_path / "state.pt"
    pv.fit(oracle.model, oracle.guide, x, beta=before, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"another schedule of beta than ControlVAE\(target=2"):
        pv.fit(
            oracle.model, oracle.guide, x, beta=ControlVAE(2.0), epochs=2, checkpoint=path,
            resume=True,
        )  # fmt: skip


def test_fit_moves_a_capacity_along_its_schedule():
    estimator = Capacity(capacity=Linear(0.0, 1.0, steps=60), gamma=20.0)
    oracle = LinearGaussian(shift=1.0, seed=3)
    x = oracle.sample(64)
    history = pv.fit(
        oracle.model,
        oracle.guide,
        x,
        estimator=estimator,
        epochs=60,
        batch_size=64,
        lr=3e-2,
        seed=0,
    )
    assert estimator.now == torch.tensor(1.0 * 59 / 60, dtype=torch.float64)
    assert history["kl"].min() < 0.5
    assert abs(history["kl"][-1] - 1.0) < 0.3  # sign gradients overshoot by a few learning rates
