"""The clients of harness/workloads.py notice what goes wrong for them, and nothing else."""

from collections import Counter

import pytest

from harness.resp import eventually
from harness.workloads import SIZES, Setting, Tally, Workloads

FEW = tuple({kind: min(count, 4) for kind, count in SIZES.items()}.items())
SECONDS = 2.0


@pytest.fixture
def run(reference):
    """Runs few clients against the reference while `disturb` does its work with an admin."""
    assert reference.ask("FLUSHALL") == b"OK"

    def run(disturb=None) -> Tally:
        setting = Setting(
            reference.address, SECONDS, quiet_seconds=1.0, grace_seconds=2.0, sizes=FEW
        )
        clients = Workloads(setting, processes=1)
        if disturb:
            assert clients.is_ready
            with reference.admin() as admin:
                disturb(admin)
        return clients.finish()

    yield run
    assert reference.ask("ACL", "SETUSER", "default", "+@all") == b"OK"


def test_nothing_is_wrong_when_nothing_is_wrong(run, reference):
    tally = run()
    with reference.admin() as admin:
        tally.check(admin)
    assert tally.commands and tally.messages and tally.pushed and tally.increments
    assert tally.collisions and tally.latencies


def kill(kind):
    return lambda admin: admin.value("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_a_close_is_counted(run, kind):
    tally = run(kill(kind))
    assert tally.closed
    with pytest.raises(AssertionError, match="closed"):
        tally.check()


def test_who_waits_for_an_end_that_never_comes_is_counted(run):
    def publishers(admin) -> list:
        lines = admin.value("CLIENT", "LIST").decode().splitlines()
        found = [dict(field.partition("=")[::2] for field in line.split()) for line in lines]
        return [fields["id"] for fields in found if fields["cmd"] == "publish"]

    def disturb(admin):
        assert eventually(lambda: len(publishers(admin)) == 4, what="all of them publish")
        for number in publishers(admin):
            admin.value("CLIENT", "KILL", "ID", number)

    tally = run(disturb)
    assert any("Subscribers" in text and "in vain" in text for text in tally.wrong), tally.wrong


def test_an_error_is_counted_with_its_text(run):
    tally = run(lambda admin: admin.value("ACL", "SETUSER", "default", "-incr"))
    assert any("NOPERM" in text for text in tally.errors), tally.errors
    with pytest.raises(AssertionError, match="errors"):
        tally.check()


def test_a_message_that_nobody_sent_is_wrong(run):
    tally = run(lambda admin: admin.value("PUBLISH", "w:channel1", "1"))
    assert any("w:channel1" in text for text in tally.wrong)


def test_a_value_that_somebody_changed_is_wrong(run):
    def disturb(admin):
        for number in range(4):
            admin.value("SET", f"w:plain-counter{number}", 1000)

    assert any("INCR" in text for text in run(disturb).wrong)


def test_a_counter_that_somebody_changed_does_not_add_up(run, reference):
    tally = run(lambda admin: admin.value("INCRBY", "w:counter0", 1000))
    with reference.admin() as admin, pytest.raises(AssertionError, match="increments"):
        tally.check(admin)


@pytest.mark.parametrize(
    "popped,complaint", [([0, 1, 3], "lost"), ([0, 1, 2, 3, 2], "doubled"),
                         ([0, 1, 2, 3, 4], "never acknowledged")],
)
def test_elements_must_add_up(popped, complaint):
    tally = Tally(pushed=Counter({"q": 4}), popped={"q": popped})
    with pytest.raises(AssertionError, match=complaint + r" \[\d"):
        tally.check()
    Tally(pushed=Counter({"q": 4}), popped={"q": [3, 1, 0, 2]}).check()


def test_clients_that_cannot_begin_are_no_success(reference):
    clients = Workloads(
        Setting(reference.address, SECONDS, login=("nobody", "x"), sizes=FEW), processes=1
    )
    assert not clients.is_ready
    with pytest.raises(AssertionError, match="WRONGPASS"):
        clients.finish().check()
