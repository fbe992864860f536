"""The child's side of an isolated point: `python -m sgdlab.experiment.running.isolated`.

Arguments: the run's folder, the point's index, the descriptor of the folder's lock, and the bytes
of address space that may be taken (0: no limit). See `sgdlab.experiment.running.isolating`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(path: Path, index: int, lock: int, memory: int) -> None:
    """Make one point; what there is to say goes to the standard output, a line of JSON each."""
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    asked = threading.Event()
    threading.Thread(target=_obey, args=(asked,), daemon=True).start()
    tell = _take_output()
    warnings.showwarning = _telling(tell)
    _make(path, index, lock, tell, asked.is_set)


def _make(path: Path, index: int, lock: int, tell: Callable, asked: Callable[[], bool]) -> None:
    from sgdlab import training
    from sgdlab.experiment.config.experiment import load_experiment
    from sgdlab.experiment.errors import OutputError
    from sgdlab.experiment.folders.folder import RunFolder, find_config
    from sgdlab.experiment.running.backend import prepare_backend
    from sgdlab.experiment.running.making import Making, Progress, make_batch, open_point
    from sgdlab.experiment.running.preparing import prepare
    from sgdlab.experiment.running.record import describe
    from sgdlab.experiment.running.workshop import Workshop

    def report(progress: Progress) -> None:
        tell({"updates": progress.updates, "loss": progress.loss, "time": progress.time})

    prepare_backend()
    folder, workshop = RunFolder(path, lock), Workshop()
    experiment = load_experiment(find_config(path))
    (work,) = works = prepare(experiment, workshop, [experiment.points[index]])
    making = Making(folder, experiment, works, workshop, report, asked, resume=True)
    tell({"ready": index})
    try:
        with open_point(folder, work):
            axes = {key: [value] for key, value in work.point.mapped.items()}
            make_batch(making, works, axes, name=f"{index}-alone")
        tell({"entry": describe(work)})
    except training.RunInterrupted:
        tell({"stopped": index})
    except (training.CheckpointError, OutputError) as error:
        tell({"error": " ".join(str(error).split()), "kind": type(error).__name__})


def _take_output() -> Callable[[dict[str, Any]], None]:
    """A way to say something that nothing else in this process can write into."""
    own = os.dup(1)
    os.dup2(2, 1)
    saying = threading.Lock()

    def tell(said: dict[str, Any]) -> None:
        line = json.dumps(said).encode() + b"\n"
        with saying:
            while line:
                line = line[os.write(own, line) :]

    return tell


def _obey(asked: threading.Event) -> None:
    """A line from the parent asks for the end; its silence means that it is gone."""
    while os.read(0, 64):
        asked.set()
    os._exit(1)


def _telling(tell: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """What a checkpoint warns of is the parent's to say."""
    otherwise = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__name__ == "CheckpointWarning":
            tell({"warning": str(message)})
        else:
            otherwise(message, category, *where, **more)

    return show


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
