# The scenario with Redis.pm.
#
# usage: perl perl_redis.pl HOST PORT PREFIX

use strict;
use warnings;
use Digest::SHA qw(sha1_hex);
use Redis;
use Time::HiRes qw(sleep time);

use constant { LONGEST_TEXT => 200, WAIT_SECONDS => 10, POLL_SECONDS => 0.005 };

$| = 1;
my ($host, $port, $prefix) = @ARGV;

sub key { "$prefix:$_[0]" }

sub canonical {
    my ($value) = @_;
    return 'undef' if !defined $value;
    return '[' . join(', ', map { canonical($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return "<" . length($value) . " bytes, " . sha1_hex($value) . ">" if length $value > LONGEST_TEXT;
    $value =~ s/([^ !#-\[\]-~])/sprintf '\\x%02x', ord $1/ge;
    return qq("$value");
}

sub step {
    my ($name, @results) = @_;
    print "$name: ", join(' ', map { canonical($_) } @results), "\n";
}

# The server's error for a call; the place in this program that Redis.pm appends is cut off.
sub error_of(&) {
    my ($action) = @_;
    my @answer = eval { $action->() };
    return 'no error but ' . canonical(\@answer) if !$@;
    (my $text = $@) =~ s/,\s+at .*//s;
    return "error: $text";
}

sub open_client {
    Redis->new(server => "$host:$port", reconnect => 5, every => 10_000, read_timeout => 20, @_);
}

sub wait_until(&$) {
    my ($condition, $what) = @_;
    my $end = time + WAIT_SECONDS;
    until ($condition->()) {
        die "$what: not within " . WAIT_SECONDS . " s" if time > $end;
        sleep POLL_SECONDS;
    }
}

# Runs the action in a child with a connection of its own, once the named client blocks.
sub when_blocked(&$) {
    my ($action, $name) = @_;
    my $child = fork // die "no fork: $!";
    return $child if $child;
    my $redis = open_client();
    my $line = quotemeta " name=" . key($name) . " ";
    my $done = eval {
        wait_until { grep { /$line/ && / flags=b / } split /\n/, $redis->client('list') } 'it blocks';
        $action->($redis);
        1;
    };
    print STDERR "in the child: $@" if !$done;
    require POSIX;
    POSIX::_exit($done ? 0 : 1);
}

sub join_child {
    waitpid $_[0], 0;
    die "a child ended with status $?" if $? != 0;
}

my $client = open_client();
my $other = open_client(name => key('other'));
step 'connect', ref $client;
step 'ping', $client->ping, $client->echo('text');

step 'set and get', $client->set(key('text'), 'value'), $client->get(key('text'));
step 'set and get', scalar $client->get(key('missing')), $client->del(key('text'), 'missing');

my $binary = join('', map { chr } 0 .. 255) . "\r\n+OK\r\n\$5\r\n\0";
step 'binary value', $client->set(key('binary'), $binary), $client->get(key('binary')) eq $binary;
step 'empty value', $client->set(key('empty'), ''), $client->get(key('empty'));
my $big = $binary x 4096;
step 'big value', $client->set(key('big'), $big), $client->get(key('big'));
step 'big value', $client->get(key('big')) eq $big, $client->strlen(key('big'));

step 'mset and mget', $client->mset(key('m1'), 1, key('m2'), "\r\n");
step 'mset and mget', [$client->mget(key('m1'), key('missing'), key('m2'))];

step 'incr', $client->incr(key('n')), $client->incrby(key('n'), 41);
step 'incr', error_of { $client->incr(key('empty')) };

step 'expire and ttl', $client->expire(key('n'), 100_000), $client->ttl(key('n')) > 99_000;
step 'expire and ttl', $client->persist(key('n')), $client->ttl(key('n'));

step 'hash', $client->hset(key('hash'), a => 1, b => "\r\n"), [$client->hmget(key('hash'), 'a', 'x')];
my %hash = $client->hgetall(key('hash'));
step 'hash', map { ($_, $hash{$_}) } sort keys %hash;

step 'list', $client->rpush(key('list'), 1, 2, 3), [$client->lrange(key('list'), 0, -1)];
step 'list', $client->lpop(key('list')), scalar $client->lpop(key('missing'));

step 'set', $client->sadd(key('set'), qw(a b c)), [sort $client->smembers(key('set'))];
step 'sorted set', $client->zadd(key('zset'), 1 => 'one', 2.5 => 'more', inf => 'all');
step 'sorted set', [$client->zrange(key('zset'), 0, -1, 'WITHSCORES')];

$client->set(key("scan:$_"), $_, sub { }) for 0 .. 499;
$client->wait_all_responses;
my ($cursor, @found) = (0);
do {
    ($cursor, my $keys) = $client->scan($cursor, MATCH => key('scan:*'), COUNT => 50);
    push @found, @$keys;
} while ($cursor != 0);
step 'scan', scalar @found, sha1_hex(join ',', sort @found);

my @answers;
my $collect = sub { push @answers, [$_[0], $_[1]] };
for (0 .. 49) {
    $client->set(key("p$_"), $_, $collect);
    $client->get(key("p$_"), $collect);
}
$client->lpush(key('text2'), 'x', $collect);
$client->get(key('text2'), $collect);
$client->wait_all_responses;
step 'pipeline', @answers;

@answers = ();
for (0 .. 9999) {
    $client->set(key('bp'), "value $_", $collect);
    $client->get(key('bp'), $collect);
}
$client->wait_all_responses;
step 'big pipeline', scalar @answers, join(',', map { $_->[0] } @answers);

step 'transaction', $client->watch(key('n')), $client->multi, $client->incr(key('n'));
step 'transaction', $client->get(key('n')), [$client->exec];
# An error inside EXEC's reply leaves Redis.pm confused about its connection.
my $spoilt = open_client();
step 'transaction', $spoilt->multi, $spoilt->lpush(key('n'), 'a'), $spoilt->incr(key('n'));
step 'transaction', error_of { $spoilt->exec }, $client->get(key('n'));
step 'transaction', $client->multi, $client->set(key('n'), 'discarded'), $client->discard;
step 'transaction', error_of { $client->exec };
$client->multi;
step 'transaction', error_of { $client->nosuchcommand }, error_of { $client->exec };

step 'transaction conflict', $client->watch(key('n')), $other->set(key('n'), 'changed');
step 'transaction conflict', $client->multi, $client->set(key('n'), 'mine');
step 'transaction conflict', scalar $client->exec, $client->get(key('n'));

step 'eval', [$client->eval('return {KEYS[1], ARGV[1], 7, false}', 1, key('k'), "a\r\nb")];
step 'eval', error_of { $client->eval("return redis.error_reply('MY error')", 0) };
step 'evalsha', error_of { $client->evalsha('0123456789' x 4, 0) };
my ($sha) = $client->script_load("return tonumber(ARGV[1]) + 2 -- $prefix");
step 'evalsha', $sha, $client->evalsha($sha, 0, 40), $client->script_exists($sha);

step 'select', $client->select(1), $client->set(key('db'), 'one'), scalar $other->get(key('db'));
step 'select', error_of { $client->select(99) }, $client->get(key('db'));
step 'select', $client->select(0), scalar $client->get(key('db'));

my $blocker = open_client(name => key('blocker'));
my $child = when_blocked { $_[0]->rpush(key('q2'), "b\r\n", 'c') } 'blocker';
step 'blocking pop', [$blocker->blpop(key('q1'), key('q2'), 15)];
join_child($child);
step 'blocking pop', [$blocker->brpop(key('q2'), 1)], $blocker->get(key('n'));
step 'blocking pop timeout', scalar $blocker->blpop(key('q1'), '0.1'), $blocker->ping;

my $subscriber = open_client();
my $received = 0;
my $print = sub {
    my ($message, $topic, $subscription) = @_;
    $received += 1;
    step $subscription =~ /\*/ ? 'psubscribe' : 'subscribe', $topic, $subscription, $message;
};

# Redis.pm returns when there was no message for this time.
sub receive {
    my ($count) = @_;
    wait_until { $subscriber->wait_for_messages(0.05); $received >= $count } "$count messages";
}

$subscriber->subscribe(key('c1'), key('c2'), $print);
step 'subscribe', $subscriber->is_subscriber, $other->publish(key('c1'), "m\r\n\0");
step 'subscribe', $other->publish(key('c2'), $big);
receive(2);
step 'subscribe', $subscriber->unsubscribe(key('c1'), $print);
step 'subscribe', $other->publish(key('c1'), 'late'), $subscriber->is_subscriber;
$subscriber->unsubscribe(key('c2'), $print);
step 'subscribe', $subscriber->ping, $other->publish(key('c2'), 'late');
$subscriber->psubscribe(key('p*'), $print);
step 'psubscribe', $other->publish(key('p1'), 'x');
receive(3);
$subscriber->punsubscribe(key('p*'), $print);
step 'psubscribe', $subscriber->get(key('n')), $other->publish(key('p1'), 'late');

step 'client name', scalar $client->client_getname, $client->client_setname(key('name'));
step 'client name', $client->client_getname, $other->client_getname;
step 'client name', error_of { $client->client_setname('not allowed') };

step 'errors', error_of { $client->get(key('set')) };
step 'errors', error_of { $client->nosuchcommand("a\r\nb", 'c') };
step 'errors', error_of { $client->get }, $client->ping;

step 'stream', $client->xadd(key('s'), '1-1', f => 'v1', g => "\r\n");
step 'stream', $client->xadd(key('s'), '2-1', f => 'v2');
step 'stream', [$client->xread('STREAMS', key('s'), '0')];
step 'stream', scalar $client->xread('BLOCK', 20, 'STREAMS', key('s'), '2-1');
$child = when_blocked { $_[0]->xadd(key('s'), '3-1', f => 'v3') } 'blocker';
step 'stream', [$blocker->xread('BLOCK', 15_000, 'STREAMS', key('s'), '$')];
join_child($child);

step 'stream group', $client->xgroup_create(key('s'), 'group', '0');
my @as_one = ('GROUP', 'group', 'one');
step 'stream group', [$client->xreadgroup(@as_one, 'COUNT', 2, 'STREAMS', key('s'), '>')];
step 'stream group', $client->xack(key('s'), 'group', '1-1');
step 'stream group', [$client->xreadgroup(@as_one, 'STREAMS', key('s'), '0')];
step 'stream group', [$client->xreadgroup(@as_one, 'BLOCK', 20, 'STREAMS', key('s'), '>')];
step 'stream group', scalar $client->xreadgroup(@as_one, 'BLOCK', 20, 'STREAMS', key('s'), '>');
step 'stream group', [$client->xpending(key('s'), 'group')];

step 'reconnect', $client->set(key('r'), 'kept'), $client->quit ? 'left' : 'not left';
$client = open_client(on_connect => sub { step 'reconnect', 'connected' });
step 'reconnect', $client->get(key('r'));
my $number = $client->client_id;
step 'reconnect', $other->client_kill('ID', $number);
# Until the end has reached this side, commands may fail; then Redis.pm connects again by itself.
wait_until { (eval { $client->client_id } // $number) != $number } 'it is connected again';
step 'reconnect', $client->get(key('r'));

my %facts = $client->hello;
step 'hello', (delete $facts{id}) =~ /^\d+$/;
step 'hello', map { ($_, $facts{$_}) } sort keys %facts;
step 'hello', error_of { $client->hello(9) }, $client->ping;
