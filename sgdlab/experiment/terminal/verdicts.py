"""Verdicts on the terminal: a table for each experiment as it comes, and a line for all of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sgdlab.experiment.claims.judging import Judgement
from sgdlab.experiment.claims.showing import row, show_verdict
from sgdlab.experiment.claims.vocabulary import VERDICTS
from sgdlab.experiment.config.experiment import Experiment
from sgdlab.experiment.errors import StoppedError, in_one_line
from sgdlab.experiment.folders.edges import describe_edges
from sgdlab.experiment.folders.run import Run
from sgdlab.experiment.studies.verifying import Verification, verify_experiment
from sgdlab.experiment.terminal.display import Bar, print_table

FAILED = 1  # the exit code where a claim came out otherwise than its file says


def verify_all(
    experiments: Sequence[Experiment],
    root: str | Path,
    *,
    interrupt: Callable[[], bool],
    finish: Callable[[Run], object],
    explain: Callable[[Exception], tuple[int, list[str]]],
) -> int:
    """Verify experiments one after the other, under one progress display.

    Args:
      experiments: with claims.
      root: where runs lie.
      interrupt: as for `run_experiment`.
      finish: called with each run whose claims are judged.
      explain: the exit code of a failure and the lines that tell of it.

    Returns:
      The exit code: 0; 1 if a claim came out otherwise than its file says; else that of the first
      run that ended badly.

    Raises:
      StoppedError: `interrupt` asked for it; the next time goes on from there.
    """
    judged: list[Judgement] = []
    failures: list[int] = []
    with Bar(False, len(experiments)) as bar:
        for number, experiment in enumerate(experiments):
            bar.begin(experiment.name, number)
            try:
                made = verify_experiment(
                    experiment, root=root, progress=bar.update, interrupt=interrupt
                )
                finish(made.run)
            except StoppedError:
                raise
            except Exception as error:
                code, lines = explain(error)
                failures.append(code)
                with bar.hidden():
                    for line in lines:
                        print(in_one_line(line), file=sys.stderr)
                continue
            judged += made.run.claims
            with bar.hidden():
                _print(experiment, made)
    print(summarise(judged, len(experiments), len(failures)))
    if not all(each.expected for each in judged):
        return FAILED
    return failures[0] if failures else 0


def _print(experiment: Experiment, made: Verification) -> None:
    before = ", made before" if made.reused else ""
    print(in_one_line(f"{experiment.source}: {made.run.path}{before}"))
    print_claims(made.run.claims)
    for line in describe_edges(made.run.members):
        print(line)
    print(flush=True)


def print_claims(judged: Sequence[Judgement]) -> None:
    """A table of claims, and a line for each that has something to add; nothing for none."""
    if not judged:
        return
    print_table([row(each) for each in judged])
    for each in judged:
        if each.note:
            print(in_one_line(f"{show_verdict(each)}: {each.claim.rstrip('.')}: {each.note}"))


def summarise(judged: Sequence[Judgement], experiments: int, failures: int) -> str:
    """`12 claims of 4 experiments: 10 HOLDS, 2 REFUTED`."""
    counts = Counter(map(show_verdict, judged))
    order = {name: index for index, name in enumerate(VERDICTS)}
    names = sorted(counts, key=lambda name: order.get(name, len(order)))
    parts = [f"{counts[name]} {name}" for name in names]
    if failures:
        parts.append(f"{failures} not run to the end")
    total = f"{len(judged)} claim{'' if len(judged) == 1 else 's'}"
    whole = f"{experiments} experiment{'' if experiments == 1 else 's'}"
    return f"{total} of {whole}: {', '.join(parts) or 'nothing judged'}"
