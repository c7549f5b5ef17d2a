"""Everything at once: fifty verifying clients, rotation every second, losses twice a second.

    INTEGRATION_SIZE=full pytest Tests/Integration/test_chaos.py -s

is the full form: 50 clients × 20,000 commands; without it each client sends 4,000.
"""

import time

import pytest

from harness import passwords, verifier
from harness.proxy import Listener, Upstream
from harness.verifier import Plan

CLIENTS = 50
COMMANDS_FULL = 20_000
COMMANDS_QUICK = 4_000
ROTATE_SECONDS = 1.0
KILL_SECONDS = 0.5
# Clients that are through sooner go on until as much has happened.
LEAST_KILLS = 6
LEAST_ROTATIONS = 3


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
@pytest.mark.parametrize("transactions", [False, True], ids=["plain", "with transactions"])
def test_rotations_and_losses_under_load_lead_to_no_wrong_reply(
    server, start_proxy, full_size, mode, transactions
):
    user = f"chaos-{mode}"
    password = server.add_user(user)
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {user: password}, [Listener(user, mode)],
        threads=2 if transactions else 1,
    )
    commands = COMMANDS_FULL if full_size else COMMANDS_QUICK
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=CLIENTS, commands=commands, seed=4711,
        goes_on=True, may_close=True, max_depth=100, transactions=transactions,
        prefix=f"chaos{transactions}",
        # Spread over enough time for the faults to meet it.
        pace_seconds=0.0 if full_size and mode == "multiplexed" else 0.03,
    )
    load = verifier.Load(plan, processes=4)
    started = last_rotation = last_kill = time.monotonic()
    rotations = kills = 0
    while load.is_running and not (
        load.is_through and kills >= LEAST_KILLS and rotations >= LEAST_ROTATIONS
    ):
        time.sleep(0.02)
        now = time.monotonic()
        if now - last_kill >= KILL_SECONDS:
            last_kill = now
            server.kill_connections(user)
            kills += 1
        if now - last_rotation >= ROTATE_SECONDS:
            last_rotation = now
            rotations += 1
            new = passwords.new_password()
            server.ask("ACL", "SETUSER", user, ">" + new)
            proxy.write_password(user, new)
            server.ask("ACL", "SETUSER", user, "<" + server.passwords[user])
            server.passwords[user] = new
    load.stop()
    outcome = load.outcome(60)
    seconds = time.monotonic() - started
    print(
        f"\n{mode}, {'with transactions' if transactions else 'plain'}:"
        f" {outcome.answered} commands answered rightly in {seconds:.1f} s,"
        f" {len(outcome.wrong)} wrong; {rotations} rotations, {kills} kills;"
        f" clients closed {outcome.closed} times, {outcome.refused} commands refused,"
        f" longest pause {outcome.longest_pause_seconds:.2f} s"
    )
    verifier.check(outcome, plan)
    assert kills >= LEAST_KILLS and rotations >= LEAST_ROTATIONS
    assert outcome.refused == 0, outcome.refusals
    assert outcome.longest_pause_seconds < 5
    assert proxy.stop() == 0
