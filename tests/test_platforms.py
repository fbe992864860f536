"""What a platform lacks is done without: a run where Linux's own calls are taken away."""

import json
import os
import subprocess
import sys

import pytest

CONFIG = """
name: s
task: {name: quadratic, curvature: [1.0, 0.1], noise: 0.1}
rule: {name: sgd, learning_rate: 0.05}
protocol: synchronous
cluster: {workers: 2}
updates: 20
evaluations: 2
seeds: 2
"""
# What macOS lacks, and what Windows lacks besides.
MACOS = """
import os
for name in ("sched_getaffinity", "sched_setaffinity", "process_cpu_count"):
    if hasattr(os, name):
        delattr(os, name)
"""
WINDOWS = f"""{MACOS}
import asyncio  # whose form for Unix needs what is taken away here
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "sysconf", "mkfifo"):
    delattr(os, name)
"""
COMMANDS = """
from sgdlab.cli import main
for command in (["run", "c.yaml", "--id", "a", "-q"], ["list"], ["report", "runs/s/a"],
                ["run", "--resume", "runs/s/a", "updates=40", "-q"], ["timeline", "c.yaml"]):
    try:
        main(command)
    except SystemExit as ended:
        assert ended.code == 0, (command, ended.code)
"""


@pytest.mark.parametrize("lacking", [MACOS, WINDOWS], ids=["macos", "windows"])
def test_everything_but_isolation_works_without_what_linux_has(lacking, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", lacking + COMMANDS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "s" / "a" / "summary.json").read_text())
    assert (summary["status"], summary["members"][0]["updates"]) == ("done", [40, 40])
