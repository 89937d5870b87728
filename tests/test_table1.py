"""Table 1 from run folders: the right runs in the right columns, numbers as computed by hand, files that open."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from browser import AVAILABLE, Browser
from omegaconf import OmegaConf

from spectangle.console import render
from spectangle.errors import SpectangleError
from spectangle.reports.frontier import Point, draw, frontier_points, print_frontier
from spectangle.reports.table1.collect import FIRST, PAPER, PURE, SECOND, SPECTRA, collect, representation_of
from spectangle.reports.table1.layout import attribute_grid, leakage_grid, long_rows, paper_grids, ratio_grid
from spectangle.reports.table1.print import print_table1
from spectangle.reports.table1.text import (
    latex_text,
    markdown_text,
    number_table,
    table_text,
    terminal_table,
    terminal_tables,
)
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import list_runs

UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}
LABELS = tuple(UNITS)
SIGNS = {"none": (0, 0, 0, 0), "first": (-1, -1, 1, 1), "second": (1, 1, -1, -1)}


def make_run(
    folder: Path, lambdas: tuple[int, ...], seed: int, teff_mae: float = 100.0, survey: str = "abc", **config
) -> Path:
    """A finished run folder without a model."""
    (folder / ".hydra").mkdir(parents=True)
    choices = {
        "seed": seed,
        "lambdas": dict(zip(LABELS, (1e-3 * s for s in lambdas), strict=True)),
        "data": {"split_seed": 0},
        "model": {},
    } | config
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(choices))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"seed={seed}"]))
    metrics: dict[str, float] = {"val/reconstruction": 2e-3}
    for label in LABELS:
        for source, size in (("latent", teff_mae), ("spectra", 120.0)):
            scale = 1.0 if label == "teff" else 1e-3
            metrics |= {
                f"test/{source}/{label}/{name}": size * scale for name in ("mae", "sigma", "sigma_mad", "sigma_abs")
            }
            metrics |= {f"test/{source}/{label}/mean": -2 * scale, f"test/{source}/{label}/r2": 0.9}
        metrics |= {
            f"probe/{label}/r2": 0.8,
            f"reference/{label}/r2": 0.9,
            f"disentanglement/{label}": 1 / 9,
            f"retention/{label}": 8 / 9,
        }
        if lambdas[LABELS.index(label)] > 0:
            metrics |= {
                f"floor/{label}": 0.3,
                f"excess/{label}": 0.04,
                f"val/excess/{label}": 0.05 + 0.01 * LABELS.index(label),
            }
    if -1 in lambdas:
        metrics |= {"test/entangled_mae": teff_mae / 120, "val/entangled_mae": teff_mae / 110}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    facts = {"content_hash": survey, "path": "gone.h5", "units": UNITS}
    (folder / "manifest.json").write_text(json.dumps({"survey": facts}))
    return folder


@pytest.fixture
def sweep(tmp_path) -> Path:
    for name, lambdas in SIGNS.items():
        for seed, mae in enumerate((100.0, 104.0, 108.0)):
            make_run(tmp_path / f"{name}-{seed}", lambdas, seed, mae)
    return tmp_path


def test_the_signs_of_lambda_tell_the_representation():
    for expected, name in ((PURE, "none"), (FIRST, "first"), (SECOND, "second")):
        assert representation_of({"lambdas": dict(zip(LABELS, SIGNS[name], strict=True))}) == expected
    all_kept = {"lambdas": dict.fromkeys(LABELS, -1e-3)}
    assert representation_of(all_kept).title == "All labels kept"
    supervised = representation_of(all_kept | {"model": {"reconstruction_weight": 0.0}})
    assert supervised.title == "Supervised encoder" and supervised.key.startswith("no_decoder")
    assert representation_of({"lambdas": {"teff": 1e-3, "logg": 0, "m_h": None}}).disentangled == ("teff",)


def test_the_papers_numbers_agree_with_its_note_not_with_its_text():
    assert PAPER["first", "teff"][0] < PAPER["pure", "teff"][0] < PAPER["second", "teff"][0]
    assert PAPER["second", "m_h"][0] < PAPER["pure", "m_h"][0] < PAPER["first", "m_h"][0]
    impossible = [mae > (mean**2 + sigma**2) ** 0.5 for mae, mean, sigma in PAPER.values()]
    assert sum(impossible) == 6


def test_mean_and_spread_over_seeds(sweep):
    table, runs = collect(sweep)
    assert [one.key for one in table.representations] == ["spectra", "pure", "first", "second"]
    cell = table.cell(FIRST, "teff/mae")
    assert cell is not None and (cell.mean, cell.spread, cell.seeds) == (104.0, 4.0, 3)
    assert table.ratio(FIRST, SPECTRA, "teff/mae") == pytest.approx(104 / 120)
    assert table.cell(FIRST, "m_h/excess") is not None and table.cell(FIRST, "teff/excess") is None
    assert [len(members) for members in runs.values()] == [3, 3, 3] and not table.notes


def test_the_layout_is_the_papers(sweep):
    grid = paper_grids(collect(sweep)[0])[0]
    assert [width for _, width in grid.groups] == [1, 3, 3, 3, 3]
    assert grid.rows[0][:7] == ["T_eff (K)", "120", "-2", "120", "104", "-2", "104"]
    assert grid.rows[1][0].endswith("seeds") and grid.rows[1][4] == "4.0"
    assert grid.rows[2] == ["paper", *["121", "58", "131", "140", "6", "138", "93", "-7", "94", "512", "17", "361"]]
    text = render(terminal_table(grid), width=130)
    assert max(map(len, text.splitlines())) < 130 and "First pair" in " ".join(text.split())
    assert any(row[2] == "lost" and "0.040" in row[7] for row in leakage_grid(collect(sweep)[0]).rows)
    assert any("0.87" in row for row in ratio_grid(collect(sweep)[0]).rows)


def test_what_the_spectra_do_not_hold_has_a_blank_for_what_is_lost(sweep):
    for path in sweep.glob("first-*/metrics.json"):
        metrics = json.loads(path.read_text())
        kept = {key: value for key, value in metrics.items() if key not in ("disentanglement/m_h", "retention/m_h")}
        path.write_text(json.dumps(kept | {"reference/m_h/r2": -0.04}))
    grid = leakage_grid(table := collect(sweep)[0])
    lost = {row[1]: row[8:10] for row in grid.rows if row[0] == "First pair"}
    assert lost["[M/H]"] == ["", ""] and all(lost["T_eff"]) and "R2 below 0.05" in grid.note
    columns, rows = long_rows(table)
    [row] = [dict(zip(columns, row, strict=True)) for row in rows if (row[0], row[2]) == ("first", "m_h")]
    assert row["disentanglement"] is None and row["reference"] == pytest.approx(-0.04)
    assert "nan" not in table_text(number_table(table, "x"), "ascii.csv")


@pytest.mark.parametrize("width", [80, 120, 300])
def test_tables_are_cut_into_pieces_that_fit_the_terminal(sweep, width):
    table, _ = collect(sweep)
    for grid in (*paper_grids(table), leakage_grid(table), ratio_grid(table)):
        texts = [render(piece, width=width) for piece in terminal_tables(grid, width)]
        lines = [line for text in texts for line in text.splitlines()]
        assert max(map(len, lines)) <= width and "…" not in "".join(lines)
        words = " ".join(lines).split()
        assert all(word in words for row in grid.rows for cell in row for word in cell.split())
        assert all(word in " ".join(words) for heading in grid.headings for word in heading.split())
        assert "[alpha/Fe])" in words or not grid.groups  # of the second pair's heading
        assert len(texts) == 1 or width < 300


def test_columns_have_their_own_names_and_notes_explain_them(sweep):
    table, _ = collect(sweep)
    for grid in (leakage_grid(table), ratio_grid(table)):
        assert len(set(grid.headings)) == len(grid.headings)
    leakage = leakage_grid(table)
    assert {"lost", "retention"} <= set(leakage.headings)
    assert "Lost:" in leakage.note and "retention:" in leakage.note and "Erasure" not in leakage.note


def test_the_limit_is_a_row_and_a_ratio_where_runs_know_it(sweep):
    for path in sweep.glob("*/metrics.json"):
        limit = {f"limit/teff/{name}": value for name, value in (("mae", 65.0), ("mean", 1.0), ("sigma", 90.0))}
        path.write_text(json.dumps(json.loads(path.read_text()) | limit))
    table, _ = collect(sweep)
    grid = paper_grids(table)[0]
    assert [row[0] for row in grid.rows].count("limit") == 1 and len(paper_grids(table)) == 1
    assert grid.rows[2] == ["limit", "65", "1", "90", *[""] * 9] and "best possible reader" in grid.note
    make_run(sweep / "lost", (1, 1, 1, 1), 0)
    ratios = ratio_grid(table := collect(sweep)[0])
    order = list(dict.fromkeys(row[0] for row in ratios.rows))
    assert order == ["Pure latent", "First pair", "Second pair", "All labels lost", "Physical limit"]
    place = ratios.headings.index("over limit")
    rows = {tuple(row[:2]): row[place] for row in ratios.rows}
    assert rows["First pair", "T_eff (K)"] == "1.60" and rows["First pair", "log g (dex)"] == ""
    assert rows["Physical limit", "T_eff (K)"] == "1.00" and all(
        len(row) == len(ratios.headings) for row in ratios.rows
    )
    assert all(row[0] != "Physical limit" for row in leakage_grid(table).rows)
    assert "65 & 1 & 90" in latex_text([grid]) and "| limit | 65 | 1 | 90 |" in markdown_text(grid)


def test_every_number_is_in_the_csv_and_the_same_in_the_ecsv(sweep):
    from astropy.table import Table

    table, _ = collect(sweep)
    columns, rows = long_rows(table)
    read = list(csv.DictReader(io.StringIO(table_text(number_table(table, "here"), "ascii.csv"))))
    assert len(read) == len(rows) == 16 and list(read[0]) == columns
    back = Table.read(table_text(number_table(table, "here"), "ascii.ecsv"), format="ascii.ecsv")
    first = next(row for row in back if row["representation"] == "first" and row["label"] == "teff")
    assert first["mae"] == 104.0 and first["mae_spread"] == 4.0 and first["paper_mae"] == 93
    assert back["excess"].mask.sum() == 12 and back.meta["paper"].startswith("Manteiga")  # pyright: ignore


def test_attributes_and_numbers_of_stars_have_their_places(sweep):
    assert attribute_grid(collect(sweep)[0]) is None and "stars" not in leakage_grid(collect(sweep)[0]).headings
    told = make_run(sweep / "told", SIGNS["first"], 0, labels={"attributes": ["instrument"]})
    config = yaml.safe_load((told / ".hydra/config.yaml").read_text())
    config["lambdas"]["instrument"] = 1.0
    (told / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    found = {f"probe/{name}/stars": 900.0 for name in LABELS} | {"probe/m_h/stars": 700.0}
    found |= {"probe/instrument/balanced_accuracy": 0.55, "probe/instrument/chance": 0.5, "probe/instrument/stars": 880}
    found |= {"reference/instrument/balanced_accuracy": 0.99, "excess/instrument": 0.013}
    path = told / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | found))
    table, _ = collect(sweep)
    grid = attribute_grid(table)
    assert grid is not None and [row[1:] for row in grid.rows] == [
        ["instrument", "lost", "0.550", "0.500", "0.990", "", "0.013", "880"]
    ]
    leakage = leakage_grid(table)
    rows = {row[1]: row[-1] for row in leakage.rows if "instrument" in row[0]}
    assert leakage.headings[-1] == "stars" and rows["T_eff"] == "900" and rows["[M/H]"] == "700"
    columns, rows = long_rows(table)
    [own] = [dict(zip(columns, row, strict=True)) for row in rows if row[2] == "instrument"]
    assert own["balanced_accuracy"] == 0.55 and own["stars"] == 880 and own["mae"] is None and len(rows) == 16 + 4 + 1
    assert latex_text([grid]).count("instrument") == 2


def test_latex_has_the_structure_of_a_table(sweep):
    table, _ = collect(sweep)
    text = latex_text([*paper_grids(table), leakage_grid(table), ratio_grid(table)])
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for environment in ("table*", "tabular"):
        assert body.count(rf"\begin{{{environment}}}") == body.count(rf"\end{{{environment}}}") == 3
    assert body.count("{") == body.count("}") and body.replace(r"\$", "").count("$") % 2 == 0
    for block in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", body, re.S):
        rows = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        for row in rows:
            extra = sum(int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert row.count("&") - row.count(r"\&") + extra == len(block[0]) - 1, row
        for start, end in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", block[1]):
            assert 1 <= int(start) <= int(end) <= len(block[0])
    assert not re.search(r"(\\\\|\\addlinespace|\\midrule)\s*\[", body)  # it would be read as an option
    outside = re.sub(r"\$[^$]*\$|\\label\{[^}]*\}", "", body)
    assert not re.search(r"(?<!\\)[_%#]", outside) and "T_eff" not in body


def test_markdown_rows_have_one_width(sweep):
    table, _ = collect(sweep)
    for grid in (*paper_grids(table), leakage_grid(table), ratio_grid(table)):
        lines = [line for line in markdown_text(grid).splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1


def test_a_folder_without_finished_runs_is_refused(tmp_path):
    with pytest.raises(SpectangleError, match="no finished run"):
        collect(tmp_path)


def test_runs_on_different_stars_are_refused(sweep):
    make_run(sweep / "other", SIGNS["none"], 7, survey="xyz")
    with pytest.raises(SpectangleError, match=r"same test stars \(different: survey\)"):
        collect(sweep)


@pytest.mark.parametrize(
    ("choice", "value"),
    [("n_stars", 100), ("test_fraction", 0.3), ("folds", 5), ("max_masked_fraction", 0.5), ("require", ["teff"])],
)
def test_choices_that_move_test_stars_are_refused(sweep, choice, value):
    make_run(sweep / "other", SIGNS["first"], 7, data={"split_seed": 0, choice: value})
    with pytest.raises(SpectangleError, match=f"same test stars .different: .*{choice}"):
        collect(sweep)


def test_choices_that_leave_the_test_stars_are_one_table(sweep):
    data = {"split_seed": 0, "folds": None, "fold": 2, "test_fraction": 0.2, "require": [*LABELS], "batch_size": 9}
    make_run(sweep / "other", SIGNS["first"], 7, data=data)
    assert collect(sweep)[0].cell(FIRST, "teff/mae").seeds == 4  # pyright: ignore


def test_runs_that_differ_in_more_than_the_seed_are_noted(sweep):
    make_run(sweep / "other", SIGNS["first"], 0, model={"latent": 3})
    table, _ = collect(sweep)
    assert "model.latent" in table.notes[0] and table.cell(FIRST, "teff/mae").seeds == 4  # pyright: ignore


def report(sweep: Path, folder: Path, **options) -> Path:
    choices = {"sweep": str(sweep), "output": str(folder), "baselines": False, "figures": True, "tsne_stars": 60}
    choices |= {"survey": None}
    print_table1(OmegaConf.create(choices | options))
    return folder


CAPTION = re.compile("<figcaption>(.*?)</figcaption>", re.S)


@pytest.fixture(scope="module")
def written(toy_runs, tmp_path_factory) -> Path:
    return report(toy_runs[0].parent, tmp_path_factory.mktemp("table1") / "report")


def test_the_report_of_real_runs(written):
    folder = written
    assert {"report.html", "table1.csv", "table1.ecsv", "table1.tex", "table1.md", "figures"} == {
        path.name for path in folder.iterdir()
    }
    assert (folder / "figures" / "tsne_first_pair.pdf").is_file() and (
        folder / "figures" / "kiel_chemical.png"
    ).is_file()
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page) and page.count("data:image/png;base64,") >= 4


def test_figures_of_the_report_say_which_stars_and_which_seed(written):
    page = (written / "report.html").read_text()
    headings = re.findall(r"<h2 id='(.*?)'>(.*?)</h2>", page)
    links = dict(re.findall(r"<a href='#(.*?)'>(.*?)</a>", page))
    assert set(links) == {name for name, _ in headings} and not any("_" in words for words in links.values())
    captions = dict(
        zip([name for name, _ in headings][-page.count("<figcaption>") :], CAPTION.findall(page), strict=True)
    )
    assert all("test stars" in words for words in captions.values())
    for name, words in captions.items():
        assert name.startswith("survey") or "eed 0" in words, name


def test_a_frontier_without_a_front_has_points_only():
    points = [Point(FIRST, {"seed": seed}, 1.0 + seed / 10, {"m_h": 0.2 - seed / 10}) for seed in range(2)]
    steps = [[line.get_drawstyle() for line in draw(points, front=front).axes[0].lines] for front in (True, False)]
    assert len(steps[0]) > len(steps[1]) and "steps-post" in steps[0] and "steps-post" not in steps[1]


def test_without_models_there_are_still_tables(sweep, tmp_path, capsys):
    page = (report(sweep, tmp_path / "report") / "report.html").read_text()
    assert "No figures of First pair" in page
    assert "mean absolute error of the kept labels" in page and "the largest excess of a lost label" in page
    assert "Second pair" in capsys.readouterr().out


def test_the_frontier_is_drawn_from_validation_stars(sweep, tmp_path, capsys):
    for i, (noise, mae) in enumerate(((0, 130.0), (1, 90.0))):
        path = make_run(sweep / f"noise-{i}", SIGNS["second"], 0, mae)
        (path / ".hydra" / "overrides.yaml").write_text(
            yaml.safe_dump(["lambdas=second_pair", f"model.input_noise={noise}"])
        )
    point = next(one for one in frontier_points(list_runs(sweep)) if one.choices.get("model.input_noise") == 1)
    assert point.entangled_mae == pytest.approx(90 / 110) and point.excess == {
        "teff": 0.05,
        "logg": pytest.approx(0.06),
    }
    assert frontier_points(list_runs(sweep), "test")[0].largest_excess == pytest.approx(0.04)
    print_frontier(OmegaConf.create({"sweep": str(sweep), "output": str(tmp_path / "out")}))
    printed = capsys.readouterr().out
    cheapest = next(line for line in printed.splitlines() if "0.818" in line)
    assert "*" in cheapest and "logg" in cheapest and "model.input_noise" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"frontier.pdf", "frontier.png"}


def test_values_that_other_keys_give_are_read(tmp_path):
    """sweeps/paper_grid.yaml writes lambdas.teff as ${strength}."""
    run = Run(make_run(tmp_path / "run", SIGNS["second"], 0, strength=0.01))
    config = yaml.safe_load((run.path / ".hydra/config.yaml").read_text())
    config["lambdas"] |= {"teff": "${strength}", "logg": "${strength}"}
    config["folder"] = "${hydra:runtime.output_dir}/x"
    (run.path / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    assert representation_of(run.config) == SECOND and run.config["lambdas"]["teff"] == 0.01
    assert run.config["folder"] == "${hydra:runtime.output_dir}/x"
    assert collect(tmp_path)[0].representations[-1] == SECOND


def test_a_frontier_of_many_choices_stays_on_the_page(sweep, tmp_path, capsys):
    for i in range(6):
        path = make_run(sweep / f"grid-{i}", SIGNS["second"], 0, 100.0 + i)
        choices = [
            "lambdas=second_pair",
            f"model.hidden=[512,256,{i}]",
            f"strength={10.0**-i}",
            f"bins.count={i}",
            "model=small",
        ]
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(choices))
    points = frontier_points(list_runs(sweep))
    notes = [text.get_text() for text in draw(points).axes[0].texts]
    assert notes == [str(number + 1) for number in range(len(points))]
    print_frontier(OmegaConf.create({"sweep": str(sweep), "output": str(tmp_path / "out")}))
    assert f"│ {len(points)} " in capsys.readouterr().out


def test_a_sweep_without_a_frontier_says_what_to_measure(tmp_path):
    make_run(tmp_path / "pure", SIGNS["none"], 0)
    with pytest.raises(SpectangleError, match="every_n_epochs"):
        print_frontier(OmegaConf.create({"sweep": str(tmp_path), "output": None}))


@pytest.mark.browser
@pytest.mark.skipif(not AVAILABLE, reason="needs Chromium and chromedriver")
def test_tables_of_the_page_fit_it(sweep, tmp_path):
    """Four representations over three seeds, with a limit: the last column was beyond the edge."""
    make_run(sweep / "lost", (1, 1, 1, 1), 0)
    for path in sweep.glob("*/metrics.json"):
        limit = {f"limit/{label}/{name}": 0.06 for label in LABELS for name in ("mae", "mean", "sigma")}
        path.write_text(json.dumps(json.loads(path.read_text()) | limit))
    page = report(sweep, tmp_path / "report", figures=False) / "report.html"
    with Browser() as browser:
        browser.open(f"file://{page}")
        browser.emulate(False, 1200)
        wider = "return [...document.querySelectorAll('.scroll')].map(box => box.scrollWidth - box.clientWidth)"
        assert browser.run(wider) == [0] * 4


@pytest.mark.browser
@pytest.mark.skipif(not AVAILABLE, reason="needs Chromium and chromedriver")
def test_the_report_opens_without_a_request(written):
    with Browser() as browser:
        browser.open(f"file://{written}/report.html")
        browser.wait(
            "document.images.length >= 4 && [...document.images].every(i => i.complete && i.naturalWidth > 100)"
        )
        assert browser.run("return document.querySelectorAll('table').length") >= 3
        assert not browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert browser.requests() <= {f"file://{written}/report.html"} and not browser.console()
        for dark in (False, True):
            browser.emulate(dark, 400)
            back = browser.run("return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
            assert (max(back) < 60) == dark and browser.run("return document.documentElement.scrollWidth <= 400")
            assert browser.run("return getComputedStyle(document.images[0]).backgroundColor") == "rgb(255, 255, 255)"
