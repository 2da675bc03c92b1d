r"""How long a VAE takes to a given quality on static MNIST: a hand-written compiled torch loop, and
pyrovae's fit.

    python tests/benchmarks/time_to_quality.py --target -95.2 [--threads 2] [--order ours,torch]

Both train the VAE of examples/papers/vampprior.py by its protocol, one after the other in the same
run: same initial weights, same batches a step, same warm-up, same Adam, a validation bound after
each epoch. Each stops at the first epoch after the warm-up whose validation bound reaches the
target. Then both are evaluated by the same importance sampling on the full test set. The seconds
are those of training, compilation included, with validation and without.

The target -95.2 is where such a loop ended whose NLL was 88.93. A run takes half an hour or more.
"""

import argparse
import copy
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import machine
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))

from protocol import load
from vampprior import BATCH, WARMUP, declare

import pyrovae as pv
from pyrovae import estimators, schedules

LR = 5e-4


@dataclass
class Timed:
    """What a contender took to reach the target."""

    epochs: int
    bound: float
    training: float
    total: float


class HandWritten(nn.Module):
    """The VAE as a practitioner writes it: two networks, one closed-form KL, one loss."""

    def __init__(self, vae: Any):
        super().__init__()
        self.encoder, self.decoder = vae.posterior.encoder.net, vae.likelihood.decoder.net

    def forward(self, x: Tensor, beta: Tensor) -> Tensor:
        """Minus the mean bound of a batch ``(B, 28, 28)``, with beta on the KL."""
        loc, log_variance = self.encoder(x).chunk(2, -1)
        log_variance = log_variance.clamp(-6, 2)
        z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        logits, flat = self.decoder(z), x.flatten(1)
        error = F.binary_cross_entropy_with_logits(logits, flat, reduction="none").sum(-1)
        kl = 0.5 * (loc.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return (error + beta * kl).mean()


def by_hand(vae: Any, splits: Any, target: float, most: int, warmup: int, seed: int) -> Timed:
    """A compiled torch loop with fused Adam on data in memory."""
    torch.manual_seed(seed)
    model = HandWritten(vae)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    loss_of = torch.compile(model)
    one, training = torch.ones(()), 0.0
    begin, steps, bound, epoch = time.perf_counter(), 0, float("-inf"), 0
    whole = -(-len(splits.train) // BATCH) * warmup
    for epoch in range(1, most + 1):
        start = time.perf_counter()
        model.train()
        for index in torch.randperm(len(splits.train)).split(BATCH):
            optimizer.zero_grad()
            loss_of(splits.train[index], torch.tensor(min(1.0, steps / whole))).backward()
            optimizer.step()
            steps += 1
        training += time.perf_counter() - start
        model.eval()
        with torch.no_grad():
            parts = [len(x) * loss_of(x, one) for x in splits.valid.split(BATCH)]
        bound = -float(torch.stack(parts).sum()) / len(splits.valid)
        if epoch > warmup and bound >= target:
            break
    return Timed(epoch, bound, training, time.perf_counter() - begin)


def by_fit(vae: Any, splits: Any, target: float, most: int, warmup: int, seed: int) -> Timed:
    """``pv.fit``, which stops itself by its callback."""

    def reached(row: dict[str, float]) -> bool:
        return row["epoch"] > warmup and row["valid_bound"] >= target

    begin = time.perf_counter()
    history = pv.fit(
        vae.model, vae.guide, splits.train, valid=splits.valid, epochs=most, batch_size=BATCH,
        lr=LR, beta=schedules.Linear(0, 1, steps=-(-len(splits.train) // BATCH) * warmup),
        estimator=estimators.AnalyticKL(), seed=seed, callback=reached, progress=False,
        device="cpu",
    )  # fmt: skip
    total = time.perf_counter() - begin
    last = history["valid_bound"][-1]
    return Timed(len(history), float(last), float(history["seconds"].sum()), total)


CONTENDERS = {"torch": by_hand, "ours": by_fit}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=float, default=-95.2, help="validation bound, in nats")
    parser.add_argument("--epochs", type=int, default=1_000, help="at most")
    parser.add_argument("--warmup", type=int, default=WARMUP, help="epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--order", default="torch,ours", help="who runs first")
    parser.add_argument("--particles", type=int, default=5_000)
    parser.add_argument("--limit", type=int, help="use at most so many data of each part")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # for both
    print(machine(), flush=True)
    splits = load("static")
    if arguments.limit:
        splits = splits.take(arguments.limit)
    torch.manual_seed(arguments.seed)
    start = declare(splits.data_shape, "vae", "normal")
    found: dict[str, Timed] = {}
    for name in arguments.order.split(","):
        vae = copy.deepcopy(start)
        timed = CONTENDERS[name](
            vae, splits, arguments.target, arguments.epochs, arguments.warmup, arguments.seed
        )
        found[name] = timed
        vae.eval()
        evidence = pv.log_marginal(
            vae.model, vae.guide, splits.test, num_particles=arguments.particles
        )
        line = {
            "contender": name, **vars(timed), "reached": timed.bound >= arguments.target,
            "nll": -evidence.mean(), "monte_carlo_error": evidence.monte_carlo_error(),
        }  # fmt: skip
        print(json.dumps(line, default=float), flush=True)
    if set(found) == set(CONTENDERS):
        ratios = {
            key: getattr(found["ours"], key) / getattr(found["torch"], key)
            for key in ("training", "total")
        }
        print(f"ours over torch: training {ratios['training']:.2f}, total {ratios['total']:.2f}")


if __name__ == "__main__":
    main()
