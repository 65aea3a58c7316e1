"""Pictures and tables of the docs are those of the recorded results."""

import os
import re
import shutil
from pathlib import Path

import doc_tables
import plots
import pytest
import whole_model
from conftest import REPOSITORY

from hf_tle_int8.bench.model import Speed
from hf_tle_int8.bench.plot import where
from hf_tle_int8.bench.tables import FACTS
from hf_tle_int8.bench.timing import Times

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
CSVS = sorted(plots.RESULTS.glob("*.csv"))
FACT = {"CPU": "abacus", "target of the kernels": "avx2", "threads": "1", "date": "today", "load average before": "0.1"}


def shown() -> set[str]:
    """The names of the pictures that pages show."""
    links = (re.findall(r"!\[[^\]]*\]\((?!https?:)([^)]+\.png)\)", page.read_text()) for page in PAGES)
    return {Path(link).name for found in links for link in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of what the command draws, with a copy of the pages that it writes tables into."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("made")
    for page in PAGES[1:]:
        copy = folder / "docs" / page.relative_to(DOCS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, copy)
    plots.main(["--out", str(folder), "--docs", str(folder / "docs")])
    return folder


def test_the_command_draws_every_picture_of_the_docs(made):
    drawn = {file.name for file in made.glob("*.png")}
    assert drawn == {file.name for file in plots.RESULTS.glob("*.png")}
    assert drawn == shown()
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in made.glob("*.png"))


def test_tables_of_the_docs_are_those_of_the_results(made):
    for page in PAGES[1:]:
        assert (made / "docs" / page.relative_to(DOCS)).read_text() == page.read_text(), f"{page}: run make plots"
    tables = set(re.findall(r"<!-- table (\S+) -->", (DOCS / "benchmarks.md").read_text()))
    assert tables == {file.stem for file in CSVS if file.stem.split("-")[0] in doc_tables.TABLES}


@pytest.mark.parametrize("path", CSVS, ids=lambda path: path.stem)
def test_every_line_says_where_and_when(path):
    facts = ("date", "versions", "how") if path.stem == "machine-model" else FACTS
    for record in plots.read(path):
        assert all(record[fact] for fact in facts)
        assert None not in record


def test_the_accuracy_that_the_readme_quotes_is_the_recorded_one():
    found = {(r["variant"], r["measure"]): float(r["value"]) for r in plots.read(plots.RESULTS / "accuracy.csv")}
    readme = (REPOSITORY / "README.md").read_text()
    perplexities = (f"{found[variant, 'perplexity']:.3f}" for variant in ("float", "INT8"))
    assert f"perplexity {' → '.join(perplexities)}" in readme
    cosine = re.search(r"cosine of at least ([\d.]+)", readme)
    assert float(cosine[1]) == pytest.approx(found["INT8", "least cosine to float"], abs=5e-4)


def test_a_marked_table_is_made_anew():
    record = {"variant": "int8", "seconds": "2.0", "packing_share": "0.25", "versions": "v", **FACT}
    page = "before\n<!-- table load-x -->\nold\n<!-- end -->\nbehind <!-- end -->\n"
    text = doc_tables.fill(page, lambda name: [record] if name == "load-x" else [])
    assert "| int8 | 2.00 | 25.0% |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nbehind <!-- end -->\n")
    assert doc_tables.fill(text, lambda _: [record]) == text


def test_the_last_line_compares_with_the_fastest_other_in_int8():
    case = {"m": "1", "cache": "hot", "relative_error": "0.01", "versions": "v", **FACT}
    ratios = {"hf_tle_int8": "6", "torch bf16": "1", "torch fp32": "9", "slow": "2", "fast": "8"}
    records = [{**case, "peer": name, "ratio_to_torch_bf16": ratio} for name, ratio in ratios.items()]
    assert list(doc_tables.linear(records))[-2].startswith("| **hf_tle_int8 / the fastest other in INT8** | 0.75 |")


def test_what_was_not_timed_is_a_dash():
    case = {"cache": "hot", "relative_error": "0.01", "versions": "v", **FACT}
    records = [
        {**case, "peer": peer, "m": m, "ratio_to_torch_bf16": "2"}
        for peer, m in (("hf_tle_int8", "1"), ("hf_tle_int8", "4"), ("other", "4"))
    ]
    assert [line for line in doc_tables.linear(records) if "other" in line] == [
        "| other | - | 2.00 | 0.01 |",
        "| **hf_tle_int8 / the fastest other in INT8** | - | 1.00 |  |",
    ]


def test_rates_of_models_are_those_of_their_times():
    speeds = {"bf16": Speed(Times(2, 4), Times(1, 1)), "int8": Speed(Times(1, 1), Times(0.5, 1))}
    found = {(r["peer"], r["phase"]): r for r in whole_model.records(speeds, 100, 10)}
    assert found["bf16", "prefill"]["tokens_per_second"] == 50
    assert found["bf16", "prefill"]["median_tokens_per_second"] == 25
    assert found["int8", "decode"]["tokens_per_second"] == 20
    assert found["int8", "decode"]["ratio_to_bf16"] == 2


def test_a_csv_without_results_is_refused(tmp_path):
    (tmp_path / "load-x.csv").write_text("variant\n")
    with pytest.raises(ValueError, match="no results"):
        plots.read(tmp_path / "load-x.csv")


def test_one_thread_is_not_plural():
    assert "1 thread ·" in where(FACT)
    assert "2 threads ·" in where({**FACT, "threads": 2})
