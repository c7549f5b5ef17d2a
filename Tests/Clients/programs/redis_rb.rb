# The scenario with redis-rb.
#
# usage: ruby redis_rb.rb HOST PORT PREFIX

require "digest"
require "redis"

Redis.silence_deprecations = true if Redis.respond_to?(:silence_deprecations=)

LONGEST_TEXT = 200
WAIT_SECONDS = 10
POLL_SECONDS = 0.005

$stdout.sync = true
HOST, PORT, PREFIX = ARGV

def key(name) = "#{PREFIX}:#{name}"

def canonical(value)
  case value
  when String
    bytes = value.b
    long = bytes.bytesize > LONGEST_TEXT
    long ? "<#{bytes.bytesize} bytes, #{Digest::SHA1.hexdigest(bytes)}>" : bytes.inspect
  when Array then "[#{value.map { |item| canonical(item) }.join(', ')}]"
  when Hash then "{#{value.map { |name, item| "#{canonical(name)} => #{canonical(item)}" }.sort.join(', ')}}"
  when Exception then "#{value.class}(#{value.message})"
  else value.inspect
  end
end

def step(name, *results) = puts("#{name}: #{results.map { |result| canonical(result) }.join(' ')}")

def error_of
  "no error but #{canonical(yield)}"
rescue Redis::BaseError => error
  error
end

def open_client(**options) = Redis.new(host: HOST, port: PORT.to_i, timeout: 20, **options)

def wait_until(what)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + WAIT_SECONDS
  until yield
    raise "#{what}: not within #{WAIT_SECONDS} s" if
      Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep POLL_SECONDS
  end
end

client = open_client
other = open_client
is_blocked = lambda do |name|
  other.client(:list).any? { |entry| entry["name"] == key(name) && entry["flags"] == "b" }
end

step "connect", client.connected?, client.ping, client.connected?
step "ping", client.ping, client.ping("hello"), client.echo("text")

step "set and get", client.set(key("text"), "value"), client.get(key("text"))
step "set and get", client.get(key("missing")), client.set(key("text"), "again", nx: true)
step "set and get", client.set(key("text"), "new", get: true), client.del(key("text"), "missing")

binary = (0..255).to_a.pack("C*") + "\r\n+OK\r\n$5\r\n\0".b
step "binary value", client.set(key("binary"), binary), client.get(key("binary")).b == binary
step "empty value", client.set(key("empty"), ""), client.get(key("empty"))
big = binary * 4096
step "big value", client.set(key("big"), big), client.get(key("big"))
step "big value", client.get(key("big")).b == big, client.getrange(key("big"), 65, 70)

step "mset and mget", client.mset(key("m1"), "1", key("m2"), "\r\n")
step "mset and mget", client.mget(key("m1"), key("missing"), key("m2"))
step "mset and mget", client.mapped_mget(key("m1"), key("missing"))

step "incr", client.incr(key("n")), client.incrby(key("n"), 41), client.incrbyfloat(key("f"), 0.5)
step "incr", error_of { client.incr(key("empty")) }

step "expire and ttl", client.expire(key("n"), 100_000), client.ttl(key("n")) > 99_000
step "expire and ttl", client.persist(key("n")), client.ttl(key("n")), client.ttl(key("missing"))

step "hash", client.hset(key("hash"), "a", 1, "b", "\r\n"), client.hgetall(key("hash"))
step "hash", client.hmget(key("hash"), "a", "x"), client.hincrby(key("hash"), "a", 5)

step "list", client.rpush(key("list"), %w[1 2 3]), client.lrange(key("list"), 0, -1)
step "list", client.lpop(key("list")), client.rpop(key("missing"))

step "set", client.sadd(key("set"), %w[a b c]), client.smembers(key("set")).sort
step "set", client.sismember(key("set"), "x"), client.scard(key("set"))

step "sorted set", client.zadd(key("zset"), [[1, "one"], [2.5, "more"], [Float::INFINITY, "all"]])
step "sorted set", client.zrange(key("zset"), 0, -1, with_scores: true)

client.pipelined { |pipeline| 500.times { |index| pipeline.set(key("scan:#{index}"), index) } }
found = client.scan_each(match: key("scan:*"), count: 50).to_a.sort
step "scan", found.size, Digest::SHA1.hexdigest(found.join(","))
step "scan", client.zscan_each(key("zset")).to_a.sort

step "pipeline", client.pipelined { |pipeline|
  50.times { |index| pipeline.set(key("p#{index}"), index); pipeline.get(key("p#{index}")) }
}
step "pipeline", error_of {
  client.pipelined { |pipeline| pipeline.set(key("p"), "x"); pipeline.lpush(key("p"), "y") }
}
answers = client.pipelined do |pipeline|
  10_000.times { |index| pipeline.set(key("bp"), "value #{index}"); pipeline.get(key("bp")) }
end
step "big pipeline", answers.size, answers.join(",")

step "transaction", client.multi { |transaction|
  transaction.incr(key("n"))
  transaction.get(key("n"))
  transaction.hgetall(key("hash"))
}
step "transaction", error_of {
  client.multi { |transaction| transaction.set(key("t"), 1); transaction.lpush(key("t"), 2) }
}
step "transaction", error_of {
  client.multi { |transaction| transaction.set(key("t"), 2); transaction.call(["NOSUCHCOMMAND"]) }
}
step "transaction", client.get(key("t"))
step "transaction", client.watch(key("n")) {
  before = client.get(key("n")).to_i
  client.multi { |transaction| transaction.set(key("n"), before + 1) }
}

step "transaction conflict", client.watch(key("n")) {
  other.set(key("n"), "changed")
  client.multi { |transaction| transaction.set(key("n"), "mine") }
}
step "transaction conflict", client.get(key("n"))
client.watch(key("n"))
other.set(key("n"), "changed again")
step "transaction conflict", client.unwatch, client.multi { |transaction| transaction.get(key("n")) }

step "eval", client.eval("return {KEYS[1], ARGV[1], 7, false}", [key("k")], ["a\r\nb"])
step "eval", error_of { client.eval("return redis.error_reply('MY error')") }
step "evalsha", error_of { client.evalsha("0123456789" * 4) }
sha = client.script(:load, "return tonumber(ARGV[1]) + 2 -- #{PREFIX}")
step "evalsha", sha, client.evalsha(sha, [], [40]), client.script(:exists, sha)

step "select", client.select(1), client.set(key("db"), "one"), other.get(key("db"))
step "select", error_of { client.select(99) }, client.select(0), client.get(key("db"))
in_db_one = open_client(db: 1)
step "select", in_db_one.get(key("db")), in_db_one.multi { |transaction| transaction.get(key("db")) }

blocker = open_client
blocker.client(:setname, key("blocker"))
thread = Thread.new { blocker.blpop(key("q1"), key("q2"), timeout: 15) }
wait_until("BLPOP blocks") { is_blocked.call("blocker") }
step "blocking pop", other.rpush(key("q2"), ["b\r\n", "c"]), thread.value
step "blocking pop", blocker.brpop(key("q2"), timeout: 1), blocker.get(key("n"))
step "blocking pop timeout", blocker.blpop(key("q1"), timeout: 0.1), blocker.ping

subscriber = open_client
subscriber.subscribe(key("c1"), key("c2")) do |on|
  on.subscribe do |channel, count|
    step "subscribe", channel, count
    step "subscribe", other.publish(key("c1"), "m\r\n\0") if count == 2
  end
  on.message do |channel, message|
    step "subscribe", channel, message
    step "subscribe", other.publish(key("c2"), big) if message.start_with?("m")
    subscriber.unsubscribe(key("c1")) if message.bytesize == big.bytesize
    subscriber.unsubscribe if message == "end"
  end
  on.unsubscribe do |channel, count|
    step "subscribe", channel, count, other.publish(key("c1"), "late")
    step "subscribe", other.publish(key("c2"), "end") if count == 1
  end
end
step "subscribe", subscriber.ping, other.publish(key("c2"), "late")
subscriber.psubscribe(key("p*")) do |on|
  on.psubscribe { |pattern, count| step "psubscribe", pattern, count, other.publish(key("p1"), "x") }
  on.pmessage do |pattern, channel, message|
    step "psubscribe", pattern, channel, message
    subscriber.punsubscribe(key("p*"))
  end
  on.punsubscribe { |pattern, count| step "psubscribe", pattern, count }
end
step "psubscribe", subscriber.get(key("n")), other.publish(key("p1"), "late")

step "client name", client.client(:getname), client.client(:setname, key("name"))
step "client name", client.client(:getname), other.client(:getname)
step "client name", error_of { client.client(:setname, "not allowed") }

client.sadd(key("text2"), ["member"])
step "errors", error_of { client.get(key("text2")) }
step "errors", error_of { client.call("NOSUCHCOMMAND", "a\r\nb", "c") }
step "errors", error_of { client.call("GET") }, client.ping

step "stream", client.xadd(key("s"), { "f" => "v1", "g" => "\r\n" }, id: "1-1")
step "stream", client.xadd(key("s"), { "f" => "v2" }, id: "2-1"), client.xlen(key("s"))
step "stream", client.xread(key("s"), "0"), client.xread(key("s"), "2-1", block: 20)
reader = open_client
reader.client(:setname, key("reader"))
thread = Thread.new { reader.xread(key("s"), "$", block: 15_000) }
wait_until("XREAD blocks") { is_blocked.call("reader") }
step "stream", other.xadd(key("s"), { "f" => "v3" }, id: "3-1"), thread.value

step "stream group", client.xgroup(:create, key("s"), "group", "0")
step "stream group", client.xreadgroup("group", "one", key("s"), ">", count: 2)
step "stream group", client.xack(key("s"), "group", "1-1"), client.xpending(key("s"), "group")
step "stream group", client.xreadgroup("group", "one", key("s"), "0")
step "stream group", client.xreadgroup("group", "one", key("s"), ">", block: 20)
step "stream group", client.xreadgroup("group", "one", key("s"), ">", block: 20)

step "reconnect", client.set(key("r"), "kept"), client.quit, client.get(key("r"))
step "reconnect", client.close, client.get(key("r"))
number = client.call("CLIENT", "ID")
step "reconnect", other.client(:kill, "ID", number)
wait_until("the connection is gone") { client.get(key("r")) == "kept" && client.call("CLIENT", "ID") != number }

facts = client.call("HELLO").each_slice(2).to_h
step "hello", facts.delete("id").class, facts
step "hello", error_of { client.call("HELLO", "9") }, client.ping

# One client used by many threads, as in a threaded web server.
threads = Array.new(8) do |number|
  Thread.new do
    (0...100).all? do |turn|
      client.echo("#{number}/#{turn}") == "#{number}/#{turn}" &&
        client.multi { |t| t.set(key("t#{number}"), turn); t.get(key("t#{number}")) }[1] == turn.to_s
    end
  end
end
step "threads", threads.map(&:value)
