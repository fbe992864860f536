"""The page: well-formed, closed to the world, and true to the numbers."""

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from sgdlab.experiment import Judgement
from sgdlab.report import build_report, document, write_report
from sgdlab.report.entries import compare
from sgdlab.report.ranking import race
from tests.report import fakes

SMALL = {"seeds": 1, "draws": 1, "workers": 4, "seconds": 20.0}
VOID = {"meta", "link", "br"}
NASTY = "<script>alert(1)</script>\"'&</style></script><!-- \u2028\u202e\x00 ]]> $x_1$ <img src=x>"


class Page(HTMLParser):
    """Elements, texts and addresses of a page; an element that is closed wrongly is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts, self.errors = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(tag)

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def inside(self, tag):
        return [data for name, data in self.texts if name == tag]


def rows(text, caption):
    """The rows of the table with this caption, cells as text, the heading first."""
    part = text[text.index(caption) :]
    part = part[: part.index("</table>")]
    found = re.findall(r"<tr>(.*?)</tr>", part)
    strip = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in strip]


def data_of(page):
    return json.loads(
        next(d for (t, a), d in zip_scripts(page) if a.get("type") == "application/json")
    )


def zip_scripts(page):
    scripts = [(tag, attributes) for tag, attributes in page.elements if tag == "script"]
    return list(zip(scripts, page.inside("script"), strict=True))


@pytest.fixture(scope="module")
def three():
    return build_report([fakes.three_protocols()])


@pytest.fixture(scope="module")
def rates():
    return build_report([fakes.many_rates(rates=(0.03, 0.1, 0.3), seeds=2, draws=1)])


@pytest.fixture(scope="module")
def nasty():
    point = {NASTY: NASTY}
    members = [
        fakes.member({NASTY: f"{NASTY}{k}"}, name, **SMALL)
        for k, name in enumerate(("window",) * 2)
    ]
    members[0].summary["errors"] = [NASTY]
    members[0].config[NASTY] = point
    members[0].config["target"] = {"metric": NASTY, "at_least": 1.0}
    table = members[0].evaluations.rename(columns={"accuracy": NASTY})
    members[0] = dataclasses.replace(members[0], evaluations=table, status=NASTY)
    run = fakes.run(members, NASTY, NASTY, **point)
    other = fakes.run(
        [fakes.member(point, "synchronous", label=NASTY, goal=None, **SMALL)], "other"
    )
    return build_report([dataclasses.replace(run, id=NASTY, environment=point), other])


@pytest.fixture(params=["three", "rates", "nasty"])
def text(request):
    return request.getfixturevalue(request.param)


def test_every_element_is_closed_in_order(text):
    page = Page(text)
    assert page.errors == []
    assert page.open == []


def test_identifiers_are_unique(text):
    ids = [a["id"] for _, a in Page(text).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_every_reference_within_the_page_leads_somewhere(text):
    ids = {a["id"] for _, a in Page(text).elements if "id" in a}
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= ids


def test_no_address_leads_out_of_the_page(text):
    for _, attributes in Page(text).elements:
        for name in ("href", "src", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,"))
    outside = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<]*", text))
    assert outside <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text


def test_the_policy_forbids_all_but_the_one_script(text):
    page = Page(text)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = next(data for (_, a), data in zip_scripts(page) if not a)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["form-action"] == rules["base-uri"] == "'none'"
    assert set(rules) == {
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "form-action",
        "base-uri",
    }
    kinds = [name for name, a in page.elements if name == "meta" and a.get("http-equiv")]
    assert page.elements.index(("meta", {"charset": "utf-8"})) < 4
    assert len(kinds) == 1


def test_there_is_no_script_but_ours(text):
    page = Page(text)
    assert page.all("script") == [{"type": "application/json", "id": "data"}, {}]
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]


def test_nasty_names_are_text(nasty):
    page = Page(nasty)
    assert page.all("img") == []
    assert not re.search("[\u2028\u2029\u202a-\u202e\x00]", nasty)
    shown = " ".join(data for tag, data in page.texts if tag in ("h1", "strong", "p", "pre"))
    assert shown.count("<script>alert(1)</script>") >= 4


def test_nasty_names_are_kept_in_the_data(nasty):
    data = data_of(Page(nasty))
    assert "<script>alert(1)</script>" in data["evaluations"]


def test_figures_and_buttons_have_names(text):
    page = Page(text)
    figures = page.all("svg")
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert figures
    for svg in figures:
        assert svg["role"] == "img"
        assert set(svg["aria-labelledby"].split()) <= ids
    buttons = [a for a in page.all("button") if "data-svg" in a or "data-csv" in a]
    assert len(buttons) == 2 * len(figures)
    assert all(a["aria-label"] for a in buttons)


def test_every_figure_has_its_data(text):
    page = Page(text)
    sets = data_of(page)
    wanted = {a["data-csv"] for a in page.all("button") if "data-csv" in a}
    assert wanted <= set(sets)
    for name in wanted:
        lines = list(csv.reader(io.StringIO(sets[name])))
        assert len(lines) > 1
        assert {len(line) for line in lines} == {len(lines[0])}


def test_the_data_are_the_evaluations(three):
    sets = data_of(Page(three))
    table = pd.read_csv(io.StringIO(sets["evaluations"]))
    members = fakes.three_protocols().members
    expected = pd.concat([m.evaluations for m in members], ignore_index=True)
    assert list(table["member"].unique()) == ["synchronous", "window", "asynchronous"]
    # seven digits are written
    np.testing.assert_allclose(table[expected.columns], expected, rtol=1e-6, atol=1e-12)


def test_a_small_loss_is_not_written_as_zero():
    run = fakes.three_protocols()
    member = run.members[0]
    losses = [2.9e-5, 3.1e-5] * (len(member.summary["final"]["loss"]) // 2)
    final = {**member.summary["final"], "loss": losses}
    member = dataclasses.replace(member, summary={**member.summary, "final": final})
    run = dataclasses.replace(run, members=(member, *run.members[1:]))
    head, line, *_ = rows(build_report([run]), "Members, one a row")
    mean, deviation = dict(zip(head, line, strict=True))["final loss"].split(" ± ")
    assert float(mean) == pytest.approx(3e-5)
    assert float(deviation) == pytest.approx(np.std(losses, ddof=1), rel=0.05)  # two digits


def test_the_table_tells_what_the_members_did(three):
    head, *lines = rows(three, "Members, one a row")
    for line, member in zip(lines, fakes.three_protocols().members, strict=True):
        row = dict(zip(head, line, strict=True))
        times = [np.inf if t is None else t for t in member.summary["time_to_target"]]
        reached = np.isfinite(times).sum()
        accuracy = np.array(member.summary["final"]["accuracy"])
        assert row["protocol"] == member.point["protocol.name"]
        assert row["reached"] == f"{reached}/8"
        assert row["final accuracy"] == f"{accuracy.mean():.4f} ± {accuracy.std(ddof=1):.4f}"
        assert row["updates"] == f"{member.timelines[0].num_updates:,}"
        first = row["seconds to accuracy ≥ 0.95"].split()[0]
        median = np.median(times)
        assert float(first.replace("never", "inf")) == pytest.approx(median, rel=5e-3)  # 3 digits


def decimals(text):
    return {len(part.partition(".")[2]) for part in re.findall(r"[\d,]+(?:\.\d+)?(?!/)", text)}


def test_the_figures_of_a_column_have_equal_digits(rates):
    head, *lines = rows(rates, "Members, one a row")
    for name in ("learning_rate", "final accuracy", "final loss", "mean staleness"):
        column = head.index(name)
        assert len(decimals(" ".join(line[column] for line in lines))) == 1, name


def claims_of(*judgements):
    """The verdicts of a page: class and text of each."""
    run = dataclasses.replace(fakes.single(**SMALL), claims=judgements)
    found = re.findall(r'<strong class="(verdict [^"]*)">(.*?)</strong>', build_report([run]))
    return [(style.split()[1:], re.sub(r"<[^>]+>", "", text)) for style, text in found]


def test_no_two_verdicts_look_alike():
    names = ("HOLDS", "REFUTED", "UNDECIDED")
    found = claims_of(*(Judgement(name, "<", verdict=name) for name in names))
    assert [style for style, _ in found] == [["holds"], ["refuted"], ["undecided"]]
    assert [text for _, text in found] == ["✓HOLDS", "✗REFUTED", "?UNDECIDED, as recorded"]
    style = document._asset("page.css")
    colours = [re.search(rf"\.{n.lower()}\b[^{{]*{{ color: ([^;]*);", style)[1] for n in names]
    assert len(set(colours)) == 3


def test_a_verdict_that_the_file_does_not_expect_is_framed():
    wanted, unwanted, fails, open_ = claims_of(
        Judgement("a", "<", verdict="HOLDS"),
        Judgement("b", "<", verdict="HOLDS", expected=False),
        Judgement("c", "<", verdict="FAILS", expected=False),
        Judgement("d", "<", verdict="UNDECIDED"),
    )
    assert wanted == (["holds"], "✓HOLDS")
    assert unwanted == (["holds", "unexpected"], "✓HOLDS, recorded as refuted")
    assert fails == (["fails", "unexpected"], "✗FAILS")
    assert open_ == (["undecided"], "?UNDECIDED, as recorded")


def test_the_answer_names_the_first(three):
    members = fakes.three_protocols().members
    medians = {
        m.point["protocol.name"]: np.median(
            [np.inf if t is None else t for t in m.summary["time_to_target"]]
        )
        for m in members
    }
    first = min(medians, key=medians.get)
    answer = re.search(r'<p class="answer">(.*?)</p>', three)[1]
    assert answer.startswith(
        f"First to accuracy ≥ 0.95: <strong>{first}</strong> after {medians[first]:,.3g}\u00a0s"
    )


def with_times(name, times):
    member = fakes.member({"protocol.name": name}, name, **SMALL)
    member.summary["time_to_target"] = times
    return member


def answer_of(**times):
    """The answer's text, where members with these names and times race."""
    page = build_report([fakes.run([with_times(name, given) for name, given in times.items()])])
    return (
        re.sub("<[^>]+>", "", re.search(r'<p class="answer">(.*?)</p>', page)[1])
        .replace("\u00a0", " ")
        .strip()
    )


TIE = "A tie is what a paired bootstrap over seeds and clocks doesn't tell apart."


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ([10.0] * 3, f"asynchronous after 10 s and window after 10 s, a tie. {TIE}"),
        ([15.0] * 3, f"asynchronous after 10 s and window after 15 s, a tie. {TIE}"),
        # 30 s is later than each of the three, and so than every median of three of them
        ([30.0] * 3, "asynchronous after 10 s. Later: window after 30 s (3×)."),
        # one replicate in three that got there first is in two of the other's place too often
        ([8.0, 30.0, 30.0], f"asynchronous after 10 s and window after 30 s, a tie. {TIE}"),
        # paired: each is later by a tenth than what ran with the same seed
        ([9.9, 11.0, 22.0], "asynchronous after 10 s. Later: window after 11 s (1.1×)."),
        ([None] * 3, "asynchronous after 10 s. Not in half of the replicates: window."),
        (
            [8.0, None, None],
            "asynchronous after 10 s and window (not in half of its replicates), a tie. " + TIE,
        ),
    ],
)
def test_the_answer_tells_a_tie_from_a_lead(window, said):
    found = answer_of(asynchronous=[9.0, 10.0, 20.0], window=window)
    assert found == f"First to accuracy ≥ 0.95: {said}"


def test_what_comes_later_ties_too():
    found = answer_of(synchronous=[1.0] * 4, window=[2.0, 4.2] * 2, asynchronous=[3.0] * 4)
    assert found == (
        "First to accuracy ≥ 0.95: synchronous after 1 s. "
        f"Later: asynchronous after 3 s (3×) and window after 3.1 s (3.1×), a tie. {TIE}"
    )


def test_one_replicate_each_tells_nothing_of_luck():
    found = answer_of(synchronous=[1.0], window=[2.0])
    assert found.endswith("One replicate each: how much of it is luck is not known.")


def test_a_member_that_never_ran_is_not_one_that_never_got_there():
    found = answer_of(synchronous=[1.0, 1.0], window=[])
    assert found == "First to accuracy ≥ 0.95: synchronous after 1 s. Not run to the end: window."


def test_a_rate_that_failed_is_not_left_out_of_its_group_unsaid():
    run = fakes.many_rates(rates=(0.03, 0.1, 0.3), seeds=1, draws=1, workers=4, seconds=20.0)
    run.members[1].summary["time_to_target"] = []
    del run.members[1].summary["final"]
    page = build_report([run])
    answer = re.sub("<[^>]+>", "", re.search(r'<p class="answer">(.*?)</p>', page)[1])
    assert "Not run to the end: synchronous, learning_rate 0.1." in answer
    for title in ("Time to the target", "Final accuracy"):
        assert "1 more has not ended." in svg_of(page, f"{title} against learning_rate")


def test_a_group_is_as_fast_as_its_best_rate_in_each_resample():
    """Either rate of the window gets there once in two; together they do with every seed."""
    times = {0.1: [5.0, 50.0], 0.2: [50.0, 5.0]}
    rates = [(name, rate) for name in ("window", "synchronous") for rate in np.arange(1, 6) / 10]
    members = []
    for name, rate in rates:
        point = {"protocol.name": name, "rule.learning_rate": float(rate)}
        members.append(fakes.member(point, name, seeds=2, draws=1, workers=4, seconds=20.0))
        slow = [60.0, 60.0] if name == "window" else [20.0, 20.0]
        members[-1].summary["time_to_target"] = times.get(rate, slow) if name == "window" else slow
    first, *rest = race(compare([fakes.run(members)]))
    # of the seeds' four pairs, two have a median of 5 s at one rate or the other
    window = next(each for tier in (first, *rest) for each in tier if each.entry.group == "window")
    assert set(window.resampled) == {5.0, 27.5}
    assert window.time == 27.5
    assert 0.45 < np.mean(window.resampled == 5.0) < 0.55


def test_many_that_never_arrive_are_counted():
    names = [f"rate {k}" for k in range(8)]
    members = [dataclasses.replace(with_times("window", [None]), label=n) for n in names[1:]]
    members = [dataclasses.replace(with_times("window", [10.0]), label=names[0]), *members]
    page = build_report([fakes.run(members)])
    assert "rate 4</strong> and 3 more." in re.search(r'<p class="answer">(.*?)</p>', page)[1]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ([], "receive: none"),
        (None, "receive: none"),
        (["clip_by_delay"], "clip_by_delay"),
        ([{"name": "gap_aware", "power": 1.0}], "gap_aware (power 1)"),
        ([{"name": "gap_aware"}, "clip_by_delay"], "gap_aware, clip_by_delay"),
        ([128, 64], "receive [128, 64]"),
        (0.1, "receive 0.1"),
    ],
)
def test_labels_read_as_words(value, label):
    members = [fakes.member({"receive": each}, "window", **SMALL) for each in (value, "another")]
    assert compare([fakes.run(members)]).entries[0].label == label


def test_what_is_cut_off_is_said(rates, three):
    # the bottom is 0.95 − 6·0.05 = 0.65, and not every member of `rates` comes so high
    assert "Values below 0.65 are cut off." in three
    assert "are cut off" not in rates


def svg_of(text, title):
    part = text[text.index(f"<h3>{title}</h3>") :]
    return part[: part.index("</figure>")]


@pytest.mark.parametrize("rates", [(0.1, 0.3), (0.01, 0.03, 0.1, 0.3)])
def test_a_diverged_loss_does_not_set_the_axis(rates):
    run = fakes.many_rates(rates=rates, seeds=1, draws=1, workers=4, seconds=20.0, goal=None)
    for member in run.members:
        del member.evaluations["accuracy"]
        del member.summary["final"]["accuracy"]
    run.members[1].summary["final"]["loss"] = [1.167e33]
    title = "Final loss" + " against learning_rate" * (len(run.members) > 8)
    figure = svg_of(build_report([run]), title)
    assert "e33" not in figure
    assert ">diverged</text>" in figure
    # every loss begins near 2.37
    assert re.search(r"Diverged: not finite, or above 4\.7\d?\.", figure)


def test_runs_that_start_at_the_minimum_have_not_diverged():
    run = fakes.run([fakes.member({"a": k}, "window", **SMALL) for k in range(2)])
    for member in run.members:
        del member.evaluations["accuracy"]
        member.evaluations.loc[member.evaluations["update"] == 0, "loss"] = 1e-12
        del member.summary["final"]["accuracy"]
    assert "diverged" not in build_report([run]).lower()


def test_a_sweep_over_numbers_is_drawn_against_them(rates):
    headings = Page(rates).inside("h3")
    assert "Time to the target against learning_rate" in headings
    assert "Final accuracy against learning_rate" in headings
    assert len(rows(rates, "Members, one a row")) == 1 + 9
    # members that share a timeline share its chart
    assert [h for h in headings if h in ("Synchronous", "Window", "Asynchronous")] == [
        "Synchronous",
        "Window",
        "Asynchronous",
    ]


def test_the_config_comes_back_from_the_page(three):
    shown = Page(three).inside("pre")
    assert yaml.safe_load("".join(shown)) == fakes.three_protocols().config


def test_every_replicate_has_its_row(three):
    assert len(rows(three, "One row per member, draw")) == 1 + 3 * 8


def test_a_closed_form_is_drawn_where_there_is_one():
    page = build_report([fakes.single(equal=True, draws=1, seeds=1)])
    assert "line with dots: theory" in page
    # 16 equal workers that are always busy, a second a gradient: N − 1, and 1/N
    assert "Theory: mean staleness 15, 0.0625 s an update (here 0.06" in page


def test_unequal_workers_get_no_theory(three):
    part = three[three.index("Asynchronous</h3>") :]
    assert "line with dots: theory" not in part[: part.index("</figure>")]


def test_runs_are_compared_with_one_another():
    page = build_report(
        [
            fakes.run([fakes.member({}, "window", label="", **SMALL)], "first"),
            fakes.run([fakes.member({}, "asynchronous", label="", **SMALL)], "second"),
        ]
    )
    assert [row[0] for row in rows(page, "Members, one a row")] == ["run", "first", "second"]


def test_a_label_that_a_person_wrote_is_used():
    members = [
        fakes.member({"protocol.name": name}, name, label=f"my {name}", **SMALL)
        for name in ("synchronous", "window")
    ]
    page = build_report([fakes.run(members)])
    names = [row[0] for row in rows(page, "Members, one a row")]
    assert names == ["member", "my synchronous", "my window"]


def test_members_that_failed_are_reported_beside_the_others():
    good = fakes.member({"protocol.name": "window"}, "window", **SMALL)
    empty = pd.DataFrame(columns=["seed", "timeline", "update", "time", "loss"])
    bad = dataclasses.replace(
        good,
        point={"protocol.name": "synchronous"},
        status="failed",
        timelines=(),
        evaluations=empty,
        histories=(),
        summary={"errors": ["update 3: params/w is not finite"]},
    )
    page = build_report([fakes.run([good, bad])])
    assert Page(page).errors == []
    assert "update 3: params/w is not finite" in page
    assert [row[-1] for row in rows(page, "Members, one a row")] == ["status", "done", "failed"]


def test_values_that_are_not_finite_are_counted():
    member = fakes.member({}, "window", label="", seeds=2, draws=1, workers=4, seconds=20.0)
    member.summary["final"]["loss"] = [None, 0.5]
    page = build_report([fakes.run([member])])
    row = dict(zip(*rows(page, "Members, one a row"), strict=True))
    assert row["final loss"] == "1 of 2 diverged (the other 1: 0.5)"


def test_the_same_runs_give_the_same_page():
    run = fakes.single(**SMALL)
    assert build_report([run]) == build_report([run])


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="no runs given; allowed: one run or more"):
        build_report([])


def test_the_file_appears_whole(tmp_path):
    path = write_report([fakes.single(**SMALL)], tmp_path / "report.html")
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(document, "build_report", lambda runs: "new")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
