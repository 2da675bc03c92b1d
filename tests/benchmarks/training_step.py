r"""One training step: pyrovae against a hand-written torch loop, stock Pyro, NumPyro and the matrix
products alone.

    python tests/benchmarks/training_step.py [--cases mlp-16 mlp-128 ...] \
        [--numpyro PYTHON] [--rounds 9] [--device cuda]

`--numpyro` is the interpreter of an environment that has numpyro and jax; without it that column is
left out. All contenders train the same networks on the same data in memory, gathered by index, with
Adam at 1e-3. On a GPU, all multiply in full float32 unless --tf32 is given.
"""

import argparse
import copy
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from cases import CASES, Case, build, hand_written
from timing import Subprocess, alternate, looped, machine, table
from torch import Tensor, nn

from pyrovae import VAE, estimators
from pyrovae.svi import SVI, Step
from pyrovae.training.loop import CHECK_EVERY

HERE = Path(__file__).parent


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
    if a.is_cuda:
        return torch.mm
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
            w = layer.weight.detach()
            x, dy = (torch.randn(rows, size, device=w.device) for size in w.shape[::-1])
            products += [(x, w.t()), (dy.t(), x), *([] if first else [(dy, w)])]
            first = False

    runs = [(_fastest(a, b) if fastest else torch.mm, a, b) for a, b in products]

    def step() -> None:
        for product, a, b in runs:
            product(a, b)

    if runs[0][1].is_cuda:
        step()
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            step()
        return looped(recorded.replay)
    return looped(step)


def age(contenders: dict[str, Callable[[int], float]], vaes: list[VAE], steps: int) -> None:
    """Let a quarter of the encoder's first units die, as some do in training, and go on.

    Their gradients are exactly zero from then on, and their moments decay.
    """
    for run in contenders.values():
        run(5)
    for vae in vaes:
        first = next(m for m in vae.posterior.encoder.modules() if isinstance(m, nn.Linear))
        with torch.no_grad():
            first.bias[::4] = -1e3
    for run in contenders.values():
        run(steps)


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
    parser.add_argument(
        "--after",
        type=int,
        default=0,
        help="steps before it is timed, with dead units",
    )
    parser.add_argument("--no-compile", action="store_true", help="leave Inductor out altogether")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tf32", action="store_true", help="let a GPU round its products")
    arguments = parser.parse_args()
    if arguments.tf32:
        torch.set_float32_matmul_precision("high")
    else:  # JAX rounds them by default
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "float32"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    logging.getLogger("torch").setLevel(logging.ERROR)
    pyro.enable_validation(False)
    print(machine())
    for name in arguments.cases:
        case = CASES[name]
        torch.manual_seed(0)
        size = max(60 * case.batch, 2048)
        data = (torch.rand(size, *case.shape) < 0.3).float().to(arguments.device)
        order = torch.randperm(size).to(arguments.device).split(case.batch)[: size // case.batch]
        state = {"at": 0}

        def orders(order=order, state=state) -> Tensor:
            state["at"] = (state["at"] + 1) % len(order)
            return order[state["at"]]

        vaes: list[VAE] = []

        def fresh(case=case, vaes=vaes) -> VAE:
            vaes.append(copy.deepcopy(build(case)).to(arguments.device))
            return vaes[-1]

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
        if arguments.numpyro:
            jitted = Subprocess(arguments.numpyro, HERE / "numpyro_step.py", case.for_numpyro())
            contenders[f"{jitted.version}, jitted epoch"] = jitted
        if case.shape == (784,):
            contenders["matrix products alone, torch's"] = floor(
                case, fresh(), case.batch, fastest=False
            )
        if case.shape == (784,) and arguments.device == "cpu":
            contenders["matrix products alone, fastest"] = floor(
                case, fresh(), case.batch, fastest=True
            )
        if arguments.after:
            age(contenders, vaes, arguments.after)
        results = alternate(contenders, rounds=arguments.rounds, seconds=arguments.seconds)
        if jitted is not None:
            jitted.close()
        title = name + f" after {arguments.after:,} steps" * bool(arguments.after)
        print("\n" + table(title, results, "torch") + "\n", flush=True)


if __name__ == "__main__":
    main()
