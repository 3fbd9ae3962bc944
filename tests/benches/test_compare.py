"""The side-by-side comparison: what is shown was checked, and what is not shown is named. No speed decides anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

import multikernel as mk
from benches.compare import ccore, latency, report, show
from benches.compare.__main__ import main
from benches.compare.peers import STREAMS, Peers
from benches.compare.result import Run, verdict
from benches.compare.rows import Count, Goal, Planned, Row, all_rows, core, system_calls
from benches.compare.run import run
from multikernel.tools.bench import work
from multikernel.tools.bench.cases import message
from multikernel.tools.bench.channels import PREPARED, RingChannel, prepared
from multikernel.tools.bench.compare import Case, Comparison, Contender, Effort
from multikernel.tools.bench.plain import OsPipe

ROOT = Path(__file__).parents[2]

SHORT = Effort(rounds=1, seconds=0)  # as few operations as there can be

NEEDS = {"M12": "Mailbox", "M13": "Mailbox", "M14": "Mailbox", "M15": "Queue", "M16": "CoreExecutor"}

pytestmark = [pytest.mark.timeout(180)]

KEYS = {
    "row", "work", "against", "ratio", "low", "high", "ratios", "ours_s", "theirs_s", "operations", "cache_line_ns",
    "placement", "steady", "latency_ns", "goal", "verdict",
}  # fmt: skip


class Bent(OsPipe):
    """A pipe that changes the last byte of one message."""

    def sender(self):
        count = 0

        def send(sent: bytes) -> None:
            nonlocal count
            count += 1
            os.write(self.writing, sent[:-1] + b"!" if count == PREPARED // 2 else sent)

        return send


def an_empty_run() -> Run:
    return Run({"cpu": "a cpu"}, rounds=1, cpus=[0, 1])


def found(ratio: float = 8.0, spin: tuple[int, int] = (100, 110), against: str = "os.pipe") -> Comparison:
    return Comparison("message of 8 B", against, (ratio - 1, ratio, ratio + 1), 1e-7, ratio * 1e-7, 256, spin)


def a_run() -> Run:
    """A run as it might have come out."""
    made = Run(
        {"cpu": "a cpu", "cpus": 2, "kernel": "6.1", "architecture": "x86_64", "python": "3.11", "multikernel": "0"},
        rounds=3,
        cpus=[0, 1],
        missing={"iceoryx2": "ModuleNotFoundError: No module named 'iceoryx2'"},
        rows={"M6": "2026-01-01T00:00+00:00", "M9": "2026-01-01T00:01+00:00", "M14": "2026-01-01T00:02+00:00"},
    )
    times = latency.percentiles([100, 200, 300, 100_000])
    made.add("M6", found(), Goal(least=7), {})
    made.add("M6", found(3, against="pyzmq"), None, {})
    made.add("M9", found(0.8, against="os.eventfd"), Goal(most=1.0), {"multikernel": times, "os.eventfd": times})
    made.count("M14", Count("a parked instance, 10 s", "context switches", 0, most=0))
    made.failed.append({"row": "M6", "work": "message of 8 B", "against": "pynng", "why": "Wrong: 255 of 256"})
    return made


IN_A_PROCESS = """
import json, sys
from dataclasses import asdict
from benches.compare.result import Run
from benches.compare.rows import all_rows
from benches.compare.run import run
from multikernel.tools.bench.compare import Effort

name, *cpus = sys.argv[1:]
came = Run({}, 1, [])
run(name, all_rows()[name], tuple(map(int, cpus)), Effort(1, 0), came, lambda _: None)
print(json.dumps(asdict(came)))
"""


@pytest.mark.two_cpus
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in all_rows() if name not in {"M8", "calls", *core.ROWS}])
def test_every_row_comes_to_something_and_nothing_in_it_fails(name, cpus):
    """In a process of its own, with which goes what peers leave in theirs."""
    if name in NEEDS and not hasattr(mk, NEEDS[name]):
        pytest.skip(f"there is no multikernel.{NEEDS[name]}")
    command = [sys.executable, "-c", IN_A_PROCESS, name, *map(str, cpus)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr
    came = Run(**json.loads(ran.stdout))
    assert came.failed == []
    assert came.comparisons or came.counts
    for entry in came.comparisons:
        assert set(entry) == KEYS
        assert entry["operations"] >= 1
        assert entry["ratio"] > 0
        assert len(entry["ratios"]) == 1
    for entry in came.counts:
        assert entry["verdict"] in ("reached", "missed", "")
    if came.counts and not any(entry["goal"] for entry in came.comparisons):
        assert any(entry["most"] is not None for entry in came.counts)


@pytest.mark.two_cpus
@pytest.mark.slow
def test_a_row_of_the_core_is_what_its_program_says(cpus):
    """The quickest of them: the others differ in names."""
    found = list(all_rows()["M5"].found(cpus[:2], SHORT))
    assert [(comparison.against, goal) for comparison, goal in found] == [("bare futex pair", Goal(most=1.03))]
    comparison, _ = found[0]
    assert comparison.low <= comparison.ratio <= comparison.high
    assert comparison.ours > 0
    assert comparison.theirs > 0


def can_trace() -> bool:
    """Whether there is a strace, and it may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_trace(), reason="needs strace, and a system that lets it trace")
def test_the_fast_path_makes_no_system_call(cpus):
    """Room and messages are there: what is left to do is in shared memory."""
    counts = system_calls.system_calls((cpus[0], cpus[-1]), SHORT, Peers())
    fast = [next(counts) for _ in system_calls.FAST_PATHS]
    assert [count.work for count in fast] == [f"multikernel: {name}" for name in system_calls.FAST_PATHS]
    # One for each message would be 1. An interpreter's start takes a call more or less at times, of 256 messages' time.
    assert {count.work: count.value for count in fast if abs(count.value) > 0.02} == {}


@pytest.mark.two_cpus
def test_a_comparison_with_a_wrong_message_is_named_and_not_shown(cpus):
    def contender(name: str, channel: type) -> Contender:
        return Contender(name, lambda both: work.stream(both, channel(8), prepared(8)))

    case = Case("message", contender("ours", RingChannel), (contender("bent", Bent), contender("os.pipe", OsPipe)))
    came, said = an_empty_run(), []
    run("row", Row("a row", lambda _: [Planned(case, {})]), cpus, SHORT, came, said.append)
    assert [(entry["against"], entry["why"]) for entry in came.failed] == [
        ("bent", f"Wrong: {PREPARED - 1} of {PREPARED} operations went right")
    ]
    assert [entry["against"] for entry in came.comparisons] == ["os.pipe"]  # the rest goes on
    assert any("bent is not shown" in line for line in said)


@pytest.mark.two_cpus
def test_a_peer_that_is_not_here_is_named_and_left_out(cpus):
    table = {"os.pipe": STREAMS["os.pipe"], "carrier pigeon": "no_such_module:Pigeon"}
    row = Row("a row", lambda peers: [Planned(message(8, peers.of(table)), {})])
    came, said = an_empty_run(), []
    run("row", row, cpus, SHORT, came, said.append)
    assert "no_such_module" in came.missing["carrier pigeon"]
    assert [entry["against"] for entry in came.comparisons] == ["os.pipe"]
    assert any("carrier pigeon is left out" in line for line in said)
    assert any("carrier pigeon" in line for line in show.terminal(asdict(came)))


def test_a_count_that_fails_is_named(cpus):
    def failing(*_):
        yield Count("something", "of it", 1, most=1)
        raise RuntimeError("strace is not installed")

    came, said = an_empty_run(), []
    run("row", Row("a row", counts=failing), cpus, SHORT, came, said.append)
    assert [entry["value"] for entry in came.counts] == [1]
    assert [entry["why"] for entry in came.failed] == ["RuntimeError: strace is not installed"]


@pytest.mark.parametrize(
    ("ratio", "goal", "spin", "said"),
    [
        (7.0, Goal(least=7), (100, 100), "reached"),
        (6.3, Goal(least=7), (100, 100), "within the noise"),
        (6.2, Goal(least=7), (100, 100), "missed"),
        (4.5, Goal(least=5, far=4.5), (400, 400), "reached"),
        (4.5, Goal(least=5.1, far=4.5), (100, 100), "missed"),
        (1.0, Goal(most=1.0), (100, 100), "reached"),
        (0.91, Goal(most=1.0), (100, 100), "within the noise"),
        (0.33, Goal(most=3.1), (100, 100), "reached"),
        (0.33, Goal(most=3.1, far=1.8), (400, 400), "missed"),
    ],
)
def test_a_figure_is_held_against_the_goal_of_its_placement(ratio, goal, spin, said):
    """A cost is our time over theirs, so its goal is reached by being below it."""
    assert verdict(Comparison("w", "a", (ratio,), 1.0, ratio, 1, spin), goal) == said


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    made = a_run()
    made.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == made


def test_a_row_that_is_measured_again_takes_the_place_of_the_old_one():
    left = a_run().without(["M6"])
    assert {entry["row"] for entry in left.comparisons} == {"M9"}
    assert left.failed == []
    assert list(left.rows) == ["M9", "M14"]


def test_a_file_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"comparisons": []}')
    with pytest.raises(ValueError, match="is no run"):
        Run.load(tmp_path / "other.json")
    ran = CliRunner().invoke(main, ["--from", str(tmp_path / "other.json")])
    assert ran.exit_code == 2
    assert "cannot be read as a run" in ran.output


def test_a_cost_is_shown_as_our_time_over_theirs():
    (entry,) = [entry for entry in a_run().comparisons if entry["row"] == "M9"]
    assert show.ratio(entry) == (1 / 0.8, 1 / entry["high"], 1 / entry["low"])
    assert show.cells(entry)[2:6] == ("cost 1.25x", "0.56--5.00", "<= 1x", "missed")


def test_the_report_replaces_tables_and_keeps_all_else(tmp_path):
    page = tmp_path / "page.md"
    tables = "<!-- table M6 -->\nold\n<!-- end -->", "<!-- table missing -->\n<!-- end -->"
    page.write_text(f"# Title\n\n{tables[0]}\n\nProse | with a bar.\n\n{tables[1]}\nend\n")
    document = asdict(a_run())
    report.write(document, page)
    once = page.read_text()
    assert "old" not in once
    assert "| message of 8 B | os.pipe | 8.00x | 7.00-9.00 | >= 7x | reached |" in once
    assert "Not shown: message of 8 B, against pynng: Wrong: 255 of 256" in once
    assert "iceoryx2 was left out" in once
    assert once.startswith("# Title\n\n<!-- table M6 -->\n")
    assert "\n\nProse | with a bar.\n\n" in once
    assert once.endswith("<!-- end -->\nend\n")
    report.write(document, page)
    assert page.read_text() == once


@pytest.mark.parametrize("text", ["no marker", "<!-- table M99 -->\n<!-- end -->\n"])
def test_a_page_without_a_place_or_with_one_for_nothing_is_refused_and_stays(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"table"):
        report.write(asdict(a_run()), page)
    assert page.read_text() == text


def test_every_table_of_the_pages_is_one_that_a_run_has():
    """And every row has its table: nothing is measured for nobody."""
    assert tables("docs/performance.md") == {*all_rows(), "latency", "machine", "missing"}
    assert tables("README.md") == {"machine", "highlights"}


def tables(page: str) -> set[str]:
    return {found["name"] for found in report.MARKED.finditer((ROOT / page).read_text())}


def test_highlights_are_what_has_a_goal():
    lines = report.table(asdict(a_run()), "highlights")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| message of 8 B", "| message of 8 B"]  # M6 and M9


def test_plots_are_drawn_of_what_there_is(tmp_path):
    a_run().save(tmp_path / "run.json")
    an_empty_run().save(tmp_path / "empty.json")
    drawn = draw(tmp_path / "run.json", tmp_path / "plots")
    assert sorted(path.name for path in drawn) == ["goals.png", "latency.png", "messages.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert draw(tmp_path / "empty.json", tmp_path / "none") == []


def draw(kept: Path, directory: Path) -> list[Path]:
    """In a process of its own: matplotlib keeps its fonts open."""
    command = [sys.executable, "-m", "benches.compare", "--from", kept, "--plots", directory]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=100, check=True)
    return list(directory.iterdir())


def test_percentiles_are_in_order_and_end_with_the_longest():
    told = latency.percentiles(range(1, 100_001))
    assert told["count"] == 100_000
    assert told["max"] == 100_000
    values = [told[name] for name in ("p50", "p90", "p99", "p99.9", "p99.99", "max")]
    assert values == sorted(values)
    assert told["p50"] == pytest.approx(50_000, rel=0.01)
    assert told["p99.99"] == pytest.approx(99_990, rel=0.01)


def test_the_sum_of_all_calls_is_read_from_what_strace_writes():
    text = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.002417         604         4           membarrier\n"
        " 40.00    0.001279          58        22         1 munmap\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.003696         142        26         1 total\n"
    )
    assert system_calls.total(text) == 26
    with pytest.raises(ValueError, match="no total"):
        system_calls.total("")


def test_the_cores_own_figure_is_read_from_what_its_program_prints():
    printed = json.dumps(
        {
            "bench": "stream",
            "works": [
                {
                    "work": "64 B elements, 32 a call",
                    "unit": "M/s",
                    "contestants": [{"name": "ours", "median": 250.0}, {"name": "boost", "median": 100.0}],
                },
                {
                    "work": "64 B element, there and back",
                    "unit": "ns",
                    "contestants": [{"name": "ours", "median": 90.0}],
                },
            ],
        }
    )
    assert ccore.parse(printed, "64 B elements, 32 a call") == pytest.approx(4e-9)
    assert ccore.parse(printed, "64 B element, there and back") == pytest.approx(90e-9)
    with pytest.raises(ValueError, match="no figure"):
        ccore.parse(printed, "8 B")


def test_the_command_refuses_what_there_is_not_with_what_there_is():
    ran = CliRunner().invoke(main, ["M66"])
    assert ran.exit_code == 2
    assert "M6, M7" in ran.output
    assert CliRunner().invoke(main, ["M6", "--from", "run.json"]).exit_code == 2


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path):
    result = CliRunner().invoke(main, ["M14", "--json", str(tmp_path / "nowhere" / "run.json")])
    assert result.exit_code == 2
    assert "there is no directory" in result.output
    assert "M14:" not in result.output


def test_a_kept_run_is_shown_and_reported_without_measuring(tmp_path):
    a_run().save(tmp_path / "run.json")
    page = tmp_path / "page.md"
    page.write_text("<!-- table M14 -->\n<!-- end -->\n")
    ran = CliRunner().invoke(main, ["--from", str(tmp_path / "run.json"), "--report", str(page)])
    assert ran.exit_code == 0, ran.output
    assert "message of 8 B" in ran.output
    assert "| a parked instance, 10 s | context switches | 0 | <= 0 | reached |" in page.read_text()
