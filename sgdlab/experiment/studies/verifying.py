"""Verifying: an experiment is run, or its finished run found again, and its claims are judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sgdlab.experiment.config.experiment import Experiment, load_experiment
from sgdlab.experiment.errors import AbortError, ConfigError, OutputError
from sgdlab.experiment.folders.folder import open_folder
from sgdlab.experiment.folders.loading import load_run
from sgdlab.experiment.folders.run import Run
from sgdlab.experiment.folders.summary import FINISHED

if TYPE_CHECKING:
    from sgdlab.experiment.running.runner import Progress


class Verification(NamedTuple):
    """An experiment's claims, judged.

    Attributes:
      run: its run; the judgements are `run.claims`.
      reused: whether the run had been made before.
    """

    run: Run
    reused: bool

    @property
    def expected(self) -> bool:
        """Whether every claim came out as the file says."""
        return all(each.expected for each in self.run.claims)


def verify_experiment(
    config: str | Path | Mapping[str, Any] | Experiment,
    *,
    root: str | Path = "runs",
    overrides: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
    interrupt: Callable[[], bool] = lambda: False,
) -> Verification:
    """Run an experiment and judge its claims.

    The run's id comes from what decides its numbers, so that a finished run is found again, and an
    interrupted one gone on with; a config that says something else has another run. Claims and tags
    decide no number: they are judged anew each time.

    Args:
      config: a YAML file, the data of one, or a checked experiment.
      root: where runs lie.
      overrides: `key.path=value`, where the config is not checked yet.
      progress: as for `run_experiment`.
      interrupt: as for `run_experiment`.

    Returns:
      The `Verification`.

    Raises:
      ConfigError: there are no claims, or the config cannot be run.
      ExperimentError: as for `run_experiment`, but for `AbortError`: that everything diverged may
        be what was claimed.
    """
    from sgdlab.experiment.folders.settling import settle
    from sgdlab.experiment.running.runner import resume_run, run_experiment

    experiment = config if isinstance(config, Experiment) else load_experiment(config, overrides)
    if not experiment.claims:
        raise ConfigError([_no_claims(experiment.source)])
    path = Path(root) / experiment.name / run_id(experiment)
    begun = (path / "config.yaml").exists()
    if begun and _is_finished(path):
        with open_folder(path) as folder:
            return Verification(settle(folder, experiment), True)
    try:
        if begun:
            run = resume_run(path, experiment, progress=progress, interrupt=interrupt)
        else:
            _clear(path)
            run = run_experiment(
                experiment, root=root, run_id=path.name, progress=progress, interrupt=interrupt
            )
    except AbortError as error:
        if error.run is None:
            raise
        run = error.run
    return Verification(run, False)


def _is_finished(path: Path) -> bool:
    """Whether a run needs not be made again; one that is damaged is, from its checkpoints."""
    try:
        return load_run(path).summary["status"] in FINISHED
    except OutputError:
        return False


def run_id(experiment: Experiment) -> str:
    """The id of an experiment's verified run: a hash of all points and of what computes them."""
    versions = {name: metadata.version(name) for name in ("sgdlab", "jax", "jaxlib", "optax")}
    points = [[point.label, point.plain] for point in experiment.points]
    text = json.dumps([versions, points], sort_keys=True, default=str)
    return f"verify-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def find_experiments(
    paths: Sequence[Path], overrides: Sequence[str] = (), tag: str | None = None
) -> list[Experiment]:
    """The experiments with claims among files, and in folders whatever their depth.

    Args:
      paths: files, which must have claims, and folders, where files without are passed over.
      overrides: `key.path=value`, put over each.
      tag: only those that have it.

    Returns:
      The experiments, in order of their paths, each once.

    Raises:
      ConfigError: with every problem of every file; or there is no such experiment.
    """
    problems: list[str] = []
    found: list[Experiment] = []
    for path, asked in dict(_files(paths)).items():
        try:
            experiment = load_experiment(path, overrides)
        except ConfigError as error:
            problems += error.problems
            continue
        if tag is not None and tag not in experiment.tags:
            continue
        if experiment.claims:
            found.append(experiment)
        elif asked:
            problems.append(_no_claims(str(path)))
    if problems or not found:
        which = "with claims" if tag is None else f"with claims and the tag {tag!r}"
        raise ConfigError(problems or [f"no experiment {which}; allowed: one at least"])
    return found


def _no_claims(source: str) -> str:
    return f"{source}: claims: none, or none of this sweep; allowed: one at least"


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Every file, and whether it was asked for by name."""
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*.yaml") if each.is_file())
            runs = {each.parent for each in path.rglob("summary.json")}
            yield from ((each, False) for each in inside if each.parent not in runs)
        else:
            yield path, True


def _clear(path: Path) -> None:
    """Take away a folder that was ended before anything stood in it."""
    if path.is_dir() and not path.is_symlink():
        with open_folder(path) as folder:
            if {each.name for each in path.iterdir()} <= {"lock"}:
                (folder.path / "lock").unlink()
                path.rmdir()
