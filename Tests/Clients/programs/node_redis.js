// The scenario with node-redis.
//
// usage: node node_redis.js HOST PORT PREFIX

"use strict";

const assert = require("assert");
const { createHash } = require("crypto");
const { commandOptions, createClient } = require("redis");

const LONGEST_TEXT = 200;
const WAIT_MILLISECONDS = 10000;
const POLL_MILLISECONDS = 5;

const [host, port, prefix] = process.argv.slice(2);
const key = (name) => `${prefix}:${name}`;
const buffers = commandOptions({ returnBuffers: true });
const isolated = commandOptions({ isolated: true });
const clients = [];

async function openClient(options = {}) {
  const client = createClient({ socket: { host, port: Number(port) }, ...options });
  // A lost connection is reported here and then made again; commands report their own failure.
  client.on("error", () => {});
  await client.connect();
  clients.push(client);
  return client;
}

function canonical(value) {
  if (typeof value === "string" || Buffer.isBuffer(value)) {
    const bytes = Buffer.from(value);
    return bytes.length > LONGEST_TEXT
      ? `<${bytes.length} bytes, ${createHash("sha1").update(bytes).digest("hex")}>`
      : JSON.stringify(bytes.toString("latin1"));
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(", ")}]`;
  if (value instanceof Error) return `${value.constructor.name}(${value.message})`;
  if (value !== null && typeof value === "object") {
    const items = Object.entries(value).map(([name, item]) => `${name}: ${canonical(item)}`);
    return `{${items.sort().join(", ")}}`;
  }
  return String(value);
}

function step(name, ...results) {
  console.log(`${name}: ${results.map(canonical).join(" ")}`);
}

async function errorOf(action) {
  try {
    return `no error but ${canonical(await action)}`;
  } catch (error) {
    return error;
  }
}

async function waitUntil(what, condition) {
  const end = Date.now() + WAIT_MILLISECONDS;
  while (!(await condition())) {
    assert(Date.now() < end, `${what}: not within ${WAIT_MILLISECONDS} ms`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

async function collect(iterator) {
  const found = [];
  for await (const item of iterator) found.push(item);
  return found.sort();
}

/** A listener, and a way to wait for what it hears. */
function inbox() {
  const heard = [];
  return {
    listener: (message, channel) => heard.push([channel, message]),
    async take(count) {
      await waitUntil(`${count} messages`, () => heard.length >= count);
      return heard.splice(0, count);
    },
  };
}

async function main() {
  const client = await openClient();
  const other = await openClient();
  const isBlocked = async (name) => {
    const lines = (await other.sendCommand(["CLIENT", "LIST"])).split("\n");
    return lines.some((line) => line.includes(` name=${key(name)} `) && / flags=b /.test(line));
  };
  step("connect", client.isReady);

  step("ping", await client.ping(), await client.echo("hello"));

  step("set and get", await client.set(key("text"), "value"), await client.get(key("text")));
  step("set and get", await client.get(key("missing")), await client.del(key("text")));

  const bytes = Buffer.from([...Array(256).keys(), ...Buffer.from("\r\n+OK\r\n$5\r\n")]);
  step("binary value", await client.set(key("binary"), bytes));
  step("binary value", bytes.equals(await client.get(buffers, key("binary"))));
  step("empty value", await client.set(key("empty"), ""), await client.get(key("empty")));
  const big = Buffer.concat(Array(4096).fill(bytes));
  step("big value", await client.set(key("big"), big), await client.get(buffers, key("big")));
  step("big value", await Promise.all([1, 2, 3].map(() => client.get(buffers, key("big")))));

  step("mset and mget", await client.mSet([[key("m1"), "1"], [key("m2"), "\r\n"]]));
  step("mset and mget", await client.mGet([key("m1"), key("missing"), key("m2")]));

  step("incr", await client.incr(key("n")), await client.incrBy(key("n"), 41));
  step("incr", await errorOf(client.incr(key("empty"))), await client.incrByFloat(key("f"), 0.5));

  step("expire and ttl", await client.expire(key("n"), 100000));
  step("expire and ttl", (await client.ttl(key("n"))) > 99000, await client.persist(key("n")));

  step("hash", await client.hSet(key("hash"), { a: "1", b: "\r\n" }));
  step("hash", await client.hGetAll(key("hash")), await client.hIncrBy(key("hash"), "a", 5));

  step("list", await client.rPush(key("list"), ["1", "2", "3"]));
  step("list", await client.lRange(key("list"), 0, -1), await client.lPop(key("missing")));

  step("set", await client.sAdd(key("set"), ["a", "b"]), (await client.sMembers(key("set"))).sort());

  const scores = [1, 2.5, Infinity].map((score) => ({ score, value: `member ${score}` }));
  step("sorted set", await client.zAdd(key("zset"), scores));
  step("sorted set", await client.zRangeWithScores(key("zset"), 0, -1));

  // Commands of one turn of the event loop go out as one pipeline.
  await Promise.all([...Array(500).keys()].map((n) => client.set(key(`scan:${n}`), String(n))));
  const found = await collect(client.scanIterator({ MATCH: key("scan:*"), COUNT: 50 }));
  step("scan", found.length, found.join(","));

  const pipelined = [...Array(50).keys()].flatMap((n) => [
    client.set(key(`p${n}`), String(n)),
    client.get(key(`p${n}`)),
  ]);
  pipelined.push(errorOf(client.lPush(key("text2"), "x")), errorOf(client.get(key("text2"))));
  step("pipeline", await Promise.all(pipelined));

  const many = [...Array(10000).keys()].flatMap((n) => [
    client.set(key("bp"), `value ${n}`),
    client.get(key("bp")),
  ]);
  step("big pipeline", (await Promise.all(many)).join(","));

  step("transaction", await client.multi().incr(key("n")).get(key("n")).hGetAll(key("hash")).exec());
  step("transaction", await errorOf(client.multi().set(key("t"), "1").lPush(key("t"), "x").exec()));
  step("transaction", await errorOf(client.multi().addCommand(["NOSUCHCOMMAND"]).exec()));
  step("transaction", await client.executeIsolated(async (own) => {
    await own.watch(key("n"));
    const before = Number(await own.get(key("n")));
    return own.multi().set(key("n"), String(before + 1)).get(key("n")).exec();
  }));

  step("transaction conflict", await errorOf(client.executeIsolated(async (own) => {
    await own.watch(key("n"));
    await other.set(key("n"), "changed");
    return own.multi().set(key("n"), "mine").exec();
  })));
  step("transaction conflict", await client.get(key("n")));

  const echo = "return {KEYS[1], ARGV[1], 7, false}";
  step("eval", await client.eval(echo, { keys: [key("k")], arguments: ["a\r\nb"] }));
  step("eval", await errorOf(client.eval("return redis.error_reply('MY error')")));
  step("evalsha", await errorOf(client.evalSha("0123456789".repeat(4))));
  const sha = await client.scriptLoad(`return tonumber(ARGV[1]) + 2 -- ${prefix}`);
  step("evalsha", sha, await client.evalSha(sha, { arguments: ["40"] }));
  step("evalsha", await client.scriptExists(sha));

  step("select", await client.select(1), await client.set(key("db"), "one"));
  step("select", await other.get(key("db")), await errorOf(client.select(99)));
  step("select", await client.get(key("db")), await client.select(0), await client.get(key("db")));
  const inDatabaseOne = await openClient({ database: 1 });
  step("select", await inDatabaseOne.get(key("db")));

  const blocker = await openClient({ name: key("blocker") });
  const popped = blocker.blPop([key("q1"), key("q2")], 15);
  await waitUntil("BLPOP blocks", () => isBlocked("blocker"));
  step("blocking pop", await other.rPush(key("q2"), ["b\r\n", "c"]), await popped);
  step("blocking pop", await blocker.brPop(key("q2"), 1), await blocker.get(key("n")));
  step("blocking pop timeout", await blocker.blPop(key("q1"), 0.1), await blocker.ping());
  step("blocking pop timeout", await client.blPop(isolated, key("q1"), 0.1));

  const subscriber = await openClient();
  const first = inbox();
  const second = inbox();
  await subscriber.subscribe(key("c1"), first.listener);
  await subscriber.subscribe(key("c2"), second.listener, true);
  step("subscribe", await other.publish(key("c1"), "m\r\n\0"), await first.take(1));
  step("subscribe", await other.publish(key("c2"), big), (await second.take(1))[0][1]);
  await Promise.all([...Array(100).keys()].map((n) => other.publish(key("c1"), String(n))));
  step("subscribe", await first.take(100));
  await subscriber.unsubscribe(key("c1"));
  step("subscribe", await other.publish(key("c1"), "late"), await other.publish(key("c2"), "x"));
  step("subscribe", (await second.take(1))[0][1]);
  await subscriber.unsubscribe();
  step("subscribe", await other.publish(key("c2"), "late"), await subscriber.get(key("n")));
  const patterns = inbox();
  await subscriber.pSubscribe(key("p*"), patterns.listener);
  step("psubscribe", await other.publish(key("p1"), "x"), await patterns.take(1));
  await subscriber.pUnsubscribe(key("p*"));
  step("psubscribe", await other.publish(key("p1"), "late"), await subscriber.get(key("n")));

  step("client name", await client.clientGetName(), await client.clientSetName(key("name")));
  step("client name", await client.clientGetName(), await other.clientGetName());
  step("client name", await errorOf(client.clientSetName("not allowed")));

  step("errors", await errorOf(client.get(key("set"))));
  step("errors", await errorOf(client.sendCommand(["NOSUCHCOMMAND", "a\r\nb", "c"])));
  step("errors", await errorOf(client.sendCommand(["GET"])), await client.ping());

  step("stream", await client.xAdd(key("s"), "1-1", { f: "v1", g: "\r\n" }));
  step("stream", await client.xAdd(key("s"), "2-1", { f: "v2" }), await client.xLen(key("s")));
  step("stream", await client.xRead({ key: key("s"), id: "0" }));
  step("stream", await client.xRead(isolated, { key: key("s"), id: "2-1" }, { BLOCK: 20 }));
  const read = blocker.xRead({ key: key("s"), id: "$" }, { BLOCK: 15000 });
  await waitUntil("XREAD blocks", () => isBlocked("blocker"));
  step("stream", await other.xAdd(key("s"), "3-1", { f: "v3" }), await read);

  const fresh = { key: key("s"), id: ">" };
  step("stream group", await client.xGroupCreate(key("s"), "group", "0"));
  step("stream group", await client.xReadGroup("group", "one", fresh, { COUNT: 2 }));
  step("stream group", await client.xAck(key("s"), "group", "1-1"));
  step("stream group", await client.xReadGroup("group", "one", { key: key("s"), id: "0" }));
  step("stream group", await client.xReadGroup("group", "one", fresh));
  step("stream group", await client.xReadGroup(isolated, "group", "one", fresh, { BLOCK: 20 }));
  step("stream group", await client.xPending(key("s"), "group"));

  step("reconnect", await client.set(key("r"), "kept"), await client.quit(), client.isOpen);
  await client.connect();
  step("reconnect", await client.get(key("r")), await client.disconnect());
  await client.connect();
  step("reconnect", await client.get(key("r")));
  const number = await client.sendCommand(["CLIENT", "ID"]);
  const again = new Promise((resolve) => client.once("ready", resolve));
  step("reconnect", await other.sendCommand(["CLIENT", "KILL", "ID", String(number)]));
  await again;
  step("reconnect", await client.get(key("r")));

  const answer = await client.sendCommand(["HELLO"]);
  const facts = {};
  for (let index = 0; index < answer.length; index += 2) facts[answer[index]] = answer[index + 1];
  step("hello", typeof facts.id, { ...facts, id: null });
  step("hello", await errorOf(client.sendCommand(["HELLO", "9"])), await client.ping());

  // Transactions and blocking commands on connections of the client's own pool, many at once.
  const pool = await openClient({ isolationPoolOptions: { max: 10 } });
  const rounds = [...Array(40).keys()].map(async (number) => {
    const [stored, value, list] = await pool.multi()
      .set(key(`i${number}`), String(number)).get(key(`i${number}`))
      .rPush(key(`iq${number}`), String(number)).exec();
    const taken = await pool.blPop(isolated, key(`iq${number}`), 10);
    return stored === "OK" && value === taken.element && list === 1;
  });
  step("isolated", (await Promise.all(rounds)).every(Boolean));

  await Promise.all(clients.map((opened) => opened.quit()));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
