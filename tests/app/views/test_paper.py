"""The page of the paper: its sections, what was measured, Figure 1 and the tables."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.views.paper.sections import SECTIONS
from experiments.claims.findings import make_findings
from storage.findings import FINDINGS, locate_kernel_sheet, read_findings, write_findings
from tests.experiment_runs import make_result

ROOT = Path(__file__).resolve().parents[3]


def show_findings(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Have the page read another file of findings."""
    monkeypatch.setattr("app.views.paper.page.read_findings", partial(read_findings, file))


def test_the_sections_lead_to_code_and_pages_that_exist(client, page):
    shown = page(client.get("/paper"))
    assert [h.text.split()[0] for h in shown.all("h2") if h.text[0].isdigit()] == [
        section.number for section in SECTIONS
    ]
    files = {code.text for code in shown.all("code") if "/" in code.text and " " not in code.text}
    assert {file for section in SECTIONS for file in section.code} == files
    assert all((ROOT / file).is_file() for file in files)
    for link in shown.all("a", "shown-by"):
        assert client.get(link.attributes["href"]).status_code == 200
    here = [a for a in shown.one("nav").all("a") if a.attributes.get("aria-current") == "page"]
    assert [a.attributes["href"] for a in here] == ["/paper"]


def test_every_claim_has_the_verdict_of_the_committed_findings(client, page):
    findings = read_findings(FINDINGS)
    shown = page(client.get("/paper"))
    claims = [
        c for section in SECTIONS for n in section.experiments for c in findings.find(n).claims
    ]
    assert len(claims) == sum(len(one.claims) for one in findings.experiments)
    found = [block.one("p", "verdict").text for block in shown.all("div", "claim")]
    assert [text.split(maxsplit=1)[1].replace(" yet", "") for text in found] == [
        claim.outcome for claim in claims
    ]
    waiting = {one.name for one in findings.experiments if not any(c.data for c in one.claims)}
    commands = {code.attributes.get("id", "") for code in shown.all("code")}
    assert {name for name in commands if name} == {f"run-{name}" for name in waiting}


def test_the_first_kernels_of_all_runs_are_shown_where_there_is_a_picture(
    client, page, tmp_path, monkeypatch
):
    run = make_result("two towers", 0, [0.5])
    measured = {"first half": 0.5, "second half": 0.2, "p": 0.001}
    run = replace(
        run,
        experiment="colour-towers",
        data=replace(run.data, kind="imagenette"),
        recipe={"epochs": 20},
        measured=measured,
    )
    file = tmp_path / "findings.json"
    write_findings(make_findings([run]), file)
    show_findings(monkeypatch, file)
    monkeypatch.setattr(
        "app.views.paper.page.locate_kernel_sheet", partial(locate_kernel_sheet, results=tmp_path)
    )
    address = "/paper/conv1-imagenette.png"
    assert not page(client.get("/paper")).all("figure", "all-kernels")
    assert client.get(address).status_code == 404
    sheet = locate_kernel_sheet("colour-towers", "imagenette", tmp_path)
    sheet.parent.mkdir()
    Image.new("RGB", (30, 20)).save(sheet)
    (figure,) = page(client.get("/paper")).all("figure", "all-kernels")
    assert figure.one("img").attributes["src"] == address
    assert client.get(address).data == sheet.read_bytes()
    # Only data that has results.
    sheet.with_name("imagenet-conv1.png").write_bytes(sheet.read_bytes())
    assert client.get("/paper/conv1-imagenet.png").status_code == 404


def test_the_tables_have_the_papers_figures(client, page):
    tables = page(client.get("/paper")).all("table", "published")
    cells = [
        [[td.text.strip() for td in row.all("td")[:-1]] for row in table.one("tbody").all("tr")]
        for table in tables
    ]
    assert cells[0] == [["47.1", "28.2"], ["45.7", "25.7"], ["37.5", "17.0"]]
    assert cells[1][1] == ["40.7", "18.2", "–"]
    assert cells[1][-1] == ["36.7", "15.4", "15.3"]


def test_figure_1_is_drawn_of_the_runs(client, page, tmp_path, monkeypatch):
    errors = {"ReLU": [0.6, 0.4, 0.2], "tanh": [0.8, 0.7, 0.6, 0.5]}
    runs = [make_result(arm, seed, errors[arm]) for arm in errors for seed in (0, 1)]
    write_findings(make_findings(runs), tmp_path / "findings.json")
    show_findings(monkeypatch, tmp_path / "findings.json")
    shown = page(client.get("/paper"))
    plot: Any = shown.one("svg", "figure1")
    assert len(plot.all("path", "curve")) == 2
    rows = {
        r.one("th").text: r.all("td")[-1].text
        for r in shown.all("tr")
        if r.all("th") and r.all("td")
    }
    assert "3: 20.0" in rows["ReLU"]
    assert "4: 50.0" in rows["tanh"]
    assert "a lower bound" in shown.text


@pytest.mark.parametrize("content", [None, "", "{}", '{"format": 1, "experiments": 3}'])
def test_the_page_is_there_without_findings(client, page, tmp_path, monkeypatch, content):
    file = tmp_path / "findings.json"
    if content is not None:
        file.write_text(content)
    show_findings(monkeypatch, file)
    shown = page(client.get("/paper"))
    assert len([h for h in shown.all("h2") if h.text[0].isdigit()]) == len(SECTIONS)
    assert not shown.all("div", "claim")
