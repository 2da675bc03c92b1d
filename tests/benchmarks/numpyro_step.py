"""The same VAE in NumPyro, an epoch as one jitted `lax.fori_loop`; run by training_step.py in its
own interpreter.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro.infer import SVI, Trace_ELBO


def main(batch: int, hidden: int, latent: int, particles: int, *, whole: int | None = None) -> None:
    """Time turns of so many steps; or, with ``whole``, one run of so many, compilation included."""
    pixels, size = 784, max(60 * batch, 2048)
    data = jnp.asarray(np.random.default_rng(0).random((size, pixels)) < 0.3, jnp.float32)

    def dense(name, x, fan_in, fan_out):
        bound = fan_in**-0.5
        weight = numpyro.param(
            f"{name}.w", lambda k: random.uniform(k, (fan_in, fan_out), minval=-bound, maxval=bound)
        )
        bias = numpyro.param(
            f"{name}.b", lambda k: random.uniform(k, (fan_out,), minval=-bound, maxval=bound)
        )
        return x @ weight + bias

    def model(x):
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            logits = dense("d2", jax.nn.relu(dense("d1", z, latent, hidden)), hidden, pixels)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", x.shape[0]):
            out = dense("e2", jax.nn.relu(dense("e1", x, pixels, hidden)), hidden, 2 * latent)
            scale = jax.nn.softplus(out[:, latent:]) + 1e-6
            numpyro.sample("z", dist.Normal(out[:, :latent], scale).to_event(1))

    start = time.perf_counter()
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO(num_particles=particles))
    state = svi.init(random.PRNGKey(0), data[:batch])

    @jax.jit
    def epoch(state, order, steps):
        def body(i, carry):
            state, total = carry
            index = lax.dynamic_slice_in_dim(order, (i * batch) % (size - batch), batch)
            state, loss = svi.update(state, data[index])
            return state, total + loss

        return lax.fori_loop(0, steps, body, (state, 0.0))

    order = random.permutation(random.PRNGKey(1), size)
    if whole is not None:
        state, total = epoch(state, order, whole)
        total.block_until_ready()
        print(time.perf_counter() - start)
        return
    state, total = epoch(state, order, 2)
    total.block_until_ready()
    print(f"NumPyro {numpyro.__version__}, jax {jax.__version__}", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        state, total = epoch(state, order, int(line))
        total.block_until_ready()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    sizes = list(map(int, sys.argv[1:5]))
    main(*sizes, whole=int(sys.argv[6]) if sys.argv[5:6] == ["--total"] else None)
