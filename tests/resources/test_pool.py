from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from multikernel.errors import NotFound, ResourceError
from multikernel.resources.pool import Pool

MEGA = 1 << 20


@pytest.fixture
def pool():
    return Pool((0, 1, 2, 3), 256 * MEGA)


def test_conflict_names_what_was_asked_what_is_free_and_what_to_do(pool):
    pool.reserve("db", (2,), 0)
    with pytest.raises(ResourceError) as caught:
        pool.reserve("web", (2, 5), 0)
    assert str(caught.value) == (
        "cannot give cpus 2,5 to 'web': cpu 2 is held by 'db', cpu 5 is not in the pool (0-3). "
        "Free: 0-1,3. Ask for those, or delete 'db', or create all that share a cpu with exclusive=False (--shared)."
    )
    assert caught.value.asked == (2, 5)
    assert caught.value.free == (0, 1, 3)
    assert caught.value.conflicts == ((2, ("db",)), (5, ()))


def test_all_conflicts_are_in_one_error(pool):
    pool.reserve("db", (1,), 200 * MEGA)
    with pytest.raises(ResourceError) as caught:
        pool.reserve("web", (1,), 57 * MEGA)
    assert "cpu 1 is held by 'db'" in str(caught.value)
    assert "56M of the pool's 256M is free, 1M too little" in str(caught.value)
    assert (caught.value.memory_asked, caught.value.memory_free) == (57 * MEGA, 56 * MEGA)


def test_full_pool_says_that_none_is_free(pool):
    pool.reserve("all", (0, 1, 2, 3), 0)
    with pytest.raises(ResourceError, match=r"Free: none\. Delete 'all'"):
        pool.reserve("web", (0,), 0)
    with pytest.raises(ResourceError, match=r"cannot give 1 cpu: 0 of the pool's 4 \(0-3\).*Delete 'all'"):
        pool.choose(1)


def test_more_cpus_than_the_pool_has_asks_for_a_larger_machine(pool):
    with pytest.raises(ResourceError, match=r"cannot give 5 cpus: 4 of .*Ask for those\.") as caught:
        pool.choose(5)
    assert (caught.value.asked, caught.value.free) == (5, (0, 1, 2, 3))


def test_refused_request_leaves_the_pool_as_it_was(pool):
    with pytest.raises(ResourceError):
        pool.reserve("web", (0, 9), 1)
    with pytest.raises(ResourceError):
        pool.reserve("web", (0,), 257 * MEGA)
    with pytest.raises(ResourceError, match="needs one at least"):
        pool.reserve("web", (), 1)
    assert pool.free_cpus() == (0, 1, 2, 3)
    assert pool.free_memory() == 256 * MEGA


def test_name_holds_one_share_only(pool):
    pool.reserve("web", (0,), 1)
    with pytest.raises(ResourceError, match="'web' is taken"):
        pool.reserve("web", (1,), 1)
    assert pool.free_cpus() == (1, 2, 3)


def test_cpu_is_shared_when_all_that_hold_it_share(pool):
    pool.reserve("a", (0,), 0, exclusive=False)
    pool.reserve("b", (0, 1), 0, exclusive=False)
    assert pool.holders(0) == ("a", "b")
    with pytest.raises(ResourceError, match="cpu 0 is held by 'a', 'b'"):
        pool.reserve("c", (0,), 0)


def test_cpu_held_alone_is_not_shared_by_one_who_would_share(pool):
    pool.reserve("a", (0,), 0)
    with pytest.raises(ResourceError) as caught:
        pool.reserve("b", (0,), 0, exclusive=False)
    assert caught.value.free == (1, 2, 3)


def test_choice_takes_free_cpus_first_and_then_the_least_shared(pool):
    assert pool.choose(2) == (0, 1)
    pool.reserve("a", (0, 1, 2), 0, exclusive=False)
    pool.reserve("b", (0,), 0, exclusive=False)
    assert pool.choose(1) == (3,)
    assert pool.choose(2, exclusive=False) == (1, 3)
    with pytest.raises(ResourceError):
        pool.choose(2)


def test_choice_reserves_nothing(pool):
    pool.choose(4)
    assert pool.free_cpus() == (0, 1, 2, 3)


def test_release_gives_everything_back(pool):
    pool.reserve("web", (0, 1), 5)
    pool.release("web")
    assert (pool.free_cpus(), pool.free_memory()) == ((0, 1, 2, 3), 256 * MEGA)
    with pytest.raises(NotFound):
        pool.release("web")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda pool: Pool((), 1),
        lambda pool: Pool((0,), -1),
        lambda pool: pool.reserve("a", (0,), -1),
        lambda pool: pool.choose(0),
    ],
)
def test_what_is_wrong_by_itself_is_a_value_error(pool, wrong):
    with pytest.raises(ValueError, match=r"negative|at least"):
        wrong(pool)


@given(st.sets(st.integers(0, 9), min_size=1), st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12)))
def test_conflicts_are_exactly_the_cpus_that_are_not_free(cpus, held, asked):
    pool = Pool(cpus, 0)
    if held & cpus:
        pool.reserve("held", held & cpus, 0)
    expected = tuple(cpu for cpu in sorted(asked) if cpu not in cpus or cpu in held)
    try:
        pool.reserve("web", asked, 0)
        conflicts = ()
    except ResourceError as error:
        conflicts = tuple(cpu for cpu, _ in error.conflicts)
    assert conflicts == expected


class Shares(RuleBasedStateMachine):
    """The pool against the plainest model: a dict of shares, searched whole for every question."""

    CPUS = (0, 1, 2, 5)
    MEMORY = 10

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(self.CPUS, self.MEMORY)
        self.model: dict[str, tuple[set[int], int, bool]] = {}

    @rule(
        name=st.sampled_from("abcd"),
        cpus=st.sets(st.sampled_from([*CPUS, 7])),
        memory=st.integers(0, 6),
        exclusive=st.booleans(),
    )
    def reserve(self, name, cpus, memory, exclusive):
        legal = (
            name not in self.model
            and cpus
            and cpus <= set(self.CPUS)
            and memory + sum(taken for _, taken, _ in self.model.values()) <= self.MEMORY
            and not any(cpus & held and (exclusive or alone) for held, _, alone in self.model.values())
        )
        try:
            self.pool.reserve(name, cpus, memory, exclusive=exclusive)
        except ResourceError:
            assert not legal
        else:
            assert legal
            self.model[name] = (cpus, memory, exclusive)

    @rule(name=st.sampled_from("abcd"))
    def release(self, name):
        try:
            self.pool.release(name)
        except NotFound:
            assert name not in self.model
        else:
            del self.model[name]

    @rule(count=st.integers(1, 4), exclusive=st.booleans())
    def choose_and_reserve(self, count, exclusive):
        """What was chosen can be had."""
        try:
            cpus = self.pool.choose(count, exclusive=exclusive)
        except ResourceError:
            return
        assert len(cpus) == count
        self.pool.reserve("chosen", cpus, 0, exclusive=exclusive)
        self.pool.release("chosen")

    @invariant()
    def counts_agree(self):
        held = {cpu for cpus, _, _ in self.model.values() for cpu in cpus}
        assert self.pool.free_cpus() == tuple(cpu for cpu in self.CPUS if cpu not in held)
        assert self.pool.free_memory() == self.MEMORY - sum(memory for _, memory, _ in self.model.values())
        for cpu in self.CPUS:
            assert set(self.pool.holders(cpu)) == {name for name, (cpus, _, _) in self.model.items() if cpu in cpus}


TestShares = Shares.TestCase
