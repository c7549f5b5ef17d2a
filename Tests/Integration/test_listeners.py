"""Where clients connect: TCP, Unix sockets, several listeners, dedicated connections."""

import os
import socket
import stat

import pytest

from harness.proxy import Listener, Upstream
from harness.resp import Client, bulk, encode, eventually


def upstreams(server):
    return {"cache": Upstream.verified(server)}, {"app": server.passwords["app"]}


def test_a_unix_socket_serves_like_a_port(server, start_proxy, place):
    proxy = start_proxy(*upstreams(server), [Listener("app", path=place / "s"), Listener("app")])
    with proxy.connect(0) as unix, proxy.connect(1) as tcp:
        value = os.urandom(1_000_000)
        assert unix.raw("SET", "over-unix", value) == b"+OK\r\n"
        assert tcp.raw("GET", "over-unix") == bulk(value) == unix.raw("GET", "over-unix")
        unix.send_bytes(encode("ECHO", "last") * 100)
        unix.half_close()
        assert unix.read_to_end() == bulk("last") * 100


@pytest.mark.parametrize("given, expected", [(None, 0o600), ("0660", 0o660), ("0777", 0o777)])
def test_a_unix_sockets_file_has_the_mode_that_was_asked_for(
    server, start_proxy, place, given, expected
):
    more = {"socket_mode": given} if given else {}
    start_proxy(*upstreams(server), [Listener("app", path=place / "s", **more)])
    status = (place / "s").stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_unix_sockets_file_has_the_owner_that_was_asked_for(server, start_proxy, place):
    listener = Listener("app", path=place / "s", socket_owner="nobody", socket_group="nogroup")
    start_proxy(*upstreams(server), [listener])
    status = (place / "s").stat()
    assert (status.st_uid, status.st_gid) == (65534, 65534)


def test_a_stale_socket_file_is_replaced(server, start_proxy, place):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(place / "s"))
    proxy = start_proxy(*upstreams(server), [Listener("app", path=place / "s")])
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"


def test_a_live_socket_file_is_refused_and_stays_in_service(server, start_proxy, place):
    first = start_proxy(*upstreams(server), [Listener("app", path=place / "s")])
    second = start_proxy(*upstreams(server), [Listener("app", path=place / "s")], wait=False)
    assert second.process.wait(10) != 0
    assert str(place / "s") in second.log()
    with first.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"


def test_a_file_that_is_no_socket_is_never_replaced(server, start_proxy, place):
    (place / "precious").write_text("data")
    proxy = start_proxy(*upstreams(server), [Listener("app", path=place / "precious")], wait=False)
    assert proxy.process.wait(10) != 0
    assert (place / "precious").read_text() == "data"


def test_a_unix_sockets_file_is_removed_at_the_end(server, start_proxy, place):
    proxy = start_proxy(*upstreams(server), [Listener("app", path=place / "s")])
    assert proxy.stop() == 0
    assert not (place / "s").exists()


def test_a_port_that_is_taken_ends_the_start_and_is_named(server, start_proxy):
    first = start_proxy(*upstreams(server), [Listener("app")])
    second = start_proxy.from_flags(
        [first.listeners[0]],
        "--upstream", f"rediss://localhost:{server.port}",
        "--ca-file", server.authority.ca_file,
        "--user", "app",
        "--password-file", first.password_file("app"),
        wait=False,
    )
    assert second.process.wait(10) != 0
    assert str(first.listeners[0].address[1]) in second.log()


def test_every_listener_is_announced_with_what_it_maps_to(server, start_proxy, place):
    listeners = [Listener("app"), Listener("app", "dedicated"), Listener("app", path=place / "s")]
    proxy = start_proxy(*upstreams(server), listeners)
    for listener in listeners:
        address = listener.settings["address"].removeprefix("unix:")

        def announced() -> list:
            lines = proxy.log().splitlines()
            return [line for line in lines if address in line and "app" in line and "cache" in line]

        # The port may be open before the line is written.
        eventually(announced, what=f"{address} is announced")
        assert len(announced()) == 1


def test_flags_alone_are_enough(server, start_proxy, place):
    file = place / "password"
    file.write_text(server.passwords["app"])
    listeners = [Listener("app"), Listener("app", path=place / "s")]
    proxy = start_proxy.from_flags(
        listeners,
        "--upstream", f"rediss://127.0.0.1:{server.port}",
        "--server-name", "localhost",
        "--ca-file", server.authority.ca_file,
        "--user", "app",
        "--password-file", file,
        "--mode", "dedicated",
        "--threads", "2",
        "--drain-timeout", "3s",
    )
    before = len(server.connections("app"))
    with proxy.connect(0) as one, proxy.connect(1) as two:
        assert one.raw("SET", "flags", 1) == b"+OK\r\n"
        assert two.raw("GET", "flags") == bulk(1)
        assert len(server.connections("app")) == before + 2
    assert proxy.stop() == 0


# Dedicated mode


def test_a_dedicated_session_has_one_upstream_connection_to_itself(server, start_proxy):
    server.add_user("lonely")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"lonely": server.passwords["lonely"]},
        [Listener("lonely", "dedicated")],
    )
    clients = []
    for count in range(1, 11):
        clients.append(proxy.connect())
        assert clients[-1].raw("PING") == b"+PONG\r\n"
        assert len(server.connections("lonely")) == count
    ids = {client.value("CLIENT", "ID") for client in clients}
    assert ids == {int(connection["id"]) for connection in server.connections("lonely")}
    for client in clients[:5]:
        client.close()
    eventually(lambda: len(server.connections("lonely")) == 5, what="the others stay")
    for client in clients[5:]:
        assert client.raw("PING") == b"+PONG\r\n"
        client.close()
    eventually(lambda: not server.connections("lonely"), what="all are gone")


def test_a_dedicated_session_ends_with_its_upstream_connection(server, start_proxy):
    server.add_user("fragile")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"fragile": server.passwords["fragile"]},
        [Listener("fragile", "dedicated")],
    )
    with proxy.connect() as one, proxy.connect() as two:
        mine = one.value("CLIENT", "ID")
        assert two.raw("PING") == b"+PONG\r\n"
        assert server.ask("CLIENT", "KILL", "ID", mine) == 1
        assert one.read_to_end() == b""
        assert two.raw("PING") == b"+PONG\r\n"


def test_many_sessions_share_few_upstream_connections(server, start_proxy):
    server.add_user("crowd")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"crowd": server.passwords["crowd"]},
        [Listener("crowd")],
    )
    clients = [proxy.connect() for _ in range(200)]
    for client in clients:
        assert client.raw("SET", "k", "v") == b"+OK\r\n"
    assert len(server.connections("crowd")) == 1
    for client in clients:
        client.close()
    with proxy.connect() as client:
        assert client.raw("GET", "k") == bulk("v")
    assert len(server.connections("crowd")) == 1


def test_a_client_that_ties_up_a_connection_frees_it_when_it_leaves(server, start_proxy):
    server.add_user("pinner")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"pinner": server.passwords["pinner"]},
        [Listener("pinner")],
    )
    for command in (("SUBSCRIBE", "c"), ("WATCH", "k"), ("MULTI",), ("MONITOR",), ("CLIENT", "ID")):
        clients = [proxy.connect() for _ in range(10)]
        for client in clients:
            client.value(*command)
        assert len(server.connections("pinner")) >= 10
        for client in clients:
            client.close()
        # A few may be kept for reuse.
        eventually(lambda: len(server.connections("pinner")) <= 10, what=f"{command} released")
    with Client(proxy.listeners[0].address) as client:
        assert client.raw("PING") == b"+PONG\r\n"


def test_uploads_that_bring_nothing_hold_nobody_up(server, start_proxy):
    server.add_user("uploader")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"uploader": server.passwords["uploader"]},
        [Listener("uploader")],
        max_pinned=5,
    )
    announcement = b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$64000000\r\n"
    announcers = [proxy.connect() for _ in range(200)]
    for client in announcers:
        client.send_bytes(announcement)
    with proxy.connect() as other:
        assert other.raw("SET", "k", "v") == b"+OK\r\n"
        assert len(server.connections("uploader")) == 1
        # Now as many as there may be come to need a connection, and stop there.
        for client in announcers[:5]:
            client.send_bytes(b"x" * 200_000)
        eventually(lambda: len(server.connections("uploader")) == 6, what="5 uploads under way")
        assert other.raw("WATCH", "k") == b"+OK\r\n"
        assert other.raw("UNWATCH") == b"+OK\r\n"
    assert "stopped in the middle of an upload" in proxy.log()
    for client in announcers:
        client.close()


def test_the_limit_of_pinned_connections_is_an_error_not_a_hang(server, start_proxy):
    proxy = start_proxy(
        *upstreams(server), [Listener("app")], max_pinned=5, upstream_wait="500ms"
    )
    clients = [proxy.connect() for _ in range(5)]
    for client in clients:
        client.send("SUBSCRIBE", "c")
        assert client.read().value[2] == 1
    with proxy.connect(timeout=10) as sixth, proxy.connect() as plain:
        sixth.send("SUBSCRIBE", "c")
        answer = sixth.read_to_end()
        assert answer.startswith(b"-"), answer
        assert plain.raw("PING") == b"+PONG\r\n"
    clients.pop().close()

    def subscribed() -> bool:
        with proxy.connect() as client:
            client.send("SUBSCRIBE", "c")
            return not client.read().is_error

    eventually(subscribed, what="a place is free again")
