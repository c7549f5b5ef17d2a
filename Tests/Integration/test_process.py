"""What the proxy's process shows to others and how it lives with its limits."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

from harness import passwords
from harness.proxy import Listener, Upstream
from harness.resp import ConnectionClosed, bulk, eventually

DESCRIPTORS = 96


def start(start_proxy, server, **settings):
    return start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app")],
        **settings,
    )


# Root's capabilities open every file; without them root is a user like any other.
UNPRIVILEGED = (
    ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all") if os.geteuid() == 0 else ()
)


def environment_seen_by_others(pid: int) -> bytes:
    """What another process of the same user can read of a process's environment."""
    command = [*UNPRIVILEGED, "cat", f"/proc/{pid}/environ"]
    return subprocess.run(command, capture_output=True, timeout=10).stdout


def test_a_password_of_the_environment_is_out_of_reach_of_other_processes(server, start_proxy):
    password = server.passwords["app"]
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": {"credentials": {"password_env": "APP_PASSWORD"}}},
        [Listener("app")],
        environment={"APP_PASSWORD": password},
    )
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
    assert password.encode() not in Path(f"/proc/{proxy.pid}/cmdline").read_bytes()
    # Root can read even this; whoever cannot has nothing to find.
    run = subprocess.run(["cat", f"/proc/{proxy.pid}/environ"], capture_output=True, timeout=10)
    assert password.encode() not in run.stdout
    assert run.returncode == 0 or os.geteuid() != 0


def test_other_processes_of_the_same_user_cannot_look_into_the_proxy(server, start_proxy):
    proxy = start(start_proxy, server, wrapper=UNPRIVILEGED)
    open_book = subprocess.Popen([*UNPRIVILEGED, "sleep", "60"])
    try:
        eventually(lambda: environment_seen_by_others(open_book.pid), what="others can be read")
        assert environment_seen_by_others(proxy.pid) == b""
    finally:
        open_book.kill()
        open_book.wait()


def test_the_proxy_leaves_no_core_dump(server, start_proxy):
    proxy = start(start_proxy, server)
    for line in Path(f"/proc/{proxy.pid}/limits").read_text().splitlines():
        if line.startswith("Max core file size"):
            assert line.split()[4:6] == ["0", "0"]
            return
    raise AssertionError("no core limit in /proc/PID/limits")


def test_the_descriptor_limit_is_raised_to_the_hard_limit(server, start_proxy):
    def limits():
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 500))

    proxy = start(start_proxy, server, limits=limits)

    def limit() -> list:
        for line in Path(f"/proc/{proxy.pid}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                return line.split()[3:5]
        raise AssertionError("no descriptor limit in /proc/PID/limits")

    # The port may be open before the limit is raised.
    eventually(lambda: limit() == ["500", "500"], what="the limit is raised")


def test_no_password_stands_in_the_arguments_or_in_a_debug_log(server, start_proxy):
    secret = passwords.new_password()
    proxy = start(start_proxy, server, log={"level": "trace", "format": "json"})
    with proxy.connect() as client:
        client.raw("AUTH", secret)
        client.raw("AUTH", "default", secret)
        client.raw("HELLO", "3", "AUTH", "admin", secret)
        client.send_bytes(f"AUTH '{secret}' nonsense \"\r\n".encode())
        client.read_to_end()
    arguments = Path(f"/proc/{proxy.pid}/cmdline").read_bytes().decode()
    assert not passwords.found_in(arguments)
    assert proxy.stop() == 0


def test_a_JSON_log_is_JSON_line_by_line(server, start_proxy):
    proxy = start(start_proxy, server, log={"level": "debug", "format": "json"})
    with proxy.connect() as client:
        client.raw("PING")
    server.kill_connections("app")
    assert proxy.stop() == 0
    lines = proxy.log().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict), line


def test_a_proxy_out_of_descriptors_serves_on_and_does_not_spin(server, start_proxy):
    def limits():
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    proxy = start(start_proxy, server, limits=limits)
    first = proxy.connect()
    assert first.raw("PING") == b"+PONG\r\n"
    crowd = [proxy.connect() for _ in range(2 * DESCRIPTORS)]
    time.sleep(0.3)
    before = proxy.process.cpu_seconds()
    time.sleep(2)
    assert proxy.process.cpu_seconds() - before <= 0.2, "it spins on accept"
    assert first.raw("ECHO", "still here") == bulk("still here")
    # Descriptors are in reserve for the upstream.
    for _ in range(3):
        assert server.lose_connections("app") >= 1
        assert first.raw("ECHO", "again") == bulk("again")
    first.send("SUBSCRIBE", "c")
    assert first.read().value == [b"subscribe", b"c", 1]
    for client in crowd:
        client.close()

    def served() -> bool:
        try:
            with proxy.connect(timeout=3) as client:
                return client.raw("PING") == b"+PONG\r\n"
        except (OSError, ConnectionClosed):
            return False

    eventually(served, what="new clients are served again")
    first.close()
    assert proxy.stop() == 0


def test_an_idle_proxy_uses_no_processor(server, start_proxy):
    proxy = start(start_proxy, server)
    clients = [proxy.connect() for _ in range(100)]
    for client in clients:
        assert client.raw("PING") == b"+PONG\r\n"
    before = proxy.process.cpu_seconds()
    time.sleep(2)
    assert proxy.process.cpu_seconds() - before <= 0.05
    for client in clients:
        client.close()


def test_no_descriptor_and_no_memory_is_lost_over_many_clients(server, start_proxy):
    proxy = start(start_proxy, server)

    def wave():
        for _ in range(10):
            clients = [proxy.connect() for _ in range(100)]
            for client in clients:
                client.send("ECHO", "x" * 1000)
            for client in clients[::2]:
                client.read()
            for client in clients:
                client.close()
        with proxy.connect() as client:
            assert client.raw("PING") == b"+PONG\r\n"

    wave()
    time.sleep(0.3)
    descriptors, memory = proxy.process.descriptors(), proxy.process.resident_bytes()
    wave()
    wave()
    eventually(lambda: proxy.process.descriptors() <= descriptors, what="descriptors come back")
    assert proxy.process.resident_bytes() - memory < 8 * 1024 * 1024


def test_a_crash_writes_nothing_of_the_memory_into_the_log(server, start_proxy):
    proxy = start(start_proxy, server)
    # Of its start, and of whoever looked whether it listens.
    words = ("listening on", "logged in upstream", "session closed")
    eventually(lambda: all(word in proxy.log() for word in words), what="it has said it all")
    before = proxy.log()
    os.kill(proxy.pid, signal.SIGSEGV)
    assert proxy.process.wait() == -signal.SIGSEGV
    assert proxy.log() == before
