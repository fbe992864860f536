"""The tests of this folder need eight devices: they run in one child process that has them.

The number of CPU devices is fixed when jax starts, and the process that pytest was started in has
one. So the functions collected here run in a child session, and each reports its own outcome.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

DEVICES = 8
HERE = Path(__file__).parent
REPORT = "SGDLAB_TEST_REPORT"
IN_CHILD = REPORT in os.environ
outcomes = pytest.StashKey()
failures = {}


class InChild(pytest.Item):
    """Stands for a test function that the child process runs, fixtures and all."""

    def runtest(self):
        if outcomes not in self.session.stash:
            self.session.stash[outcomes] = run_child(self.session)
        results = self.session.stash[outcomes]
        outcome = results.get(self.nodeid, "it did not run in the child process")
        if outcome is not None:
            pytest.fail(outcome, pytrace=False)

    def reportinfo(self):
        return self.path, None, self.name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if not IN_CHILD:
        items[:] = [
            InChild.from_parent(item.parent, name=item.name) if is_mine(item) else item
            for item in items
        ]


def is_mine(item):
    return item.path.parent == HERE


def run_child(session):
    """Run this folder's part of a session; a map from each test to `None` or what went wrong."""
    mine = [item.nodeid for item in session.items if is_mine(item)]
    report = os.path.join(tempfile.gettempdir(), f"sgdlab-devices-{os.getpid()}.json")
    environ = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(DEVICES),
        "NPROC": str(2 * DEVICES),
        # Half of this session's time is spent in optimising machine code that runs for a moment.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0",
        REPORT: report,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", *mine]
    try:
        done = subprocess.run(
            command, cwd=session.config.rootpath, env=environ, timeout=400, capture_output=True,
            text=True,
        )  # fmt: skip
        with open(report) as file:
            return json.load(file)
    except (OSError, subprocess.TimeoutExpired) as error:
        text = done.stdout[-3000:] if isinstance(error, OSError) else "it took more than 400 s"
        return dict.fromkeys(mine, f"the child process failed: {text}")
    finally:
        if os.path.exists(report):
            os.remove(report)


def pytest_runtest_logreport(report):
    if IN_CHILD and (report.when == "call" or report.failed):
        failures[report.nodeid] = report.longreprtext if report.failed else None


def pytest_sessionfinish():
    if IN_CHILD:
        with open(os.environ[REPORT], "w") as file:
            json.dump(failures, file)


@pytest.fixture(scope="session")
def network():
    """A small residual network with metrics, whose layers are walked by a scan."""
    from types import SimpleNamespace

    import jax.numpy as jnp
    import numpy as np
    from flax import linen

    width, depth = 64, 4
    normal = jax.random.normal

    def init(key):
        first, layers, last = jax.random.split(key, 3)
        return {
            "first": normal(first, (32, width)) * 32**-0.5,
            "layers": {"kernel": normal(layers, (depth, width, width)) * width**-0.5},
            "last": normal(last, (width, 10)) * width**-0.5,
        }

    def loss(params, batch, key):
        def layer(hidden, weights):
            return rows(hidden + jnp.tanh(hidden @ weights["kernel"])), None

        hidden = rows(batch["x"] @ params["first"])
        hidden, _ = jax.lax.scan(layer, hidden, params["layers"])
        logits = rows(hidden @ params["last"]).astype(jnp.float32)
        if key is not None:
            logits = logits + normal(key, logits.shape)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], axis=1)
        right = jnp.argmax(logits, axis=1) == batch["y"]
        return -jnp.mean(chosen), {"accuracy": jnp.mean(right.astype(jnp.float32))}

    def rows(value):
        return linen.with_logical_constraint(value, ("batch", None))

    def value_and_grad(params, batch, key):
        return jax.value_and_grad(loss, has_aux=True)(params, batch, key)

    generator = np.random.default_rng(0)
    batch = {
        "x": generator.standard_normal((48, 32)).astype(np.float32),
        "y": generator.integers(0, 10, 48).astype(np.int32),
    }
    return SimpleNamespace(
        init=init,
        loss=loss,
        value_and_grad=value_and_grad,
        batch=batch,
        axes={"first": None, "layers": {"kernel": ("layers", "embed", "mlp")}, "last": None},
    )


@pytest.fixture(scope="session")
def relative_error():
    """‖a − b‖ / ‖b‖ over trees, in float64 on the host."""
    import numpy as np

    def norm(leaves):
        return sum(float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in leaves) ** 0.5

    def error(tree, reference):
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True)
        pairs = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
        return norm([a.astype(np.float64) - b for a, b in pairs]) / norm([b for _, b in pairs])

    return error
