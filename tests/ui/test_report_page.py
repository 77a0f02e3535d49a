"""The page and the figure files: structure, numbers, escaping, nothing to load."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_runs import content_of, contents_of, make_run, make_scores

from hdkd_cli.errors import ArtifactError
from hdkd_cli.evaluation.calibration import calibrate_risk
from hdkd_cli.ui.report.drawing import PALETTE, Line, css_colours, drawn, exit_colours
from hdkd_cli.ui.report.figures import lines, run_figures, shared_figures
from hdkd_cli.ui.report.gallery import ExitPictures, Picture
from hdkd_cli.ui.report.plain import chart, write_plain
from hdkd_cli.ui.report.read import RunContent, read_runs
from hdkd_cli.ui.report.write import page, write_report

pytest.importorskip("matplotlib")

VOID = {"meta", "img", "br", "link", "input", "hr"}
DANGEROUS = "<script>alert(1)</script>&\"'$x_"


class Outline(HTMLParser):
    """Checks that tags close in order; keeps what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if re.fullmatch("h[1-6]", self.open[-1] if self.open else ""):
            level, before = self.headings[-1]
            self.headings[-1] = (level, before + data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def written(runs: list[RunContent], tmp_path: Path) -> tuple[str, Path]:
    write_report(runs, tmp_path / "out" / "r.html", tmp_path / "out" / "figures", None)
    return (tmp_path / "out" / "r.html").read_text(), tmp_path / "out" / "figures"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunContent, str, Path]:
    folder = tmp_path_factory.mktemp("single")
    content = content_of(make_run(folder / "run"))
    html, figures = written([content], folder)
    return content, html, figures


def test_the_page_is_whole_and_loads_nothing(single: tuple[RunContent, str, Path]) -> None:
    html = single[1]
    assert html.startswith("<!DOCTYPE html>")
    assert "http:" not in html
    assert "https:" not in html
    seen = Outline(html)
    kinds = [tag for tag, _ in seen.tags]
    assert not {"script", "link", "iframe", "object", "base"} & set(kinds)
    assert "@import" not in html
    assert dict(seen.tags)["html"] == {"lang": "en"}
    for tag, attributes in seen.tags:
        for name in ("src", "href", "xlink:href"):
            if name in attributes:
                assert str(attributes[name]).startswith(("data:image/png;base64,", "#")), tag
        if tag == "img":
            assert attributes["alt"] is not None
        if tag == "svg":
            assert attributes["role"] == "img"
            assert len(str(attributes["aria-label"])) > 20
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert set(re.findall(r"url\((.)", html)) == {"#"}
    # every reference has its one target
    ids = [str(a["id"]) for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html)
    assert len(references) > 10
    assert {first or second for first, second in references} <= set(ids)


def test_headings_are_in_order(single: tuple[RunContent, str, Path]) -> None:
    headings = Outline(single[1]).headings
    assert [level for level, _ in headings].count(1) == 1
    for (before, _), (after, text) in pairwise(headings):
        assert after <= before + 1, text
    assert {"Accuracy against cost", "Settings", "Calibration of each exit"} <= {
        text for _, text in headings
    }


def test_every_colour_follows_the_theme(single: tuple[RunContent, str, Path]) -> None:
    html = single[1]
    for name, (light, dark) in css_colours([3]).items():
        assert f"--{name}:{light};" in html
        assert f"--{name}:{dark};" in html
    drawn = html[html.index("<svg") :]
    for light, _ in (*PALETTE.values(), *exit_colours(3)):
        assert light not in drawn
    assert "prefers-color-scheme:dark" in html


def test_numbers_are_those_of_the_records(single: tuple[RunContent, str, Path]) -> None:
    content, html, _ = single
    rows = Outline(html).rows
    assert content.evaluation is not None
    for exit_ in content.evaluation.anytime["exits"]:
        assert [
            str(exit_["exit"]), f"{exit_['macs'] / 1e6:.2f} M", f"{exit_['params']:,}",
            f"{exit_['top1_pct']:.2f}", f"{exit_['top5_pct']:.2f}", f"{exit_['nll']:.4g}",
            f"{exit_['ece_pct']:.2f}", f"{exit_['auroc']:.4g}",
        ] in rows  # fmt: skip
    for point in content.evaluation.curves[0].record["points"]:
        shares = " ".join(f"{100 * share:.1f}" for share in point["exit_share"])
        assert [f"{point['macs'] / 1e6:.2f} M", f"{point['top1_pct']:.2f}", shares] in rows
    assert ["model.exits", "3", "unknown"] in rows


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_comes_with_its_data(single: tuple[RunContent, str, Path]) -> None:
    content, html, figures = single
    stems = {path.stem for path in figures.iterdir()}
    assert stems == {
        "accuracy-against-cost", "exit-shares-geometric", "reliability", "confusion",
        "validation-accuracy", "losses",
        "weights-matrix", "weights-moments", "weights-over-training",
    }  # fmt: skip
    assert html.count("<svg") == len(stems)
    for stem in stems:
        assert (figures / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (figures / f"{stem}.svg").read_text()
    assert content.evaluation is not None
    assert content.history is not None
    curve = content.evaluation.curves[0].record["points"]
    drawn = read_csv(figures / "accuracy-against-cost.csv")
    expected = [(e["macs"], e["top1_pct"]) for e in content.evaluation.anytime["exits"]]
    expected += sorted((p["macs"], p["top1_pct"]) for p in curve)
    found = [(1e6 * float(row["macs_millions"]), float(row["top1_pct"])) for row in drawn]
    assert found == [pytest.approx(pair) for pair in expected]
    shares = read_csv(figures / "exit-shares-geometric.csv")
    for row, point in zip(shares, sorted(curve, key=lambda p: p["macs"]), strict=True):
        assert [float(row[f"exit_{k}_pct"]) / 100 for k in (1, 2, 3)] == pytest.approx(
            point["exit_share"]
        )
    weights = read_csv(figures / "weights-over-training.csv")
    assert [int(row["step"]) for row in weights] == content.history.step_S.tolist()
    assert float(weights[-1]["kd[3->2]"]) == content.history.weights_ST[-1, 5]
    cells = read_csv(figures / "weights-matrix.csv")
    assert {(row["student"], row["teacher"]) for row in cells} == {
        ("1", "1"), ("1", "2"), ("1", "3"), ("2", "2"), ("2", "3"), ("3", "3"),
    }  # fmt: skip
    bins = [row for row in read_csv(figures / "reliability.csv") if row["exit"] == "2"]
    assert sum(int(row["images"]) for row in bins) == 300
    gaps = [
        int(row["images"]) / 300 * abs(float(row["right_pct"]) - float(row["confidence_pct"]))
        for row in bins
        if row["right_pct"]
    ]
    assert sum(gaps) == pytest.approx(content.evaluation.anytime["exits"][1]["ece_pct"], abs=0.01)


def test_the_same_run_gives_the_same_files(
    single: tuple[RunContent, str, Path], tmp_path: Path
) -> None:
    html, _ = written([single[0]], tmp_path)
    assert html == single[1]


def test_what_users_wrote_is_escaped(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run<b>&", preset=DANGEROUS, device=DANGEROUS, argv=["hdkd", DANGEROUS],
        sections={"data": {"root": f"/x/{DANGEROUS}"}},
    )  # fmt: skip
    run.keep_policy("a<i>b&", json.loads((run.policies / "geometric.json").read_text()))
    content = content_of(run)
    picture = Picture("data:image/png;base64,", DANGEROUS, f"{DANGEROUS}2", 0.5)
    gallery = (ExitPictures(1, 2, 1, (picture,), (picture,)),)
    figures = [drawn(figure) for figure in run_figures(content, "")]
    shared = [drawn(figure) for figure in shared_figures([content])]
    html = page([content], shared, [figures], [gallery])
    seen = Outline(html)
    assert "script" not in [tag for tag, _ in seen.tags]
    assert {"b", "i"}.isdisjoint(tag for tag, _ in seen.tags)
    assert DANGEROUS in seen.text
    assert "a<i>b&" in seen.text
    assert [a["alt"] for tag, a in seen.tags if tag == "img"] == [DANGEROUS] * 2
    assert "exit-shares-a_3c_i_3e_b_26_" in [drawing.figure.name for drawing in figures]


def test_missing_pieces_are_told_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", policy=False, records=1, status="running")
    seen = Outline(written([content_of(run)], tmp_path)[0])
    assert f"hdkd calibrate-thresholds {run.path}" in seen.text
    assert f"hdkd train --resume {run.path}" in seen.text
    assert "Learned weights over training" in [text for _, text in seen.headings]
    assert "Learned weights at moments of training" not in [text for _, text in seen.headings]


def test_fixed_weights_are_one_picture(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", sections={"weights": {"learned": False}})
    titles = [text for _, text in Outline(written([content_of(run)], tmp_path)[0]).headings]
    assert "Fixed weights" in titles
    assert not [title for title in titles if title.startswith("Learned")]


def test_a_run_without_anything(tmp_path: Path) -> None:
    from test_report_content import unavailable

    run = make_run(tmp_path / "run", records=0, policy=False, status="created")
    (content,) = read_runs([run], unavailable)  # type: ignore[arg-type]
    seen = Outline(written([content], tmp_path)[0])
    assert "There are no test scores yet." in seen.text
    assert "Settings" in [text for _, text in seen.headings]


def test_one_operating_point(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    record = json.loads((run.policies / "geometric.json").read_text())
    run.keep_policy("one", {**record, "points": record["points"][:1]})
    content = content_of(run)
    figures = {figure.name: figure for figure in run_figures(content, "")}
    ((_, *shares_pct),) = figures["exit-shares-one"].rows
    assert sum(shares_pct) == pytest.approx(100)
    assert "exit 3" in drawn(figures["exit-shares-one"]).svg


def test_published_points_stand_beside_exactly_their_network(tmp_path: Path) -> None:
    model = {
        "exits": 5, "base": 4, "step": 4, "channels": 32, "growth": 16, "stem": "imagenet",
        "growth_factors": [1, 2, 4, 4], "bottleneck_factors": [1, 2, 4, 4],
    }  # fmt: skip
    for growth, shown in ((16, True), (12, False)):
        sections = {"data": {"name": "imagenet", "root": "x"}, "model": model | {"growth": growth}}
        run = make_run(tmp_path / f"g{growth}", policy=False, records=0, sections=sections)
        (content,) = read_runs([run], lambda _: make_scores("test", exits=5))
        (figure,) = shared_figures([content])
        published = [row for row in figure.rows if row[0].startswith("published: joint")]
        expected = [56.64, 65.14, 68.42, 69.77, 71.34] if shown else []
        assert [accuracy for _, _, accuracy in published] == expected
        assert [cost for _, cost, _ in published] == ([1, 2, 3, 4, 5] if shown else [])
        html = page([content], [drawn(figure)], [[]], [()])
        assert ("56.64" in Outline(html).text) == shown


def test_runs_side_by_side(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)
    c = make_run(tmp_path / "c", gain=3, sections={"weights": {"learned": False}})
    runs = contents_of(a, b, c, gains=(1, 1, 3))
    seen = Outline(page(runs, [], [[]] * 3, [()] * 3))
    titles = [text for _, text in seen.headings]
    same = titles.index("B · b compared with A · a")
    assert same < titles.index("C · c compared with A · a")
    assert "naive-dkd compared with hdkd" in titles
    assert "2 seeds of hdkd" in titles
    labels = [line.name for line in lines([(run, run.evaluation) for run in runs])]
    assert labels[2] == "B · b: every image leaves at exit k"
    verdicts = [row[-1] for row in seen.rows if row[-1] in ("within noise", "higher", "lower")]
    assert verdicts[9:18] == ["higher"] * 9
    assert ["training.seed", "0", "1", "0"] in seen.rows
    assert {"Run A · a", "Run B · b", "Run C · c"} <= set(titles)


def test_runs_on_other_images_stand_side_by_side_without_a_verdict(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in "ab"]
    scores = make_scores("test")
    contents = read_runs(
        runs, lambda run: replace(scores, meta={**scores.meta, "dataset": run.path.name})
    )
    seen = Outline(page(contents, [], [[]] * 2, [()] * 2))
    assert "B · b is not compared with A · a" in [text for _, text in seen.headings]
    assert "another data set (b, not a)" in seen.text
    assert "within noise" not in seen.text


def test_a_page_is_not_overwritten_by_an_empty_one(tmp_path: Path) -> None:
    from test_report_content import unavailable

    run = make_run(tmp_path / "run")
    before, _ = written([content_of(run)], tmp_path)
    (empty,) = read_runs([run], unavailable)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="has no complete checkpoint") as refused:
        written([empty], tmp_path)
    assert refused.value.hint is not None
    assert (tmp_path / "out" / "r.html").read_text() == before


def test_losses_classes_and_confusion(single: tuple[RunContent, str, Path]) -> None:
    content, html, figures = single
    losses = read_csv(figures / "losses.csv")
    assert [row["split"] for row in losses] == ["train"] * 8 + ["val"]
    assert float(losses[0]["exit_2_nats"]) == pytest.approx(2.1)
    assert float(losses[-1]["exit_3_nats"]) == 0.9
    cells = read_csv(figures / "confusion.csv")
    assert sum(int(cell["images"]) for cell in cells) == 300
    right = sum(int(cell["images"]) for cell in cells if cell["class"] == cell["taken_for"])
    assert content.evaluation is not None
    last = content.evaluation.anytime["exits"][-1]["top1_pct"]
    assert 100 * right / 300 == pytest.approx(last)
    assert "All 5 classes at the last exit, worst first" in html


def test_a_guarantee_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a")
    promised = calibrate_risk(
        make_scores("val"), make_scores("calibration", seed=7),
        combination="single", confidence="max-prob", temperature=False,
        guarantee="ltt", loss="disagreement", epsilon=0.2, delta=0.1,
    )  # fmt: skip
    run.keep_policy("risk", promised.as_record())
    told = "With probability at least 90 % over the draw of the 300 calibration samples"
    assert promised.guarantee is not None
    assert promised.guarantee.statement.startswith(told)
    content = content_of(run)
    write_report([content], tmp_path / "report.html", tmp_path / "figures", None)
    assert promised.guarantee.statement in Outline((tmp_path / "report.html").read_text()).text
    write_plain([content])
    assert promised.guarantee.statement in capsys.readouterr().out


def test_plain_has_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, c = make_run(tmp_path / "a"), make_run(tmp_path / "c", seed=1, gain=3)
    runs = contents_of(a, c, gains=(1, 3))
    write_plain(runs)
    out = capsys.readouterr().out
    shown = out.splitlines()
    for content in runs:
        assert content.evaluation is not None
        for exit_ in content.evaluation.anytime["exits"]:
            assert [
                line for line in shown
                if line.split()[:2] == [str(exit_["exit"]), f"{exit_['macs'] / 1e6:.2f}"]
                and f"{exit_['top1_pct']:.2f}" in line
            ]  # fmt: skip
        point = content.evaluation.curves[0].record["points"][20]
        assert any(
            f"{point['macs'] / 1e6:.2f} M" in line and f"{point['top1_pct']:.2f}" in line
            for line in shown
        )
    assert "kd[3->2]" in out
    assert "higher" in out
    assert "2 seeds of hdkd" in out


def test_the_chart_puts_points_where_they_belong() -> None:
    low_right = Line("first", ((0.0, 50.0), (10.0, 40.0)), {})
    high_right = Line("second", ((10.0, 60.0), (0.0, 50.0)), {})
    title, *body = chart([low_right, high_right])
    rows = [line[9:] for line in body if "│" in line]
    assert rows[0].rstrip() == " " * 63 + "*"
    assert rows[-1].rstrip() == " " * 63 + "o"
    assert [row for row in rows if row.startswith("o")]  # the first named is seen
    assert "accuracy" in title
    assert chart([Line("point", ((1.0, 1.0),), {})])
