"""The networks that the benchmarks of training train, and the loop that is written by hand."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from timing import looped
from torch import Tensor, nn
from torch.nn import functional as F

from pyrovae import VAE, nets, posteriors, priors


@dataclass
class Case:
    """What to train."""

    batch: int
    latent: int = 20
    particles: int = 1
    recipe: nets.Recipe = field(default_factory=lambda: nets.MLP(400))
    shape: tuple[int, ...] = (784,)
    vamp: int = 0

    def for_numpyro(self) -> str:
        """What numpyro_step.py reads."""
        recipe = self.recipe
        convolves = isinstance(recipe, nets.Conv)
        return json.dumps(
            {
                "batch": self.batch,
                "latent": self.latent,
                "particles": self.particles,
                "net": {nets.MLP: "mlp", nets.GatedMLP: "gated", nets.Conv: "conv"}[type(recipe)],
                "widths": recipe.channels if convolves else recipe.hidden,
                "vamp": self.vamp,
            }
        )


CASES = {
    "mlp-16": Case(16),
    "mlp-128": Case(128),
    "mlp-1024": Case(1024),
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
        z = loc + scale * torch.randn(K, *loc.shape, device=x.device)
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
    # On a GPU, this mode replays CUDA graphs.
    mode = "reduce-overhead" if data.is_cuda else "default"
    loss_of = torch.compile(model, mode=mode) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        loss_of(data[orders()]).backward()
        optimizer.step()

    return looped(step)
