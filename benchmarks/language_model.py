"""Tokens a second, FLOPs utilisation and memory of a Transformer on the accelerator at hand.

    python -m benchmarks.language_model                                   # 100 M parameters, bf16
    python -m benchmarks.language_model --size 0.3M --rows 4 --length 32 --updates 2   # a CPU

Two contestants in one process, in turns: the replay's compiled chunk, and a loop written by hand of
the same model, optimiser, batches and dtypes. Both start from the same parameters, and the losses
of their first updates are compared before a second is counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgdlab import rules, tasks, timelines
from sgdlab.precision import get_policy
from sgdlab.tasks.transformer import SIZES
from sgdlab.training.inspecting import ChunkProgram

# FLOP/s of a device in bfloat16, dense, as its vendor gives them; by the beginning of its name.
PEAKS = {
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained: a size in `SIZES`, windows of `length` tokens, `rows` of them an update."""

    size: str = "100M"
    rows: int = 32
    length: int = 1024
    updates: int = 10
    policy: str = "mixed_bfloat16"
    rematerialise: bool = False


@dataclasses.dataclass(frozen=True)
class Contestant:
    """`run()` makes `updates` more updates and gives the seconds; `memory` is XLA's account."""

    name: str
    run: Callable[[], float]
    memory: Any

    @property
    def peak(self) -> int:
        """Bytes: arguments, results and temporaries, what is aliased counted once."""
        found = self.memory
        held = found.argument_size_in_bytes + found.output_size_in_bytes
        return held + found.temp_size_in_bytes - found.alias_size_in_bytes


def flops_per_token(setting: Setting) -> float:
    """Model FLOPs of a token in training: 6 a matrix entry, and attention over the whole window.

        6·(12·layers·width² + vocabulary·width) + 12·layers·width·length

    Recomputed layers aren't counted, nor is it halved for the causal mask.

    Reference: Aakanksha Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", 2022,
    appendix B.
    """
    config = SIZES[setting.size]
    block = (4 + 2 * config.expansion) * config.width**2
    matrices = config.layers * block + config.vocabulary * config.width
    return 6 * matrices + 12 * config.layers * config.width * setting.length


def make_contestants(setting: Setting) -> tuple[list[Contestant], float]:
    """Both, compiled, and the largest relative difference of their first losses."""
    backend = "cudnn" if jax.default_backend() == "gpu" else "xla"
    task = tasks.text(
        size=setting.size,
        length=setting.length,
        rematerialise=setting.rematerialise,
        attention=backend,
    )
    task = dataclasses.replace(task, test={"tokens": task.test["tokens"][:1]})
    timeline = timelines.fixed_delay(0, updates=2 * setting.updates)
    chunk = ChunkProgram(
        task,
        functools.partial(rules.adamw, 3e-4),
        timeline,
        batch_size=setting.rows,
        precision=setting.policy,
        evaluate_every=setting.updates,
    )
    state, draws = chunk._started
    params = jax.tree.map(jnp.copy, state.params)
    rows = draws.rows[: setting.updates, 0]
    ours = Contestant("replay", chunk.run, chunk.compiled.memory_analysis())
    theirs, losses = hand_written(task, params, rows, setting.policy)
    expected = chunk.compiled(jax.tree.map(jnp.copy, state), chunk._others[0], draws,
                              *chunk._others[1:])[1].updates["loss"][: setting.updates]  # fmt: skip
    difference = np.max(np.abs(np.asarray(losses) / np.asarray(expected) - 1))
    return [ours, theirs], float(difference)


def hand_written(task, params, rows, policy: str) -> tuple[Contestant, jax.Array]:
    """A scan over updates with optax, nothing of sgdlab in it but the model's loss.

    Args:
      task: its loss and its data.
      params: version 0.
      rows: `[updates, B]` the rows of each update.
      policy: a policy's name; of it the compute dtype counts.

    Returns:
      The contestant, and the losses of its first updates.
    """
    dtype, rule = get_policy(policy).compute_dtype, optax.adamw(3e-4)
    tokens = jnp.asarray(task.train["tokens"])

    def loss(params, batch):
        cast = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        return task.loss(cast, batch, None)[0].astype(jnp.float32)

    def step(carry, index):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, {"tokens": tokens[index]})
        with jax.numpy_dtype_promotion("standard"):
            updates, state = rule.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

    carry = params, rule.init(params)
    scan = jax.jit(lambda carry, rows: jax.lax.scan(step, carry, rows), donate_argnums=0)
    compiled = scan.lower(carry, rows).compile()
    kept, losses = compiled(carry, rows)
    held = [jax.block_until_ready(kept)]

    def run() -> float:
        start = time.perf_counter()
        held[0], values = compiled(held[0], rows)
        jax.block_until_ready((held[0], values))
        return time.perf_counter() - start

    return Contestant("hand-written", run, compiled.memory_analysis()), losses


def compare(setting: Setting, rounds: int, peak_flops: float | None) -> list[dict[str, Any]]:
    """Turns of both, whoever began last time second; a row for each, the last column our share."""
    contestants, difference = make_contestants(setting)
    seconds: dict[str, list[float]] = {each.name: [] for each in contestants}
    for number in range(rounds + 1):
        for each in contestants[:: 1 if number % 2 else -1]:
            taken = each.run()
            if number:  # the first turn warms up
                seconds[each.name].append(taken)
    tokens = setting.rows * setting.length * setting.updates
    best = peak_flops or next(
        (f for name, f in PEAKS.items() if jax.devices()[0].device_kind.startswith(name)), None
    )
    pairs = zip(seconds["hand-written"], seconds["replay"], strict=True)
    ratio = statistics.median(theirs / ours for theirs, ours in pairs)
    return [
        {
            "contestant": each.name,
            "tokens/s": (rate := tokens / statistics.median(seconds[each.name])),
            "TFLOP/s": rate * flops_per_token(setting) / 1e12,
            "utilisation": rate * flops_per_token(setting) / best if best else None,
            "peak GB": each.peak / 1e9,
            "ratio": ratio if each.name == "replay" else 1.0,
            "loss differs by": difference,
        }
        for each in contestants
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="100M", choices=SIZES)
    for name, value in (("rows", 32), ("length", 1024), ("updates", 10), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--policy", default="mixed_bfloat16")
    parser.add_argument("--rematerialise", action="store_true")
    parser.add_argument("--peak", type=float, help="FLOP/s of the device, where it is not known")
    given = vars(parser.parse_args())
    rounds, peak_flops = given.pop("rounds"), given.pop("peak")
    setting = Setting(**given)
    print(f"{setting}\n{jax.devices()[0].device_kind}, jax {jax.__version__}")
    rows = compare(setting, rounds, peak_flops)
    print("".join(f"{name:>17}" for name in rows[0]))
    for row in rows:
        cells = ("unknown" if v is None else v if isinstance(v, str) else f"{v:.4g}"
                 for v in row.values())  # fmt: skip
        print("".join(f"{cell:>17}" for cell in cells))


if __name__ == "__main__":
    main()
