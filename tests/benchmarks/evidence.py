"""Evidence by importance sampling: pyrovae against hand-written torch, pythae and the decoder's products alone.

    python tests/benchmarks/evidence.py [--data 50] [--particles 1000] [--rounds 9]

The protocol is a fraction of 10,000 data x 5,000 particles with a decoder 40-300-300-784; all contenders weigh the
same data under the same weights. pythae takes part where it can be imported.
"""

import argparse
import logging
import math
import time
from collections.abc import Callable

import torch
from timing import alternate, machine, table
from torch import Tensor, nn
from torch.nn import functional as F

from pyrovae import VAE, ImportanceSampling, log_marginal, nets
from pyrovae.evidence.problem import prepare

LATENT, HIDDEN = 40, (300, 300)


def timed(work: Callable[[], object]) -> Callable[[int], float]:
    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return time.perf_counter() - start

    return run


@torch.no_grad()
def hand_written(vae: VAE, x: Tensor, num_particles: int, chunk: int = 250) -> Tensor:
    """Encode once; particles of each datum in chunks, one running logsumexp."""
    encoder, decoder = vae.posterior.encoder.net, vae.likelihood.decoder.net
    loc, raw = encoder(x).chunk(2, -1)
    scale = F.softplus(raw) + 1e-6
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for first in range(0, num_particles, chunk):
        eps = torch.randn(min(chunk, num_particles - first), *loc.shape)
        z = loc + scale * eps
        logits = decoder(z)
        log_x = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_w = log_x - 0.5 * (z**2).sum(-1) + (0.5 * eps**2 + scale.log()).sum(-1)
        total = torch.logaddexp(total, log_w.double().logsumexp(0))
    return total - math.log(num_particles)


@torch.no_grad()
def products(vae: VAE, num_data: int, num_particles: int, chunk: int = 250) -> None:
    """The decoder's matrix products for the same number of particles."""
    layers = [m for m in vae.likelihood.decoder.modules() if isinstance(m, nn.Linear)]
    rows = chunk * num_data
    inputs = [torch.ones(rows, layer.in_features) for layer in layers]
    for _ in range(math.ceil(num_particles / chunk)):
        for layer, x in zip(layers, inputs, strict=True):
            torch.mm(x, layer.weight.t())


def pythae(vae: VAE, x: Tensor, num_particles: int) -> Callable[[], object] | None:
    """pythae's `get_nll` with the same networks, or None without pythae."""
    try:
        from pythae.models import VAE as PythaeVAE
        from pythae.models import VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError:
        return None

    class Encoder(BaseEncoder):
        def __init__(self):
            BaseEncoder.__init__(self)
            self.net = vae.posterior.encoder.net

        def forward(self, x):
            loc, raw = self.net(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * (F.softplus(raw) + 1e-6).log())

    class Decoder(BaseDecoder):
        def __init__(self):
            BaseDecoder.__init__(self)
            self.net = vae.likelihood.decoder.net

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
    model = PythaeVAE(config, encoder=Encoder(), decoder=Decoder()).eval()
    batch = min(num_particles, 250)

    def run() -> object:
        with torch.no_grad():
            return model.get_nll(x, n_samples=num_particles, batch_size=batch)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=int, default=50)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    vae = VAE(784, LATENT, encoder=nets.MLP(*HIDDEN), decoder=nets.MLP(*HIDDEN)).eval()
    x = (torch.rand(arguments.data, 784) < 0.3).float()
    K = arguments.particles
    ours = log_marginal(vae.model, vae.guide, x, method=ImportanceSampling(num_particles=K))
    print(machine())
    print(
        f"mean log p(x): pyrovae {float(ours.log_marginal.mean()):.3f}, by hand {hand_written(vae, x, K).mean():.3f}"
    )
    contenders = {
        "decoder products alone": timed(lambda: products(vae, len(x), K)),
        "torch by hand": timed(lambda: hand_written(vae, x, K)),
        "pyrovae": timed(
            lambda: log_marginal(vae.model, vae.guide, x, method=ImportanceSampling(num_particles=K))
        ),
    }
    method = ImportanceSampling(num_particles=K, compile=True)
    problem = prepare(
        vae.model, vae.guide, x, seed=0, memory_budget=None, device=None, max_plate_nesting=1, progress=False
    )

    def compiled() -> None:  # as log_marginal does it; the graph is compiled in the warm-up
        with problem.session():
            method.run(problem)

    with problem.session():
        problem.inspect()
    start = time.perf_counter()
    compiled()
    print(
        f"first compiled run {time.perf_counter() - start:.1f} s, "
        f"of which Inductor {problem.tiles.engine.compile_seconds:.1f} s"
    )
    contenders["pyrovae, compiled"] = timed(compiled)
    other = pythae(vae, x, K)
    if other is not None:
        contenders["pythae get_nll"] = timed(other)
    results = alternate(contenders, rounds=arguments.rounds, seconds=0.0, warmup=1)
    print("\n" + table(f"{len(x)} data x {K} particles", results, "decoder products alone") + "\n")


if __name__ == "__main__":
    main()
