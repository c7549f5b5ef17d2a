<?php
/* The scenario with phpredis, PHP's extension in C.
 *
 * usage: php phpredis.php HOST PORT PREFIX
 *
 * PHP has no threads: where another client must act while this one waits, a child does it. */

declare(strict_types=1);

const LONGEST_TEXT = 200;
const WAIT_SECONDS = 10;
const POLL_MICROSECONDS = 5000;

set_error_handler(function (int $level, string $text) {
    throw new ErrorException($text);
});

[, $host, $port, $prefix] = $argv;

function key_of(string $name): string
{
    return $GLOBALS['prefix'] . ':' . $name;
}

function canonical(mixed $value): string
{
    if (is_string($value)) {
        return strlen($value) > LONGEST_TEXT
            ? sprintf('<%d bytes, %s>', strlen($value), sha1($value))
            : '"' . addcslashes($value, "\0..\37\"\\\177..\377") . '"';
    }
    if (is_array($value)) {
        $items = [];
        foreach ($value as $key => $item) {
            $items[] = (array_is_list($value) ? '' : canonical($key) . ' => ') . canonical($item);
        }
        return '[' . implode(', ', $items) . ']';
    }
    if ($value instanceof Redis) {
        return 'itself';
    }
    return var_export($value, true);
}

function step(string $name, mixed ...$results): void
{
    echo $name, ': ', implode(' ', array_map('canonical', $results)), "\n";
}

function sorted(array $values): array
{
    sort($values);
    return $values;
}

/* The server's error for a call, which phpredis keeps or throws. */
function error_of(Redis $redis, callable $action): string
{
    $redis->clearLastError();
    try {
        $answer = $action($redis);
    } catch (RedisException $error) {
        return 'thrown: ' . $error->getMessage();
    }
    return canonical($answer) . ': ' . ($redis->getLastError() ?? 'no error');
}

function open_client(): Redis
{
    $redis = new Redis();
    $redis->connect($GLOBALS['host'], (int) $GLOBALS['port'], 20, null, 0, 20);
    return $redis;
}

function wait_until(callable $condition, string $what): void
{
    $end = microtime(true) + WAIT_SECONDS;
    while (!$condition()) {
        if (microtime(true) > $end) {
            throw new RuntimeException("$what: not within " . WAIT_SECONDS . ' s');
        }
        usleep(POLL_MICROSECONDS);
    }
}

/* Runs `action` in a child with a connection of its own, once `condition` holds there. */
function meanwhile(callable $condition, callable $action): int
{
    $child = pcntl_fork();
    if ($child !== 0) {
        return $child;
    }
    try {
        $redis = open_client();
        wait_until(fn () => $condition($redis), 'what the child waits for');
        $action($redis);
    } catch (Throwable $error) {
        fwrite(STDERR, "in the child: {$error->getMessage()}\n");
        exit(1);
    }
    exit(0);
}

function join_child(int $child): void
{
    pcntl_waitpid($child, $status);
    if ($status !== 0) {
        throw new RuntimeException("a child ended with status $status");
    }
}

/* Whether the connection with this client name has this in CLIENT LIST. */
function has(Redis $redis, string $name, string $field, string $value): bool
{
    foreach ($redis->client('list') as $client) {
        if ($client['name'] === key_of($name)) {
            return (string) $client[$field] === $value;
        }
    }
    return false;
}

/* PHP's sessions, kept by the extension; before any output, as on a web server. */
ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');
ini_set('session.save_handler', 'redis');
ini_set('session.save_path', "tcp://$host:$port?timeout=20&database=3&prefix=" . key_of('session:'));
ini_set('redis.session.locking_enabled', '1');
$session = [];
foreach (['first', 'second'] as $turn) {
    session_id('abcdef0123456789');
    session_start();
    $session[] = $_SESSION;
    $_SESSION[$turn] = ['visits' => count($_SESSION) + 1, 'text' => "a\r\nb"];
    session_write_close();
    $_SESSION = [];
}
session_start();
$session[] = session_destroy();

$client = open_client();
$other = open_client();
step('connect', $client->isConnected());
step('session', $session);

step('ping', $client->ping(), $client->ping('hello'), $client->echo('text'));

step('set and get', $client->set(key_of('text'), 'value'), $client->get(key_of('text')));
step('set and get', $client->get(key_of('missing')), $client->del(key_of('text'), 'missing'));

$binary = implode('', array_map('chr', range(0, 255))) . "\r\n+OK\r\n\$5\r\n";
step('binary value', $client->set(key_of('binary'), $binary));
step('binary value', $client->get(key_of('binary')) === $binary);

step('empty value', $client->set(key_of('empty'), ''), $client->get(key_of('empty')));

$big = str_repeat($binary, 4096);
step('big value', $client->set(key_of('big'), $big), $client->get(key_of('big')));
step('big value', $client->get(key_of('big')) === $big, $client->strlen(key_of('big')));

step('mset and mget', $client->mset([key_of('m1') => '1', key_of('m2') => "\r\n"]));
step('mset and mget', $client->mget([key_of('m1'), key_of('missing'), key_of('m2')]));

step('incr', $client->incr(key_of('n')), $client->incrBy(key_of('n'), 41));
step('incr', $client->incrByFloat(key_of('f'), 0.5));
step('incr', error_of($client, fn ($redis) => $redis->incr(key_of('empty'))));

step('expire and ttl', $client->expire(key_of('n'), 100000), $client->ttl(key_of('n')) > 99000);
step('expire and ttl', $client->persist(key_of('n')), $client->ttl(key_of('n')));
step('expire and ttl', $client->setex(key_of('e'), 100, 'x'), $client->ttl(key_of('missing')));

step('hash', $client->hMSet(key_of('hash'), ['a' => '1', 'b' => "\r\n"]));
step('hash', $client->hGetAll(key_of('hash')), $client->hMGet(key_of('hash'), ['a', 'x']));
step('hash', $client->hIncrBy(key_of('hash'), 'a', 5), $client->hDel(key_of('hash'), 'b'));

step('list', $client->rPush(key_of('list'), '1', '2', '3'), $client->lRange(key_of('list'), 0, -1));
step('list', $client->lPop(key_of('list')), $client->lPop(key_of('missing')));

step('set', $client->sAdd(key_of('set'), 'a', 'b', 'c'), sorted($client->sMembers(key_of('set'))));
step('set', $client->sIsMember(key_of('set'), 'x'), $client->sCard(key_of('set')));

step('sorted set', $client->zAdd(key_of('zset'), 1, 'one', 2.5, 'more', INF, 'all'));
step('sorted set', $client->zRange(key_of('zset'), 0, -1, true));

$pipeline = $client->multi(Redis::PIPELINE);
for ($index = 0; $index < 500; $index++) {
    $pipeline->set(key_of("scan:$index"), (string) $index);
}
$pipeline->exec();
$client->setOption(Redis::OPT_SCAN, (string) Redis::SCAN_RETRY);
$found = [];
for ($cursor = null; ($keys = $client->scan($cursor, key_of('scan:*'), 50)) !== false;) {
    array_push($found, ...$keys);
}
step('scan', count($found), sha1(implode(',', sorted($found))));

$pipeline = $client->pipeline();
for ($index = 0; $index < 50; $index++) {
    $pipeline->set(key_of("p$index"), (string) $index)->get(key_of("p$index"));
}
step('pipeline', $pipeline->exec());
$pipeline = $client->pipeline();
$pipeline->set(key_of('p'), 'x')->lPush(key_of('p'), 'y')->get(key_of('p'));
step('pipeline', $pipeline->exec());

$pipeline = $client->pipeline();
for ($index = 0; $index < 10000; $index++) {
    $pipeline->set(key_of('bp'), "value $index")->get(key_of('bp'));
}
step('big pipeline', implode(',', $pipeline->exec()));

$client->watch(key_of('n'));
$transaction = $client->multi()->incr(key_of('n'))->lPush(key_of('p'), 'y')->get(key_of('n'));
step('transaction', $transaction->exec());
$client->multi()->set(key_of('n'), 'discarded');
step('transaction', $client->discard(), $client->get(key_of('n')));

$client->watch([key_of('n')]);
$other->set(key_of('n'), 'changed');
$transaction = $client->multi()->set(key_of('n'), 'mine');
step('transaction conflict', $transaction->exec(), $client->get(key_of('n')));
$client->watch(key_of('n'));
$other->set(key_of('n'), 'changed again');
$client->unwatch();
step('transaction conflict', $client->multi()->get(key_of('n'))->exec());

step('eval', $client->eval('return {KEYS[1], ARGV[1], 7, false}', [key_of('k'), "a\r\nb"], 1));
step('eval', error_of($client, fn ($redis) => $redis->eval("return redis.error_reply('MY error')")));

$unknown = str_repeat('0123456789', 4);
step('evalsha', error_of($client, fn ($redis) => $redis->evalSha($unknown)));
$sha = $client->script('load', "return tonumber(ARGV[1]) + 2 -- $prefix");
step('evalsha', $sha, $client->evalSha($sha, ['40'], 0));
step('evalsha', $client->script('exists', $sha, $unknown));

step('select', $client->select(1), $client->set(key_of('db'), 'one'), $other->get(key_of('db')));
step('select', error_of($client, fn ($redis) => $redis->select(99)), $client->get(key_of('db')));
step('select', $client->select(0), $client->get(key_of('db')));

$client->client('setname', key_of('blocker'));
$child = meanwhile(
    fn ($redis) => has($redis, 'blocker', 'flags', 'b'),
    fn ($redis) => $redis->rPush(key_of('q2'), "b\r\n", 'c'),
);
step('blocking pop', $client->blPop([key_of('q1'), key_of('q2')], 15));
join_child($child);
step('blocking pop', $client->brPop(key_of('q2'), 1), $client->get(key_of('n')));
step('blocking pop timeout', $client->rawCommand('BLPOP', key_of('q1'), '0.1'), $client->ping());
step('blocking pop timeout', $client->blPop(key_of('q1'), 1), $client->ping());

/* This version's subscribe() never returns; closing the connection in its callback ends it. */
function subscribe_until_end(string $step, string $command, array $names, callable $dropped): void
{
    $redis = open_client();
    $redis->client('setname', key_of($step));
    try {
        $redis->$command($names, function ($redis, ...$message) use ($step, $dropped) {
            step($step, ...$message);
            match (end($message)) {
                'drop' => step($step, $dropped($redis)),
                'end' => $redis->close(),
                default => null,
            };
        });
    } catch (RedisException $error) {
        step($step, $error->getMessage());
    }
}

$child = meanwhile(
    fn ($redis) => has($redis, 'subscribe', 'sub', '2'),
    function ($redis) use ($big) {
        $redis->publish(key_of('c1'), "m\r\n\0");
        $redis->publish(key_of('c2'), $big);
        $redis->publish(key_of('c1'), 'drop');
        wait_until(fn () => has($redis, 'subscribe', 'sub', '1'), 'one is unsubscribed');
        $redis->publish(key_of('c1'), 'late');
        $redis->publish(key_of('c2'), 'end');
    },
);
subscribe_until_end(
    'subscribe',
    'subscribe',
    [key_of('c1'), key_of('c2')],
    fn ($redis) => $redis->unsubscribe([key_of('c1')]),
);
join_child($child);

$child = meanwhile(
    fn ($redis) => has($redis, 'psubscribe', 'psub', '2'),
    function ($redis) {
        $redis->publish(key_of('p1'), 'x');
        $redis->publish(key_of('o1'), 'drop');
        wait_until(fn () => has($redis, 'psubscribe', 'psub', '1'), 'one is unsubscribed');
        $redis->publish(key_of('o1'), 'late');
        $redis->publish(key_of('p2'), 'end');
    },
);
subscribe_until_end(
    'psubscribe',
    'psubscribe',
    [key_of('p*'), key_of('o*')],
    fn ($redis) => $redis->punsubscribe([key_of('o*')]),
);
join_child($child);

step('client name', $client->client('getname'), $client->client('setname', key_of('name')));
step('client name', $client->client('getname'), $other->client('getname'));
step('client name', error_of($client, fn ($redis) => $redis->client('setname', 'not allowed')));

$client->sAdd(key_of('text2'), 'member');
step('errors', error_of($client, fn ($redis) => $redis->get(key_of('text2'))));
step('errors', error_of($client, fn ($redis) => $redis->rawCommand('NOSUCHCOMMAND', "a\r\nb", 'c')));
step('errors', error_of($client, fn ($redis) => $redis->rawCommand('GET')), $client->ping());

step('stream', $client->xAdd(key_of('s'), '1-1', ['f' => 'v1', 'g' => "\r\n"]));
step('stream', $client->xAdd(key_of('s'), '2-1', ['f' => 'v2']), $client->xLen(key_of('s')));
step('stream', $client->xRead([key_of('s') => '0']), $client->xRead([key_of('s') => '2-1']));
$client->client('setname', key_of('reader'));
$child = meanwhile(
    fn ($redis) => has($redis, 'reader', 'flags', 'b'),
    fn ($redis) => $redis->xAdd(key_of('s'), '3-1', ['f' => 'v3']),
);
step('stream', $client->xRead([key_of('s') => '$'], 1, 15000));
join_child($child);

step('stream group', $client->xGroup('CREATE', key_of('s'), 'group', '0'));
step('stream group', $client->xReadGroup('group', 'one', [key_of('s') => '>'], 2));
step('stream group', $client->xAck(key_of('s'), 'group', ['1-1']));
step('stream group', $client->xReadGroup('group', 'one', [key_of('s') => '0']));
step('stream group', $client->xReadGroup('group', 'one', [key_of('s') => '>'], 5, 20));
step('stream group', $client->xReadGroup('group', 'one', [key_of('s') => '>'], 5, 20));
step('stream group', $client->xPending(key_of('s'), 'group'));

step('reconnect', $client->set(key_of('r'), 'kept'), $client->rawCommand('QUIT'));
/* The end may arrive just after the answer, from a server too; then the first attempt meets it. */
try {
    $kept = $client->get(key_of('r'));
} catch (RedisException) {
    $kept = $client->get(key_of('r'));
}
step('reconnect', $kept);
step('reconnect', $client->close(), $client->connect($host, (int) $port, 20));
step('reconnect', $client->get(key_of('r')));

/* Persistent connections stay open in the extension's pool, and are tried with ECHO before use. */
foreach (['first', 'second'] as $turn) {
    $persistent = new Redis();
    step('persistent', $persistent->pconnect($host, (int) $port, 20, 'pool'));
    step('persistent', $persistent->set(key_of('pc'), $turn), $persistent->get(key_of('pc')));
    step('persistent', $persistent->close());
}

$facts = array_column(array_chunk($client->rawCommand('HELLO'), 2), 1, 0);
step('hello', is_int($facts['id']), array_diff_key($facts, ['id' => 0]));
step('hello', error_of($client, fn ($redis) => $redis->rawCommand('HELLO', '9')), $client->ping());
