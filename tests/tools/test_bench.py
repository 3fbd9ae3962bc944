"""The benches: what they measure is checked, whatever goes wrong in a side is told, and nothing of it stays."""

from __future__ import annotations

import json
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from multikernel.cli import main
from multikernel.tools import bench
from multikernel.tools.bench import cache_line, sides, work
from multikernel.tools.bench.cases import BENCHES
from multikernel.tools.bench.channels import PREPARED, RingChannel, prepared
from multikernel.tools.bench.compare import Case, Contender, Effort, compare, fitting, in_turn, table
from multikernel.tools.bench.plain import OsPipe
from multikernel.tools.bench.sides import Outcome, Run, Sample, Side, Tally, Wrong, measured

SHORT = Effort(rounds=1, seconds=0)  # as few operations as there can be

pytestmark = pytest.mark.timeout(120)


class Bent(OsPipe):
    """A pipe that changes the last byte of one message."""

    def sender(self):
        count = 0

        def send(message: bytes) -> None:
            nonlocal count
            count += 1
            os.write(self.writing, message[:-1] + b"!" if count == PREPARED // 2 else message)

        return send


def doing(run: Run) -> Side:
    @contextmanager
    def side() -> Iterator[Run]:
        yield run

    return side


def sample(seconds: float, operations: int = 1) -> Sample:
    return Sample(operations, (Outcome(Tally(operations), 0, round(seconds * operations * 1e9), 0, 0),))


@pytest.mark.two_cpus
@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_runs_and_each_of_its_messages_is_checked(name, cpus):
    found = list(bench.run([name], cpus, SHORT))
    cases = BENCHES[name][1]()
    assert [(each.work, each.against) for each in found] == [(c.work, o.name) for c in cases for o in c.others]
    for each in found:
        assert each.operations >= 1
        assert each.ratio > 0
        assert min(each.spin_ns) > 0


def test_a_wrong_message_is_no_measurement(cpus):
    wrong = pytest.raises(Wrong, match=f"{PREPARED - 1} of {PREPARED}")
    with work.stream((cpus[0], cpus[-1]), Bent(8), prepared(8)) as stream, wrong:
        stream(PREPARED)


def test_a_wrong_echo_is_no_measurement(cpus):
    with work.round_trips((cpus[0], cpus[-1]), OsPipe(8), Bent(8), prepared(8)) as trips, pytest.raises(Wrong):
        trips(PREPARED)


def test_batches_and_arrays_that_are_wrong_are_no_measurement(cpus):
    """A list in which one message is another one, an array in which one element is."""

    class Lists(RingChannel):
        def sender_many(self):
            send_many = super().sender_many()
            return lambda messages: send_many([*messages[:-1], messages[0]])

    class Arrays(OsPipe):
        def array_sender(self):
            def send(array) -> None:
                array[-1] += 1
                self.write_all(memoryview(array).cast("B"))

            return send

    both = (cpus[0], cpus[-1])
    with work.batches(both, Lists(8), prepared(8)) as batches, pytest.raises(Wrong):
        batches(PREPARED)
    with work.arrays(both, Arrays(work.ELEMENT)) as arrays, pytest.raises(Wrong):
        arrays(PREPARED)


def test_both_sides_may_share_a_cpu(cpus):
    with work.round_trips((cpus[0], cpus[0]), RingChannel(8), RingChannel(8), prepared(8), each=True) as trips:
        found = trips(PREPARED)
    assert len(found.sides[0].tally.nanoseconds) == PREPARED
    assert found.sides[0].switches > 0


def test_sides_are_where_they_were_put_without_garbage_collection(cpus):
    def look(operations: int) -> Tally:
        import gc

        assert not gc.isenabled()
        return Tally(operations, tuple(os.sched_getaffinity(0)))

    with measured(*((cpu, doing(look)) for cpu in cpus)) as looking:
        assert [side.tally.nanoseconds for side in looking(1).sides] == [(cpu,) for cpu in cpus]


def test_an_error_in_a_side_is_raised_here(cpus):
    def fail(_: int) -> Tally:
        raise LookupError("the third one")

    with measured((cpus[0], doing(fail))) as failing, pytest.raises(LookupError, match="the third one"):
        failing(1)


def test_an_error_that_does_not_pickle_is_told_in_words(cpus):
    class OnlyHere(Exception):
        pass

    def fail(_: int) -> Tally:
        raise OnlyHere("of this test alone")

    with measured((cpus[0], doing(fail))) as failing, pytest.raises(RuntimeError, match="OnlyHere: of this test alone"):
        failing(1)


def test_a_side_that_dies_is_told_with_its_status(cpus):
    def die(_: int) -> Tally:
        os.kill(os.getpid(), signal.SIGKILL)
        return Tally(0)

    with measured((cpus[0], doing(die))) as dying, pytest.raises(ChildProcessError, match="-9"):
        dying(1)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_side_that_dies_is_told_while_the_other_waits_for_it(dies, cpus):
    """Whichever it is: the other one would wait for ever, and nobody waits for that to be given up."""

    def die(_: int) -> Tally:
        os.kill(os.getpid(), signal.SIGKILL)
        return Tally(0)

    def stay(_: int) -> Tally:
        signal.pause()
        return Tally(0)

    runs = [stay, stay]
    runs[dies] = die
    both = [(cpu, doing(run)) for cpu, run in zip((cpus[0], cpus[-1]), runs, strict=True)]
    with pytest.raises(ChildProcessError, match="-9"), measured(*both) as dying:
        dying(1)


def test_a_side_that_cannot_open_what_it_needs_is_told(cpus):
    @contextmanager
    def closed() -> Iterator[Run]:
        raise FileNotFoundError("nothing here")
        yield

    with pytest.raises(FileNotFoundError, match="nothing here"), measured((cpus[0], closed)):
        pass


def test_a_side_that_never_ends_is_given_up(cpus, monkeypatch):
    """A peer that hangs costs its own figures, and not the run."""
    monkeypatch.setattr(sides, "PATIENCE", 0.2)

    def hang(_: int) -> Tally:
        signal.pause()
        return Tally(0)

    with pytest.raises(TimeoutError, match="said nothing"), measured((cpus[0], doing(hang))) as hanging:
        hanging(1)


def test_no_side_begins_before_each_has_opened_what_it_needs(cpus):
    """Neither may stream before the other is there. The second opens only when the first has long been ready."""
    ready, told = os.pipe()
    with mmap.mmap(-1, 2) as opened:

        def opening(number: int) -> Side:
            @contextmanager
            def side() -> Iterator[Run]:
                if number == 1:
                    os.read(ready, 1)
                opened[number] = 1
                if number == 0:
                    os.write(told, b"1")
                yield lambda operations: Tally(operations * (opened[:] == b"\x01\x01"))

            return side

        with measured((cpus[0], opening(0)), (cpus[-1], opening(1))) as starting:
            starting(1)
    os.close(ready)
    os.close(told)


@pytest.mark.two_cpus
@pytest.mark.parametrize("lines", [1, 2])
def test_the_bare_cache_line_bounces_as_often_as_it_is_told_to(cpus, lines):
    with cache_line.bouncing(cpus, lines) as bounce:
        for rounds in (1, 1000, 1):
            assert bounce(rounds).operations == rounds
    assert cache_line.spin_ns(cpus) > 0


def test_ratios_are_of_pairs_and_their_cost_is_over_ours():
    """Ours takes 1, 2, 4 s, theirs 3 s each time: the ratios are 3, 1.5 and 0.75, their median is 1.5."""
    ours = iter([sample(1), sample(2), sample(4)])
    case = Case("a work", Contender("ours", None, least=1), (other := Contender("theirs", None, least=1),))
    found = in_turn(case, other, lambda _: next(ours), lambda _: sample(3), lambda: 100, Effort(3, 0))
    assert found.ratios == (3, 1.5, 0.75)
    assert (found.ratio, found.low, found.high) == (1.5, 0.75, 3)
    assert (found.ours, found.theirs, found.spin_ns) == (2, 3, (100, 100))
    assert table([found])[1].split() == ["a", "work", "theirs", "1.50x", "0.75-3.00", "2.00", "s", "100", "ns"]


@pytest.mark.parametrize(
    ("cost", "seconds", "fits"), [(1e-6, 0.1, 99840), (1e-6, 0, 256), (1.0, 0.1, 256), (0, 1, None)]
)
def test_a_sample_takes_about_as_long_as_it_should_in_whole_turns(cost, seconds, fits):
    count = fitting(lambda n: sample(cost, n), 256, seconds)
    assert count % 256 == 0
    assert fits is None or count == fits


@pytest.mark.two_cpus
def test_a_comparison_gives_back_what_it_has_opened_when_one_of_the_two_fails(cpus):
    case = Case(
        "message",
        Contender("ours", lambda both: work.stream(both, RingChannel(8), prepared(8))),
        (other := Contender("bent", lambda both: work.stream(both, Bent(8), prepared(8))),),
    )
    with pytest.raises(Wrong):
        compare(case, other, cpus, SHORT)


def test_without_a_name_the_benches_are_listed(capsys):
    assert main(["bench"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(BENCHES)
    assert main(["bench", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["benches"]) == list(BENCHES)


def test_a_bench_that_there_is_not_is_refused_with_those_that_there_are(capsys):
    assert main(["bench", "mesage"]) == 2
    assert "message, batch" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "0-2", "8000-8001"])
def test_other_cpus_than_two_that_may_be_used_are_refused(given, capsys):
    assert main(["bench", "arrays", "--cpus", given]) == 2
    assert "cpu" in capsys.readouterr().err


@pytest.mark.two_cpus
@pytest.mark.slow
def test_json_is_one_document_with_the_keys_of_a_comparison(cpus, capsys):
    spec = ",".join(map(str, cpus))
    assert main(["bench", "arrays", "--json", "--rounds", "1", "--cpus", spec]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)["comparisons"]
    assert set(first) == {
        "work", "against", "ratio", "low", "high", "ratios", "ours_s", "theirs_s", "operations", "cache_line_ns",
    }  # fmt: skip
    assert len(first["ratios"]) == 1
