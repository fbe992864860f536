"""What the figures show, read back from the artists; what they say, from the SVG's text."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.colors
import matplotlib.text
import numpy as np
import pytest

from sgdlab import plots
from sgdlab.plots import theme


def texts(figure):
    """Every line of text in a figure, as its SVG has it."""
    root = ElementTree.fromstring(plots.to_svg(figure, title="any"))
    return ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]


def boxes(axes, colour=None, alpha=None):
    """`[n, 2]` left and right edges of the rectangles of one colour, in data coordinates."""
    found = [
        patch.get_path().vertices.reshape(-1, 5, 2)[:, [0, 1], 0]
        for patch in axes.patches
        if patch.get_transform() == axes.transData
        and patch.get_alpha() == alpha
        and (colour is None or matplotlib.colors.to_hex(patch.get_facecolor()) == colour)
    ]
    return np.concatenate(found) if found else np.empty((0, 2))


def message(**changes):
    """One worker's timeline of one message, applied fresh."""
    fields = {"start_time": 0.0, "compute_end": 1.0, "arrival_time": 1.0, "update": 0}
    fields = {"worker": 0, "staleness": 0, **fields, **changes}
    return {k: np.asarray([v]) for k, v in fields.items()} | {
        "apply_time": np.asarray([1.0]),
        "num_workers": 1,
        "seconds": 2.0,
    }


def visible(figure):
    """Every text that is drawn, with its box; ticks outside their axis are not drawn."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    found = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    return [(t.get_text(), t.get_window_extent()) for t in found if t not in hidden]


def overlaps(figure):
    """Pairs of visible texts whose boxes overlap."""
    figure.canvas.draw()
    spans = visible(figure)
    pairs = []
    for i, (first, a) in enumerate(spans):
        for second, b in spans[i + 1 :]:
            wide = min(a.x1, b.x1) - max(a.x0, b.x0)
            high = min(a.y1, b.y1) - max(a.y0, b.y0)
            # line boxes hold the room for descenders: two points of it may be shared
            if wide > 1 and high > 2.5:
                pairs.append((first, second))
    return pairs


def beyond_the_edge(figure):
    figure.canvas.draw()
    width, height = figure.bbox.width, figure.bbox.height
    return [
        text
        for text, b in visible(figure)
        if b.x0 < -1 or b.x1 > width + 1 or b.y1 > height + 1 or b.y0 < -1
    ]


def figures(arrays):
    random = np.random.default_rng(0)
    x = np.linspace(0, 300, 30)
    rows = [
        plots.Series(f"protocol {name}", x, 1 - np.exp(-x / s) + random.normal(0, 0.01, (4, 30)))
        for name, s in (("synchronous", 80), ("window (wait 0.3)", 50), ("asynchronous", 20))
    ]
    rates = np.array([0.01, 0.03, 0.1, 0.3, 1.0])
    sweeps = [
        plots.Series(name, rates, np.where(rates > limit, np.inf, random.uniform(20, 90, (8, 5))))
        for name, limit in (("synchronous", 2), ("asynchronous", 0.2))
    ]
    near = np.array([0.0923, 0.098, 0.337, 0.358, 0.97, 1.03, 1.94, 2.06])
    lost = np.tile(np.where(near > 1, np.inf, near), (3, 1))
    strip = "a strip with a long name that reaches over its crosses"
    counts = np.bincount(arrays["staleness"])
    names = [row.label for row in rows]
    tiny = [random.uniform(1, 3, 4) * size for size in (1e-9, 1e-3, 1.0)]
    return {
        "gantt": plots.gantt(**arrays),
        "timeline": plots.timeline(**arrays, counts=counts),
        "histogram": plots.staleness_histogram(counts, predicted=np.full(len(counts), 0.01)),
        "curves": plots.curves(rows, x_label="seconds", y_label="accuracy", target=0.97),
        "sweep": plots.sweep(sweeps, x_label="rate", y_label="seconds", log_x=True, log_y=True),
        "near": plots.sweep(
            [plots.Series(name, near, lost) for name in ("a", "b", "c")],
            x_label="rate",
            y_label="loss",
            log_x=True,
            missing=strip,
        ),
        "linear": plots.sweep(
            [plots.Series("a", np.array([0.9, 0.95, 0.99, 0.999]), np.ones((2, 4)))],
            x_label="decay",
            y_label="loss",
        ),
        "decades": plots.comparison(names, tiny, x_label="loss", from_zero=False, log=True),
        "lost": plots.comparison(
            names, [np.r_[row, np.inf] for row in tiny], x_label="loss", log=True
        ),
        "comparison": plots.comparison(
            names, [np.r_[random.uniform(20, 90, 7), np.inf]] * 3, x_label="seconds to the target"
        ),
        "utilisation": plots.utilisation([random.uniform(0, 1, 16)] * 3, labels=names),
    }


@pytest.fixture(scope="module")
def drawn(arrays):
    return figures(arrays)


NAMES = (
    "gantt",
    "timeline",
    "histogram",
    "curves",
    "sweep",
    "near",
    "linear",
    "comparison",
    "decades",
    "lost",
    "utilisation",
)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_labels_overlap(drawn, name):
    assert overlaps(drawn[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_label_is_cut_off(drawn, name):
    assert beyond_the_edge(drawn[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_colour_has_a_role_in_the_theme(drawn, name):
    svg = plots.to_svg(drawn[name], title=name)
    assert not re.findall(r": (#[0-9a-f]{6})", svg)
    assert "black" not in svg


def test_bars_span_from_reading_to_the_end_of_computing():
    axes = plots.gantt(**message()).axes[0]
    np.testing.assert_array_equal(boxes(axes, theme.FRESH), [[0.0, 1.0]])


def test_the_network_is_paler():
    axes = plots.gantt(**message(arrival_time=1.5)).axes[0]
    np.testing.assert_array_equal(boxes(axes, theme.FRESH, alpha=0.38), [[1.0, 1.5]])


def test_work_that_never_arrived_ends_with_the_timeline_and_is_hollow():
    unfinished = message(update=-2, compute_end=np.inf, arrival_time=np.inf, staleness=-1)
    figure = plots.gantt(**unfinished)
    np.testing.assert_array_equal(boxes(figure.axes[0]), [[0.0, 2.0]])
    hollow = [p for p in figure.axes[0].patches if p.get_transform() == figure.axes[0].transData]
    assert hollow[0].get_facecolor()[3] == 0
    assert "unfinished" in texts(figure)


@pytest.mark.parametrize(("update", "name"), [(-1, "dropped"), (-3, "cancelled")])
def test_unused_work_is_grey_and_named(update, name):
    figure = plots.gantt(**message(update=update, staleness=-1))
    np.testing.assert_array_equal(boxes(figure.axes[0], theme.IDLE), [[0.0, 1.0]])
    assert name in texts(figure)


def test_a_legend_explains_only_what_is_there():
    shown = texts(plots.gantt(**message()))
    assert not {"dropped", "cancelled", "unfinished", "network"} & set(shown)


def test_every_message_is_drawn_in_the_colour_of_its_staleness(arrays):
    end = arrays["arrival_time"].max()
    axes = plots.gantt(**arrays, seconds=end).axes[0]
    counts = np.bincount(arrays["staleness"])
    scale = plots.staleness_scale(counts)
    for index, colour in enumerate(scale.colours):
        here = (scale.classes(arrays["staleness"]) == index) & (
            arrays["start_time"] < axes.get_xlim()[1]
        )
        drawn = boxes(axes, colour)
        np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(arrays["start_time"][here]))


def test_a_short_timeline_is_drawn_whole():
    assert not any("excerpt" in text for text in texts(plots.gantt(**message())))


@pytest.mark.parametrize(("count", "whole"), [(3000, "3,000"), (10_000, "10,000")])
def test_a_long_timeline_says_that_it_is_an_excerpt(count, whole):
    ends = np.arange(1.0, count + 1)
    arrays = message() | {
        "worker": np.zeros(count, int),
        "start_time": ends - 1,
        "compute_end": ends,
        "arrival_time": ends,
        "update": np.arange(count),
        "staleness": np.zeros(count, int),
        "apply_time": ends,
        "seconds": float(count),
    }
    figure = plots.gantt(**arrays)
    end = figure.axes[0].get_xlim()[1]
    assert f"excerpt: the first {end:.3g} of {whole} s" in texts(figure)
    assert boxes(figure.axes[0]).max() <= end < 100


def test_many_workers_are_sampled_and_said_so():
    workers = np.arange(1000)
    ones = np.ones(1000)
    figure = plots.gantt(
        worker=workers,
        start_time=0 * ones,
        compute_end=ones,
        arrival_time=ones,
        update=0 * workers,
        staleness=0 * workers,
        apply_time=np.ones(1),
        num_workers=1000,
    )
    assert "excerpt: 64 of 1,000 workers" in texts(figure)
    assert len(boxes(figure.axes[0])) == 64


def test_more_messages_than_can_be_read_are_cut():
    workers, rounds = 64, 100
    ends = np.repeat(np.arange(1.0, rounds + 1), workers)
    count = len(ends)
    figure = plots.gantt(
        worker=np.tile(np.arange(workers), rounds),
        start_time=ends - 1,
        compute_end=ends,
        arrival_time=ends,
        update=np.arange(count),
        staleness=np.zeros(count, int),
        apply_time=ends,
        num_workers=workers,
    )
    assert len(boxes(figure.axes[0])) <= 5000
    assert any(text.startswith("excerpt") for text in texts(figure))


def test_a_timeline_without_messages_can_be_drawn():
    empty = {k: v[:0] for k, v in message().items() if isinstance(v, np.ndarray)}
    figure = plots.timeline(**empty, num_workers=3, counts=np.zeros(0, int))
    assert "no message was used" in texts(figure)


def test_the_histogram_shows_shares_of_the_messages():
    axes = plots.staleness_histogram(np.array([1, 0, 3])).axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [25, 0, 75])


def test_the_histogram_tells_the_mean_and_the_largest():
    # (0·1 + 2·3)/4 = 1.5
    shown = texts(plots.staleness_histogram(np.array([1, 0, 3])))
    assert "mean 1.5, largest 2" in shown


def test_the_theory_is_drawn_over_the_histogram_in_the_same_unit():
    figure = plots.staleness_histogram(np.array([1, 1]), predicted=np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [50, 25])
    assert "line with dots: theory" in texts(figure)


def test_a_long_tail_is_gathered_into_fewer_bars():
    axes = plots.staleness_histogram(np.ones(1000, int)).axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) <= 72
    assert sum(heights) == pytest.approx(100)


def test_the_figure_line_is_the_median_of_the_replicates():
    y = np.array([[1.0, 2.0], [3.0, 9.0], [2.0, 4.0]])
    axes = plots.curves([plots.Series("a", np.arange(2), y)], x_label="", y_label="").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2, 4])


@pytest.mark.parametrize(("places", "marked"), [(1, True), (4, True), (5, False)])
def test_a_line_between_few_places_shows_them(places, marked):
    series = plots.Series("a", np.arange(places), np.ones(places))
    axes = plots.curves([series], x_label="", y_label="").axes[0]
    assert any(line.get_marker() == "o" for line in axes.lines) == marked


def test_faint_lines_stay_out_of_the_legend():
    x, y = np.arange(3), np.ones((1, 3))
    figure = plots.curves(
        [plots.Series("strong", x, y), plots.Series("pale", x, y, faint=True)],
        x_label="x",
        y_label="y",
    )
    assert "strong" in texts(figure)
    assert "pale" not in texts(figure)


def test_twelve_long_names_do_not_overlap():
    x = np.arange(3.0)
    names = [f"protocol {k}, staleness-aware learning rate {k / 7:.3f}" for k in range(12)]
    figure = plots.curves(
        [plots.Series(n, x, x * k) for k, n in enumerate(names)], x_label="x", y_label="y"
    )
    assert overlaps(figure) == []
    assert beyond_the_edge(figure) == []


@pytest.mark.parametrize("name", ["$\\broken$", "_hidden", "$a$ and $b$", "日本"])
def test_names_are_shown_as_they_are(name):
    series = [plots.Series(name, np.array([1.0, 2.0]), np.ones((2, 2)))]
    curves = plots.curves(series, x_label=name, y_label=name)
    assert texts(curves).count(name) == 3
    assert texts(plots.sweep(series, x_label=name, y_label=name)).count(name) == 3
    assert texts(plots.comparison([name], [np.ones(2)], x_label=name)).count(name) == 2
    assert name in texts(plots.utilisation([np.ones(3)], labels=[name]))


def test_categories_of_the_same_colour_have_other_dashes():
    styles = {(theme.series_colour(k), str(theme.series_dash(k))) for k in range(24)}
    assert len(styles) == 24


def test_never_reached_stands_apart_and_is_counted():
    figure = plots.comparison(["a"], [np.array([1.0, 2.0, np.inf, np.inf])], x_label="seconds")
    assert "2 of 4" in texts(figure)
    assert "never" in texts(figure)


def test_a_sweep_marks_where_most_replicates_are_missing():
    y = np.array([[1.0, np.inf], [2.0, np.inf], [3.0, 5.0]])
    axes = plots.sweep([plots.Series("a", np.array([1.0, 2.0]), y)], x_label="", y_label="").axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(crosses[0].get_xdata(), [2.0])


def test_the_name_of_what_is_missing_stands_above_its_crosses():
    name = "a name that reaches into the axes" * 2
    point = plots.Series("a", np.array([1.0, 2.0]), np.array([[1.0, np.inf]]))
    figure = plots.sweep([point], x_label="", y_label="y", missing=name)
    figure.canvas.draw()
    axes = figure.axes[0]
    (note,) = (text for text in figure.findobj(matplotlib.text.Text) if text.get_text() == name)
    (cross,) = (line for line in axes.lines if line.get_marker() == "x")
    points = figure.dpi / 72
    height = cross.get_transform().transform([2.0, 1.0])[1] + cross.get_markersize() / 2 * points
    assert note.get_window_extent().y0 > height


def test_every_place_of_a_sweep_has_a_tick_and_labels_have_room(drawn):
    axis = drawn["near"].axes[0].xaxis
    labelled, bare = axis.get_majorticklocs(), axis.get_minorticklocs()
    assert len({*labelled, *bare}) == 8
    assert len(labelled) == 4


def test_crosses_of_two_series_at_one_place_stand_apart():
    lost = np.full((2, 2), np.inf)
    series = [plots.Series(name, np.array([1.0, 2.0]), lost) for name in ("a", "b")]
    figure = plots.sweep(series, x_label="", y_label="")
    figure.canvas.draw()
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    crosses.sort(key=lambda line: theme.SERIES.index(line.get_color()))
    first, second = [c.get_transform().transform([1.0, 1.0]) for c in crosses]
    assert first[0] == second[0]
    # the first series stands above the second, as in the legend
    assert first[1] - second[1] >= crosses[0].get_markersize()


def test_rows_on_a_logarithmic_axis_are_as_far_apart_as_their_ratios(drawn):
    axes = drawn["decades"].axes[0]
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    places = axes.transData.transform([(m, 0) for m in medians])[:, 0]
    ratio = (places[1] - places[0]) / (places[2] - places[1])
    assert ratio == pytest.approx(np.log(medians[1] / medians[0]) / np.log(medians[2] / medians[1]))
    assert not [text for text in axes.get_yticklabels() if text.get_text()]


def test_few_messages_far_out_do_not_flatten_the_histogram():
    counts = np.zeros(1747)
    counts[:30] = 100
    counts[1746] = 1
    figure = plots.staleness_histogram(counts)
    axes = figure.axes[0]
    assert axes.get_xlim()[1] < 60
    assert len([bar for bar in axes.patches if bar.get_height() > 1]) == 30
    assert {"mean 15.1, largest 1,746", "0.033 % beyond the axis"} <= set(texts(figure))


def test_a_worker_stands_at_one_height_in_all_panels_of_utilisation():
    figure = plots.utilisation([np.ones(3), np.ones(4)], labels=["a", "b"])
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert [text.get_text() for text in first.get_yticklabels()] == ["0", "1", "2", "3"]
    assert (len(first.patches), len(second.patches)) == (6, 8)


def test_stale_colours_run_from_light_to_dark():
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in theme.STALE])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) < 0)


def test_numbers_are_plain():
    known = {10000.0: "10,000", 0.001: "0.001", 0: "0", 2.5e7: "2.5e7", -0.25: "-0.25"}
    assert {value: theme.plain(value) for value in known} == known


def test_figures_show_themselves_without_pyplot():
    code = (
        "import sys, numpy as np; from sgdlab import plots;"
        "f = plots.staleness_histogram(np.ones(3)); png = f._repr_png_();"
        "print(png[1:4] == b'PNG', 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def crosses_of(y):
    axes = plots.sweep([plots.Series("a", np.array([1.0, 2.0]), y)], x_label="", y_label="").axes[0]
    found = [line for line in axes.lines if line.get_marker() == "x"]
    return {x: line.get_alpha() for line in found for x in line.get_xdata()}, axes


def test_a_lost_replicate_is_drawn_where_the_median_is_finite():
    y = np.array([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0], [np.inf, 8.0]])
    crosses, axes = crosses_of(y)
    assert list(crosses) == [1.0]
    assert crosses[1.0] < 1
    assert "1/4" in texts(axes.figure)
    (median,) = (line for line in axes.lines if line.get_marker() == "_")
    np.testing.assert_array_equal(median.get_ydata(), [3.0, 6.5])  # (2 + 4) / 2, (6 + 7) / 2


def test_what_is_lost_downwards_is_below_in_the_median():
    _, axes = crosses_of(np.array([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0], [-np.inf, 8.0]]))
    (median,) = (line for line in axes.lines if line.get_marker() == "_")
    np.testing.assert_array_equal(median.get_ydata(), [1.5, 6.5])


def test_a_place_without_replicates_is_not_one_that_lost_them():
    crosses, _ = crosses_of(np.array([[1.0, np.nan], [2.0, np.nan]]))
    assert crosses == {}


def test_the_bar_of_a_row_counts_what_is_lost():
    values = [np.array([1.0, 2.0, 4.0, np.inf]), np.array([1.0, np.inf, np.inf])]
    figure = plots.comparison(["a", "b"], values, x_label="seconds")
    bars = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert bars == [3.0]
