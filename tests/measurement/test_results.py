"""What a run found is kept, compared with the targets, and shown the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import publishing
from benchmarks.plan import plan
from benchmarks.results import Results, Round, about
from benchmarks.rounds import figures
from benchmarks.tables import as_markdown
from benchmarks.targets import TARGETS

OPTIONS = {"callers": 64, "accounts": 1000, "workers": 1, "rounds": 3, "seconds": 2.0}


def found(per_second: float, p50_milliseconds: float = 1.0) -> Round:
    costs = dict.fromkeys(("client_cores", "server_cores", "database_cores", "wal_bytes"), 0.5)
    return {
        **figures(int(per_second), 1.0, [p50_milliseconds / 1000]),
        **costs,
        "per_second": per_second,
        "offered_per_second": per_second,
    }


def results() -> Results:
    """Each load of the plan, at rates that are easy to compare in the head."""
    made = Results(about(OPTIONS, "18.6"), {"ratios": {"balance": [1.0, 0.9, 1.1]}})
    servers = {
        "noop": (4000, 0.5),
        "product": (3000, 2.0),
        "compiled": (3600, 1.5),
        "naive": (500, 9.0),
        "ceiling": (60_000, 0.5),
    }
    for load in plan(1000, 64, compiled=True):
        rate, milliseconds = servers[load.server]
        for round_rate in (0.5, 1.0, 3.0):
            made.add(load, found(rate * round_rate, milliseconds))
    return made


def test_every_load_of_the_plan_is_told_apart() -> None:
    loads = plan(1000, 64, compiled=True)
    assert len({(load.server, load.name) for load in loads}) == len(loads)
    assert len({load.label for load in loads}) == len(loads)


@pytest.mark.parametrize(
    ("name", "ratio", "reached"),
    [
        ("Unary Debit", 0.75, True),
        ("Unary Debit, compiled", 0.9, True),
        ("Unary Reserve + Settle, one hot account", 1.0, True),
        ("Unary Debit, hot", 6.0, False),
        ("Debit of one lone caller, p50", 2.0, True),
        ("AsyncClient, pairs a second", 0.375, False),
        ("Batch of 1,000 Debits", 0.05, False),
        ("Balance, 10 million entries", 1.0, True),
    ],
)
def test_a_target_compares_loads_of_one_round(name: str, ratio: float, reached: bool) -> None:
    [target] = [target for target in TARGETS if target.name == name]
    measured = target.of(results())
    assert measured is not None
    assert measured.median == pytest.approx(ratio)
    assert target.reached(measured.median) is reached


def test_without_the_compiled_build_nothing_is_measured_on_it() -> None:
    servers = {load.server for load in plan(1000, 64, compiled=False)}
    assert servers == {"noop", "product", "naive", "ceiling"}


def test_a_target_whose_load_was_not_measured_has_no_ratio() -> None:
    empty = Results(about(OPTIONS, "18.6"))
    assert [target.of(empty) for target in TARGETS] == [None] * len(TARGETS)


def test_results_are_read_as_they_were_kept(tmp_path: Path) -> None:
    kept = results()
    kept.save(tmp_path / "kept.json")
    again = Results.read(tmp_path / "kept.json")
    assert again.rounds == kept.rounds
    assert as_markdown(again) == as_markdown(kept)


@pytest.mark.parametrize("place", publishing.PLACES, ids=lambda place: str(place.document))
def test_the_documents_show_the_figures_that_are_kept_with_them(place: publishing.Place) -> None:
    page = (publishing.ROOT / place.document).read_text()
    kept = Results.read(publishing.ROOT / "docs" / publishing.RESULTS)
    assert publishing.filled(page, place, kept) == page


def test_publishing_replaces_the_figures_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "docs").mkdir()
    for place in publishing.PLACES:
        marks = f"<!-- {place.name} -->\nstale figures\n<!-- end of {place.name} -->"
        (tmp_path / place.document).write_text(f"before\n{marks}\nafter\n")
    publishing.publish(results(), tmp_path)
    for place in publishing.PLACES:
        page = (tmp_path / place.document).read_text()
        assert page.startswith(f"before\n<!-- {place.name} -->\n\n")
        assert page.endswith(f"\n<!-- end of {place.name} -->\nafter\n")
        assert "Unary Debit, × the no-op server | 0.7 | 0.85 | 0.75 |" in page
        assert "stale" not in page
    assert (tmp_path / "docs" / publishing.PLOT).read_bytes().startswith(b"\x89PNG")


def test_a_document_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- figures -->"):
        publishing.filled("text", publishing.PLACES[0], results())


@pytest.mark.slow
def test_the_command_measures_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = ["--rounds", "1", "--seconds", "0.2", "--accounts", "2", "--callers", "4"]
    command.main(["--only", "naive server: Debit, one hot", *times, "--results", str(tmp_path)])
    kept = Results.read(tmp_path / publishing.RESULTS)
    [load] = kept.rounds
    assert (load.server, load.name) == ("naive", "debit hot")
    assert kept.median(load, "per_second") > 0
    assert kept.median(load, "wal_bytes") > 0
    capsys.readouterr()
    command.main(["--markdown", "--results", str(tmp_path)])
    assert "| naive server: Debit, one hot account |" in capsys.readouterr().out


def test_without_results_there_is_nothing_to_print(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run `make bench` first"):
        command.main(["--markdown", "--results", str(tmp_path)])
