"""`human-scene report`: complete, self-contained, readable; looked at in a browser where there is one."""

from __future__ import annotations

import argparse
import html
import html.parser
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from evaluation_files import evaluated
from PIL import Image

from human_scene_ros.commands import report
from human_scene_ros.commands.evaluation_output import SCHEMA
from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.report import charts
from human_scene_ros.report.charts import Series
from human_scene_ros.report.markdown import BEGIN, END, cell, replace_block
from human_scene_ros.report.published import PROTOCOLS, SOURCES


def made(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of two evaluations, one of them on a data set with published numbers."""
    folder = tmp_path_factory.mktemp("report")
    first = evaluated(folder / "a", 40, dataset="emdb2", drop=(5, 6), name="a_recording_with_a_long_name/camera_0")
    second = evaluated(folder / "b", 20)
    out = folder / "report.html"
    assert report.run(made(f"walk={first}", second, "--out", out, "--title", "Fake <scene>")) == 0
    return out


class Elements(html.parser.HTMLParser):
    """Tags with their attributes, in order; complains about tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def elements(page: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(page.read_text())
    assert parser.open == []
    return parser.found


def test_the_page_needs_nothing_else(page):
    for tag, attributes in elements(page):
        assert tag not in ("script", "link", "iframe", "object", "embed"), tag
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    text = page.read_text()
    assert "url(" not in text and "@import" not in text and "Fake &lt;scene&gt;" in text


def test_everything_that_is_seen_can_be_heard(page):
    found = elements(page)
    assert [a["lang"] for t, a in found if t == "html"] == ["en"]
    pictures = [a for t, a in found if t == "img"]
    assert len(pictures) >= 4 and all(len(a["alt"] or "") > 20 for a in pictures)
    drawings = [a for t, a in found if t == "svg" and a.get("aria-hidden") != "true"]
    assert len(drawings) >= 10 and all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in drawings)
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for t, a in found if a.get("class") == "scroll")
    assert all("scope" in a for t, a in found if t == "th")
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for t, a in found if t == "a"} <= set(ids)


def luminance(color: str) -> float:
    channels = [int(color[k:k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_the_contrast_of_wcag_aa_on_light_and_dark_pages(page):
    blocks = re.findall(r":root \{([^}]*)\}", page.read_text())
    assert len(blocks) == 2
    for block in blocks:
        colors = dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block))
        for ground in ("page", "card", "ours"):
            for ink in ("ink", "soft", "link"):
                assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
        for line in ("s0", "s1", "s2", "s3", "s4", "s5", "mark"):
            assert contrast(colors[line], colors["page"]) >= 3.0, line


def test_all_published_numbers_stand_beside_ours(page):
    text = page.read_text()
    for protocol in PROTOCOLS:
        assert protocol.title in text
        for name, values, source in protocol.rows:
            assert name in text and len(values) == len(protocol.columns)
            assert {s.strip() for s in source.split(",")} <= set(SOURCES)
        assert len(protocol.ours) == len(protocol.factors) == len(protocol.lower_is_better) == len(protocol.columns)
    emdb = text.split("EMDB-2: global human motion</summary>")[1].split("</table>")[0]
    assert re.search(r'class="ours"><th scope="row">this package, given results, on walk</th><td>\d', emdb)
    assert re.search(r'class="other"><th scope="row">this package, given results, on out</th>.*not comparable', emdb)
    assert '<span class="best">68.9</span>' in emdb and "1702.3" in emdb
    assert emdb.count(", best match of each frame</th>") == 1 and "on walk, best match of each frame" in emdb
    cited = set(re.findall(r"\[([A-Z0-9])\]", text))
    assert cited == set(SOURCES) and all(f"<li>[{key}] " in text for key in cited)


def test_what_was_not_measured_is_said(page):
    missing = page.read_text().split('id="missing"')[1].split("</ul>")[0]
    for words in ("PVE", "hands and face", "rte_pct: too short", "speed and memory", "EgoExo4D", "Bonn"):
        assert words in missing, words


def test_pictures_that_are_gone_are_named(tmp_path):
    metrics = evaluated(tmp_path, 3)
    for picture in metrics.parent.rglob("*.jpg"):
        picture.unlink()
    report.run(made(metrics.parent, "--out", tmp_path / "r.html"))
    assert "depth.jpg is not there any more" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(("content", "complaint"), [
    (None, "does not exist; `human-scene evaluate` writes it"), ("[1]", "has schema 'list'; expected"),
    ("{", "cannot be read as JSON"), ('{"schema": "other"}', "has schema 'other'; expected"),
    (json.dumps({"schema": SCHEMA}), "lacks mode, created, .*, sequences: run `human-scene evaluate` again"),
    (json.dumps({"schema": SCHEMA, "sequences": [{"name": "a"}, {"name": "b"}]}),
     r"lacks .*totals, sequences\[\].counts, sequences\[\].metrics, .*sequences\[\].files: run")])
def test_other_files_are_refused(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(SourceError, match=complaint):
        report.run(made(tmp_path / "metrics.json", "--out", tmp_path / "r.html"))


# --- the numbers of a README

def test_numbers_of_a_readme_are_written_between_the_marks(tmp_path):
    metrics = evaluated(tmp_path, 6, dataset="synthetic-indoor")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold 99\n{END}\nafter\n")
    arguments = made(metrics, "--out", tmp_path / "r.html", "--readme", readme)
    report.run(arguments)
    once = readme.read_text()
    assert once.startswith(f"before\n{BEGIN}\n\n| | frames |") and once.endswith(f"{END}\nafter\n")
    assert "| indoor | 6 | 100 % |" in once and "old 99" not in once
    report.run(arguments)
    assert readme.read_text() == once
    commit = json.loads(metrics.read_text())["git"]["commit"]
    assert f"commit {commit[:10]}" in once

    with pytest.raises(ConfigError, match="lacks the marks of the numbers"):
        replace_block("nothing here", "x")


# --- charts

def test_a_line_goes_where_the_numbers_say():
    svg = charts.line_chart([Series("a", [0.0, 1.0, 2.0], [0.0, None, 10.0])], title="t", x_label="x", y_label="y",
                            describe="d")
    (first, second) = re.findall(r'class="s0 line" d="M([\d.]+) ([\d.]+)L', svg)
    assert float(first[0]) < float(second[0]) and float(first[1]) > float(second[1])  # right and up
    assert charts.line_chart([Series("a", [0.0], [math.nan])], title="t", x_label="", y_label="", describe="") == (
        '<p class="none">t: no values.</p>')


def test_a_map_has_one_scale():
    svg = charts.map_chart([Series("a", [0.0, 4.0, 4.0], [0.0, 0.0, 1.0])], title="t", describe="d")
    points = [tuple(map(float, p.split())) for p in re.search(r'line" d="M([^"]*)"', svg)[1].split("L")]  # type: ignore[index]
    assert points[1][0] - points[0][0] == pytest.approx(4.0 * (points[1][1] - points[2][1]), abs=0.5)


def test_a_histogram_counts_everything_but_its_tail():
    svg = charts.histogram([1.0] * 30 + [2.0] * 10, title="t", x_label="ms", describe="d", marks=[("p50", 1.0)])
    heights = sorted(float(h) for h in re.findall(r'class="s0 bar"[^/]*height="([\d.]+)"', svg))
    assert len(heights) == 2 and heights[1] == pytest.approx(3 * heights[0], abs=0.5)
    assert ">p50 1</text>" in svg


@pytest.mark.parametrize(("low", "high", "ticks"), [
    (0.0, 10.0, [0.0, 2.5, 5.0, 7.5, 10.0]), (0.13, 0.41, [0.2, 0.3, 0.4]), (3.0, 3.0, [3.0]),
    (-2.0, 2.0, [-2.0, -1.0, 0.0, 1.0, 2.0])])
def test_ticks_are_round(low, high, ticks):
    assert charts.nice_ticks(low, high) == pytest.approx(ticks)


# --- in a browser

def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return found or pytest.skip("needs Chromium to look at the page; none is installed")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_is_not_empty(page, tmp_path, width):
    """A frame of the wanted width, because a browser's own window has a least one; beside it, a red page."""
    frame = tmp_path / "frame.html"
    frame.write_text(f'<body style="margin:0;background:#f00"><iframe src="{page.as_uri()}" '
                     f'style="border:0;width:{width}px;height:2600px"></iframe>')
    shot = tmp_path / "shot.png"
    done = subprocess.run(
        [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width + 110},2600", f"--screenshot={shot}",
         frame.as_uri()], capture_output=True, text=True, timeout=180, check=False)
    assert shot.is_file(), done.stderr[-2000:]
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    inside, outside = picture[:, :width], picture[:, width + 2:]
    assert (outside == [255, 0, 0]).all()
    # Something is written all the way down, in more than two colours, and never up to the edges of the page.
    rows = (inside.max(axis=(1, 2)) - inside.min(axis=(1, 2))) > 60
    assert all(part.any() for part in np.array_split(rows, 12))
    assert len(np.unique(inside @ [1, 256, 65536])) > 50
    assert (inside[:, :8] == inside[0, 0]).all() and (inside[:, -8:] == inside[0, 0]).all()


@pytest.mark.slow
def test_no_word_leaves_its_cell_on_a_phone(page, tmp_path):
    """The browser itself is asked, by a page around this one; a long name once lay over the numbers beside it."""
    around = tmp_path / "around.html"
    around.write_text(f'''<!doctype html><meta charset="utf-8"><body><iframe style="width:390px;height:2000px"
        srcdoc="{html.escape(page.read_text())}"></iframe><script>addEventListener("load", () => {{
        const inside = document.querySelector("iframe").contentDocument;
        const cells = [...inside.querySelectorAll("th, td, .tile span, summary")];
        document.body.textContent = JSON.stringify({{count: cells.length, wide: cells.filter(
            c => c.scrollWidth > c.clientWidth + 1).map(c => c.textContent)}}); }});</script>''')
    done = subprocess.run(
        [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", around.as_uri()], capture_output=True, text=True, timeout=180,
        check=False)
    told = json.loads(html.unescape(re.search(r"<body>(\{.*\})</body>", done.stdout)[1]))
    assert told["count"] > 300 and told["wide"] == []


@pytest.mark.parametrize(("value", "factor", "unit", "text"), [
    (0.996, 100.0, " %", "100 %"), (0.0714, 100.0, " %", "7.1 %"), (0.0996, 100.0, " %", "10 %"),
    (1234.5, 1.0, " mm", "1234 mm"), (0.1649, 1.0, "", "0.16"), (None, 1.0, "", "-")])
def test_cells_of_the_readme_have_no_exponents(value, factor, unit, text):
    assert cell(value, factor, unit) == text
