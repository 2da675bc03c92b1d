"""What small sweeps declare."""

SMALL = {"class_path": "MLP", "init_args": {"hidden": [8]}}
TINY = {
    "data": "digits",
    "epochs": 2,
    "limit": 40,
    "latent_dim": 2,
    "encoder": SMALL,
    "decoder": SMALL,
    "method": {"class_path": "ImportanceSampling", "init_args": {"num_particles": 50}},
}
VAMP = {"class_path": "Vamp", "init_args": {"num_components": 5}}
