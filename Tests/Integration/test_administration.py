"""Commands about other clients, scripts and the server itself, as on a direct connection."""

import re
import subprocess
import time

import pytest

from harness.proxy import Listener, Upstream
from harness.resp import Error, Map, bulk, encode, eventually

PONG, OK = b"+PONG\r\n", b"+OK\r\n"


@pytest.fixture
def unpaused(gateway):
    yield
    gateway.server.ask("CLIENT", "UNPAUSE")


def wait_until_busy(gateway) -> None:
    with gateway.server.admin() as admin:
        eventually(lambda: admin.raw("PING").startswith(b"-BUSY"), what="the server is busy")


# CLIENT


def test_subscribers_can_be_killed_by_their_kind(gateway):
    with gateway.connect() as subscriber, gateway.connect() as other:
        subscriber.raw("SUBSCRIBE", "c")
        assert other.raw("CLIENT", "KILL", "TYPE", "pubsub") == b":1\r\n"
        assert subscriber.read_to_end() == b""
        assert other.raw("PING") == PONG


def test_a_client_can_be_killed_by_its_address(gateway):
    with gateway.connect() as victim, gateway.connect() as other:
        victim.value("CLIENT", "ID")
        address = re.search(rb"addr=(\S+)", victim.value("CLIENT", "INFO"))[1]
        assert other.raw("CLIENT", "KILL", address) == OK
        assert victim.read_to_end() == b""
        assert other.raw("CLIENT", "KILL", address) == b"-ERR No such client\r\n"


def test_a_client_that_kills_itself_gets_the_answer_and_the_end(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        mine = client.value("CLIENT", "ID")
        client.send_bytes(encode("CLIENT", "KILL", "ID", mine, "SKIPME", "no") + encode("PING"))
        assert client.read_to_end() == b":1\r\n"
        assert other.raw("PING") == PONG


def test_an_unblocked_client_sees_a_timeout_and_goes_on(gateway):
    with gateway.connect() as waiting, gateway.connect() as other:
        mine = waiting.value("CLIENT", "ID")
        assert other.raw("CLIENT", "UNBLOCK", mine) == b":0\r\n"
        waiting.send("BLPOP", "q", 0)
        eventually(lambda: other.value("CLIENT", "UNBLOCK", mine) == 1, what="it is unblocked")
        assert waiting.read_raw() == b"*-1\r\n"
        assert waiting.raw("CLIENT", "ID") == b":%d\r\n" % mine
        assert other.raw("RPUSH", "q", "kept") == b":1\r\n"
        assert waiting.raw("LLEN", "q") == b":1\r\n"


def test_a_pause_of_everything_ends_by_itself(gateway, unpaused):
    with gateway.connect() as pauser, gateway.connect() as other:
        assert other.raw("PING") == PONG
        assert pauser.raw("CLIENT", "PAUSE", 300, "ALL") == OK
        started = time.monotonic()
        assert other.pipeline(("SET", "k", 1), ("GET", "k")) == OK + bulk(1)
        assert 0.2 < time.monotonic() - started < 5


def test_a_pause_of_writes_lets_reads_of_others_through(gateway, unpaused):
    with gateway.connect() as pauser, gateway.connect() as reader:
        assert reader.raw("GET", "k") == b"$-1\r\n"
        assert pauser.raw("CLIENT", "PAUSE", 60_000, "WRITE") == OK
        assert reader.raw("GET", "k") == b"$-1\r\n"
        reader.send("SET", "k", 1)
        assert reader.is_silent(0.1)
        assert pauser.raw("CLIENT", "UNPAUSE") == OK
        assert reader.read_raw() == OK


# MONITOR


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_monitor_is_a_client_like_others_after_reset(gateway, protocol):
    with gateway.connect(protocol=protocol) as monitor, gateway.connect() as other:
        assert monitor.raw("MONITOR") == OK
        assert other.raw("ECHO", "seen") == bulk("seen")
        while b'"ECHO" "seen"' not in monitor.read_raw():
            pass
        monitor.send("RESET")
        while (line := monitor.read_raw()) != b"+RESET\r\n":
            assert line.startswith(b"+")
        if gateway.is_direct:
            monitor.raw("AUTH", *gateway.login())
        assert other.raw("ECHO", "unseen") == bulk("unseen")
        assert monitor.raw("PING") == PONG


def test_a_monitor_that_quits_is_gone(gateway):
    with gateway.connect() as monitor, gateway.connect() as other:
        assert monitor.raw("MONITOR") == OK
        monitor.send("QUIT")
        assert monitor.read_to_end().endswith(OK)
        assert other.raw("PING") == PONG


# Scripts and functions


def test_a_script_that_has_written_cannot_be_killed_and_ends_by_itself(gateway):
    script = """
        redis.call('set', 'written', 1)
        local start = redis.call('time')
        repeat
            local now = redis.call('time')
            local passed = (now[1] - start[1]) * 1000000 + now[2] - start[2]
        until passed > 1000000
        return 'done'
    """
    with gateway.connect() as busy, gateway.connect() as other:
        assert other.raw("PING") == PONG
        busy.send("EVAL", script, 0)
        wait_until_busy(gateway)
        assert other.raw("SCRIPT", "KILL").startswith(b"-UNKILLABLE ")
        assert busy.read_raw() == bulk("done")
        assert other.raw("GET", "written") == bulk(1)


def test_a_running_function_is_shown_and_killed_from_another_client(gateway):
    library = "#!lua name=busy\nredis.register_function('loop', function() while true do end end)"
    with gateway.connect() as busy, gateway.connect() as other:
        assert other.raw("FUNCTION", "LOAD", "REPLACE", library) == bulk("busy")
        busy.send("FCALL", "loop", 0)
        wait_until_busy(gateway)
        assert b"loop" in other.raw("FUNCTION", "STATS")
        assert other.raw("SCRIPT", "KILL").startswith(b"-BUSY ")
        assert other.raw("FUNCTION", "KILL") == OK
        assert busy.read_raw().startswith(b"-ERR Script killed by user")
        assert other.raw("FUNCTION", "FLUSH") == OK
        assert busy.raw("PING") == PONG


def test_functions_are_loaded_listed_dumped_restored_and_called(gateway):
    library = (
        "#!lua name=lib\nredis.register_function{function_name='first',"
        " callback=function(keys, args) return {keys[1], args[1]} end, flags={'no-writes'}}"
    )
    with gateway.connect() as one, gateway.connect() as two:
        assert one.raw("FUNCTION", "FLUSH") == OK
        assert one.raw("FUNCTION", "LOAD", library) == bulk("lib")
        expected = b"*2\r\n" + bulk("k") + bulk("a\r\nb")
        assert two.raw("FCALL", "first", 1, "k", "a\r\nb") == expected
        assert two.raw("FCALL_RO", "first", 1, "k", "a\r\nb") == expected
        assert b"first" in two.raw("FUNCTION", "LIST", "LIBRARYNAME", "lib")
        dump = one.value("FUNCTION", "DUMP")
        assert two.raw("FUNCTION", "DELETE", "lib") == OK
        assert one.raw("FCALL", "first", 0) == b"-ERR Function not found\r\n"
        assert one.raw("FUNCTION", "RESTORE", dump) == OK
        assert two.raw("FCALL", "first", 1, "k", "a\r\nb") == expected
        assert two.raw("FUNCTION", "FLUSH") == OK


# DEBUG, unknown commands, modules


def test_a_server_that_sleeps_answers_everybody_afterwards(gateway):
    with gateway.connect() as sleeper, gateway.connect() as other:
        assert other.raw("PING") == PONG
        sleeper.send("DEBUG", "SLEEP", "0.3")
        other.send_bytes(encode("SET", "k", 1) + encode("GET", "k"))
        assert sleeper.read_raw() == OK
        assert other.read_raw(2) == OK + bulk(1)
        assert sleeper.raw("DEBUG", "OBJECT", "k").startswith(b"+Value at:")


@pytest.mark.parametrize("name", ["JSON.SET", "FT.SEARCH", "BF.ADD", "X", "x" * 300, "BLPOPX"])
def test_commands_that_the_server_does_not_know_keep_their_place(proxied, direct, name):
    commands = [("ECHO", 1), (name, "a", "b c"), ("ECHO", 2), (name,), ("ECHO", 3)]
    with direct.connect() as there, proxied.connect() as here:
        assert here.pipeline(*commands) == there.pipeline(*commands)


MODULE = r"""
#include <stddef.h>
typedef struct Context { int (*api)(const char *, void *); } Context;
typedef int (*Command)(Context *, void **, int);
static int (*create)(Context *, const char *, Command, const char *, int, int, int);
static int (*attributes)(Context *, const char *, int, int, int);
static int (*array)(Context *, long), (*map)(Context *, long), (*string)(Context *, void *);
static int (*integer)(Context *, long long), (*simple)(Context *, const char *);

static int echo(Context *context, void **arguments, int count) {
    array(context, count);
    for (int index = 0; index < count; index++) string(context, arguments[index]);
    return 0;
}

static int pairs(Context *context, void **arguments, int count) {
    map(context, 1);
    simple(context, "arguments");
    return integer(context, count);
}

int RedisModule_OnLoad(Context *context, void **arguments, int count) {
    int (*get)(const char *, void *) = context->api;
    get("RedisModule_CreateCommand", &create);
    get("RedisModule_SetModuleAttribs", &attributes);
    get("RedisModule_ReplyWithArray", &array);
    get("RedisModule_ReplyWithMap", &map);
    get("RedisModule_ReplyWithString", &string);
    get("RedisModule_ReplyWithLongLong", &integer);
    get("RedisModule_ReplyWithSimpleString", &simple);
    attributes(context, "test", 1, 1, 0);
    create(context, "test.echo", echo, "readonly", 0, 0, 0);
    create(context, "test.map", pairs, "readonly", 0, 0, 0);
    return 0;
}
"""


def test_commands_of_a_module_are_commands_like_others(start_server, start_proxy, place):
    source = place / "module.c"
    source.write_text(MODULE)
    subprocess.run(
        ["gcc", "-w", "-shared", "-fPIC", "-o", place / "module.so", source], check=True
    )
    server = start_server(options={"loadmodule": place / "module.so"})
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"app": server.passwords["app"]},
        [Listener("app", mode) for mode in ("multiplexed", "dedicated")],
    )
    for listener in (0, 1):
        with proxy.connect(listener) as two, proxy.connect(listener) as three:
            assert three.value("HELLO", 3)[b"proto"] == 3
            echoed = b"*2\r\n" + bulk("TEST.ECHO") + bulk("a\r\nb")
            for client in (two, three):
                assert client.raw("TEST.ECHO", "a\r\nb") == echoed
                assert client.pipeline(
                    ("MULTI",), ("test.map", "x"), ("ECHO", 1), ("EXEC",)
                ).startswith(OK + b"+QUEUED\r\n" * 2 + b"*2\r\n")
            assert two.value("test.map", "x") == [b"arguments", 2]
            assert three.value("test.map", "x") == Map({b"arguments": 2})
            assert isinstance(two.value("TEST.NOSUCH"), Error)
            assert b"test" in two.raw("MODULE", "LIST")
