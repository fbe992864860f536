"""The page in a real browser: silent, offline, sortable, downloadable, in both schemes.

Chromium is driven over its own protocol; what it shows of the HTML's structure is tested without
it in `test_document.py`.
"""

import asyncio
import dataclasses
import json
import shutil
import subprocess
import time
import urllib.request

import pytest

from sgdlab.experiment import Judgement
from sgdlab.report import write_report
from tests.report import fakes

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")]
websocket = pytest.importorskip("tornado.websocket")

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-port=0"
)
NASTY = "<script>window.hit=1</script>\"'</script>\u2028<img src=x onerror='window.hit=1'>"


class Tab:
    """A tab that keeps every event that the browser tells of."""

    def __init__(self, socket):
        self.socket, self.events, self.count = socket, [], 0

    async def ask(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        await self.socket.write_message(json.dumps(message))
        while True:
            answer = json.loads(await asyncio.wait_for(self.socket.read_message(), 20))
            if answer.get("id") == self.count:
                return answer.get("result", {})
            self.events.append(answer)

    async def run(self, expression):
        found = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value", found["result"].get("description"))

    def seen(self, method):
        return [event["params"] for event in self.events if event.get("method") == method]


async def visit(port, path, steps):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
        targets = json.load(answer)
    address = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
    tab = Tab(await websocket.websocket_connect(address, max_message_size=2**28))
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.ask(f"{domain}.enable")
    await tab.ask("Page.navigate", url=path.as_uri())
    for _ in range(100):
        if await tab.run("document.readyState") == "complete":
            break
        await asyncio.sleep(0.05)
    result = await steps(tab)
    tab.socket.close()
    while await tab.socket.read_message() is not None:
        pass
    return tab, result


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file = folder / "DevToolsActivePort"
    for _ in range(200):
        if file.exists() and file.read_text().count("\n"):
            break
        time.sleep(0.05)
    yield int(file.read_text().split()[0])
    browser.terminate()
    browser.wait(10)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    members = [
        fakes.member({"protocol.name": name, NASTY: NASTY + name}, name, seeds=2, draws=1)
        for name in fakes.PROTOCOLS
    ]
    claims = (Judgement(NASTY, NASTY, kind=NASTY, verdict=NASTY, note=NASTY, measured=1.0),)
    run = dataclasses.replace(fakes.run(members, NASTY, NASTY), claims=claims)
    return write_report([run], tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    run = fakes.many_rates(seeds=2, draws=1)
    return write_report([run], tmp_path_factory.mktemp("rates") / "report.html")


READ = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[{}].dataset"
CLICK = "document.querySelectorAll('table.sortable thead')[0].rows[0].cells[{}].firstChild.click()"


def test_the_page_is_silent_and_asks_for_nothing(port, page):
    async def steps(tab):
        claim = "document.querySelector('.words').firstChild.data"
        return await tab.run(f"[window.hit, document.title, document.images.length, {claim}]")

    tab, (hit, title, images, claim) = asyncio.run(visit(port, page, steps))
    assert hit is None
    assert images == 0
    assert "<script>window.hit=1</script>" in title
    assert claim.startswith("<script>window.hit=1</script>")
    assert tab.seen("Log.entryAdded") == []
    assert tab.seen("Runtime.exceptionThrown") == []
    assert tab.seen("Runtime.consoleAPICalled") == []
    asked = {e["request"]["url"] for e in tab.seen("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}


def test_a_click_sorts_and_another_turns_it_round(port, page):
    async def steps(tab):
        heads = await tab.run(
            "[...document.querySelector('table.sortable').tHead.rows[0].cells].map("
            "c => c.textContent)"
        )
        column = heads.index("updates")
        found = []
        for _ in range(2):
            await tab.run(CLICK.format(column))
            found.append(await tab.run(READ.format(column) + ".value)"))
            sort = f"document.querySelector('thead').rows[0].cells[{column}].ariaSort"
            found.append(await tab.run(sort))
        return found

    _, (up, first, down, second) = asyncio.run(visit(port, page, steps))
    numbers = [float(value) for value in up]
    assert len(set(numbers)) == 3
    assert numbers == sorted(numbers)
    assert down == up[::-1]
    assert (first, second) == ("ascending", "descending")


def test_those_that_never_arrive_come_last_both_ways(port, page):
    async def steps(tab):
        found = []
        for _ in range(2):
            await tab.run(CLICK.format(2))
            found.append(await tab.run(READ.format(2) + ".value)"))
        return found

    _, orders = asyncio.run(visit(port, page, steps))
    assert all("" in order for order in orders)
    for order in orders:
        assert order[order.index("") :] == [""] * order.count("")


def test_a_downloaded_figure_stands_by_itself(port, page):
    import xml.etree.ElementTree as ElementTree

    async def steps(tab):
        await tab.run(
            "window.saved = []; window.Blob = function (parts) { saved.push(parts[0]); };"
            "URL.createObjectURL = () => '#';"
            "document.querySelector('button[data-svg]').click();"
            "document.querySelector('button[data-csv]').click();"
        )
        return await tab.run("saved")

    _, (svg, data) = asyncio.run(visit(port, page, steps))
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in svg
    assert "rect" in root[1].tag
    assert data.startswith("member,")


def test_a_dark_page_redraws_its_figures(port, page):
    async def steps(tab):
        colours = []
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            await tab.ask("Emulation.setEmulatedMedia", features=[feature])
            colours.append(
                await tab.run(
                    "[getComputedStyle(document.body).backgroundColor,"
                    " getComputedStyle(document.querySelector('figure svg text')).fill]"
                )
            )
        return colours

    _, (light, dark) = asyncio.run(visit(port, page, steps))

    def brightness(colour):
        return sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))

    # ticks are quieter than text, and still 300 of 765 apart from the page
    assert brightness(light[0]) - brightness(light[1]) > 300
    assert brightness(dark[1]) - brightness(dark[0]) > 300


def test_nothing_overflows_a_phone(port, page):
    async def steps(tab):
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        await tab.ask("Emulation.setDeviceMetricsOverride", **size)
        return await tab.run("document.documentElement.scrollWidth")

    _, width = asyncio.run(visit(port, page, steps))
    assert width == 390


BOXES = (
    "[...document.querySelectorAll('.scroll')].filter(b => b.checkVisibility()).map(b => "
    "[b.classList.contains('fits'), b.firstElementChild.offsetWidth <= b.clientWidth,"
    " getComputedStyle(b).overflowX, b.scrollHeight <= b.clientHeight])"
)


@pytest.mark.parametrize("width", [390, 600, 1280, 2000])
def test_no_part_of_a_table_is_out_of_reach(port, rates, width):
    async def steps(tab):
        size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
        await tab.ask("Emulation.setDeviceMetricsOverride", **size)
        await tab.run("for (const fold of document.querySelectorAll('details')) fold.open = true")
        await asyncio.sleep(0.2)
        return await tab.run(BOXES)

    _, boxes = asyncio.run(visit(port, rates, steps))
    assert len(boxes) >= 3
    for marked, fits, overflow, whole in boxes:
        assert marked == fits
        assert overflow == ("visible" if fits else "auto")
        assert whole


def test_the_head_of_a_long_table_stays_in_sight(port, rates):
    async def steps(tab):
        size = {"width": 1280, "height": 400, "deviceScaleFactor": 1, "mobile": False}
        await tab.ask("Emulation.setDeviceMetricsOverride", **size)
        await tab.run("document.querySelector('table').tBodies[0].rows[7].scrollIntoView()")
        await asyncio.sleep(0.2)
        return await tab.run("document.querySelector('thead th').getBoundingClientRect().top")

    _, top = asyncio.run(visit(port, rates, steps))
    assert top == 0
