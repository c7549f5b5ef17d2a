"""Replies arrive byte for byte as the server sent them, in order, to the client that asked."""

import random

import pytest

from harness.resp import bulk, encode

# Commands whose replies depend on nothing but the commands before them; one of each reply shape.
SCRIPT = [
    ("PING",),
    ("PING", "hello"),
    ("ECHO", b"\x00\xff\r\n+OK\r\n"),
    ("ECHO", ""),
    ("SET", "a", "1"),
    ("GET", "a"),
    ("GET", "missing"),
    ("SET", "binary", bytes(range(256))),
    ("GET", "binary"),
    ("SET", "", "empty key"),
    ("GET", ""),
    ("set", "lower", "case"),
    ("GeT", "lower"),
    ("SET", "a", "2", "GET"),
    ("SET", "a", "3", "NX"),
    ("SETEX", "e", "100", "v"),
    ("INCR", "n"),
    ("INCRBY", "n", "-9223372036854775807"),
    ("INCRBYFLOAT", "f", "3.25"),
    ("INCR", "binary"),
    ("MSET", "k1", "v1", "k2", "v2"),
    ("MGET", "k1", "missing", "k2"),
    ("MGET", "k1", "k1", "k1", "k1"),
    ("DEL", "k1", "k2", "k3"),
    ("RPUSH", "l", *range(100)),
    ("LRANGE", "l", "0", "-1"),
    ("LRANGE", "none", "0", "-1"),
    ("LPOP", "l", "3"),
    ("LPOP", "none", "3"),
    ("LPOS", "l", "50"),
    ("HSET", "h", "f1", "v1", "f2", ""),
    ("HGETALL", "h"),
    ("HGETALL", "none"),
    ("HRANDFIELD", "none", "3", "WITHVALUES"),
    ("SADD", "s", "1"),
    ("SMEMBERS", "s"),
    ("SISMEMBER", "s", "1"),
    ("SMISMEMBER", "s", "1", "2"),
    ("ZADD", "z", "1.5", "a", "inf", "b", "-0.1", "c"),
    ("ZRANGE", "z", "0", "-1", "WITHSCORES"),
    ("ZSCORE", "z", "a"),
    ("ZSCORE", "z", "none"),
    ("ZADD", "z", "INCR", "1", "a"),
    ("ZMSCORE", "z", "a", "none"),
    ("ZPOPMIN", "z"),
    ("GEOADD", "g", "13.361389", "38.115556", "Palermo"),
    ("GEOPOS", "g", "Palermo", "none"),
    ("XADD", "x", "1-1", "f", "v"),
    ("XADD", "x", "1-2", "f", "v", "g", "w"),
    ("XRANGE", "x", "-", "+"),
    ("XREAD", "COUNT", "1", "STREAMS", "x", "0"),
    ("XREAD", "STREAMS", "x", "9-9"),
    ("XGROUP", "CREATE", "x", "group", "0"),
    ("XREADGROUP", "GROUP", "group", "me", "STREAMS", "x", ">"),
    ("XPENDING", "x", "group"),
    ("XINFO", "GROUPS", "x"),
    ("SETBIT", "bits", "7", "1"),
    ("BITFIELD", "bits", "GET", "u8", "0", "OVERFLOW", "FAIL", "INCRBY", "u8", "0", "255"),
    ("PFADD", "hll", "a", "b"),
    ("PFCOUNT", "hll"),
    ("TYPE", "l"),
    ("OBJECT", "ENCODING", "s"),
    ("EXISTS", "a", "a", "missing"),
    ("EXPIRE", "a", "0"),
    ("TTL", "missing"),
    ("SCAN", "0", "MATCH", "never*", "COUNT", "1000"),
    ("COMMAND", "GETKEYS", "MSET", "a", "b", "c", "d"),
    ("COMMAND", "INFO", "GET"),
    ("COMMAND", "COUNT"),
    ("CONFIG", "GET", "appendfsync"),
    ("EVAL", "return {1, 'two', {3, {ok='four'}}, false, {err='FIVE broken'}}", "0"),
    ("EVAL", "return redis.error_reply('MY own error')", "0"),
    ("EVAL", "return redis.call('nosuch')", "0"),
    ("EVAL", "return redis.status_reply('fine')", "0"),
    ("EVAL_RO", "return ARGV", "0", "x", ""),
    ("EVAL", "return string.rep('x', 100000)", "0"),
    ("EVAL", "local t = {} for i = 1, 5000 do t[i] = i end return t", "0"),
    ("LOLWUT", "VERSION", "5", "1", "1", "1"),
    ("NOSUCHCOMMAND",),
    ("NOSUCHCOMMAND", "with", "arguments\r\n+OK", "x" * 300),
    ("",),
    ("", ""),
    ("GET",),
    ("GET", "a", "b"),
    ("LPUSH", "a"),
    ("LPUSH", "n", "x"),
    ("CONFIG", "NOSUCH"),
    ("CONFIG",),
    ("CLIENT", "NOSUCH"),
    ("OBJECT", "HELP"),
    ("DEBUG", "JMAP"),
    ("DEBUG", "PROTOCOL", "string"),
    ("DEBUG", "PROTOCOL", "integer"),
    ("DEBUG", "PROTOCOL", "double"),
    ("DEBUG", "PROTOCOL", "null"),
    ("DEBUG", "PROTOCOL", "array"),
    ("DEBUG", "PROTOCOL", "set"),
    ("DEBUG", "PROTOCOL", "map"),
    ("DEBUG", "PROTOCOL", "verbatim"),
    ("DEBUG", "PROTOCOL", "true"),
    ("DEBUG", "PROTOCOL", "bignum"),
    ("TIME", "too", "many"),
    ("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 7 end)"),
    ("FCALL", "f", "0"),
    ("FUNCTION", "DELETE", "l"),
    ("SCRIPT", "LOAD", "return 1"),
    ("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0" * 40),
    ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("WAIT", "0", "10"),
    ("WAIT", "1", "10"),
    ("MEMORY", "DOCTOR", "x"),
    ("SORT", "l", "LIMIT", "0", "5", "DESC"),
    ("DUMP", "missing"),
    ("RESTORE", "bad", "0", "garbage"),
    ("COPY", "l", "l2"),
    ("RENAME", "missing", "x"),
    ("MOVE", "l", "3"),
    ("SWAPDB", "0", "x"),
    ("DBSIZE", "x"),
    ("FLUSHALL",),
    ("DBSIZE",),
]

# DEBUG PROTOCOL attrib sends an attribute in front of its reply, in RESP3 only.
SCRIPT_3 = SCRIPT + [("DEBUG", "PROTOCOL", "attrib"), ("PING",)]


@pytest.mark.parametrize("protocol, script", [(2, SCRIPT), (3, SCRIPT_3)], ids=["RESP2", "RESP3"])
def test_every_reply_is_the_one_the_server_gives_byte_for_byte(
    proxied, direct, protocol, script
):
    with direct.connect(protocol=protocol) as there, proxied.connect(protocol=protocol) as here:
        for command in script:
            assert here.raw(*command) == there.raw(*command), command


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_whole_script_in_one_write_is_answered_in_order(proxied, direct, protocol):
    with direct.connect(protocol=protocol) as there, proxied.connect(protocol=protocol) as here:
        assert here.pipeline(*SCRIPT) == there.pipeline(*SCRIPT)


@pytest.mark.parametrize("seed", range(3))
def test_pipelines_of_random_depth_are_answered_in_order(gateway, seed):
    dice = random.Random(seed)
    with gateway.connect() as client:
        counter = 0
        for _ in range(40):
            depth = dice.choice((1, 2, 3, 10, 100, 1000))
            request, expected = bytearray(), bytearray()
            for _ in range(depth):
                counter += 1
                size = dice.choice((0, 1, 10, 100, 2000))
                token = b"%d:" % counter + b"t" * size
                request += encode("ECHO", token) + encode("INCR", "counter")
                expected += bulk(token) + b":%d\r\n" % counter
            answered = exchange(client, bytes(request), len(expected))
            assert answered == expected, f"seed {seed}, depth {depth}"


def exchange(client, request: bytes, expected: int) -> bytes:
    """Sends in slices and reads in between, so that neither side's buffers can fill for good."""
    received = bytearray()
    for start in range(0, len(request), 65536):
        client.send_bytes(request[start : start + 65536])
        if expected - len(received) > 1_000_000:
            received += client.read_exactly(500_000)
    return bytes(received + client.read_exactly(expected - len(received)))


def test_requests_cut_at_random_places_mean_the_same(gateway):
    dice = random.Random(7)
    request = b"".join(encode("ECHO", "x" * (i % 70)) + encode("INCR", "n") for i in range(200))
    expected = b"".join(bulk("x" * (i % 70)) + b":%d\r\n" % (i + 1) for i in range(200))
    with gateway.connect() as client:
        start = 0
        while start < len(request):
            end = start + dice.choice((1, 2, 3, 5, 17, 100, 1000))
            client.send_bytes(request[start:end])
            start = end
        assert client.read_exactly(len(expected)) == expected


def test_a_client_that_sends_byte_by_byte_is_served(gateway):
    request = encode("SET", "slow", "value\r\n$3") + b"GET slow\r\n" + encode("GET", "slow")
    with gateway.connect() as client:
        for index in range(len(request)):
            client.send_bytes(request[index : index + 1])
        assert client.read_raw(3) == b"+OK\r\n" + bulk("value\r\n$3") * 2


def test_inline_commands_work_as_on_the_server(proxied, direct):
    lines = [
        b"PING\r\n",
        b"PING\n",
        b"  PING  \r\n",
        b"ping 'a b'\r\n",
        b'SET inline "tab\\tnewline\\nhex\\x41quote\\""\r\n',
        b"GET inline\r\n",
        b"SET 'single\\'quoted' ''\r\n",
        b"GET \"single'quoted\"\r\n",
        b"\r\n\r\n\nECHO after-empty-lines\r\n",
        b"*0\r\n*-1\r\nECHO after-empty-arrays\r\n",
        b"NOSUCH inline command\r\n",
        b"GET\r\n",
        b"get\tinline\r\n",
        b"ECHO " + b"x" * 60_000 + b"\r\n",
    ]
    with direct.connect() as there, proxied.connect() as here:
        for line in lines:
            there.send_bytes(line)
            here.send_bytes(line)
            assert here.read().raw == there.read().raw, line[:80]


def test_inline_and_multibulk_commands_mix_in_one_pipeline(gateway):
    with gateway.connect() as client:
        client.send_bytes(b"SET m 1\r\n" + encode("INCR", "m") + b"INCR m\nGET m\r\n" * 2)
        assert client.read_raw(6) == b"+OK\r\n:2\r\n:3\r\n$1\r\n3\r\n:4\r\n$1\r\n4\r\n"


def test_an_error_reply_does_not_shift_the_replies_behind_it(gateway):
    commands = []
    expected = b""
    for index in range(300):
        commands += [("NOSUCH",), ("ECHO", index), ("GET",)]
        expected += b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n"
        expected += bulk(index) + b"-ERR wrong number of arguments for 'get' command\r\n"
    with gateway.connect() as client:
        assert client.pipeline(*commands) == expected


def test_text_of_a_client_in_an_error_cannot_become_a_second_reply(gateway):
    with gateway.connect() as client:
        for name in (b"X\r\n+OK\r\n", b"CLIENT\r\n", b"AUTH\r\n:1", b"HELLO\n+x", b"\r\n"):
            frame_error = client.raw(name, b"a\r\nb", b"c")
            assert frame_error.startswith(b"-ERR unknown command")
            assert client.raw("PING") == b"+PONG\r\n"
        for command in (("CLIENT", b"X\r\n+OK"), ("HELLO", b"3\r\n+OK"), ("SELECT", b"1\r\n+OK")):
            assert client.raw(*command).startswith(b"-")
            assert client.raw("PING") == b"+PONG\r\n"
