"""The documentation is true: its code runs, its experiments are valid, its links lead somewhere.

A block of code may say more behind its language: `needs=datasets` runs it only where that package
is installed, `devices=8` runs its page in a process with so many virtual devices, and `file=path`
says which file it is (Python, YAML) or changes (diff).
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    language: str
    options: dict[str, str]
    text: str
    line: int


def blocks(page, language):
    """The blocks of that language in a page, in order."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        if match[1] == language:
            options = dict(word.split("=", 1) for word in match[2].split())
            yield Block(match[1], options, match[3], text[: match.start()].count("\n") + 1)


def pages_with(language):
    return pytest.mark.parametrize(
        "page", [p for p in PAGES if list(blocks(p, language))], ids=lambda page: page.name
    )


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder beside the experiments, and JAX and matplotlib as a reader has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    names = ("jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
    strict = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield tmp_path
    for name, value in strict.items():
        jax.config.update(name, value)


@pytest.mark.slow
@pages_with("python")
@pytest.mark.usefixtures("workplace")
def test_the_python_of_a_page_runs_in_order(page, monkeypatch):
    devices = [block.options.get("devices") for block in blocks(page, "python")]
    if any(devices):
        run_on_devices(page, next(filter(None, devices)))
        return
    session = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", session)  # where dataclasses look for their names
    for block in blocks(page, "python"):
        needed = block.options.get("needs")
        if needed is None or importlib.util.find_spec(needed):
            # the empty lines make a traceback name the line of the page
            code = compile("\n" * block.line + block.text, str(page), "exec")
            exec(code, vars(session))


def run_on_devices(page, count):
    """The blocks as one script, each at its own lines, in a process of its own."""
    script = ""
    for block in blocks(page, "python"):
        script += "\n" * (block.line - script.count("\n")) + block.text
    Path("page.py").write_text(script)
    # fewer threads than twice the devices deadlock in collectives
    flags = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "NPROC": str(2 * int(count)),
    }
    run(Path.cwd(), "-W", "error", "page.py", PYTHONPATH=str(ROOT), **flags)


@pages_with("yaml")
def test_the_experiments_of_a_page_are_valid(page, tmp_path):
    from sgdlab.experiment import load_experiment

    for block in blocks(page, "yaml"):
        keys = yaml.safe_load(block.text)
        if "file" not in block.options and {"task", "protocol"} <= set(keys):
            file = tmp_path / f"line-{block.line}.yaml"
            file.write_text(block.text)
            assert load_experiment(file).points


def anchors(page):
    """The names that links may give to the headings of a page, as GitHub makes them."""
    prose = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ +(.*?) *$", prose, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_of_a_page_leads_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def patch(text, change):
    """A unified diff without line numbers: its old lines stand in the text once."""
    lines = change.splitlines()
    old = "\n".join(line[1:] for line in lines if line[:1] != "+")
    new = "\n".join(line[1:] for line in lines if line[:1] != "-")
    assert text.count(old) == 1, old
    return text.replace(old, new)


def run(folder, *command, **variables):
    environment = os.environ | {"PYTHONPATH": str(folder)} | variables
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_stranger_who_follows_the_tutorial_has_a_protocol(tmp_path):
    tutorial, places = ROOT / "docs" / "tutorial.md", ("sgdlab", "tests/timelines", "docs")
    for place in places:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / place, tmp_path / place, ignore=ignored)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    for language in ("python", "yaml"):
        for block in blocks(tutorial, language):
            if "file" in block.options:
                (tmp_path / block.options["file"]).write_text(block.text)
    for block in blocks(tutorial, "diff"):
        file = tmp_path / block.options["file"]
        file.write_text(patch(file.read_text(), block.text))

    assert "quorum" in run(tmp_path, "-m", "sgdlab", "schema")
    picture = run(tmp_path, "-m", "sgdlab", "timeline", "quorum.yaml").split()[-1]
    assert "quorum" in (tmp_path / picture).read_text()
    contract = "tests/timelines/test_contract.py"
    report = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", contract, "-k", "quorum")
    assert re.search(r"[1-9]\d* passed", report)
    run(tmp_path, "docs/protocols.py")
    assert '<b id="quorum">' in (tmp_path / "docs" / "protocols.md").read_text()
    assert (tmp_path / "docs" / "images" / "protocols" / "quorum.svg").is_file()
