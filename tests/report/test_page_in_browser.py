"""The page in a real browser: no error, no request, it sorts, it fits a phone, it follows light and dark."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.report import build_report, render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")

PROBE = """
<script>
"use strict";
addEventListener("load", () => {
  const head = [...document.querySelectorAll("th button")].find((b) => b.textContent === "Core-hours").closest("th");
  const column = [...head.parentElement.children].indexOf(head);
  const cells = () => [...head.closest("table").tBodies[0].rows].map((r) => r.children[column].dataset.v);
  head.querySelector("button").click();
  const down = cells(), sortedDown = head.getAttribute("aria-sort");
  head.querySelector("button").click();
  const up = cells(), sortedUp = head.getAttribute("aria-sort");
  const result = {
    down, up, sortedDown, sortedUp, width: document.documentElement.scrollWidth, view: innerWidth,
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    pictures: [...document.querySelectorAll("figure > svg")].map((s) => s.getBoundingClientRect().width),
    requests: performance.getEntriesByType("resource").length,
  };
  const box = document.createElement("pre");
  box.id = "probe";
  box.textContent = JSON.stringify(result);
  document.body.append(box);
});
</script>
"""


@pytest.fixture(scope="module")
def page(made_up: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = made_up.records(400, seed=8)
    records[0] = dataclasses.replace(records[0], account="<script>document.title='owned'</script>", user="W" * 200)
    report = build_report(records, start=made_up.START, end=made_up.START + made_up.DAY, nodes=made_up.nodes(48))
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text(render(report, "html"))
    (folder / "probed.html").write_text(render(report, "html").replace("</body>", PROBE + "</body>"))
    return folder


def browse(page: Path, *options: str, width: int = 1200) -> tuple[dict[str, object], str]:
    """Return what the probe saw, and what the browser wrote to its console."""
    assert CHROMIUM is not None
    answer = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", *options,
         f"--window-size={width},900", f"--user-data-dir={page / 'profile'}", "--dump-dom",
         f"file://{page / 'probed.html'}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', answer.stdout, re.DOTALL)
    assert found is not None, answer.stderr[-2000:]
    assert "owned" not in re.findall(r"<title>(.*?)</title>", answer.stdout)[0]
    result: dict[str, object] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return result, "\n".join(line for line in answer.stderr.splitlines() if "CONSOLE" in line)


def numbers(values: object) -> list[float]:
    assert isinstance(values, list)
    return [float(value) for value in values if value != ""]


def test_no_error_no_request_and_the_tables_sort(page: Path) -> None:
    seen, console = browse(page)
    assert console == ""
    assert seen["requests"] == 0
    assert numbers(seen["down"]) == sorted(numbers(seen["down"]), reverse=True)
    assert numbers(seen["up"]) == sorted(numbers(seen["up"]))
    assert len(numbers(seen["up"])) >= 3
    assert (seen["sortedDown"], seen["sortedUp"]) == ("descending", "ascending")


def test_nothing_sticks_out_at_phone_width(page: Path) -> None:
    seen, _ = browse(page, width=400)
    assert isinstance(seen["width"], int)
    assert isinstance(seen["view"], int)
    assert seen["width"] <= seen["view"] + 1
    assert all(0 < width <= seen["view"] for width in numbers(seen["pictures"]))


def test_light_and_dark_follow_the_reader(page: Path) -> None:
    light, _ = browse(page, "--blink-settings=preferredColorScheme=1")
    dark, _ = browse(page, "--blink-settings=preferredColorScheme=0")

    def brightness(colour: object) -> int:
        return sum(int(part) for part in re.findall(r"\d+", str(colour))[:3])

    assert brightness(light["paper"]) > 600 > brightness(light["ink"])
    assert brightness(dark["paper"]) < 150 < brightness(dark["ink"])


def test_it_prints(page: Path) -> None:
    assert CHROMIUM is not None
    subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page / 'profile'}",
         f"--print-to-pdf={page / 'page.pdf'}", f"file://{page / 'page.html'}"],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert (page / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (page / "page.pdf").stat().st_size > 20_000
