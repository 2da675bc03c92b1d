r"""Evidence by importance sampling: pyrovae against hand-written torch, pythae and the decoder's
products alone.

    python tests/benchmarks/evidence.py [--data 50] [--particles 1000] [--rounds 9] \
        [--pythae PYTHON]

The protocol is a fraction of 10,000 data x 5,000 particles with networks
784-300-300-40-300-300-784; the cost of every contender is linear in the data, so
`--data 100 --particles 5000` takes a hundredth of the whole. All weigh the same data under the same
weights.

`--pythae` is the interpreter of an environment that has pythae and torch; without it that row is
left out. pythae asks for no particular torch, so the one at hand can serve it from a folder of its
own, and the comparison is at one version:

    pip install --target PYTHAE --no-deps pythae==0.1.2
    pip install --target PYTHAE --no-deps pydantic pydantic-core annotated-types \
        typing-inspection cloudpickle imageio
    python tests/benchmarks/evidence.py --pythae "env PYTHONPATH=PYTHAE python"

`--peaks 1000 5000 50000` shows in place of times by how much an estimate raises resident memory, in
MiB, as K grows.
"""

import argparse
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from memory import growth
from timing import Subprocess, alternate, looped, machine, table
from torch import Tensor, nn
from torch.nn import functional as F

from pyrovae import VAE, ImportanceSampling, log_marginal, nets
from pyrovae.evidence.inspection import inspect

HERE = Path(__file__).parent
LATENT, HIDDEN = 40, (300, 300)


@torch.no_grad()
def hand_written(vae: VAE, x: Tensor, num_particles: int, chunk: int = 250) -> Tensor:
    """Encode once; particles of each datum in chunks, one running logsumexp."""
    encoder, decoder = vae.posterior.encoder.net, vae.likelihood.decoder.net
    loc, raw = encoder(x).chunk(2, -1)
    scale = F.softplus(raw) + 1e-6
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    for first in range(0, num_particles, chunk):
        eps = torch.randn(min(chunk, num_particles - first), *loc.shape, device=x.device)
        z = loc + scale * eps
        logits = decoder(z)
        log_x = -F.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).sum(-1)
        log_w = log_x - 0.5 * (z**2).sum(-1) + (0.5 * eps**2 + scale.log()).sum(-1)
        total = torch.logaddexp(total, log_w.double().logsumexp(0))
    return total - math.log(num_particles)


def onednn(x: Tensor, w: Tensor) -> Tensor:
    """The product by oneDNN, which compiled graphs use where it pays."""
    return torch.ops.mkldnn._linear_pointwise(x, w.t(), None, "none", [], "")


def products(
    vae: VAE, num_data: int, num_particles: int, *, by_onednn: bool, rows: int = 1000
) -> Callable[[], None]:
    """The decoder's matrix products for the same number of particles, so many at once that they
    stay in the cache.
    """
    layers = [m for m in vae.likelihood.decoder.modules() if isinstance(m, nn.Linear)]
    pairs = [
        (layer.weight.new_ones(rows, layer.in_features), layer.weight.detach().t())
        for layer in layers
    ]
    product = onednn if by_onednn else torch.mm

    def all_of_them() -> None:
        for _ in range(math.ceil(num_data * num_particles / rows)):
            for x, w in pairs:
                product(x, w)

    return all_of_them


def save(vae: VAE, x: Tensor, path: Path) -> None:
    """Weights and data for another interpreter."""
    nets_of = {"encoder": vae.posterior.encoder, "decoder": vae.likelihood.decoder}
    layers = {
        name: [
            (m.weight.detach(), m.bias.detach()) for m in net.modules() if isinstance(m, nn.Linear)
        ]
        for name, net in nets_of.items()
    }
    torch.save({"x": x, **layers}, path)


def peak(vae: VAE, x: Tensor, num_particles: int) -> int:
    """Bytes by which an estimate raises resident memory, after one of few particles."""
    log_marginal(vae.model, vae.guide, x, num_particles=10)
    return growth(lambda: log_marginal(vae.model, vae.guide, x, num_particles=num_particles))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=int, default=50)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pythae", default=os.environ.get("PYTHAE_PYTHON"))
    parser.add_argument(
        "--peaks", type=int, nargs="+", help="numbers of particles at which to measure memory"
    )
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    vae = VAE(784, LATENT, encoder=nets.MLP(*HIDDEN), decoder=nets.MLP(*HIDDEN)).eval()
    vae = vae.to(arguments.device)
    x = (torch.rand(arguments.data, 784) < 0.3).float().to(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pt")
        save(vae, x, path)
        if arguments.peaks:
            peaks(vae, x, arguments.peaks, arguments.pythae, path)
        else:
            times(vae, x, arguments.particles, arguments.rounds, arguments.pythae, path)


def peaks(vae: VAE, x: Tensor, counts: list[int], python: str | None, path: Path) -> None:
    """A table of memory by K."""
    print(machine())
    print(f"\n| {len(x)} data, peak MiB | " + " | ".join(f"K = {K:,}" for K in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    ours = [peak(vae, x, K) for K in counts]
    print("| pyrovae | " + " | ".join(f"{grown / 2**20:.1f}" for grown in ours) + " |")
    if python:
        rows = []
        for K in counts:
            other = Subprocess(python, HERE / "pythae_nll.py", str(path), str(K))
            other.line()
            rows.append(int(other.line()))
            other.close()
        print(f"| {other.version} | " + " | ".join(f"{grown / 2**20:.1f}" for grown in rows) + " |")


def times(vae: VAE, x: Tensor, K: int, rounds: int, python: str | None, path: Path) -> None:
    """A table of times at one K."""
    ours = log_marginal(vae.model, vae.guide, x, method=ImportanceSampling(num_particles=K))
    print(machine())
    print(
        f"mean log p(x): pyrovae {float(ours.log_marginal.mean()):.3f}, by hand "
        f"{hand_written(vae, x, K).mean():.3f}"
    )
    contenders = {
        "decoder products alone": looped(products(vae, len(x), K, by_onednn=False)),
        "torch by hand": looped(lambda: hand_written(vae, x, K)),
        "pyrovae": looped(
            lambda: log_marginal(
                vae.model, vae.guide, x, method=ImportanceSampling(num_particles=K)
            )
        ),
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise") and not x.is_cuda:
        by_onednn = looped(products(vae, len(x), K, by_onednn=True))
        contenders["decoder products alone, oneDNN"] = by_onednn
    method = ImportanceSampling(num_particles=K, compile=True)
    inspection = inspect(vae.model, vae.guide, x)
    with inspection.evaluating():
        plan = method.plan(inspection)
    sampler = inspection.sampler(plan.summed, plan.scorer)

    def compiled() -> None:  # as log_marginal does it; the graph is compiled in the warm-up
        with inspection.evaluating():
            method.run(sampler, plan)

    start = time.perf_counter()
    compiled()
    print(
        f"first compiled run {time.perf_counter() - start:.1f} s, "
        f"of which Inductor {plan.scorer.compile_seconds:.1f} s"
    )
    contenders["pyrovae, compiled"] = looped(compiled)
    if python:
        other = Subprocess(python, HERE / "pythae_nll.py", str(path), str(K))
        print(f"mean log p(x): {other.version} {float(other.line()):.3f}")
        other.line()
        contenders[f"{other.version.split(',')[0]}, get_nll"] = other
    results = alternate(contenders, rounds=rounds, seconds=0.0, warmup=1)
    if python:
        other.close()
    share = 10_000 * 5_000 / (len(x) * K)
    print(f"\n1/{share:g} of 10,000 data x 5,000 particles\n")
    print(table(f"{len(x)} data x {K} particles", results, "decoder products alone") + "\n")


if __name__ == "__main__":
    main()
