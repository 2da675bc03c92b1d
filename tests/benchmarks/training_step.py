r"""One training step: pyrovae against a hand-written torch loop, stock Pyro, NumPyro and the matrix
products alone.

    python tests/benchmarks/training_step.py [--cases mlp-16 mlp-128 ...] \
        [--numpyro PYTHON] [--rounds 9]

`--numpyro` is the interpreter of an environment that has numpyro and jax; without it that column is
left out. All contenders train the same networks on the same data in memory, gathered by index, with
Adam at 1e-3.
"""

import argparse
import copy
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyro
import torch
from timing import Subprocess, alternate, looped, machine, table
from torch import Tensor, nn
from torch.nn import functional as F

from pyrovae import VAE, estimators, nets, posteriors, priors
from pyrovae.svi import SVI, Step
from pyrovae.training.loop import CHECK_EVERY

HERE = Path(__file__).parent


@dataclass
class Case:
    """What to train."""

    batch: int
    latent: int = 20
    particles: int = 1
    recipe: nets.Recipe = field(default_factory=lambda: nets.MLP(400))
    shape: tuple[int, ...] = (784,)
    vamp: int = 0
    numpyro: bool = False


CASES = {
    "mlp-16": Case(16, numpyro=True),
    "mlp-128": Case(128, numpyro=True),
    "mlp-1024": Case(1024, numpyro=True),
    "iwae50-16": Case(16, particles=50),
    "gated-100": Case(100, latent=40, recipe=nets.GatedMLP(300, 300)),
    "gated-vamp500-128": Case(128, latent=40, recipe=nets.GatedMLP(300, 300), vamp=500),
    "conv-64": Case(64, recipe=nets.Conv(16, 32), shape=(28, 28)),
}


def build(case: Case) -> VAE:
    torch.manual_seed(0)
    prior = priors.Vamp(num_components=case.vamp) if case.vamp else priors.StandardNormal()
    return VAE(
        case.shape, case.latent, prior=prior, posterior=posteriors.DiagonalNormal(),
        encoder=case.recipe, decoder=case.recipe,
    )  # fmt: skip


class HandWritten(nn.Module):
    """What a practitioner writes without a library: networks, closed-form KL where there is one,
    one loss.
    """

    def __init__(self, case: Case, vae: VAE):
        super().__init__()
        self.encoder, self.decoder, self.case = (
            vae.posterior.encoder.net,
            vae.likelihood.decoder.net,
            case,
        )
        if case.vamp:
            self.pseudo = nn.Parameter(vae.prior.raw_inputs.detach().clone())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = self.encoder(x).chunk(2, -1)
        return loc, F.softplus(raw) + 1e-6

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = self.encode(x)
        K = self.case.particles
        z = loc + scale * torch.randn(K, *loc.shape)
        logits = self.decoder(z.reshape(-1, self.case.latent)).reshape(K, len(x), -1)
        target = x.reshape(len(x), -1).expand_as(logits)
        log_x = -F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        if K == 1 and not self.case.vamp:
            kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)
            return (kl - log_x).mean()
        log_q = (-0.5 * ((z - loc) / scale) ** 2 - scale.log()).sum(-1)
        if self.case.vamp:
            m, s = self.encode(self.pseudo.clamp(0, 1))
            each = (-0.5 * ((z.unsqueeze(-2) - m) / s) ** 2 - s.log()).sum(-1)
            log_p = each.logsumexp(-1)
        else:
            log_p = -0.5 * (z**2).sum(-1)
        return -(log_x + log_p - log_q).logsumexp(0).mean()


def hand_written(
    case: Case, vae: VAE, data: Tensor, orders: Callable[[], Tensor], *, fused: bool, compiled: bool
):
    model = HandWritten(case, vae)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused or None)
    loss_of = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        loss_of(data[orders()]).backward()
        optimizer.step()

    return looped(step)


def ours(
    case: Case,
    vae: VAE,
    data: Tensor,
    orders: Callable[[], Tensor],
    *,
    compile: bool,
    capture: bool = True,
):
    estimator = estimators.IWAE(case.particles) if case.particles > 1 else estimators.ELBO()
    parameters = list(vae.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    step = Step(
        vae.model, vae.guide, estimator, optimizer, parameters, compile=compile, capture=capture,
        transform=lambda index: data[index],
    )  # fmt: skip
    start = time.perf_counter()
    step(orders())
    first = time.perf_counter() - start
    print(
        f"first step {first:.2f} s"
        + f", of which Inductor {step.compiled.compile_seconds:.2f} s" * compile
        + (f", eager: {step.compiled.reason}" if step.compiled.reason else ""), flush=True,
    )  # fmt: skip
    return step


def stepped(step: Step, orders: Callable[[], Tensor]) -> Callable[[int], float]:
    """As :func:`pyrovae.fit` takes its steps: the settings are looked at once for fifty of them."""

    def fifty() -> None:
        with step.guarded():
            for _ in range(CHECK_EVERY):
                step(orders())

    run = looped(fifty)
    return lambda steps: (
        run(-(-steps // CHECK_EVERY)) * steps / (-(-steps // CHECK_EVERY) * CHECK_EVERY)
    )


def stock(case: Case, vae: VAE, data: Tensor, orders: Callable[[], Tensor], *, drop_in: bool):
    if drop_in:
        estimator = estimators.IWAE(case.particles) if case.particles > 1 else estimators.ELBO()
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), estimator, compile=True)
    else:
        loss = (
            pyro.infer.RenyiELBO(
                alpha=0, num_particles=case.particles, vectorize_particles=True, max_plate_nesting=1
            )
            if case.particles > 1
            else pyro.infer.Trace_ELBO()
        )
        svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    return looped(lambda: svi.step(data[orders()]))


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")


def _fastest(a: Tensor, b: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The faster of torch's product and oneDNN's on such operands."""
    contenders = {str(i): looped(lambda f=f: f(a, b)) for i, f in enumerate((torch.mm, _onednn))}
    times = alternate(contenders, rounds=5, seconds=0.01)
    return _onednn if min(times["1"]) < min(times["0"]) else torch.mm


def floor(case: Case, vae: VAE, batch: int, *, fastest: bool) -> Callable[[int], float]:
    """The matrix products of one step, forward and backward, and nothing else: by torch's default,
    or the best here.
    """
    products = []
    # A Vamp prior's pseudo-inputs go through the encoder with the batch.
    nets_of = (
        (vae.posterior.encoder, batch + case.vamp),
        (vae.likelihood.decoder, batch * case.particles),
    )
    for net, rows in nets_of:
        first = net is vae.posterior.encoder
        for layer in (m for m in net.modules() if isinstance(m, nn.Linear)):
            x, w = torch.randn(rows, layer.in_features), layer.weight.detach()
            dy = torch.randn(rows, layer.out_features)
            products += [(x, w.t()), (dy.t(), x), *([] if first else [(dy, w)])]
            first = False

    runs = [(_fastest(a, b) if fastest else torch.mm, a, b) for a, b in products]

    def step() -> None:
        for product, a, b in runs:
            product(a, b)

    return looped(step)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=["mlp-16", "mlp-128"], choices=list(CASES))
    parser.add_argument("--numpyro", default=os.environ.get("NUMPYRO_PYTHON"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--seconds", type=float, default=0.15, help="length of one contender's turn"
    )
    parser.add_argument("--no-torch-compile", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="leave Inductor out altogether")
    arguments = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    pyro.enable_validation(False)
    print(machine())
    for name in arguments.cases:
        case = CASES[name]
        torch.manual_seed(0)
        size = max(60 * case.batch, 2048)
        data = (torch.rand(size, *case.shape) < 0.3).float()
        order = torch.randperm(size).split(case.batch)[: size // case.batch]
        state = {"at": 0}

        def orders(order=order, state=state) -> Tensor:
            state["at"] = (state["at"] + 1) % len(order)
            return order[state["at"]]

        def fresh(case=case) -> VAE:
            return copy.deepcopy(build(case))

        contenders: dict[str, Callable[[int], float]] = {}
        common = (data, orders)
        contenders["torch"] = hand_written(case, fresh(), *common, fused=False, compiled=False)
        contenders["torch, fused Adam"] = hand_written(
            case, fresh(), *common, fused=True, compiled=False
        )
        if not (arguments.no_torch_compile or arguments.no_compile):
            contenders["torch.compile, fused Adam"] = hand_written(
                case, fresh(), *common, fused=True, compiled=True
            )
        contenders["Pyro SVI"] = stock(case, fresh(), *common, drop_in=False)
        contenders["pyrovae, eager"] = stepped(
            ours(case, fresh(), *common, compile=False, capture=False), orders
        )
        contenders["pyrovae, captured"] = stepped(
            ours(case, fresh(), *common, compile=False), orders
        )
        if not arguments.no_compile:
            contenders["pyrovae, compiled"] = stepped(
                ours(case, fresh(), *common, compile=True), orders
            )
            one = ours(case, fresh(), *common, compile=True)
            contenders["pyrovae, compiled, one at a time"] = looped(
                lambda one=one, orders=orders: one(orders())
            )
            contenders["pyrovae SVI, compiled"] = stock(case, fresh(), *common, drop_in=True)
        jitted = None
        if arguments.numpyro and case.numpyro:
            sizes = (case.batch, 400, case.latent, case.particles)
            jitted = Subprocess(arguments.numpyro, HERE / "numpyro_step.py", *map(str, sizes))
            contenders[f"{jitted.version}, jitted epoch"] = jitted
        if case.shape == (784,):
            contenders["matrix products alone, torch's"] = floor(
                case, fresh(), case.batch, fastest=False
            )
            contenders["matrix products alone, fastest"] = floor(
                case, fresh(), case.batch, fastest=True
            )
        results = alternate(contenders, rounds=arguments.rounds, seconds=arguments.seconds)
        if jitted is not None:
            jitted.close()
        print("\n" + table(name, results, "torch") + "\n", flush=True)


if __name__ == "__main__":
    main()
