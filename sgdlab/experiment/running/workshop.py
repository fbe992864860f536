"""What a config names, built once: equal parts are the same objects, so they share a compile."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sgdlab import precision, rules, tasks, training, workers
from sgdlab.experiment.config.building import draw_timelines
from sgdlab.experiment.config.schema import Config
from sgdlab.experiment.running.environment import hash_data
from sgdlab.rules.table import RULE_FILLED
from sgdlab.tasks.rows import take_rows
from sgdlab.timelines import Timeline
from sgdlab.training.devices.sharding import LOGICAL_AXES


class Workshop:
    """Tasks, rules, worker programs and timelines by their config."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self.data: dict[str, str] = {}

    def _once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        text = f"{kind} {json.dumps(key, sort_keys=True, default=str)}"
        if text not in self._made:
            self._made[text] = make()
        return self._made[text]

    def timelines(self, config: Config) -> tuple[Timeline, ...]:
        """The draws of the config's clocks, shared by all points that differ in nothing of it."""
        keys = {"cluster", "protocol", "updates", "seconds", "gradients", "seed", "timelines"}
        key = [config.model_dump(include=keys), config.worker.arguments().get("steps")]
        return self._once("timelines", key, lambda: draw_timelines(config))

    def task(self, config: Config) -> tasks.Task:
        """The task; the hash of its data is noted in `data`."""

        def make() -> tasks.Task:
            task = tasks.make_task(**config.task.model_dump())
            self.data[task.name] = hash_data(task.train, task.test)
            return task

        return self._once("task", config.task.model_dump(), make)

    def metrics(self, config: Config) -> tuple[str, ...]:
        """What an evaluation of the task gives: the loss, and the names of its metrics."""
        task = self.task(config)

        def evaluate(key: jax.Array) -> Any:
            batch = take_rows(task.test, np.arange(1))
            return task.loss(task.init(key), batch, None)[1]

        return "loss", *jax.eval_shape(evaluate, jax.random.key(0))

    def partition(self, config: Config, num_workers: int) -> tuple[np.ndarray, ...] | None:
        """The rows of each worker."""
        if config.partition is None:
            return None
        task = self.task(config)
        if task.labels is None:
            raise ValueError(f"partition: the task {task.name} has no labels; allowed: none")
        how = tasks.make_partition(**config.partition.model_dump())
        labels = task.labels
        key = [config.partition.model_dump(), config.task.model_dump(), num_workers, config.seed]
        return self._once(
            "partition", key, lambda: tasks.partition(labels, num_workers, how, seed=config.seed)
        )

    def rule(self, config: Config, mapped: Mapping[str, float]) -> Callable[..., Any]:
        """`make_rule` of `replay_many`: the mapped numbers are its arguments."""
        arguments = {k: v for k, v in config.rule.arguments().items() if k not in mapped}
        rounding = config.precision.rounding
        wrap = None if rounding is None else getattr(precision, rounding.name)
        name, more = config.rule.name, {} if rounding is None else rounding.arguments()

        def make_rule(**hyperparameters: Any) -> Any:
            rule = rules.make_rule(name, **arguments, **hyperparameters)
            return rule if wrap is None else wrap(rule, **more)

        key = [name, arguments, sorted(mapped), rounding and rounding.model_dump()]
        return self._once("rule", key, lambda: make_rule)

    def receive(self, config: Config, mapped: Mapping[str, float], timeline: Timeline) -> Any:
        """What every message passes; what depends on the cluster or the rule is filled in."""
        links = [
            {key: value for key, value in link.model_dump().items() if value is not None}
            for link in config.receive
        ]
        # The mean number of busy workers: N where nobody ever waits.
        busy = max(1.0, float(timeline.utilisation().sum()))
        filled = {"num_workers": timeline.num_workers, "concurrency": busy}
        if not any(link["name"] in RULE_FILLED for link in links):
            make = functools.partial(rules.make_receive, links, **filled)
            return self._once("receive", [links, filled], make)
        rule = {k: v for k, v in config.rule.model_dump().items() if k not in mapped}

        def make_receive(**hyperparameters: Any) -> Any:
            return rules.make_receive(links, rule={**rule, **hyperparameters}, **filled)

        return self._once("receive", [links, filled, rule, sorted(mapped)], lambda: make_receive)

    def worker(self, config: Config) -> workers.WorkerProgram:
        """The worker program."""
        spec = config.worker.model_dump(exclude={"batch_size"})
        return self._once("worker", spec, lambda: _make_worker(spec))

    def loss_scale(self, config: Config) -> Any:
        """The loss scale."""
        return precision.make_loss_scale(**config.precision.loss_scale.model_dump())

    def mesh(self, config: Config) -> Mesh | None:
        """The devices of the config; None where it is one, for there is nothing to spread.

        Raises:
          ValueError: there are fewer, or the axes leave some out of a run over several hosts.
        """
        spec = config.devices
        if spec.size == 1 and jax.process_count() == 1:
            return None
        task = self.task(config)
        if spec.tensor > 1 and not any(map(LOGICAL_AXES.get, _names(task.logical_axes))):
            raise ValueError(
                f"devices: tensor: {spec.tensor} given; allowed: 1, since the task {task.name} has "
                "no axis of heads, widths or vocabulary to split"
            )
        data = spec.data if isinstance(spec.data, int) else None
        try:
            return training.make_mesh(data, spec.fsdp, spec.tensor)
        except ValueError as error:
            raise ValueError(f"devices: {str(error).removeprefix('mesh: ')}") from None

    def arguments(
        self, config: Config, mapped: Mapping[str, float], timelines: Sequence[Timeline]
    ) -> dict[str, Any]:
        """What decides the program of a point, as `replay_many` takes it."""
        return {
            "task": self.task(config),
            "make_rule": self.rule(config, mapped),
            "timeline": timelines,
            "seeds": config.run_seeds,
            "worker": self.worker(config),
            "receive": self.receive(config, mapped, timelines[0]),
            "batch_size": config.worker.arguments()["batch_size"],
            "partition": self.partition(config, timelines[0].num_workers),
            "precision": config.precision.policy,
            "loss_scale": self.loss_scale(config),
            "on_nonfinite": config.precision.on_nonfinite,
            "measures": config.measures,
            "mesh": self.mesh(config),
            "collective": config.devices.collective,
            "reduction": config.devices.reduction,
            "microbatches": config.devices.microbatches,
        }


def _names(logical_axes: Any) -> list[Any]:
    """All names in a tree of tuples of them."""
    return [name for name in jax.tree.leaves(logical_axes) if name is not None]


def _make_worker(spec: Mapping[str, Any]) -> workers.WorkerProgram:
    arguments = {key: value for key, value in spec.items() if key != "compress"}
    if "rule" in arguments:
        arguments["rule"] = rules.make_rule(**arguments["rule"])
    if spec["compress"] is not None:
        compress = dict(spec["compress"])
        arguments["error_feedback"] = compress.pop("error_feedback")
        rate = compress.pop("learning_rate")
        arguments["learning_rate"] = rules.make_schedule(rate) if isinstance(rate, dict) else rate
        arguments["compressor"] = workers.make_compressor(**compress)
    return workers.make_worker(**arguments)
