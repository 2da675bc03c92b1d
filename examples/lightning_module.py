"""An estimator inside a LightningModule.

    pip install lightning
    python examples/lightning_module.py
    python examples/lightning_module.py --quick

Lightning brings loggers, callbacks and devices; pyrovae the loss and, after training, the evidence.
Its ``precision`` flags cast the whole step, draws and densities too. The networks alone run in
bfloat16 under ``Bfloat16Networks``, as here.
"""

import argparse
import logging
import warnings

import lightning
import torch
from torch.utils.data import DataLoader

import pyrovae as pv
from pyrovae import estimators, nets
from pyrovae.nets.precision import Bfloat16Networks


class LitVAE(lightning.LightningModule):
    def __init__(self, vae, estimator):
        super().__init__()
        self.vae = vae
        self.loss = estimator(vae.model, vae.guide)

    def training_step(self, x, index):
        with Bfloat16Networks():
            loss = self.loss(x) / len(x)  # the negative bound in nats per datum
        self.log("bound", -loss.detach())
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.vae.parameters(), lr=2e-3)


def main(quick):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    digits = pv.data.load("digits").binarize("threshold")
    vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(64), decoder=nets.MLP(64))
    trainer = lightning.Trainer(
        max_epochs=2 if quick else 100, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(digits.train, batch_size=64, shuffle=True)
    trainer.fit(LitVAE(vae, estimators.DReG(num_particles=5)), loader)
    print(f"bound of the last batch: {trainer.callback_metrics['bound'].item():.2f} nats")
    evidence = vae.log_marginal(digits.test, num_particles=20 if quick else 1_000)
    print(f"held-out log p(x): {evidence.mean():.2f} nats")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
