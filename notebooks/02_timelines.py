# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Timelines: when things happen
#
# A timeline says which worker read which version of the parameters, when its message arrived, and
# which update applied it. It holds no gradient, so everything on this page needs NumPy alone: no
# model, no compiler, no learning rate.
#
# ## Every protocol on one cluster
#
# Six workers with log-normal times; the last one is four times slower. Each row of a chart is a
# worker, each bar the computation of one message, its colour the staleness with which it is used.
# Empty stretches are workers that wait, and the ticks along the top are updates.

# %%
import numpy as np
import pandas as pd

from sgdlab import plots, theory, timelines
from sgdlab.plots import theme
from sgdlab.timelines.measures import discarded, participation

times = timelines.lognormal(mean=1.0, sigma=0.4)
small = timelines.Cluster(workers=6, compute=times, stragglers={"count": 1, "factor": 4.0})


def draw(**arguments_of):
    """The Gantt charts of some protocols on the small cluster, one below the other."""
    fields = ("worker", "start_time", "compute_end", "arrival_time", "update", "staleness")
    height = 194.0
    figure = theme.new_figure(height * len(arguments_of))
    for index, (name, arguments) in enumerate(arguments_of.items()):
        timeline = timelines.PROTOCOLS[name](small, **arguments, seconds=16.0, seed=1)
        axes = theme.add_axes(figure, 42, index * height + 84, theme.WIDTH - 50, 72)
        arrays = {field: getattr(timeline, field) for field in (*fields, "apply_time")}
        plots.gantt(**arrays, num_workers=6, seconds=16.0, axes=axes)
        told = ", ".join(f"{key}={value}" for key, value in arguments.items())
        theme.note(axes, 0, 70, f"{name}({told})", left_edge=True, fontweight="bold")
    return figure


# %% [markdown]
# **Only fresh gradients.** `synchronous` waits for everybody. `k_sync` starts everybody afresh once
# K workers are in, and what the others were computing is stopped (with `stop=False` they run on as
# backup workers do, and are refused). `k_batch_sync` counts gradients in place of workers: a fast
# one may contribute several, and what was computed at an older version is refused. `malenia` does
# that too, but wants enough of everybody's and averages each worker's first.

# %%
draw(synchronous={}, k_sync={"k": 5}, k_batch_sync={"k": 6})

# %% [markdown]
# **Averages of stale gradients.** `k_async` updates with the first K distinct workers, who wait for
# that while the others carry on. `k_batch_async` lets nobody wait and updates with every K-th
# message. `window` collects for some time after a first arrival.

# %%
draw(k_async={"k": 3}, k_batch_async={"k": 3}, window={"wait": 0.5})

# %% [markdown]
# **One gradient at a time.** `asynchronous` applies each message as it comes. `bounded_staleness`
# makes a worker wait that is too many clocks ahead of the slowest. `ringmaster` makes nobody wait,
# but refuses what is too stale.

# %%
draw(asynchronous={}, bounded_staleness={"bound": 2}, ringmaster={"threshold": 8})

# %% [markdown]
# **Every worker counts alike.** `wait_for_all` updates once everybody has sent at least one message
# since the last update, and averages each worker's messages first. `ringleader` keeps a row for
# each worker and makes one update as each of them comes in, always with the mean over all rows.

# %%
draw(wait_for_all={}, ringleader={})

# %% [markdown]
# ## What utilisation and staleness say
#
# Two prices are paid for stragglers: workers that wait, or gradients that are old. The same
# protocols on sixteen workers, two of them five times slower, for 300 simulated seconds:

# %%
cluster = timelines.Cluster(
    workers=16,
    compute=timelines.lognormal(mean=1.0, sigma=0.5),
    stragglers={"count": 2, "factor": 5.0},
)
protocols = {
    "synchronous": {},
    "k_sync": {"k": 14},
    "k_batch_sync": {"k": 16},
    "k_async": {"k": 4},
    "k_batch_async": {"k": 4},
    "asynchronous": {},
    "wait_for_all": {},
    "bounded_staleness": {"bound": 3},
    "window": {"wait": 0.5},
    "ringmaster": {"threshold": 16},
    "ringleader": {},
}
rows = {}
for name, arguments in protocols.items():
    timeline = timelines.PROTOCOLS[name](cluster, **arguments, seconds=300.0, seed=0)
    used = timeline.update >= 0
    rows[name] = {
        "updates": timeline.num_updates,
        "used gradients": int(used.sum()),
        "busy": timeline.utilisation().mean(),
        "thrown away": discarded(timeline).share,
        "mean staleness": timeline.staleness[used].mean(),
        "largest": timeline.staleness.max(),
        "stragglers' share": participation(timeline)[14:].sum(),
    }
table = pd.DataFrame(rows).T
table.round(2)

# %%
figure = theme.new_figure(300)
axes = theme.add_axes(figure, 46, 30, theme.WIDTH - 70, 225)
useful = table["busy"] * (1 - table["thrown away"])
moved = {"k_sync": (7, 1), "k_batch_sync": (7, -8), "k_async": (7, -9), "window": (7, -8)}
moved |= {"wait_for_all": (-4, 7), "ringleader": (-12, -14), "k_batch_async": (7, 4)}
for index, name in enumerate(table.index):
    place = (table["mean staleness"][name], 100 * useful[name])
    axes.plot(*place, "o", color=theme.series_colour(index), markersize=6)
    axes.annotate(
        name, place, moved.get(name, (7, -3)), textcoords="offset points", fontsize=theme.SMALL
    )
axes.set_xlim(-0.5, 18)
axes.set_ylim(0, 108)
theme.number_axis(axes, "x")
theme.number_axis(axes, "y")
theme.axis_titles(axes, "mean staleness, in updates", "% of all seconds spent on used gradients")
figure

# %% [markdown]
# Up is good and left is good. The three protocols with fresh gradients alone put between a quarter
# and less than a half of the seconds to use; `asynchronous` uses all of them and is the stalest. An
# update that averages several messages brings the staleness down, but there are fewer updates then:
# `wait_for_all` is nearly fresh because it makes only 55, of 77 gradients each. Which of these
# prices is worth paying is a question about learning, and a replay answers it.
#
# The last column of the table says who is heard. The two stragglers are an eighth of the workers,
# but bring 3 % of the gradients where nobody waits, and next to none where `ringmaster` and
# `k_batch_sync` refuse what is late. (`wait_for_all` and `ringleader` average by worker, so there
# the few gradients of a slow worker weigh as much as the many of a fast one.)
#
# ## Staleness against theory
#
# With equally fast memoryless workers the staleness of asynchronous SGD is geometric: whichever
# update comes next, it is yours with probability 1/N.

# %%
memoryless = timelines.Cluster(workers=16, compute=timelines.exponential(1.0))
timeline = timelines.asynchronous(memoryless, updates=20_000, seed=0)
counts = timeline.staleness_histogram()
predicted = theory.staleness_distribution(
    "asynchronous", 16, {"name": "exponential"}, size=len(counts)
)
plots.staleness_histogram(counts, predicted=predicted)

# %% [markdown]
# Other laws of compute time give other histograms (constant times put all mass on N − 1), but never
# another mean, which is what the next section is about.
#
# ## A conservation law
#
# N workers are always busy and every message is applied alone. Then each update makes the N − 1
# messages that are in flight one update older. So at any moment, whatever the clocks do,
#
# $$\sum_{\text{applied}} \text{staleness} \;+\; \sum_{\text{in flight}} \text{age}
#   \;=\; (N - 1)\cdot\text{updates},$$
#
# exactly and not on average. Heavy-tailed times put it to the test:

# %%
heavy = timelines.Cluster(workers=16, compute=timelines.pareto(mean=1.0, shape=1.3))
timeline = timelines.asynchronous(heavy, updates=600, seed=0)
applied = timeline.update >= 0
order = np.argsort(timeline.update[applied])
worker, stale = timeline.worker[applied][order], timeline.staleness[applied][order]
update = np.arange(1, 601)
read = np.zeros((601, 16))  # the version at which each worker works, after each update
for version in update:
    read[version] = read[version - 1]
    read[version, worker[version - 1]] = version
age = (update[:, None] - read[1:]).sum(axis=1)
assert np.array_equal(np.cumsum(stale) + age, 15 * update)
plots.curves(
    [
        plots.Series("applied and in flight", update, (np.cumsum(stale) + age) / update),
        plots.Series("applied alone", update, np.cumsum(stale) / update),
    ],
    x_label="updates",
    y_label="staleness per update so far",
    y_limits=(0.0, 16.0),
)

# %% [markdown]
# The sum of both is 15 from the first update to the last. The mean staleness of what was applied
# comes near to it only as fast as the work in flight stops mattering; under heavy tails a worker
# may sit on one message for a long time.
