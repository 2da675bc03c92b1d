"""The cases of the benchmarks as NumPyro programs, each epoch one jitted `lax.fori_loop`; run in an
interpreter of its own.

    python numpyro_step.py CASE [--total STEPS]

CASE is JSON: batch, latent, particles, net ("mlp", "gated" or "conv"), widths, vamp.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO

SIDE = 28
PIXELS = SIDE * SIDE


def weights(name, shape, fan_in):
    bound = fan_in**-0.5

    def start(key):
        return random.uniform(key, shape, minval=-bound, maxval=bound)

    return numpyro.param(name, start)


def dense(name, x, fan_out):
    fan_in = x.shape[-1]
    return x @ weights(f"{name}.w", (fan_in, fan_out), fan_in) + weights(
        f"{name}.b", (fan_out,), fan_in
    )


def convolved(name, x, channels, stride):
    """A 3 x 3 convolution of (N, H, W, C), the layout that XLA prefers on CPU."""
    fan_in = 9 * x.shape[-1]
    kernel = weights(f"{name}.w", (3, 3, x.shape[-1], channels), fan_in)
    out = lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out + weights(f"{name}.b", (channels,), fan_in)


class Networks:
    """Encoder and decoder of a case."""

    def __init__(self, net, widths):
        self.net, self.widths = net, widths

    def hidden(self, name, x):
        for i, width in enumerate(self.widths):
            at = f"{name}{i}"
            if self.net == "gated":
                x = jax.nn.glu(dense(at, x, 2 * width))
            else:
                x = jax.nn.relu(dense(at, x, width))
        return x

    def encode(self, x, features):
        if self.net != "conv":
            return dense("e", self.hidden("e", x), features)
        x = x.reshape(-1, SIDE, SIDE, 1)
        for i, channels in enumerate(self.widths):
            x = jax.nn.relu(convolved(f"e{i}", x, channels, 2))
        return dense("e", jax.nn.relu(dense("eh", x.reshape(len(x), -1), 256)), features)

    def decode(self, z):
        if self.net != "conv":
            return dense("d", self.hidden("d", z), PIXELS)
        flat, widths = z.reshape(-1, z.shape[-1]), self.widths[::-1]
        size = SIDE // 2 ** len(widths)
        x = dense("d", jax.nn.relu(dense("dh", flat, 256)), size * size * widths[0])
        x = x.reshape(-1, size, size, widths[0])
        for i, channels in enumerate([*widths[1:], 1]):
            x = jax.nn.relu(x).repeat(2, 1).repeat(2, 2)  # nearest upsampling
            x = convolved(f"d{i}", x, channels, 1)
        return x.reshape(*z.shape[:-1], PIXELS)


def programs(case):
    """Model and guide."""
    networks, latent = Networks(case["net"], case["widths"]), case["latent"]

    def posterior(x):
        loc, raw = jnp.split(networks.encode(x, 2 * latent), 2, -1)
        return dist.Normal(loc, jax.nn.softplus(raw) + 1e-6).to_event(1)

    def prior():
        if not case["vamp"]:
            return dist.Normal(jnp.zeros(latent), 1.0).to_event(1)
        pseudo = numpyro.param("u", lambda k: random.uniform(k, (case["vamp"], PIXELS)))
        return dist.MixtureSameFamily(
            dist.Categorical(jnp.ones(case["vamp"]) / case["vamp"]),
            posterior(jnp.clip(pseudo, 0, 1)),
        )

    def model(x):
        given = prior()
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", given)
            numpyro.sample("x", dist.Bernoulli(logits=networks.decode(z)).to_event(1), obs=x)

    def guide(x):
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", posterior(x))

    return model, guide


def main(case, *, whole: int | None = None) -> None:
    """Time turns of so many steps; or, with ``whole``, one run of so many, compilation included."""
    batch, particles = case["batch"], case["particles"]
    size = max(60 * batch, 2048)
    data = jnp.asarray(np.random.default_rng(0).random((size, PIXELS)) < 0.3, jnp.float32)
    start = time.perf_counter()
    bound = RenyiELBO(alpha=0, num_particles=particles) if particles > 1 else Trace_ELBO()
    svi = SVI(*programs(case), numpyro.optim.Adam(1e-3), bound)
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
    main(json.loads(sys.argv[1]), whole=int(sys.argv[3]) if sys.argv[2:3] == ["--total"] else None)
