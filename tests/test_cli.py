"""The command line: exit codes, one line for every failure, and nothing heavy where not needed."""

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sgdlab.cli import main
from sgdlab.experiment import load_run
from sgdlab.experiment.config.experiment import load_experiment

ROOT = Path(__file__).parent.parent
CONFIG = {
    "name": "small",
    "task": {"name": "quadratic", "curvature": 1.0},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "cluster": {"workers": 2},
    "protocol": "asynchronous",
    "updates": 8,
    "seeds": 2,
}


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch, tmp_path):
    """The working folder and JAX's settings stay the tests' own."""
    monkeypatch.setattr("sgdlab.experiment.prepare_backend", lambda: None, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sgdlab(capsys):
    """Call the command line in this process: (exit code, output, error lines)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err.splitlines()

    return call


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "sgdlab", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "FILE", "rulez=1"], ["schema"]])
def test_help_and_config_errors_import_nothing_heavy(config, arguments):
    arguments = [str(config) if each == "FILE" else each for each in arguments]
    code = (
        "import sys\nfrom sgdlab.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    heavy = {'jax', 'optax', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "    print('code', end.code, sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout.splitlines()[-1]
        == f"code {2 if 'run' in arguments[:1] and len(arguments) > 2 else 0} []"
    )


def test_a_run_leaves_its_report_and_says_where(sgdlab, config):
    code, out, err = sgdlab("run", config, "seed=3")
    assert (code, err) == (0, [])
    assert out.startswith("small: 2 runs, 1 program\n")
    page = Path(out.splitlines()[-1])
    assert page.name == "report.html"
    assert page.exists()
    run = load_run(page.parent)
    assert run.config["seed"] == 3
    assert page.parent.parent == Path("runs/small")


def test_a_quiet_run_prints_the_path_alone(sgdlab, config):
    code, out, _ = sgdlab(
        "run", config, "--quiet", "--seed", 4, "--root", "elsewhere", "--id", "one"
    )
    assert (code, out) == (0, "elsewhere/small/one/report.html\n")
    assert load_run("elsewhere/small/one").config["seed"] == 4


def test_every_problem_of_a_config_is_a_line_and_nothing_is_written(sgdlab, config):
    config.write_text(
        "name: small\nrule: {lerning_rate: 1}\nseconds: fast\nprotocol: synchronous\n"
    )
    before = sorted(Path.cwd().iterdir())
    code, out, err = sgdlab("run", config, "seeds=x")
    assert (code, out) == (2, "")
    assert [line.split(": ", 2)[:2] for line in err] == [
        [str(config), "task"],
        [str(config), "rule.learning_rate"],
        [str(config), "rule.lerning_rate"],
        [str(config), "seconds"],
        ["override", "seeds"],
    ]
    assert "did you mean learning_rate?" in err[2]
    assert sorted(Path.cwd().iterdir()) == before


USAGE = [
    [],
    ["fly"],
    ["run"],
    ["run", "none.yaml"],
    ["run", "small.yaml", "--zzz"],
    ["run", "small.yaml", "--seed", "x"],
    ["run", "small.yaml", "seeds"],
    ["timeline", "small.yaml", "protocol=k_sync", "protocol.k=7"],
    ["list", "--sort", "zzz"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_is_one_line_and_exit_code_2(sgdlab, config, arguments):
    code, _, err = sgdlab(*arguments)
    assert code == 2
    assert len(err) == 1
    assert not Path("runs").exists()


def test_an_abort_is_exit_code_5_with_a_report(sgdlab, config):
    code, out, err = sgdlab("run", config, "rule.learning_rate=1e3", "updates=200")
    assert code == 5
    assert len(err) == 1
    assert "not finite" in err[0]
    assert Path(out.splitlines()[-1]).exists()


@pytest.mark.slow
def test_debug_nans_names_the_operation(config, tmp_path):
    # Momentum's sum of infinities of both signs: the loss, a square, overflows no sooner.
    wild = ["task={name: quadratic, curvature: [1.0]}", "rule.learning_rate=1e30", "updates=20"]
    process = start(
        "run", config, "-q", "--debug-nans", *wild, "evaluations=1", XDG_CACHE_HOME=str(tmp_path)
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 5
    (line,) = err.splitlines()
    assert re.search(r"nan generated by primitive: \w+ at .*\.py:\d+", line)


def test_a_root_that_cannot_be_written_is_exit_code_6(sgdlab, config):
    Path("file").write_text("")
    code, _, err = sgdlab("run", config, "--root", "file")
    assert code == 6
    assert len(err) == 1


def test_traceback_shows_where_a_failure_came_from(sgdlab, config):
    code, _, err = sgdlab("run", config, "seeds=x", "--traceback")
    assert code == 2
    assert err[0].startswith("Traceback")
    assert err[-1].startswith("override: seeds")


def test_a_dry_run_writes_nothing(sgdlab, config):
    code, out, _ = sgdlab("run", config, "--dry-run", "sweep={rule.learning_rate: [0.1, 0.2]}")
    assert code == 0
    assert "4 runs, 2 points, 1 program" in out
    assert "1: rule.learning_rate=0.2" in out
    assert not Path("runs").exists()


def test_a_timeline_is_drawn_and_measured_beside_theory(sgdlab, config):
    code, out, _ = sgdlab("timeline", config, "cluster.workers=4", "updates=200")
    assert code == 0
    header, row = out.splitlines()[:2]
    assert "predicted staleness" in header
    assert Path("small-timeline.svg").read_text().startswith("<svg")
    assert " 4 " in row
    code, out, _ = sgdlab(
        "timeline", config, "sweep={protocol: [synchronous, asynchronous]}", "-o", "t.png"
    )
    assert [Path(line).exists() for line in out.splitlines()[-2:]] == [True, True]
    assert sgdlab("timeline", config, "-o", "t.doc")[0] == 6


def test_a_calibration_prints_a_block_that_the_config_takes(sgdlab, config):
    code, out, err = sgdlab("calibrate", config, "worker.batch_size=4", "--repeats", 20)
    assert (code, err) == (0, [])
    cluster = load_experiment({**CONFIG, **yaml.safe_load(out)}).config["cluster"]
    assert cluster["compute"]["mean"] > 0
    assert sgdlab("calibrate", config, "--repeats", 1)[0] == 2


def test_runs_are_listed_and_reported_together(sgdlab, config):
    assert sgdlab("list")[:2] == (0, "nothing to list\n")
    for name in ("one", "two"):
        sgdlab("run", config, "-q", "--id", name, f"name={name}")
    _, out, _ = sgdlab("list")
    assert [line.split()[0] for line in out.splitlines()] == ["name", "two", "one"]
    _, out, _ = sgdlab("list", "on", "--status", "done", "--sort", "name")
    assert [line.split()[0] for line in out.splitlines()] == ["name", "one"]
    code, out, _ = sgdlab("report", "runs/one/one", "runs/two/two", "-o", "both.html")
    assert (code, out) == (0, "both.html\n")
    assert Path("both.html").stat().st_size > 1000
    code, _, err = sgdlab("report", "runs/none")
    assert code == 6
    assert len(err) == 1


def test_the_schema_is_json(sgdlab):
    code, out, _ = sgdlab("schema")
    assert code == 0
    assert {"task", "sweep"} <= set(json.loads(out)["properties"])


def test_a_held_folder_is_busy_and_a_second_signal_ends_the_holder_at_once(config, tmp_path):
    # One chunk of half a minute and more, which no Python handler could look into.
    network = ["task={name: digits, hidden: [4096]}", "worker.batch_size=256", "seeds=1"]
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    process = start("run", config, *network, "updates=2000", "evaluations=1", "--id=held", **cache)
    metrics = tmp_path / "runs" / "small" / "held" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    with pytest.raises(SystemExit) as caught:
        main(["run", str(config), "--id", "held"])
    assert caught.value.code == 4
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 1
    assert process.returncode == 143
    assert err.splitlines() == ["sgdlab: ended at once by a second signal, SIGTERM"]
    assert load_run(metrics.parent).summary["status"] == "interrupted"


@pytest.mark.filterwarnings("default::sgdlab.training.CheckpointWarning")
def test_a_run_goes_on_over_a_longer_horizon_even_after_a_full_disk(sgdlab, config):
    # Parameters of 1.2 MB: only a checkpoint meets the limit.
    small = ["seeds=1", "worker.batch_size=1", "protocol=synchronous"]
    small += ["task={name: digits, hidden: [4096]}"]
    assert sgdlab("run", config, "-q", "--id", "one", *small)[0] == 0
    resume = ["run", "-q", "--resume", "runs/small/one"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
        code, out, err = sgdlab(*resume, "updates=16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, out) == (6, "")
    assert len(err) == 1
    assert ".ckpt: cannot be written: File too large" in err[0]
    newest, *_ = sorted(Path("runs/small/one/checkpoints/0/0").iterdir(), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1])
    code, out, err = sgdlab(*resume)
    assert (code, out) == (0, "runs/small/one/report.html\n")
    assert len(err) == 1
    assert f"passed over {newest.name}" in err[0]
    assert load_run("runs/small/one").members[0].summary["updates"] == 16


def test_where_no_checkpoint_is_sound_a_run_ends_with_exit_code_6(sgdlab, config):
    assert sgdlab("run", config, "-q", "--id", "one", "protocol=synchronous", "seeds=1")[0] == 0
    for path in Path("runs/small/one/checkpoints/0/0").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    code, out, err = sgdlab("run", "-q", "--resume", "runs/small/one", "updates=16")
    assert (code, out, len(err)) == (6, "", 1)
    assert "no checkpoint is sound" in err[0]


RESUMES = {
    "another": (["rule.learning_rate=0.2"], 2, "rule.learning_rate: 0.1 in the run, 0.2 in this"),
    "shorter": (["updates=4"], 2, "updates: 8 in the run, 4 given"),
    "id": (["--id", "two"], 2, "--id"),
}


def test_what_would_be_another_run_is_refused(sgdlab, config):
    sgdlab("run", config, "--id", "one")
    for arguments, expected, text in RESUMES.values():
        code, _, err = sgdlab("run", "--resume", "runs/small/one", *arguments)
        assert code == expected
        assert len(err) == 1
        assert text in err[0]
    assert sgdlab("run", config, "-q", "--resume", "runs/small/one")[0] == 0
    code, _, err = sgdlab("run", "--resume", "runs/small/none")
    assert (code, len(err)) == (6, 1)


FILES = {
    "no trace": "cluster.compute={name: trace, path: none.csv}",
    "bad trace": "cluster.compute={name: trace, path: bad.csv}",
    "no timeline": "protocol={name: from_trace, path: none.npz}",
    "bad timeline": "protocol={name: from_trace, path: bad.csv}",
    "no images": "task={name: images, path: none.npz}",
}


@pytest.mark.parametrize("case", FILES)
def test_a_data_file_that_is_missing_or_damaged_is_exit_code_3(sgdlab, config, case):
    Path("bad.csv").write_text("1.0\nx\n")
    recorded = ["cluster=null", "updates=null"] if "timeline" in case else []
    for command in ("run", "timeline") if "images" not in case else ("run",):
        code, _, err = sgdlab(command, config, *recorded, FILES[case])
        assert code == 3
        assert len(err) == 1
        assert FILES[case].partition("path: ")[2][:-1] in err[0]
    assert not Path("runs").exists()
    code, _, err = sgdlab("run", config, *recorded, FILES[case], "seeds=0")
    assert code == 2


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_is_a_valid_config_that_says_what_it_is(path):
    experiment = load_experiment(path)
    head = path.read_text()
    assert experiment.name == path.stem
    for word in ("# Question:", "# Command:", "# Run time:", "# Expected:"):
        assert word in head
    assert not any(word in head for word in ("TIME", "RESULT"))


def test_a_terminal_that_is_no_utf_8_gets_what_it_can_show(config, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit) as caught:
        main(["run", str(config), "task.noise=0.1", "--id", "one"])
    assert caught.value.code == 0
    lines = shown.buffer.getvalue().decode("ascii").splitlines()
    assert lines[-1] == "runs/small/one/report.html"
    assert any(" ? " in line for line in lines)  # for the sign between a mean and its deviation


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_output_that_takes_nothing_is_a_line(capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            main(["schema"])
    assert caught.value.code == 6
    said = "sgdlab: the standard output cannot be written: No space left on device"
    assert capsys.readouterr().err.splitlines() == [said]


def test_an_escape_sequence_in_a_failure_is_shown_and_not_sent(sgdlab):
    code, _, err = sgdlab("run", "\x1b[31mred.yaml")
    assert code == 2
    assert err == ["\\x1b[31mred.yaml: cannot be read: No such file or directory"]
