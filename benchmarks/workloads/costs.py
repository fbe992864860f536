"""What a replay costs besides time: memory, and the time to compile."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import Survey

MEGA = 2.0**20


def memory(protocol: str, workers: int, **keywords) -> list:
    """The bytes of a compiled chunk in units of the parameters, and of the whole process."""
    import resource

    import jax

    from benchmarks import problems, replays

    timeline = _timeline(protocol, workers, **keywords)
    problem = problems.make_problem(problems.wide(rows=64), timeline, learning_rate=0.001)
    start = _start(problem)
    caught = replays.catch_step(start)
    size = sum(leaf.size for leaf in jax.tree.leaves(problem.params))
    analysis = caught.compile().memory_analysis()
    planned = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    ) / (4 * size)
    start()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / (4 * size)
    stored = max(caught.program.num_slots, 0)
    bound = 1.03 * (workers + 3)
    verdict = "yes" if planned <= bound else "**no**"
    name = _label(protocol, workers, keywords)
    return [name, stored, f"{planned:.2f}", f"{bound:.2f}", verdict, f"{resident:.1f}"]


def compile_time(name: str) -> list:
    """Seconds to trace, lower and compile a chunk's program, with no cache."""
    import time

    import jax

    from benchmarks import replays
    from benchmarks.workloads import convolution, digits, synchronous, transformer

    jax.config.update("jax_enable_compilation_cache", False)
    problem = {
        "digits MLP, asynchronous": digits.problem,
        "digits MLP, synchronous": synchronous.problem,
        "digits MLP, k_batch_async (4 messages an update)": partial(
            _problem, "k_batch_async", 16, k=4
        ),
        "digits CNN, asynchronous": partial(convolution.problem, convolution.UPDATES),
        "Transformer, 2 layers, asynchronous": partial(transformer.problem, transformer.UPDATES),
    }[name]()
    start = _start(problem)
    caught = replays.catch_step(start)
    jax.clear_caches()  # messages before update 0 have compiled it
    began = time.perf_counter()
    lowered = caught.step.lower(caught.program, caught.state, *caught.inputs)
    traced = time.perf_counter()
    lowered.compile()
    done = time.perf_counter()
    start()
    whole = time.perf_counter()
    start()
    again = time.perf_counter()
    first = f"{whole - done:.2f}"
    return [name, f"{traced - began:.2f}", f"{done - traced:.2f}", first, f"{again - whole:.3f}"]


def _start(problem):
    """What replays the problem, with one rule, so that only the first time compiles."""
    from benchmarks import replays
    from sgdlab.training import replay

    positional, named = replays.arguments(problem)
    return lambda: replay(*positional, **named)


def _problem(protocol: str, workers: int, **keywords):
    from benchmarks.problems import make_problem
    from sgdlab import tasks

    return make_problem(tasks.digits(), _timeline(protocol, workers, **keywords))


def _timeline(protocol: str, workers: int, **keywords):
    from sgdlab.timelines import PROTOCOLS, Cluster, exponential

    updates = 32 * workers if protocol in ("asynchronous", "fixed_delay") else 64
    if protocol == "fixed_delay":
        return PROTOCOLS[protocol](workers - 1, updates=updates)
    cluster = Cluster(workers=workers, compute=exponential(1.0))
    return PROTOCOLS[protocol](cluster, updates=updates, seed=0, **keywords)


def _label(protocol: str, workers: int, keywords) -> str:
    told = ", ".join(f"{name} = {value}" for name, value in keywords.items())
    return f"{protocol}, N = {workers}" + (f", {told}" if told else "")


BENCHMARKS = (
    Survey(
        "memory",
        "Memory, MLP 784-1024-1024-10 (P = 1.86 M), momentum",
        ("timeline", "slots", "planned / P", "1.03·(N+3)", "within", "peak RSS / P"),
        (
            partial(memory, "synchronous", 8),
            partial(memory, "asynchronous", 4),
            partial(memory, "asynchronous", 16),
            partial(memory, "asynchronous", 48),
            partial(memory, "fixed_delay", 16),
            partial(memory, "k_async", 16, k=4),
            partial(memory, "k_batch_async", 16, k=4),
        ),
        note="Planned: arguments, outputs and temporaries of the compiled chunk, aliased bytes "
        "counted once, in units of 4·P bytes; data included. RSS: the process's peak after a "
        "replay, with Python, JAX, the compiler and the first parameters.",
    ),
    Survey(
        "compile",
        "Time to compile, seconds, with no cache",
        ("program", "trace and lower", "compile", "first replay", "second replay"),
        tuple(
            partial(compile_time, name)
            for name in (
                "digits MLP, asynchronous",
                "digits MLP, synchronous",
                "digits MLP, k_batch_async (4 messages an update)",
                "digits CNN, asynchronous",
                "Transformer, 2 layers, asynchronous",
            )
        ),
        note="The replays come after that, with the chunk's program already compiled.",
        threads=2,
    ),
)
