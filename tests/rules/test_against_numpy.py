"""Every rule and transform of the tables against a plain float64 loop, compiled and not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from sgdlab.rules import make_receive, make_rule
from sgdlab.rules.table import RULES, TRANSFORMS

STEPS, SIZE, WORKERS = 12, 8, 3


def sgd(x, eta):
    return [-eta * g for g in x.g]


def momentum(x, eta, gamma):
    v, out = 0.0, []
    for g in x.g:
        v = gamma * v + (1 - gamma) * g
        out.append(-eta * v)
    return out


def heavy_ball(x, eta, gamma):
    v, out = 0.0, []
    for g in x.g:
        v = gamma * v + g
        out.append(-eta * v)
    return out


def nesterov(x, eta, gamma):
    v, out = 0.0, []
    for g in x.g:
        v = gamma * v + g
        out.append(-eta * (g + gamma * v))
    return out


def adagrad(x, eta, eps):
    total, out = 0.0, []
    for g in x.g:
        total = total + g**2
        out.append(-eta * g / (np.sqrt(total) + eps))
    return out


def rmsprop(x, eta, rho, eps):
    s, out = 0.0, []
    for g in x.g:
        s = rho * s + (1 - rho) * g**2
        out.append(-eta * g / (np.sqrt(s) + eps))
    return out


def adamw(x, eta, b1, b2, eps, weight_decay=0.0):
    m, s, out = 0.0, 0.0, []
    for t, (g, w) in enumerate(zip(x.g, x.w, strict=True), start=1):
        m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g**2
        step = (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)
        out.append(-eta * (step + weight_decay * w))
    return out


def weighed(x, weight):
    return [weight(tau) * g for tau, g in zip(x.tau, x.g, strict=True)]


def compensated(x, strength, decay, eps, rows):
    """`rows`: whose mean square each message enters."""
    square, out = np.zeros((WORKERS, SIZE)), []
    for g, w, read, row in zip(x.g, x.w, x.read, rows, strict=True):
        square[row] = decay * square[row] + (1 - decay) * g * g
        out.append(g + strength / np.sqrt(square[row] + eps) * g * g * (w - read))
    return out


def gap_aware(x, eta, gamma, big_gamma, eps):
    v, mean, out = np.zeros(SIZE), np.zeros(SIZE), []
    for t, (g, w, read) in enumerate(zip(x.g, x.w, x.read, strict=True)):
        known = mean / (1 - big_gamma**t) if t else mean
        out.append(g / (1 + np.abs(w - read) / (eta * (np.sqrt(known) + eps))))
        v = gamma * v + out[-1]
        mean = big_gamma * mean + (1 - big_gamma) * (v**2 if gamma else g**2)
    return out


def mixed(x, alpha, power):
    """FedAsync, written as it mixes: the step to (1 − α_τ)w + α_τ·w_new, with its sign changed."""
    out = []
    for g, w, read, tau in zip(x.g, x.w, x.read, x.tau, strict=True):
        new, share = read - g, alpha * (tau + 1.0) ** -power
        out.append(w - ((1 - share) * w + share * new))
    return out


def by_worker(x, power):
    seen, out = {}, []
    for g, tau, who in zip(x.g, x.tau, x.who, strict=True):
        seen.setdefault(who, []).append(tau)
        out.append(g * (1 + np.mean(seen[who])) ** -power)
    return out


# Large epsilons, so that their place (inside or outside the root) shows.
CASES = {
    "sgd": [({"learning_rate": 0.1}, lambda x: sgd(x, 0.1))],
    "momentum": [({"learning_rate": 0.1, "decay": 0.8}, lambda x: momentum(x, 0.1, 0.8))],
    "heavy_ball": [({"learning_rate": 0.1, "decay": 0.8}, lambda x: heavy_ball(x, 0.1, 0.8))],
    "nesterov": [({"learning_rate": 0.1, "decay": 0.8}, lambda x: nesterov(x, 0.1, 0.8))],
    "adagrad": [({"learning_rate": 0.1, "eps": 0.3}, lambda x: adagrad(x, 0.1, 0.3))],
    "rmsprop": [
        ({"learning_rate": 0.1, "decay": 0.7, "eps": 0.3}, lambda x: rmsprop(x, 0.1, 0.7, 0.3))
    ],
    "adam": [
        (
            {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 0.3},
            lambda x: adamw(x, 0.1, 0.8, 0.95, 0.3),
        )
    ],
    "adamw": [
        (
            {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 0.3, "weight_decay": 0.2},
            lambda x: adamw(x, 0.1, 0.8, 0.95, 0.3, 0.2),
        )
    ],
    "scale_by_staleness": [({"power": 0.5}, lambda x: weighed(x, lambda tau: (1 + tau) ** -0.5))],
    "divide_by_staleness": [({}, lambda x: weighed(x, lambda tau: 1 / tau if tau else 1.0))],
    "hinge_staleness": [
        (
            {"a": 3.0, "b": 4.0},
            lambda x: weighed(x, lambda tau: 1.0 if tau <= 4 else 1 / (3 * (tau - 4) + 1)),
        )
    ],
    "clip_by_delay": [
        (
            {"concurrency": 2.5},
            lambda x: weighed(x, lambda tau: min(1.0, 2.5 / tau) if tau else 1.0),
        ),
        (
            {"concurrency": 2.5, "drop": True},
            lambda x: weighed(x, lambda tau: float(tau <= 2.5)),
        ),
    ],
    "drop_stale": [({"bound": 3.0}, lambda x: weighed(x, lambda tau: float(tau <= 3)))],
    "compensate_delay": [
        (
            {"strength": 0.5},
            lambda x: [g + 0.5 * g * g * d for g, d in zip(x.g, x.w - x.read, strict=True)],
        ),
        (
            {"strength": 2.0, "adaptive": True, "decay": 0.8, "eps": 0.1},
            lambda x: compensated(x, 2.0, 0.8, 0.1, [0] * STEPS),
        ),
        (
            {"adaptive": True, "decay": 0.8, "eps": 0.1, "per_worker": True, "num_workers": 3},
            lambda x: compensated(x, 0.04, 0.8, 0.1, x.who),
        ),
    ],
    "gap_aware": [
        (
            {"learning_rate": 0.2, "decay": 0.7, "average_decay": 0.8, "eps": 0.5},
            lambda x: gap_aware(x, 0.2, 0.7, 0.8, 0.5),
        ),
        (
            {"learning_rate": 0.2, "average_decay": 0.8, "eps": 0.5},
            lambda x: gap_aware(x, 0.2, 0.0, 0.8, 0.5),
        ),
    ],
    "mix_models": [({"alpha": 0.5, "power": 0.5}, lambda x: mixed(x, 0.5, 0.5))],
    "scale_by_worker_delay": [({"num_workers": 3, "power": 0.5}, lambda x: by_worker(x, 0.5))],
}


class Inputs:
    """Messages g, parameters now (w) and as read, `[T, d]`; staleness and workers, `[T]`."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.g, self.w, self.read = rng.uniform(-3, 3, size=(3, STEPS, SIZE)).astype(np.float32)
        self.tau, self.who = rng.integers(0, 8, STEPS), rng.integers(0, WORKERS, STEPS)
        self.tau[0] = 0

    def tree(self, name, t):
        row = getattr(self, name)[t]
        return {"kernel": jnp.asarray(row[:6].reshape(3, 2)), "bias": jnp.asarray(row[6:])}


def test_every_row_of_the_tables_has_a_reference():
    assert CASES.keys() == RULES.keys() | TRANSFORMS.keys()


class AgainstNumPy(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((name, k) for name in CASES for k in range(len(CASES[name])))
    def test_updates_are_those_of_the_loop(self, name, index):
        arguments, reference = CASES[name][index]
        if name in RULES:
            transform = make_rule(name, **arguments)
        else:
            transform = make_receive([{"name": name, **arguments}])
        inputs = Inputs(seed=0)
        expected = np.stack(reference(inputs))

        @self.variant
        def update(g, state, w, extra):
            return transform.update(g, state, w, **extra)

        state, actual = transform.init(inputs.tree("w", 0)), []
        for t in range(STEPS):
            extra = {
                "staleness": jnp.int32(inputs.tau[t]),
                "stale_params": inputs.tree("read", t),
                "worker": jnp.int32(inputs.who[t]),
            }
            updates, state = update(inputs.tree("g", t), state, inputs.tree("w", t), extra)
            actual.append({k: np.asarray(leaf, np.float64) for k, leaf in updates.items()})
        # Numbers below 32 (λg²(w − w_read), the largest, is below 27) with 12 steps of some ten
        # roundings of half a unit each in the averages behind them: 120·32·2⁻²⁵ = 1.1e-4.
        chex.assert_trees_all_close(
            jax.tree.map(lambda *leaves: np.stack(leaves), *actual),
            {"kernel": expected[:, :6].reshape(STEPS, 3, 2), "bias": expected[:, 6:]},
            rtol=0,
            atol=10 * STEPS * 32 * 2.0**-25,
        )
