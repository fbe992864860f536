"""What a step sends and holds on a mesh, read from the compiled program, and a plan on paper.

    python -m benchmarks.devices                 # eight simulated devices, about a minute
    python -m benchmarks.devices --width 512 --depth 24
    python -m benchmarks.devices --plan          # 8, 64 and 4,096 devices by the α-β model
    python -m benchmarks.language_model          # tokens a second, on the accelerator at hand

The first prints, for each way to spread a step, its collectives, the bytes that a device sends
beside the lower bound, and the bytes that it holds beside its share. Bytes are those of the
program that XLA's CPU partitioner makes; on GPU and TPU an all-reduce that is sliced afterwards
becomes a reduce-scatter, half as much.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass

from sgdlab.training.devices.launching import simulate_devices

DEVICES = 8


def measure(width: int, depth: int, rows: int) -> None:
    """Print a line for each mesh and collective."""
    from sgdlab.training.devices.collectives import Average
    from sgdlab.training.devices.mesh import make_mesh
    from sgdlab.training.devices.sharding import device_bytes, total_bytes
    from sgdlab.training.devices.traffic import find_collectives

    print(
        f"{depth} layers of {width} × {width}, Adam, {rows} rows; MB of 10^6 bytes, a device each"
    )
    columns = ("spread", "collectives", "sent", "bound", "ratio", "held", "share", "peak")
    print("{:28}{:60}{:>8}{:>8}{:>7}{:>8}{:>8}{:>8}".format(*columns))
    cases = [
        ((8, 1, 1), {"collective": "jit"}),
        ((8, 1, 1), {"collective": "shard_map"}),
        ((8, 1, 1), {"collective": "pmap"}),
        ((8, 1, 1), {"reduction": "canonical"}),
        ((1, 8, 1), {"collective": "jit"}),
        ((2, 4, 1), {"collective": "jit"}),
        ((2, 4, 1), {"collective": "shard_map"}),
        ((2, 2, 2), {"collective": "jit"}),
    ]
    for sizes, options in cases:
        mesh = make_mesh(*sizes)
        carried, compiled = compile_step(Average(mesh, **options), width, depth, rows)
        found = find_collectives(compiled.as_text())
        sent = sum(each.sent_bytes for each in found)
        bound = lower_bound(total_bytes(carried[0]), mesh.shape)
        memory = compiled.memory_analysis()
        peak = (
            memory.argument_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        )
        counts: Counter[str] = Counter()
        for each in found:
            counts[each.kind] += each.times
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        name = "×".join(map(str, sizes)) + " " + "".join(options.values())
        share = total_bytes(carried) / (mesh.shape["fsdp"] * mesh.shape["tensor"])
        traffic = f"{sent / 1e6:8.2f}{bound / 1e6:8.2f}{sent / bound:7.2f}"
        bytes_held = (device_bytes(carried), share, peak)
        print(f"{name:28}{kinds:60}{traffic}" + "".join(f"{b / 1e6:8.2f}" for b in bytes_held))


def compile_step(average, width: int, depth: int, rows: int):
    """An Adam step of a residual network whose layers are walked by a scan and recomputed."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen

    from sgdlab.training.devices.mesh import batch_sharding, replicated
    from sgdlab.training.devices.sharding import init_rule_sharded, init_sharded

    rule, mesh = optax.adam(1e-3), average.mesh

    def init(key):
        up, down = jax.random.split(key)
        return {
            "up": jax.random.normal(up, (depth, width, width)) * width**-0.5,
            "down": jax.random.normal(down, (depth, width, width)) * width**-0.5,
        }

    def loss(params, batch, key):
        @jax.checkpoint
        def layer(hidden, weights):
            inner = linen.with_logical_constraint(hidden @ weights["up"], ("batch", "mlp"))
            hidden = hidden + jnp.tanh(inner) @ weights["down"]
            return linen.with_logical_constraint(hidden, ("batch", None)), None

        hidden, _ = jax.lax.scan(layer, batch, params)
        return jnp.mean(jnp.square(hidden)), {}

    def local(params, batch, key):
        return jax.value_and_grad(loss, has_aux=True)(params, batch, key)

    def step(params, state, batch):
        aux, gradient = average(local)(params, batch, None)
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, aux

    axes = {"up": ("layers", "embed", "mlp"), "down": ("layers", "mlp", "embed")}
    params = init_sharded(init, jax.random.key(0), mesh, axes)
    carried = params, init_rule_sharded(rule, params)
    lie = jax.tree.map(lambda leaf: leaf.sharding, carried)
    compiled = jax.jit(
        step,
        donate_argnums=(0, 1),
        in_shardings=(*lie, batch_sharding(mesh)),
        out_shardings=(*lie, replicated(mesh)),
    )
    batch = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    return carried, compiled.lower(*carried, batch).compile()


def lower_bound(size: float, axes) -> float:
    """The fewest bytes that a device must send in a step, for parameters of `size` bytes.

    d = data, f = fsdp, t = tensor. A device works on size/t. Over `fsdp` the parameters are
    gathered twice (forward, backward) and the gradient is reduce-scattered: 3·(size/t)(f − 1)/f.
    Over `data` the gradient's part is reduced: 2·(size/(t·f))(d − 1)/d. What `tensor` sends is
    activations, not counted here.
    """
    d, f, t = axes["data"], axes["fsdp"], axes["tensor"]
    return 3 * size / t * (f - 1) / f + 2 * size / (t * f) * (d - 1) / d


@dataclass(frozen=True)
class Machine:
    """A cluster of nodes; the figures are a vendor's for an 8-GPU H100 node, rounded.

    Attributes:
      flops: bfloat16 FLOP/s of a device at its peak.
      utilisation: the share of them that a single device reaches.
      memory: bytes of a device.
      node: devices in a node.
      inner, outer: bytes/s that a device sends within and between nodes (1/β).
      inner_latency, outer_latency: seconds of a message (α).
    """

    flops: float = 989e12
    utilisation: float = 0.45
    memory: float = 80e9
    node: int = 8
    inner: float = 450e9
    outer: float = 50e9
    inner_latency: float = 3e-6
    outer_latency: float = 10e-6


@dataclass(frozen=True)
class Model:
    """A Transformer: N parameters in `layers` layers, trained on `tokens` tokens a step."""

    name: str
    parameters: float
    layers: int
    tokens: float


def ring(size: float, n: int, bandwidth: float, latency: float) -> float:
    """Seconds of a reduce-scatter or an all-gather of `size` bytes: (n−1)α + size(n−1)/n·β."""
    return (n - 1) * latency + size * (n - 1) / n / bandwidth


def gather(size: float, n: int, machine: Machine) -> float:
    """The same over nodes: within the node, then between nodes by halving, log₂ messages."""
    inner = min(n, machine.node)
    nodes = n // inner
    time = ring(size, inner, machine.inner, machine.inner_latency)
    share = size / inner
    return (
        time
        + math.log2(nodes) * machine.outer_latency
        + share * (nodes - 1) / nodes / machine.outer
    )


def plan_step(model: Model, n: int, scheme: str, machine: Machine) -> tuple[float, float, float]:
    """Seconds of arithmetic and of communication, and bytes held, by one device in a step.

    data: fp32 gradients all-reduced (reduce-scatter and all-gather), 16 bytes a parameter on every
    device. fsdp: bf16 parameters gathered twice and bf16 gradients reduce-scattered, layer by
    layer; 16 bytes a parameter divided by n, and two gathered layers in bf16. hybrid: fsdp within a
    node, the gradient's eighth all-reduced between nodes. local: `data` every 100 steps.
    """
    size = model.parameters
    arithmetic = 6 * size * model.tokens / n / (machine.flops * machine.utilisation)
    layer = 2 * 2 * size / model.layers
    if scheme in ("data", "local"):
        every = 100 if scheme == "local" else 1
        return arithmetic, 2 * gather(4 * size, n, machine) / every, 16 * size
    if scheme == "fsdp":
        per_layer = 3 * gather(2 * size / model.layers, n, machine)
        return arithmetic, model.layers * per_layer, 16 * size / n + layer
    inner = min(n, machine.node)
    within = 3 * model.layers * gather(2 * size / model.layers, inner, machine)
    nodes = n // inner
    share = 4 * size / inner
    between = 2 * (
        math.log2(nodes) * machine.outer_latency + share * (nodes - 1) / nodes / machine.outer
    )
    return arithmetic, within + between, 16 * size / inner + layer


def plan(machine: Machine) -> None:
    """Print, for each model and scheme, the efficiency on 8, 64 and 4,096 devices and its limit."""
    models = [
        Model("0.1B", 1e8, 14, 0.5e6),
        Model("1B", 1e9, 20, 1e6),
        Model("8B", 8e9, 32, 4e6),
        Model("70B", 70e9, 80, 4e6),
    ]
    print("share of a step that is arithmetic (nothing overlapped / fully overlapped), GB held")
    print(f"{'model, tokens':18}{'scheme':8}{'8':>22}{'64':>22}{'4,096':>22}{'half at':>10}")
    for model in models:
        for scheme in ("data", "local", "fsdp", "hybrid"):
            cells = ""
            for n in (8, 64, 4096):
                work, talk, held = plan_step(model, n, scheme, machine)
                fits = "" if held <= machine.memory else "!"
                shares = f"{work / (work + talk):.2f} / {work / max(work, talk):.2f}"
                cells += f"{shares + f' {held / 1e9:.0f}{fits}':>22}"
            half = next(
                (
                    n
                    for n in (2**k for k in range(3, 21))
                    if _share(model, n, scheme, machine) < 0.5
                ),
                None,
            )
            name = f"{model.name}, {model.tokens / 1e6:g}M"
            print(f"{name:18}{scheme:8}{cells}{half or '> 10^6':>10}")
    print("! does not fit the device; half at: the first power of two where communication, not")
    print("overlapped, takes more time than arithmetic")


def _share(model: Model, n: int, scheme: str, machine: Machine) -> float:
    work, talk, _ = plan_step(model, n, scheme, machine)
    return work / (work + talk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", action="store_true", help="the α-β model; nothing is compiled")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--rows", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.plan:
        plan(Machine())
        return
    simulate_devices(DEVICES)
    measure(arguments.width, arguments.depth, arguments.rows)


if __name__ == "__main__":
    main()
