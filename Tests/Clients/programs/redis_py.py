"""The scenario with redis-py.

usage: redis_py.py HOST PORT PREFIX PROTOCOL PARSER      PROTOCOL 2|3, PARSER python|hiredis
"""

import sys
import threading

import redis
from redis.backoff import NoBackoff
from redis.connection import _HiredisParser, _RESP2Parser, _RESP3Parser
from redis.exceptions import NoScriptError
from redis.retry import Retry
from report import canonical, digest, is_blocked, step, wait_until

host, port, prefix, protocol, parser = sys.argv[1:]
parsers = {"hiredis": _HiredisParser, "python": _RESP3Parser if protocol == "3" else _RESP2Parser}


def key(name: str) -> str:
    return f"{prefix}:{name}"


def open_client(**options) -> redis.Redis:
    pool = redis.ConnectionPool(
        host=host,
        port=int(port),
        protocol=int(protocol),
        parser_class=parsers[parser],
        socket_timeout=20,
        retry=Retry(NoBackoff(), 3),
        **options,
    )
    return redis.Redis(connection_pool=pool)


def error_of(action, *arguments, **options):
    """The error that a call must raise."""
    try:
        return f"no error but {canonical(action(*arguments, **options))}"
    except redis.RedisError as error:
        return error


client = open_client()
other = open_client(client_name=key("other"))
connection = client.connection_pool.get_connection()
# A parser that fell back to another one would make this program test something else.
assert type(connection._parser) is parsers[parser], connection._parser
client.connection_pool.release(connection)
step("connect", int(connection.protocol))

step("ping", client.ping(), client.echo("hello"))

step("set and get", client.set(key("text"), "value"), client.get(key("text")))
step("set and get", client.get(key("missing")), client.set(key("text"), "again", nx=True))
step("set and get", client.set(key("text"), "new", get=True), client.delete(key("text"), "missing"))

binary = bytes(range(256)) + b"\r\n$5\r\n+OK\r\n*1\r\n\0\xff"
step("binary value", client.set(key("binary"), binary), client.get(key("binary")) == binary)
step("binary value", client.set(key("b\r\n\0key"), b"\r\n"), client.get(key("b\r\n\0key")))

step("empty value", client.set(key("empty"), ""), client.get(key("empty")))
step("empty value", client.strlen(key("empty")), client.exists(key("empty")))

big = bytes(range(256)) * 4096
step("big value", client.set(key("big"), big), client.get(key("big")))
step("big value", client.get(key("big")) == big, client.getrange(key("big"), 1000, 1003))
step("big value", client.append(key("big"), "end"), client.getrange(key("big"), -4, -1))

many = {key(f"m{index}"): f"value {index}" for index in range(20)}
step("mset and mget", client.mset(many), client.mget([*many, key("missing")]))

step("incr", client.incr(key("n")), client.incr(key("n"), 41), client.decr(key("n")))
step("incr", client.incrbyfloat(key("f"), 0.5), error_of(client.incr, key("empty")))

step("expire and ttl", client.expire(key("n"), 100), client.ttl(key("n")) in (99, 100))
step("expire and ttl", client.persist(key("n")), client.ttl(key("n")), client.ttl(key("missing")))
step("expire and ttl", client.set(key("soon"), 1, px=1), client.get(key("n")))
wait_until(lambda: client.get(key("soon")) is None, "the key expires")

step("hash", client.hset(key("hash"), mapping={"a": 1, "b": b"\r\n", "c": ""}))
step("hash", client.hgetall(key("hash")), client.hmget(key("hash"), "a", "nothing"))
step("hash", client.hincrby(key("hash"), "a", 5), client.hdel(key("hash"), "a", "b"))
step("hash", client.hgetall(key("missing")), client.hexists(key("hash"), "c"))

step("list", client.rpush(key("list"), *range(10)), client.lrange(key("list"), 0, -1))
step("list", client.lpop(key("list")), client.rpop(key("list"), 2), client.llen(key("list")))
step("list", client.lrange(key("missing"), 0, -1), client.lpop(key("missing")))

step("set", client.sadd(key("set"), "a", "b", "c", "a"), set(client.smembers(key("set"))))
step("set", client.sismember(key("set"), "b"), client.sismember(key("set"), "x"))
step("set", client.sadd(key("set2"), "b", "x"), set(client.sinter(key("set"), key("set2"))))

step("sorted set", client.zadd(key("zset"), {"one": 1, "two": 2, "half": 2.5, "inf": "inf"}))
step("sorted set", client.zrange(key("zset"), 0, -1, withscores=True))
step("sorted set", client.zscore(key("zset"), "half"), client.zscore(key("zset"), "missing"))
step("sorted set", client.zrangebyscore(key("zset"), "(1", "+inf"))
step("sorted set", client.zrank(key("zset"), "two"))

with client.pipeline(transaction=False) as pipeline:
    for index in range(500):
        pipeline.set(key(f"scan:{index}"), index)
    pipeline.execute()
step("scan", digest(sorted(client.scan_iter(key("scan:*"), count=50))))
step("scan", sorted(client.hscan_iter(key("hash"))), sorted(client.sscan_iter(key("set"))))
step("scan", sorted(client.zscan_iter(key("zset"), count=2)))

with client.pipeline(transaction=False) as pipeline:
    for index in range(50):
        pipeline.set(key(f"p{index}"), index).get(key(f"p{index}"))
    step("pipeline", pipeline.execute())
with client.pipeline(transaction=False) as pipeline:
    pipeline.set(key("p"), "x").lpush(key("p"), "y").get(key("p"))
    step("pipeline", pipeline.execute(raise_on_error=False))

with client.pipeline(transaction=False) as pipeline:
    for index in range(10_000):
        pipeline.set(key("bp"), f"{index}" * 10).get(key("bp"))
    step("big pipeline", digest(pipeline.execute()))

with client.pipeline() as transaction:
    transaction.watch(key("n"))
    before = transaction.get(key("n"))
    transaction.multi()
    transaction.set(key("n"), int(before) + 1).get(key("n")).lrange(key("list"), 0, 1)
    step("transaction", before, transaction.execute())
with client.pipeline() as transaction:
    transaction.set(key("t"), "text").incr(key("t")).get(key("t"))
    step("transaction", transaction.execute(raise_on_error=False))
with client.pipeline() as transaction:
    transaction.set(key("t"), "not stored").execute_command("NOSUCHCOMMAND", "x")
    step("transaction", error_of(transaction.execute), client.get(key("t")))


def increase(pipeline) -> None:
    """Optimistic locking as redis-py offers it: watch, read, write, and again after a conflict."""
    value = int(pipeline.get(key("watched")) or 0)
    pipeline.multi()
    pipeline.set(key("watched"), value + 1)


step("transaction", client.transaction(increase, key("watched")), client.get(key("watched")))

with client.pipeline() as transaction:
    transaction.watch(key("n"))
    other.set(key("n"), "changed")
    transaction.multi()
    transaction.set(key("n"), "mine")
    step("transaction conflict", error_of(transaction.execute), client.get(key("n")))
with client.pipeline() as transaction:
    transaction.watch(key("n"))
    other.set(key("n"), "changed again")
    transaction.unwatch()
    transaction.multi()
    transaction.set(key("n"), "mine")
    step("transaction conflict", transaction.execute(), client.get(key("n")))

echo = f"return {{KEYS[1], ARGV[1], 7, false, {{'{prefix}'}}}}"
step("eval", client.eval(echo, 1, key("k"), "a\r\nb"))
step("eval", error_of(client.eval, "return redis.error_reply('MY error')", 0))
step("eval", client.eval("return redis.call('set', KEYS[1], ARGV[1])", 1, key("lua"), "x"))

sum_script = f"return tonumber(ARGV[1]) + tonumber(ARGV[2]) -- {prefix}"
unknown = "0123456789" * 4
step("evalsha", error_of(client.evalsha, unknown, 0))
sha = client.script_load(sum_script)
step("evalsha", sha, client.evalsha(sha, 0, 40, 2), client.script_exists(sha, unknown))
registered = client.register_script(f"return 'registered {prefix}'")
step("evalsha", registered(), registered())
with client.pipeline() as transaction:
    registered(client=transaction)
    step("evalsha", transaction.execute())

single = open_client(max_connections=1)
step("select", single.select(1), single.set(key("db"), "one"), single.get(key("db")))
step("select", client.get(key("db")), single.select(0), single.get(key("db")))
step("select", error_of(single.select, 99), single.get(key("text")), single.select(1))
step("select", single.get(key("db")), open_client(db=1).get(key("db")))
with single.pipeline() as transaction:
    transaction.set(key("db"), "in a transaction").get(key("db"))
    step("select", transaction.execute(), client.get(key("db")))

blocker = open_client(client_name=key("blocker"))
results = []
thread = threading.Thread(target=lambda: results.append(blocker.blpop([key("q1"), key("q2")], 15)))
thread.start()
wait_until(lambda: is_blocked(other.client_list(), key("blocker")), "BLPOP blocks")
step("blocking pop", other.rpush(key("q2"), "b\r\n", "c"))
thread.join()
step("blocking pop", results, blocker.brpop(key("q2"), 1), blocker.get(key("lua")))
step("blocking pop timeout", blocker.blpop(key("q1"), 0.1), blocker.ping())
step("blocking pop timeout", blocker.blmove(key("q1"), key("q2"), 0.05), blocker.llen(key("q2")))
blocker.close()

subscriber = client.pubsub()
subscriber.subscribe(key("c1"), key("c2"))
step("subscribe", subscriber.get_message(timeout=10), subscriber.get_message(timeout=10))
step("subscribe", other.publish(key("c1"), b"m\r\n\0"), subscriber.get_message(timeout=10))
step("subscribe", other.publish(key("c2"), big), subscriber.get_message(timeout=10))
for index in range(100):
    other.publish(key("c1"), index)
step("subscribe", digest([subscriber.get_message(timeout=10) for _ in range(100)]))
subscriber.ping("alive")
step("subscribe", subscriber.get_message(timeout=10))
subscriber.unsubscribe(key("c1"))
step("subscribe", subscriber.get_message(timeout=10), other.publish(key("c1"), "late"))
subscriber.unsubscribe()
step("subscribe", subscriber.get_message(timeout=10), subscriber.subscribed)
subscriber.close()
wait_until(lambda: other.pubsub_numsub(key("c2"))[0][1] == 0, "no subscriber is left")

patterns = client.pubsub()
patterns.psubscribe(key("p*"))
patterns.subscribe(key("p1"))
step("psubscribe", patterns.get_message(timeout=10), patterns.get_message(timeout=10))
step("psubscribe", other.publish(key("p1"), "twice"), other.publish(key("p2"), "once"))
step("psubscribe", [patterns.get_message(timeout=10) for _ in range(3)])
patterns.punsubscribe()
step("psubscribe", patterns.get_message(timeout=10), other.publish(key("p2"), "late"))
patterns.close()

named = open_client(client_name=key("name"))
step("client name", named.client_getname(), named.client_setname(key("renamed")))
step("client name", named.client_getname(), error_of(named.client_setname, "not allowed"))
step("client name", client.client_getname(), named.client_getname())

client.sadd(key("text2"), "member")
step("errors", error_of(client.lpush, key("text2"), "x"), error_of(client.get, key("text2")))
step("errors", error_of(client.execute_command, "NOSUCHCOMMAND", "a\r\nb", "c"))
step("errors", error_of(client.execute_command, "GET"), error_of(client.setex, key("x"), -1, "y"))
step("errors", error_of(client.execute_command, "CLIENT", "NOSUCHSUBCOMMAND"))
step("errors", type(error_of(client.evalsha, unknown, 0)) is NoScriptError, client.ping())

step("stream", client.xadd(key("s"), {"f": "v1", "g": b"\r\n"}, id="1-1"))
step("stream", client.xadd(key("s"), {"f": "v2"}, id="2-1"), client.xlen(key("s")))
step("stream", client.xread({key("s"): "0"}), client.xrange(key("s"), "2", "+"))
step("stream", client.xread({key("s"): "2-1"}, block=20), client.xread({key("missing"): 0}))
reader = open_client(client_name=key("reader"))
results = []
thread = threading.Thread(target=lambda: results.append(reader.xread({key("s"): "$"}, block=15000)))
thread.start()
wait_until(lambda: is_blocked(other.client_list(), key("reader")), "XREAD blocks")
step("stream", other.xadd(key("s"), {"f": "v3"}, id="3-1"))
thread.join()
step("stream", results)

step("stream group", client.xgroup_create(key("s"), "group", id="0"))
step("stream group", error_of(client.xgroup_create, key("s"), "group", id="0"))
step("stream group", client.xreadgroup("group", "consumer", {key("s"): ">"}, count=2))
step("stream group", client.xack(key("s"), "group", "1-1"), client.xpending(key("s"), "group"))
step("stream group", client.xreadgroup("group", "consumer", {key("s"): "0"}))
results = []
client.xreadgroup("group", "consumer", {key("s"): ">"})
thread = threading.Thread(
    target=lambda: results.append(reader.xreadgroup("group", "two", {key("s"): ">"}, block=15000))
)
thread.start()
wait_until(lambda: is_blocked(other.client_list(), key("reader")), "XREADGROUP blocks")
step("stream group", other.xadd(key("s"), {"f": "v4"}, id="4-1"))
thread.join()
step("stream group", results)

# A new connection is in database 0 again, so that is where it can find the key.
step("reconnect", single.select(0), single.set(key("r"), "kept"), single.quit())
step("reconnect", single.get(key("r")))
step("reconnect", single.set(key("r"), "again"), single.connection_pool.disconnect())
step("reconnect", single.get(key("r")), single.set(key("r"), "third"))
number = single.client_id()
step("reconnect", other.client_kill_filter(_id=number), single.get(key("r")))
step("reconnect", single.client_id() != number, error_of(other.client_kill_filter, _id=number))

greeting = client.execute_command("HELLO")
greeting = (
    greeting
    if isinstance(greeting, dict)
    else dict(zip(greeting[::2], greeting[1::2]))
)
step("hello", type(greeting.pop(b"id")) is int, greeting)
step("hello", error_of(client.execute_command, "HELLO", "9"), client.ping())

with client.lock(key("lock"), timeout=10, blocking_timeout=5):
    step("lock", other.lock(key("lock"), timeout=10, blocking_timeout=0.05).acquire())
step("lock", other.lock(key("lock"), timeout=10, blocking_timeout=5).acquire())

shared = open_client(max_connections=8)


def count(times: int) -> None:
    for _ in range(times):
        shared.incr(key("threads"))
        shared.transaction(increase, key("watched"))


threads = [threading.Thread(target=count, args=(50,)) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
step("threads", client.mget(key("threads"), key("watched")))
