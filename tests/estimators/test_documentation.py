"""The estimator that the documentation adds is one."""

import re
from pathlib import Path

import torch
from helpers.gradients import gradient
from torch.testing import assert_close

from pyrovae.estimators import Renyi

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding_an_estimator.md"


def test_the_added_estimator_is_the_renyi_bound_of_order_minus_one(spoilt):
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1), names)
    oracle, x = spoilt
    found = []
    for estimator in (names["CUBO"](6), Renyi(-1.0, 6)):
        torch.manual_seed(0)
        found.append(estimator.bound(oracle.model, oracle.guide, x))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(oracle.model, oracle.guide, x)
        found.append(gradient(oracle, loss))
    assert_close(found[0], found[2])
    assert_close(found[1], -found[3])
