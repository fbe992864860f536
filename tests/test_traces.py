"""What a run does to the machine: it writes where it says, and listens to nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CONFIG = {
    "name": "traced",
    "task": {"name": "digits", "hidden": [8]},
    "rule": {"name": "momentum", "learning_rate": 0.1},
    "cluster": {"workers": 2},
    "protocol": "asynchronous",
    "updates": 8,
    "seeds": 2,
    "sweep": {"rule.learning_rate": [0.1, 0.2]},
}
PROGRAM = r"""
import json, os, sys

written, bound = set(), []
ENDS = {"os.rename": 1, "os.link": 1, "os.symlink": 1}
MADE = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "shutil.copyfile", *ENDS}


def hear(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writes and not isinstance(path, int):
            written.add(os.path.abspath(os.fsdecode(path)))
    elif event in MADE and not isinstance(arguments[ENDS.get(event, 0)], int):
        written.add(os.path.abspath(os.fsdecode(arguments[ENDS.get(event, 0)])))
    elif event in ("socket.bind", "socket.connect"):
        bound.append(repr(arguments[1]))


sys.addaudithook(hear)


def listening():
    # Sockets of this process in the state LISTEN (0A).
    own = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
           if os.path.exists(f"/proc/self/fd/{fd}")}
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(table).read().splitlines()[1:]:
            words = line.split()
            found += [line] if words[3] == "0A" and f"socket:[{words[9]}]" in own else []
    return found


import sgdlab.experiment.terminal.display as display
true, seen = display.Bar.update, []


def update(self, progress):
    seen.append(listening())
    true(self, progress)


display.Bar.update = update
from sgdlab.cli import main
try:
    main(["run", *sys.argv[1:]])
except SystemExit as end:
    print(json.dumps([end.code, sorted(written), bound, seen]))
"""


@pytest.mark.parametrize("options", [[], ["--isolate"]], ids=["together", "isolated"])
def test_a_run_writes_into_its_folder_and_the_cache_and_listens_to_nobody(tmp_path, options):
    home, cache, work = (tmp_path / name for name in ("home", "cache", "work"))
    for folder in (home, cache, work):
        folder.mkdir()
    (work / "traced.yaml").write_text(yaml.safe_dump(CONFIG))
    environ = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "traced.yaml", "--id", "one", *options],
        cwd=work,
        env={
            **environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(home),
            "TMPDIR": str(home),
            "XDG_CACHE_HOME": str(cache),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code, written, bound, seen = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert bound == []
    assert seen
    assert not any(seen)
    run = work / "runs" / "traced" / "one"
    parents = {str(parent) for parent in (run.parent, run.parent.parent)}
    allowed = (f"{run}", f"{cache}{os.sep}", "/dev/null", "/dev/tty")
    # Matplotlib makes its configuration's folder where a user has none, and leaves it empty.
    parents |= {str(home / ".config"), str(home / ".config" / "matplotlib")}
    assert {path for path in written if not path.startswith(allowed)} - parents == set()
    assert any(path.startswith(f"{run}{os.sep}") for path in written)
    # Nor did anything that is no Python, or another process, leave a file elsewhere.
    assert sorted(os.listdir(work)) == ["runs", "traced.yaml"]
    assert os.listdir(work / "runs") == ["traced"]
    assert os.listdir(work / "runs" / "traced") == ["one"]
    assert [path for path in home.rglob("*") if path.is_file()] == []
