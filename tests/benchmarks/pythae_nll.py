"""pythae's `get_nll` at the weights of a file; run by evidence.py in its own interpreter.

The first line is the version, the second the mean of log p(x), the third the bytes by which
resident memory rose meanwhile. Then each line read is a number of runs, answered by the seconds
they took.
"""

import sys
import time

import torch
from memory import growth
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn
from torch.nn import functional as F

BATCH = 250  # particles at once: those of one datum


def perceptron(layers: list) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, bias
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


class Encoder(BaseEncoder):
    def __init__(self, layers):
        BaseEncoder.__init__(self)
        self.net = perceptron(layers)

    def forward(self, x):
        loc, raw = self.net(x).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=2 * (F.softplus(raw) + 1e-6).log())


class Decoder(BaseDecoder):
    def __init__(self, layers):
        BaseDecoder.__init__(self)
        self.net = perceptron(layers)

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z).sigmoid())


def main(path: str, num_particles: int) -> None:
    from importlib.metadata import version

    saved = torch.load(path, weights_only=True)
    x, encoder, decoder = saved["x"], saved["encoder"], saved["decoder"]
    config = VAEConfig(
        input_dim=(x.shape[1],), latent_dim=decoder[0][0].shape[1], reconstruction_loss="bce"
    )
    model = VAE(config, encoder=Encoder(encoder), decoder=Decoder(decoder)).eval()

    def run(data: torch.Tensor = x) -> float:
        with torch.no_grad():
            return model.get_nll(
                data, n_samples=num_particles, batch_size=min(num_particles, BATCH)
            )

    run(x[:1])
    found: list[float] = []
    grown = growth(lambda: found.append(run()))
    print(f"pythae {version('pythae')}, torch {torch.__version__}\n{found[0]}\n{grown}", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
