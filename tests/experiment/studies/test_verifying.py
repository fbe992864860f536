"""`sgdlab verify`: exit codes, and runs that are found again, gone on with, or made anew."""

import json
import math
import os

import pytest
import yaml

from sgdlab.cli import main
from sgdlab.experiment import (
    BusyError,
    ConfigError,
    StoppedError,
    check_claims,
    create_folder,
    find_experiments,
    load_experiment,
    load_run,
    verify_experiment,
)
from sgdlab.experiment.studies.verifying import run_id

# With rate 0.5 the parameter is halved by each of two updates, with 3 it is doubled.
FINAL = {"name": "final", "metric": "distance"}
HALVES = {"claim": "Small steps halve.", "left": {**FINAL, "of": "small"}, "is": "<", "right": 0.3}
GROWS = {"claim": "Large ones halve.", "left": {**FINAL, "of": "large"}, "is": "<", "right": 0.3}
CONFIG = {
    "name": "steps",
    "task": {"name": "quadratic", "curvature": 1.0},
    "rule": {"name": "sgd", "learning_rate": 0.5},
    "cluster": {"workers": 1},
    "protocol": "synchronous",
    "updates": 2,
    "evaluate_every": 1,
    "sweep": [
        {"label": "small", "rule.learning_rate": 0.5},
        {"label": "large", "rule.learning_rate": 3.0},
    ],
    "claims": [HALVES],
}


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch, tmp_path):
    monkeypatch.setattr("sgdlab.experiment.prepare_backend", lambda: None, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def verify(capsys):
    """Call the command in this process: (exit code, output lines, error lines)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["verify", *map(str, arguments)])
        captured = capsys.readouterr()
        return caught.value.code, captured.out.splitlines(), captured.err.splitlines()

    return call


def write(path, **changes):
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return path


@pytest.mark.parametrize(
    ("claims", "code", "summary"),
    [
        ([HALVES], 0, "1 claim of 1 experiment: 1 HOLDS"),
        ([HALVES, GROWS], 1, "2 claims of 1 experiment: 1 HOLDS, 1 FAILS"),
        (
            [HALVES, {**GROWS, "refuted": "It doubles."}],
            0,
            "2 claims of 1 experiment: 1 HOLDS, 1 REFUTED",
        ),
        (
            [{**HALVES, "refuted": "No."}],
            1,
            "1 claim of 1 experiment: 1 HOLDS, recorded as refuted",
        ),
    ],
)
def test_the_exit_code_says_whether_it_came_out_as_the_file_says(
    verify, tmp_path, claims, code, summary
):
    found, output, errors = verify(write(tmp_path / "steps.yaml", claims=claims))
    assert (found, output[-1], errors) == (code, summary, [])


@pytest.mark.parametrize(
    ("record", "code", "verdict"),
    [({}, 1, "UNDECIDED"), ({"undecided": "Eight seeds."}, 0, "UNDECIDED, as recorded")],
)
def test_a_claim_that_nothing_decides_is_no_success_unless_its_file_says_so(
    verify, tmp_path, record, code, verdict
):
    # w₂ = ¼ − (ξ₁ + 2ξ₂)/4, ξ ~ N(0, 1/32): a mean of ¼, whose error over
    # eight seeds is √(5/16/32/8) = 0.035; a factor of 1.001 is 0.00025.
    claim = {"claim": "c", "left": {**FINAL, "of": "small"}, "is": "within", "factor": 1.001}
    claims = [{**claim, "right": 0.25, **record}]
    task = {"name": "quadratic", "curvature": 1.0, "noise": 1.0}
    path = write(tmp_path / "steps.yaml", claims=claims, task=task, seeds=8)
    found, output, _ = verify(path)
    assert (found, output[-1]) == (code, f"1 claim of 1 experiment: 1 {verdict}")


def test_a_seed_given_to_verify_makes_other_replicates(verify, tmp_path):
    task = {"name": "quadratic", "curvature": 1.0, "noise": 0.1}
    path = write(tmp_path / "steps.yaml", task=task)
    codes = {verify(path, f"seed={seed}")[0] for seed in (0, 7000)}
    runs = [load_run(each) for each in (tmp_path / "runs" / "steps").iterdir()]
    assert codes == {0}
    assert sorted(run.config["seed"] for run in runs) == [0, 7000]
    assert len({run.claims[0].left for run in runs}) == 2


def test_the_table_and_the_folder_hold_the_verdicts(verify, tmp_path):
    refuted = {**GROWS, "refuted": "It doubles."}
    _, output, _ = verify(write(tmp_path / "steps.yaml", claims=[HALVES, refuted]))
    (path,) = (tmp_path / "runs" / "steps").iterdir()
    assert output[0] == f"{tmp_path / 'steps.yaml'}: runs/steps/{path.name}"
    # 1 → 0.5 → 0.25, of 0.3; and 1 → 2 → 4
    halves, grows = (line.split() for line in output[2:4])
    assert halves[3:] == ["0.25", "<", "0.3", "ratio", "0.8333", "1", "HOLDS"]
    assert grows[3:] == ["4", "<", "0.3", "ratio", "13.33", "1", "REFUTED"]
    assert output[4] == "REFUTED: Large ones halve: It doubles."
    kept = json.loads((path / "claims.json").read_text())["claims"]
    assert [each["verdict"] for each in kept] == ["HOLDS", "REFUTED"]
    assert [each.verdict for each in load_run(path).claims] == ["HOLDS", "REFUTED"]
    table = check_claims(load_run(path))
    assert table["verdict"].tolist() == ["HOLDS", "REFUTED"]
    assert table["left"].tolist() == [0.25, 4.0]
    assert "It doubles." in (path / "report.html").read_text()


def test_a_run_prints_its_claims_too_and_fails_for_none(capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["run", str(write(tmp_path / "steps.yaml", claims=[GROWS]))])
    assert caught.value.code == 0
    assert "FAILS" in capsys.readouterr().out


def test_a_finished_run_is_found_again_and_judged_by_newer_claims(tmp_path):
    first = verify_experiment(CONFIG)
    again = verify_experiment({**CONFIG, "claims": [GROWS], "tags": ["new"]})
    assert (first.reused, again.reused) == (False, True)
    assert again.run.path == first.run.path
    assert (first.expected, again.expected) == (True, False)
    kept = load_run(first.run.path)
    assert [each.claim for each in kept.claims] == [GROWS["claim"]]
    assert load_experiment(kept.config).claims[0].claim == GROWS["claim"]
    changed = verify_experiment({**CONFIG, "updates": 3})
    assert not changed.reused
    assert changed.run.path != first.run.path


def test_an_interrupted_run_is_gone_on_with(tmp_path):
    asked = iter([False, False, True])  # before each program, and within the first
    with pytest.raises(StoppedError) as caught:
        verify_experiment(CONFIG, interrupt=lambda: next(asked, True))
    assert load_run(caught.value.path).summary["status"] == "interrupted"
    made = verify_experiment(CONFIG)
    assert made.run.path == caught.value.path
    assert [each.verdict for each in made.run.claims] == ["HOLDS"]
    whole = verify_experiment(CONFIG, root="others")
    metrics = [run.path / "members/0/metrics.jsonl" for run in (made.run, whole.run)]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()


def test_a_folder_that_was_ended_before_anything_stood_in_it_is_no_hindrance(tmp_path):
    create_folder("runs", "steps", run_id(load_experiment(CONFIG))).close()
    assert verify_experiment(CONFIG).expected


def test_a_folder_that_another_process_holds_is_left_alone(tmp_path):
    with (
        create_folder("runs", "steps", run_id(load_experiment(CONFIG))),
        pytest.raises(BusyError),
    ):
        verify_experiment(CONFIG)


def test_that_everything_diverges_may_be_the_claim(tmp_path):
    diverges = {"name": "diverges", "over": "mean"}
    config = {
        **CONFIG,
        "updates": 200,
        "sweep": {"rule.learning_rate": [4.0, 5.0]},
        "claims": [{"claim": "All diverge.", "left": diverges, "is": ">=", "right": 1}],
    }
    made = verify_experiment(config)
    assert made.run.summary["status"] == "aborted"
    assert made.run.claims[0].verdict == "HOLDS"
    assert verify_experiment(config).reused


def test_folders_are_walked_for_experiments_with_claims_and_the_tag(verify, tmp_path):
    write(tmp_path / "all" / "b.yaml", name="b", tags=["fast"])
    write(tmp_path / "all" / "a.yaml", name="a", tags=["fast", "other"])
    write(tmp_path / "all" / "slow.yaml", name="slow")
    write(tmp_path / "all" / "none.yaml", name="none", claims=[], tags=["fast"])
    code, output, _ = verify(tmp_path / "all", "-m", "fast", "updates=3")
    assert code == 0
    assert output[-1] == "2 claims of 2 experiments: 2 HOLDS"
    assert sorted(os.listdir("runs")) == ["a", "b"]
    # Runs within a folder are no experiments of it.
    names = [each.name for each in find_experiments([tmp_path])]
    assert names == ["a", "b", "slow"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none.yaml"], "none.yaml: claims: none, or none of this sweep; allowed: one at least"),
        (["folder", "-m", "fast"], "no experiment with claims and the tag 'fast'; allowed: one"),
        (["missing.yaml"], "missing.yaml: cannot be read"),
        (["steps.yaml", "claims.0.is=is"], "override: claims.0.is: 'is' given; allowed: '<'"),
        (["steps.yaml", "rulez=1"], "override: rulez: unknown key"),
        ([], "sgdlab: Missing argument"),
    ],
)
def test_what_cannot_be_verified_is_exit_code_2(verify, tmp_path, arguments, line):
    write(tmp_path / "none.yaml", claims=[])
    write(tmp_path / "folder" / "steps.yaml")
    write(tmp_path / "steps.yaml")
    code, output, errors = verify(*arguments)
    assert (code, output) == (2, [])
    assert len(errors) == 1
    assert errors[0].startswith(line)
    assert not (tmp_path / "runs").exists()


def test_a_run_that_ends_badly_is_a_line_and_the_others_go_on(verify, tmp_path):
    lost = {"name": "from_trace", "path": "lost.csv"}
    claims = [{**HALVES, "left": {**FINAL, "over": "mean"}}]
    bad = {key: value for key, value in CONFIG.items() if key not in ("cluster", "updates")}
    bad = {**bad, "name": "bad", "protocol": lost, "claims": claims}
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "bad.yaml").write_text(yaml.safe_dump(bad))
    write(tmp_path / "all" / "good.yaml")
    code, output, errors = verify(tmp_path / "all")
    assert code == 3
    assert len(errors) == 1
    assert "lost.csv" in errors[0]
    assert output[-1] == "1 claim of 2 experiments: 1 HOLDS, 1 not run to the end"
    # A claim that fails matters more than a run that doesn't end.
    write(tmp_path / "all" / "good.yaml", claims=[GROWS])
    assert verify(tmp_path / "all")[0] == 1


def test_no_claims_are_no_verification():
    with pytest.raises(
        ConfigError, match="claims: none, or none of this sweep; allowed: one at least"
    ):
        verify_experiment({**CONFIG, "claims": []})


def test_a_damaged_file_of_claims_is_said(tmp_path):
    made = verify_experiment(CONFIG)
    (made.run.path / "claims.json").write_text('{"claims": [{"claim": 3, "left": []}]}')
    from sgdlab.experiment import OutputError

    with pytest.raises(OutputError, match=r"claims\.json: damaged: no judgement"):
        load_run(made.run.path)


def test_infinity_is_kept(tmp_path):
    never = {"name": "time_to", "metric": "distance", "at_most": 0.1, "of": "large"}
    made = verify_experiment({**CONFIG, "claims": [{**HALVES, "left": never, "is": ">"}]})
    assert load_run(made.run.path).claims[0].left == math.inf
