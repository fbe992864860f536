"""Objects show themselves in a notebook: well-formed, true, and nothing injected."""

from html.parser import HTMLParser

import pytest

from sgdlab import rules, tasks, timelines, training
from sgdlab.experiment import Judgement, load_experiment, load_run, run_experiment
from sgdlab.experiment.config.notebook import MAX_ROWS, show_claims

NASTY = "<script>alert(1)</script>\"'&</td></pre> \u2028 <img src=x onerror=alert(1)>"
CONFIG = {
    "name": "shown",
    "description": NASTY,
    "task": {"name": "quadratic", "curvature": [1.0, 0.1]},
    "rule": {"name": "sgd", "learning_rate": 0.1},
    "protocol": "asynchronous",
    "updates": 4,
    "sweep": [
        {"label": f"{NASTY}0", "rule.learning_rate": 0.1},
        {"label": "plain", "rule.learning_rate": 0.2},
    ],
    "claims": [
        {
            "claim": NASTY,
            "left": {"name": "final", "metric": "loss", "of": "plain"},
            "is": "<",
            "right": 9,
            "refuted": NASTY,
        }
    ],
}
CONFIG["sweep"][0]["label"] = NASTY[:80]
ALLOWED = {"p", "b", "table", "thead", "tbody", "tr", "th", "td", "pre", "details", "summary"}
ALLOWED |= {"ul", "li", "div", "style"}


class Fragment(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], set(), []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert not any(name.startswith("on") or name == "src" for name, _ in attributes)
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    experiment = load_experiment(CONFIG)
    run = run_experiment(experiment, root=tmp_path_factory.mktemp("runs"))
    timeline = timelines.fixed_delay(1, updates=4)
    task = tasks.quadratic(curvature=1.0)
    history = training.replay(task, rules.sgd(0.1), timeline, evaluate_every=2)
    many = training.replay_many(
        task, rules.sgd, timeline, seeds=[0], hyperparameters={"learning_rate": [0.1]}
    )
    return {
        "experiment": experiment,
        "config": experiment.points[0].config,
        "run": load_run(run.path),
        "timeline": timeline,
        "history": history,
        "histories": many,
    }


@pytest.mark.parametrize(
    "name", ["experiment", "config", "run", "timeline", "history", "histories"]
)
def test_it_shows_itself_and_injects_nothing(things, name):
    shown = Fragment(things[name]._repr_html_())
    assert shown.tags <= ALLOWED
    if name in ("experiment", "run"):
        assert NASTY.split("\u2028")[0].strip() in " ".join(shown.text)


def test_an_experiment_says_how_much_it_is_and_what_it_claims(things):
    shown = "".join(Fragment(things["experiment"]._repr_html_()).text)
    assert "shown: 2 runs, 2 points, 1 program" in shown
    assert "rule.learning_rate" in shown
    assert shown.count(NASTY) == 3  # the question, a label, the claim; YAML writes it otherwise


def test_a_run_shows_its_claims(things):
    shown = Fragment(things["run"]._repr_html_())
    assert "HOLDS, recorded as refuted" in shown.text
    assert NASTY in shown.text
    assert show_claims([]) == ""


def test_a_large_sweep_is_cut_short():
    rates = [0.001 * (index + 1) for index in range(MAX_ROWS + 5)]
    config = {**CONFIG, "claims": [], "sweep": {"rule.learning_rate": rates}}
    shown = "".join(Fragment(load_experiment(config)._repr_html_()).text)
    assert "and 5 more" in shown


def test_no_claim_was_measured():
    shown = Fragment(show_claims([Judgement("c", "<", note="why")]))
    assert "not measured" in shown.text
