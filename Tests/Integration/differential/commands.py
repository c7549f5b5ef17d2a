"""Random commands from what the server says of its own: COMMAND DOCS for arguments, COMMAND for
flags.

Arguments are drawn by type and name from small pools, so that commands meet: few keys, named after
the type that they usually hold, few members, channels, groups and scripts. Numbers stay small
where a big one would only fill memory. Where the documented grammar does not say enough (the rules
of ACL SETUSER, the payloads of DEBUG), a command has its own pool in SPECIAL.

Times are either far away or past, because two servers never look at a clock at the same moment.
"""

import hashlib
import re
import shlex
from dataclasses import dataclass, field
from random import Random

from .tables import EXCLUDED

FAR_SECONDS, FAR_MILLISECONDS = "100000", "100000000"
YEAR_2100_SECONDS, YEAR_2100_MILLISECONDS = "4102444800", "4102444800000"

# The groups of COMMAND DOCS whose commands work on keys of one type.
KEY_GROUPS = {
    "string", "list", "set", "sorted-set", "hash", "stream", "hyperloglog", "geo", "bitmap",
    "generic",
}
KEYS_PER_GROUP = 3

CHANNELS = ["news", "sport", "weather"]

SCRIPTS = [
    "return 1",
    "return {1,2,{3,'four',false},true}",
    "return redis.call('set',KEYS[1],ARGV[1])",
    "return redis.call('get',KEYS[1])",
    "return redis.error_reply('MY failure')",
    "return redis.status_reply('FINE')",
    "redis.setresp(3); return {map={a=1}}",
    "redis.setresp(3); return {double=0.5}",
    "redis.call('publish','news',ARGV[1]); return redis.call('incr',KEYS[1])",
    "return redis.call('nosuch')",
    "return redis.pcall('blpop','list0',0)",
    "return redis.call('subscribe','news')",
    "this is no script",
    "return {ARGV[1],KEYS[1]}",
]
DIGESTS = [hashlib.sha1(script.encode()).hexdigest() for script in SCRIPTS] + ["f" * 40]

LIBRARIES = [
    "#!lua name=one\nredis.register_function('first', function(k, a) return {k, a} end)",
    "#!lua name=two\nredis.register_function{function_name='second', callback=function(k, a)"
    " return redis.call('get', k[1]) end, flags={'no-writes'}}",
    "#!lua name=bad\nreturn",
    "no library",
]

VALUES = [
    "0", "1", "-1", "7", "3.5", "abc", "", "value with spaces", "ein\u00e4", b"\x00\xff\r\n+OK\r\n",
    "100", b"line\r\nfeed", "x" * 40, "nan", "9223372036854775807",
]
MEMBERS = ["a", "b", "c", "1", "2", "member", b"\r\n", ""]
TINY = ["-1", "0", "1", "2", "3", "10"]

# Pools by the name of an argument, whatever the command.
BY_NAME = {
    "timeout": ["0.01", "0.02", "0.01", "0", "-1", "abc"],
    "channel": CHANNELS, "shardchannel": CHANNELS,
    "message": ["hello", "", b"two\r\nlines", "x" * 100],
    "pattern": ["*", "n*", "string?", "[a-s]*", "nothing*"],
    "count": ["1", "2", "10", "1000", "0", "-1"],
    "offset": ["0", "1", "7", "8", "100", "-1"],
    "index": TINY, "index1": ["0", "1", "2"], "index2": ["0", "1", "3", "99"],
    "db": ["0", "1", "2", "99"], "destination-db": ["0", "1", "2"],
    "seconds": [FAR_SECONDS, FAR_SECONDS, "0", "-1", "abc"],
    "ttl": ["0"],
    "unix-time-seconds": [YEAR_2100_SECONDS, "1"],
    "unix-time-milliseconds": [YEAR_2100_MILLISECONDS, "1"],
    "milliseconds": [FAR_MILLISECONDS, FAR_MILLISECONDS, "0", "-1"],
    "min-idle-time": ["0", FAR_MILLISECONDS], "ms": ["0"],
    "numreplicas": ["0", "1", "abc"],
    "cursor": ["0"],
    "bit": ["0", "1", "2"], "bits": ["5"],
    "member": MEMBERS, "member1": MEMBERS, "member2": MEMBERS, "field": MEMBERS,
    "element": MEMBERS, "pivot": MEMBERS,
    "value": VALUES,
    "increment": ["1", "-3", "2", "0.5", "abc", "9223372036854775807"],
    "score": ["1", "2", "-3", "0.5", "inf", "1e3", "nan", "abc"],
    "longitude": ["13.361389", "15.087269", "200", "abc"],
    "latitude": ["38.115556", "37.502669", "100"],
    "radius": ["100", "200000", "-1"], "width": ["400"], "height": ["400", "abc"],
    "id": ["1-1", "2-1", "0", "5-*", "3", "abc"],
    "last-id": ["9-9", "0-1"], "max_deleted_entry_id": ["0-1"], "entries_read": ["0", "2"],
    "group": ["g0", "g1"], "groupname": ["g0", "g1"],
    "consumer": ["alice", "bob"], "consumername": ["alice", "bob"],
    "script": SCRIPTS, "sha1": DIGESTS, "function": ["first", "second", "third"],
    "function-code": LIBRARIES, "library-name": ["one", "two", "three"],
    "library-name-pattern": ["o*", "*"],
    "username": ["alice", "bob"], "password": ["x"],
    "libname": ["library", "no spaces please", "", "lib(one)"], "libver": ["1.2", "\n"],
    "capability": ["redirect", "nosuch"],
    "comparison-value": ["1", "abc"],
    "numlocal": ["0", "1", "2", "abc"],
    "connection-name": ["me", "you", "", "no spaces please", "n\n"],
    "clientname": ["me", "no spaces please"],
    "command": ["get", "set", "nosuch"], "command-name": ["get", "xadd", "client", "nosuch"],
    "category": ["read", "nosuch"], "categoryname": ["string", "nosuch"],
    "section": ["server", "clients", "nosuch"],
    "parameter": ["maxmemory", "list-*", "notify*", "hz", "nosuch"],
    "event": ["command", "nosuch"],
    "prefix": ["str", "string0", "list"],
    "client-id": ["{id:0}", "{id:1}", "{id:2}", "424242"],
    "ip:port": ["1.2.3.4:5"], "host": ["127.0.0.1"], "port": ["1"],
    "type": ["string", "list", "nosuch"],
    "encoding": ["u8", "i16", "u64"], "operation": ["AND", "NOT", "XOR", "NOSUCH"],
    "numkeys": ["1"], "weight": ["2", "-1", "abc"], "protover": ["2", "3", "4"],
    "start": ["0", "1", "-2", "-", "(1", "[a", "1-0", "abc"],
    "end": ["-1", "1", "+", "100", "[c", "3-0"], "stop": ["-1", "1", "+inf", "[c", "100"],
    "min": ["-", "[a", "(b", "-inf", "0", "(1"], "max": ["+", "[c", "+inf", "2", "(3"],
    "threshold": ["2", "1-1", "0"], "version": ["5"],
    "config-epoch": ["1"], "key": ["string0"],
}

# Pools by command and argument, where the name alone says too little.
BY_COMMAND = {
    ("wait", "timeout"): ["10", "1", "abc"], ("waitaof", "timeout"): ["10", "1", "abc"],
    ("client|pause", "timeout"): ["0", "1", "abc"],
    ("xread", "milliseconds"): ["1", "10", "20"], ("xreadgroup", "milliseconds"): ["1", "10"],
    ("xread", "id"): ["$", "0", "1-1"], ("xreadgroup", "id"): [">", "0", "1-1"],
    ("xgroup|create", "id"): ["$", "0"], ("xgroup|setid", "id"): ["$", "0", "1-1"],
    ("setbit", "offset"): ["0", "7", "100", "-1"], ("setbit", "value"): ["0", "1", "2"],
    ("setrange", "offset"): ["0", "3", "200", "-1"],
    ("select", "index"): ["0", "1", "2", "15", "16", "-1", "abc"],
    # SET keeps a key that is past its time until somebody looks, and then the two may differ.
    ("set", "unix-time-seconds"): [YEAR_2100_SECONDS],
    ("set", "unix-time-milliseconds"): [YEAR_2100_MILLISECONDS],
    ("publish", "channel"): CHANNELS + ["__keyspace@0__:string0"],
    # No two match one channel: which of them gets a message first depends on a random seed.
    ("psubscribe", "pattern"): ["n*", "s*", "__key*"], ("punsubscribe", "pattern"): ["n*", "s*"],
    ("command|docs", "command-name"): ["get", "config", "nosuch"],
    ("lcs", "len"): ["1"], ("lpos", "len"): ["0", "5"], ("lpos", "rank"): ["1", "-1", "0"],
    ("xtrim", "count"): ["10"], ("xadd", "count"): ["10"],
}

BY_TYPE = {
    "string": VALUES,
    "integer": TINY,
    "double": ["0", "0.5", "-1.5", "inf", "abc"],
    "unix-time": [YEAR_2100_SECONDS, "1"],
    "pattern": BY_NAME["pattern"],
}

# Commands that the documentation does not describe well enough, with the arguments to send.
_SPECIAL = r"""
auth: ; x; default x; app wrong; nosuch x; a b c; default
hello: ; 2; 3; 3; 2; 4; 1; abc; 3 setname me; 2 SETNAME you; 3 setname 'no spaces'; 3 auth default
    x; 3 auth nosuch x; 2 auth default x setname me; 3 nonsense; 3 auth default; 3 setname; 3
    setname me auth nosuch x
client|kill: 1.2.3.4:5; id {id:0}; id {id:1} skipme no; id 424242; user nosuch; type master; id
    abc; nonsense 1
client|reply: on; off; skip; nonsense
config|set: notify-keyspace-events KEA; notify-keyspace-events ''; maxmemory-samples 5; nosuch 1;
    maxmemory abc; hz 10 hz 10
debug: protocol string; protocol integer; protocol double; protocol bignum; protocol null;
    protocol array; protocol set; protocol map; protocol attrib; protocol push; protocol verbatim;
    protocol true; protocol false; protocol nonsense; sleep 0; help; error 'MY own error';
    digest-value string0 hash0; nonsense
shutdown: abort; nonsense; a b c
failover: abort; nonsense
replicaof: no one; a; h abc
slaveof: no one
script|debug: no; nonsense
acl|setuser: alice; alice on >x ~* +get; bob off -@all; bob nonsense
acl|deluser: alice; alice bob
acl|getuser: alice; nosuch
acl|dryrun: alice get k; nosuch get
latency|reset: ; nosuch
module|unload: nosuch
function|restore: 'no payload'
restore: string0 0 'no payload'; new -1 x
restore-asking: string0 0 'no payload'
# The time that an entry gets without an id of the client's is the server's own.
xadd: stream0 1-1 f v; stream0 2-* f v g w; stream1 9-9 f v; stream1 9-* f ''; stream2 nomkstream
    1-1 f v; string0 1-1 f v; stream0 maxlen = 2 3-* f v; stream0 minid ~ 2 limit 10 4-* f v;
    stream0 abc f v; stream0 5-5 f
# With BY and STORE the order of equal weights would become the list's.
sort: list0; list0 alpha; set0 alpha desc; set0 by nosort; list0 by string*; set0 alpha store
    list1; hash0; list1 limit 0 2 alpha get string* get '#'; sorted-set0 by nosort get '#'; list0
    nonsense
# All or nothing: what is drawn at random among fewer cannot be compared.
spop: set0 1000; set1 0; set0 -1
srandmember: set0 1000; set1 0
hrandfield: hash0 1000; hash0 1000 withvalues; hash1 0; list0 1
zrandmember: sorted-set0 1000 withscores; set0 1; sorted-set1 1000
# A scan that ends in one step: what comes in the first of many is the hash table's secret.
scan: 0 count 1000; 0 match s* count 1000; 0 count 1000 type string; abc; 0 x
sscan: set0 0 count 1000; list0 0; set0
hscan: hash0 0 count 1000; hash1 0 match * count 0; hash0 0 match m* count 1000
zscan: sorted-set0 0 count 1000; hash0 0
sort_ro: list0 alpha; set0 alpha store x
"""


def _read_special() -> dict:
    special = {}
    lines = re.sub(r"^#.*\n", "", _SPECIAL.strip(), flags=re.M).replace("\n    ", " ").split("\n")
    for line in lines:
        name, forms = line.split(":", 1)
        special[name] = [name.split("|") + shlex.split(form) for form in forms.split(";")]
    return special


SPECIAL = _read_special()

# A reply of a few hundred kilobytes, which takes this program long to compare: rarely.
HEAVY = {"command", "command|docs", "command|info", "command|list"}
# One answer for all of them where there is no cluster.
MONOTONOUS = {"cluster"}
RARE_ODDS = 0.1

# Values that commands do not take, left out of tame commands.
WRONG = {"abc", "nan", "nosuch", "-1", "99", "200", "no spaces please", "n\n", "NOSUCH", "bad"}

# In the subcommand's place, besides what COMMAND knows.
UNKNOWN_SUBCOMMAND = "nosuch"
UNKNOWN_COMMANDS = [
    ["nosuch"], ["nosuch", "a", "b"], [""], ["", "x"], ["ge t", "k"], ["XX\r\n+OK", "y"],
    ["getx", "k"], ["multix"], ["subscrib", "news"], ["n" * 200, "m" * 200],
]


@dataclass
class Entry:
    """One command or subcommand of the server's."""

    name: str
    group: str
    arguments: list
    flags: set
    tips: set

    @property
    def words(self) -> list:
        return self.name.split("|")


@dataclass
class Grammar:
    """All commands of a server."""

    entries: dict = field(default_factory=dict)

    @staticmethod
    def read(client) -> "Grammar":
        """`client` speaks RESP3 and may do everything."""
        grammar = Grammar()
        documentation = {
            name.decode().lower(): text for name, text in client.value("COMMAND", "DOCS").items()
        }

        def add(information, documented, group):
            name = information[0].decode().lower()
            documented_subcommands = {
                n.decode().lower(): d for n, d in documented.get(b"subcommands", {}).items()
            }
            entry = Entry(
                name, group, documented.get(b"arguments", []),
                {flag.decode() for flag in information[2]},
                {tip.decode() for tip in information[7]},
            )
            subcommands = information[9]
            if not subcommands:
                grammar.entries[name] = entry
            for subcommand in subcommands:
                subname = subcommand[0].decode().lower()
                add(subcommand, documented_subcommands.get(subname, {}), group)
            # COMMAND without a subcommand is a command of its own.
            if subcommands and name == "command":
                grammar.entries[name] = entry

        for information in client.value("COMMAND"):
            name = information[0].decode().lower()
            documented = documentation.get(name, {})
            add(information, documented, documented.get(b"group", b"").decode())
        return grammar

    def generated(self) -> list:
        """The names of all commands that may be generated, in an order that is always the same."""
        return sorted(name for name in self.entries if name not in EXCLUDED)

    def name_of(self, command) -> str:
        """The entry that this command's first words name; the first word if there is none."""
        words = [
            word.decode(errors="replace").lower() if isinstance(word, bytes) else word.lower()
            for word in command[:2]
        ]
        full = "|".join(words)
        return full if full in self.entries else words[0] if words else ""

    def may_block(self, command) -> bool:
        name = self.name_of(command)
        return name == "wait" or (
            name in self.entries and "blocking" in self.entries[name].flags
        )


class Generator:
    """Commands drawn with one source of randomness, on keys that begin with `prefix`."""

    def __init__(self, grammar: Grammar, dice: Random, prefix: str = ""):
        self.grammar = grammar
        self.prefix = prefix
        self.dice = dice
        self.names = grammar.generated()
        self.is_tame = False

    def anything(self) -> list:
        """A command of any kind; now and then a wrong one."""
        draw = self.dice.random()
        if draw < 0.02:
            return list(self.dice.choice(UNKNOWN_COMMANDS))
        if draw < 0.03:
            container = self.dice.choice(["client", "config", "script", "object", "xgroup"])
            return [container, UNKNOWN_SUBCOMMAND]
        name = self.dice.choice(self.names)
        while _is_rare(name) and self.dice.random() > RARE_ODDS:
            name = self.dice.choice(self.names)
        return self.named(name)

    def tame(self, name: str) -> list:
        """The same with arguments that the command takes, as far as their pools can tell."""
        self.is_tame = True
        command = self.named(name)
        self.is_tame = False
        return command

    def named(self, name: str) -> list:
        """The command of that name with random arguments."""
        if name in SPECIAL:
            command = list(self.dice.choice(SPECIAL[name]))
        else:
            entry = self.grammar.entries[name]
            command = entry.words + self._arguments(entry, entry.arguments)
        draw = self.dice.random()
        # DEBUG and the like never lose an argument: what is left could be something else.
        if name not in SPECIAL and not self.is_tame:
            if draw < 0.03 and len(command) > 1:
                command.pop()
            elif draw < 0.05:
                command.append(self.dice.choice(["extra", "1", ""]))
        if self.dice.random() < 0.3:
            command[0] = command[0].upper()
        return command

    # Arguments as COMMAND DOCS describes them

    def _arguments(self, entry: Entry, arguments, keys: int = None) -> list:
        made = []
        for argument in arguments:
            flags = {flag.decode() for flag in argument.get(b"flags", [])}
            if "optional" in flags and self.dice.random() > 0.35:
                continue
            name = argument[b"name"].decode()
            if name in ("numkeys", "numfields"):
                keys = self.dice.choice([1, 1, 2, 2, 3])
                shown = keys if self.dice.random() < 0.95 else self.dice.choice([0, -1, 7, "abc"])
                made += self._token(argument) + [str(shown)]
                continue
            times = 1
            if "multiple" in flags:
                times = self.dice.choice([1, 1, 2, 3])
                if keys is not None and self._is_counted(argument):
                    times = keys
            for index in range(times):
                if index == 0 or "multiple_token" in flags:
                    made += self._token(argument)
                made += self._argument(entry, argument, name)
        return made

    @staticmethod
    def _is_counted(argument) -> bool:
        """Whether it is the argument that a number before it announces."""
        kind, name = argument[b"type"], argument[b"name"]
        return kind in (b"key", b"block") or name == b"field"

    @staticmethod
    def _token(argument) -> list:
        has = argument[b"type"] != b"pure-token" and b"token" in argument
        return [argument[b"token"].decode()] if has else []

    def _argument(self, entry: Entry, argument, name: str) -> list:
        kind = argument[b"type"].decode()
        if kind == "pure-token":
            return [argument[b"token"].decode()]
        if kind == "oneof":
            return self._arguments_of_one(entry, argument)
        if kind == "block":
            return self._arguments(entry, argument[b"arguments"])
        if kind == "key":
            return [self.key(entry)]
        pool = BY_COMMAND.get((entry.name, name)) or BY_NAME.get(name) or BY_TYPE[kind]
        if self.is_tame:
            pool = [value for value in pool if value not in WRONG]
        return [self.dice.choice(pool)]

    def _arguments_of_one(self, entry: Entry, argument) -> list:
        chosen = self.dice.choice(argument[b"arguments"])
        flags = {flag.decode() for flag in chosen.get(b"flags", [])} - {"optional"}
        return self._arguments(entry, [dict(chosen) | {b"flags": [f.encode() for f in flags]}])

    def key(self, entry: Entry) -> str:
        """Most often of the type that the command is for."""
        group = entry.group
        if group not in KEY_GROUPS or not self.is_tame and self.dice.random() < 0.1:
            group = self.dice.choice(sorted(KEY_GROUPS))
        return f"{self.prefix}{group}{self.dice.randrange(KEYS_PER_GROUP)}"


def _is_rare(name: str) -> bool:
    return name in HEAVY or name.split("|")[0] in MONOTONOUS
