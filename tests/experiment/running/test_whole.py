"""A file that cannot be written ends the run with its name and what is whole; then it goes on."""

import errno
import os

import pytest

from sgdlab.cli import main
from sgdlab.experiment import OutputError, load_run, resume_run, run_experiment
from sgdlab.experiment.folders import folder as folders
from sgdlab.report import build_report
from sgdlab.training import CheckpointError
from sgdlab.training.checkpoints import files

CONFIG = {
    "name": "full",
    "task": {"name": "quadratic", "curvature": [1.0, 0.1], "noise": 0.1},
    "rule": {"name": "momentum", "learning_rate": 0.05},
    "cluster": {"workers": 2},
    "protocol": "asynchronous",
    "updates": 12,
    "evaluate_every": 4,
    "checkpoint_every": 1,
}
REASONS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


def refuse(monkeypatch, room, name, reason, is_refused=lambda path: True):
    """Let a function that writes a file fail as the system does, for the files of a kind."""
    write = getattr(room, name)

    def fail(path, content):
        if is_refused(path):
            raise OSError(reason, os.strerror(reason))
        return write(path, content)

    monkeypatch.setattr(room, name, fail)


@pytest.mark.parametrize("reason", REASONS)
def test_a_checkpoint_that_cannot_be_written_says_what_is_whole(tmp_path, monkeypatch, reason):
    whole = run_experiment(CONFIG, root=tmp_path, run_id="whole")
    left = [2]

    def is_refused(_):
        left[0] -= 1
        return left[0] < 0

    with monkeypatch.context() as patch:
        refuse(patch, files, "write_file", reason, is_refused)
        with pytest.raises(CheckpointError, match=os.strerror(reason)) as caught:
            run_experiment(CONFIG, root=tmp_path, run_id="cut")
    path = tmp_path / "full" / "cut"
    how = f"once the cause is gone, go on with: sgdlab run --resume {path}"
    assert caught.value.__notes__ == [f"whole: checkpoints of update 8; {how}"]
    cut = load_run(path)
    assert cut.summary["status"] == "interrupted"
    assert "checkpoint-000000000012.ckpt: cannot be written" in cut.summary["error"]
    assert cut.summary["error"] in build_report([cut])
    resume_run(path)
    assert "error" not in load_run(path).summary
    for name in ("metrics.jsonl", "history.npz"):
        assert (path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_run_folder_without_its_config_holds_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "fsync", lambda _: refuse_all())
        with pytest.raises(OutputError, match=r"config\.yaml: cannot be written") as caught:
            run_experiment(CONFIG, root=tmp_path, run_id="none")
    assert caught.value.__notes__ == ["nothing of the run is there"]


def refuse_all():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_report_that_cannot_be_written_leaves_the_run_whole(tmp_path, monkeypatch, capsys):
    from sgdlab.experiment.reading.parsing import dump
    from sgdlab.report import document

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sgdlab.experiment.prepare_backend", lambda: None, raising=False)
    (tmp_path / "c.yaml").write_text(dump(CONFIG))
    write = document.write_file

    def fail(path, content):
        with monkeypatch.context() as patch:
            patch.setattr(folders.os, "fsync", lambda _: refuse_all())
            return write(path, content)

    monkeypatch.setattr(document, "write_file", fail)
    with pytest.raises(SystemExit) as caught:
        main(["run", "c.yaml", "--id", "one", "-q"])
    assert caught.value.code == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "runs/full/one/report.html: cannot be written: No space left on device; whole: the run; "
        "once the cause is gone, write its report with: sgdlab report runs/full/one"
    )
    assert load_run("runs/full/one").summary["status"] == "done"


def test_what_a_kill_leaves_half_written_is_cleared_by_a_resume(tmp_path):
    path = run_experiment(CONFIG, root=tmp_path, run_id="one").path
    saved = path / "checkpoints" / "0" / "0"
    left = [path / f".{name}.0123abcd.tmp" for name in ("summary.json", "timeline.npz")]
    left += [path / ".report.html.0123abcd.tmp", saved / "checkpoint.tmp"]
    mine = path / ".notes.0123abcd.tmp"
    for each in [*left, mine]:
        each.write_text("half")
    (saved / "checkpoint.old").mkdir()
    resume_run(path)
    assert not any(each.exists() for each in [*left, saved / "checkpoint.old"])
    assert mine.exists()
