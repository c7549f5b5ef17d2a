"""The scenario with redis-py's asyncio client.

usage: redis_py_asyncio.py HOST PORT PREFIX PROTOCOL PARSER    PROTOCOL 2|3, PARSER python|hiredis
"""

import asyncio
import sys

import redis.asyncio as redis
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from report import POLL_SECONDS, WAIT_SECONDS, canonical, digest, is_blocked, step

host, port, prefix, protocol, parser = sys.argv[1:]
parsers = {
    "hiredis": _AsyncHiredisParser,
    "python": _AsyncRESP3Parser if protocol == "3" else _AsyncRESP2Parser,
}


def key(name: str) -> str:
    return f"{prefix}:{name}"


def open_client(pool_class=redis.ConnectionPool, **options) -> redis.Redis:
    pool = pool_class(
        host=host,
        port=int(port),
        protocol=int(protocol),
        parser_class=parsers[parser],
        socket_timeout=20,
        retry=Retry(NoBackoff(), 3),
        **options,
    )
    return redis.Redis(connection_pool=pool)


async def error_of(answer):
    """The error that an awaited call must raise."""
    try:
        return f"no error but {canonical(await answer)}"
    except redis.RedisError as error:
        return error


async def wait_until(condition, what: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(POLL_SECONDS)


async def collect(iterator) -> list:
    return sorted([item async for item in iterator])


async def main() -> None:
    client = open_client()
    other = open_client(client_name=key("other"))
    connection = await client.connection_pool.get_connection()
    # A parser that fell back to another one would make this program test something else.
    assert type(connection._parser) is parsers[parser], connection._parser
    await client.connection_pool.release(connection)
    step("connect", int(connection.protocol))

    async def blocked(name: str) -> bool:
        return is_blocked(await other.client_list(), key(name))

    step("ping", await client.ping(), await client.echo("hello"))

    step("set and get", await client.set(key("text"), "value"), await client.get(key("text")))
    step("set and get", await client.get(key("missing")), await client.delete(key("text")))

    binary = bytes(range(256)) + b"\r\n$5\r\n+OK\r\n*1\r\n\0\xff"
    step("binary value", await client.set(key("binary"), binary))
    step("binary value", await client.get(key("binary")) == binary)

    step("empty value", await client.set(key("empty"), ""), await client.get(key("empty")))

    big = bytes(range(256)) * 4096
    step("big value", await client.set(key("big"), big), await client.get(key("big")))
    step("big value", *await asyncio.gather(*(client.get(key("big")) for _ in range(4))))

    many = {key(f"m{index}"): f"value {index}" for index in range(20)}
    step("mset and mget", await client.mset(many), await client.mget([*many, key("missing")]))

    step("incr", await client.incr(key("n")), await client.incr(key("n"), 41))
    step("incr", await error_of(client.incr(key("empty"))))

    step("expire and ttl", await client.expire(key("n"), 100), await client.ttl(key("n")) > 98)
    step("expire and ttl", await client.persist(key("n")), await client.ttl(key("n")))

    step("hash", await client.hset(key("hash"), mapping={"a": 1, "b": b"\r\n", "c": ""}))
    step("hash", await client.hgetall(key("hash")), await client.hdel(key("hash"), "a"))

    step("list", await client.rpush(key("list"), *range(10)), await client.lpop(key("list"), 2))
    step("list", await client.lrange(key("list"), 0, -1), await client.lpop(key("missing")))

    step("set", await client.sadd(key("set"), "a", "b"), set(await client.smembers(key("set"))))

    step("sorted set", await client.zadd(key("zset"), {"one": 1, "half": 2.5, "inf": "inf"}))
    step("sorted set", await client.zrange(key("zset"), 0, -1, withscores=True))

    async with client.pipeline(transaction=False) as pipeline:
        for index in range(500):
            pipeline.set(key(f"scan:{index}"), index)
        await pipeline.execute()
    step("scan", digest(await collect(client.scan_iter(key("scan:*"), count=50))))
    step("scan", await collect(client.zscan_iter(key("zset"), count=2)))

    async with client.pipeline(transaction=False) as pipeline:
        for index in range(50):
            pipeline.set(key(f"p{index}"), index).get(key(f"p{index}"))
        step("pipeline", await pipeline.execute())
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set(key("p"), "x").lpush(key("p"), "y").get(key("p"))
        step("pipeline", await pipeline.execute(raise_on_error=False))

    async with client.pipeline(transaction=False) as pipeline:
        for index in range(10_000):
            pipeline.set(key("bp"), f"{index}" * 10).get(key("bp"))
        step("big pipeline", digest(await pipeline.execute()))

    async with client.pipeline() as transaction:
        await transaction.watch(key("n"))
        before = await transaction.get(key("n"))
        transaction.multi()
        transaction.set(key("n"), int(before) + 1).get(key("n")).lrange(key("list"), 0, 1)
        step("transaction", before, await transaction.execute())
    async with client.pipeline() as transaction:
        transaction.set(key("t"), "text").incr(key("t")).get(key("t"))
        step("transaction", await transaction.execute(raise_on_error=False))

    async with client.pipeline() as transaction:
        await transaction.watch(key("n"))
        await other.set(key("n"), "changed")
        transaction.multi()
        transaction.set(key("n"), "mine")
        step("transaction conflict", await error_of(transaction.execute()))
        step("transaction conflict", await client.get(key("n")))

    echo = f"return {{KEYS[1], ARGV[1], 7, false, {{'{prefix}'}}}}"
    step("eval", await client.eval(echo, 1, key("k"), "a\r\nb"))
    step("eval", await error_of(client.eval("return redis.error_reply('MY error')", 0)))

    step("evalsha", await error_of(client.evalsha("0123456789" * 4, 0)))
    sha = await client.script_load(f"return tonumber(ARGV[1]) + tonumber(ARGV[2]) -- {prefix}")
    step("evalsha", sha, await client.evalsha(sha, 0, 40, 2), await client.script_exists(sha))
    registered = client.register_script(f"return 'registered {prefix}'")
    step("evalsha", await registered(), await registered())

    single = open_client(max_connections=1)
    step("select", await single.select(1), await single.set(key("db"), "one"))
    step("select", await single.get(key("db")), await client.get(key("db")))
    step("select", await single.select(0), await single.get(key("db")))
    step("select", await error_of(single.select(99)), await open_client(db=1).get(key("db")))

    blocker = open_client(client_name=key("blocker"))
    popped = asyncio.create_task(blocker.blpop([key("q1"), key("q2")], 15))
    await wait_until(lambda: blocked("blocker"), "BLPOP blocks")
    step("blocking pop", await other.rpush(key("q2"), "b\r\n", "c"), await popped)
    step("blocking pop", await blocker.brpop(key("q2"), 1), await blocker.get(key("n")))
    step("blocking pop timeout", await blocker.blpop(key("q1"), 0.1), await blocker.ping())
    # A task that is cancelled while it blocks takes its connection with it.
    cancelled = asyncio.create_task(blocker.blpop(key("q3"), 15))
    await wait_until(lambda: blocked("blocker"), "BLPOP blocks")
    cancelled.cancel()
    await asyncio.wait([cancelled])

    async def unblocked() -> bool:
        return not await blocked("blocker")

    await wait_until(unblocked, "the abandoned BLPOP ends")
    step("blocking pop", await other.rpush(key("q3"), "kept"), await other.llen(key("q3")))
    step("blocking pop", await blocker.lpop(key("q3")))

    subscriber = client.pubsub()
    await subscriber.subscribe(key("c1"), key("c2"))

    async def message(source=subscriber):
        return await source.get_message(timeout=10)

    step("subscribe", await message(), await message())
    step("subscribe", await other.publish(key("c1"), b"m\r\n\0"), await message())
    step("subscribe", await other.publish(key("c2"), big), await message())
    await asyncio.gather(*(other.publish(key("c1"), "same") for _ in range(100)))
    step("subscribe", digest([await message() for _ in range(100)]))
    await subscriber.unsubscribe(key("c1"))
    step("subscribe", await message(), await other.publish(key("c1"), "late"))
    await subscriber.unsubscribe()
    step("subscribe", await message(), subscriber.subscribed)
    await subscriber.aclose()

    patterns = client.pubsub()
    await patterns.psubscribe(key("p*"))
    step("psubscribe", await message(patterns), await other.publish(key("p1"), "x"))
    step("psubscribe", await message(patterns), await patterns.punsubscribe())
    step("psubscribe", await message(patterns), await other.publish(key("p1"), "late"))
    await patterns.aclose()

    named = open_client(client_name=key("name"))
    step("client name", await named.client_getname(), await named.client_setname(key("renamed")))
    step("client name", await named.client_getname(), await error_of(named.client_setname("a b")))

    await client.sadd(key("text2"), "member")
    step("errors", await error_of(client.get(key("text2"))))
    step("errors", await error_of(client.execute_command("NOSUCHCOMMAND", "a\r\nb", "c")))
    step("errors", await error_of(client.execute_command("GET")), await client.ping())

    step("stream", await client.xadd(key("s"), {"f": "v1", "g": b"\r\n"}, id="1-1"))
    step("stream", await client.xadd(key("s"), {"f": "v2"}, id="2-1"))
    step("stream", await client.xread({key("s"): "0"}), await client.xread({key("s"): "2-1"}))
    reader = open_client(client_name=key("reader"))
    read = asyncio.create_task(reader.xread({key("s"): "$"}, block=15000))
    await wait_until(lambda: blocked("reader"), "XREAD blocks")
    step("stream", await other.xadd(key("s"), {"f": "v3"}, id="3-1"), await read)

    step("stream group", await client.xgroup_create(key("s"), "group", id="0"))
    step("stream group", await client.xreadgroup("group", "one", {key("s"): ">"}, count=2))
    step("stream group", await client.xack(key("s"), "group", "1-1"))
    step("stream group", await client.xreadgroup("group", "one", {key("s"): "0"}))
    step("stream group", await client.xreadgroup("group", "one", {key("s"): ">"}))
    read = asyncio.create_task(reader.xreadgroup("group", "two", {key("s"): ">"}, block=15000))
    await wait_until(lambda: blocked("reader"), "XREADGROUP blocks")
    step("stream group", await other.xadd(key("s"), {"f": "v4"}, id="4-1"), await read)

    step("reconnect", await single.set(key("r"), "kept"), await single.quit())
    step("reconnect", await single.get(key("r")), await single.connection_pool.disconnect())
    step("reconnect", await single.get(key("r")))
    number = await single.client_id()
    step("reconnect", await other.client_kill_filter(_id=number), await single.get(key("r")))

    greeting = await client.execute_command("HELLO")
    if not isinstance(greeting, dict):
        greeting = dict(zip(greeting[::2], greeting[1::2]))
    step("hello", type(greeting.pop(b"id")) is int, greeting)
    step("hello", await error_of(client.execute_command("HELLO", "9")), await client.ping())

    # Many tasks at once, over fewer connections, each checking that it gets its own replies.
    pool = open_client(redis.BlockingConnectionPool, max_connections=20, timeout=60)

    async def work(number: int) -> int:
        right = 0
        for turn in range(20):
            token = f"{number}/{turn}".encode()
            right += await pool.echo(token) == token
            async with pool.pipeline() as transaction:
                transaction.set(key(f"task:{number}"), token).get(key(f"task:{number}"))
                right += await transaction.execute() == [True, token]
            right += await pool.incr(key(f"task counter:{number}")) == turn + 1
        return right

    step("tasks", sum(await asyncio.gather(*(work(number) for number in range(100)))))

    for used in (client, other, single, blocker, reader, named, pool):
        await used.aclose()


asyncio.run(main())
