"""The benchmark runs, at a tiny size, for pglapse and the limits alone, and a page can be made of it."""

import json
from pathlib import Path

import pytest
from benchmarks import __main__ as benchmark
from benchmarks import report


@pytest.mark.slow
def test_a_tiny_benchmark_measures_every_part_and_makes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results.json"
    monkeypatch.setattr(report, "PICTURES", tmp_path)

    benchmark.main(["--form", "tiny", "--no-rivals", "--output", str(output)])

    results = json.loads(output.read_text())
    measured = {(drain["contestant"], drain["condition"]) for drain in results["drains"]}
    assert measured >= {("pglapse", condition) for condition in ("quiet", "later", "held", "disk")}
    assert ("unlink", "disk") in measured
    assert len(results["latency"][0]["seconds"]) == benchmark.TINY.probes
    assert results["million"]["files"] == benchmark.TINY.million
    assert [each["what"] for each in results["idle"]] == ["nobody", "worker"]
    page = report.page(report.Results({**results, "file": "x.json"}))
    assert "| 4 KiB files on disk, against a bare loop of unlink | ≥ 1 × |" in page
    assert "not measured" in page  # the rivals
    readme = report.with_ratios(
        report.README.read_text(encoding="utf-8"), report.ratios(report.Results(results))
    )
    assert " × a bare loop of unlink" in " ".join(readme.split())
