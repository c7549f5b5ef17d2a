"""The proxy's table of commands against the server's own: nothing that is tied to its connection is
shared.

The server says in COMMAND which commands block, which belong to connections, transactions and
subscriptions, which no script may call, which no transaction may hold and which run while a script
keeps the server busy. Each of them must stand in the recogniser of CommandClass.swift, or in
SHAREABLE below with the reason why sharing it is right. So a newer server whose COMMAND has
something new fails here and not at a user's.

The recogniser is read from its source, because the proxy has no means of printing it and should
not have one for this; that the compiled proxy knows what the source says is proved by the unit
tests of that room.
"""

import re
from dataclasses import dataclass, field

import pytest

from harness.proxy import REPOSITORY
from harness.resp import eventually

SOURCE = REPOSITORY / "Sources/RESP/CommandClass.swift"

# What in COMMAND's output may mean that a command is tied to its connection.
TYING_FLAGS = {
    "blocking", "pubsub", "no_multi", "noscript", "no_auth", "allow_busy", "asking",
    "skip_monitor",
}
TYING_CATEGORIES = {"@blocking", "@connection", "@transaction", "@pubsub"}

_ANSWERS_ONLY = "one request, one reply, from the server's state alone"
_SERVER_WIDE = "changes the server's state, which all connections see alike"

# Shareable although the server's output sets them apart, each with the reason. A container stands
# for its subcommands.
SHAREABLE = {
    "ping": _ANSWERS_ONLY + "; its other form is for subscribers, who have their own connection",
    "echo": _ANSWERS_ONLY,
    "command": _ANSWERS_ONLY,
    "publish": "@pubsub by its subject; what it sends goes to subscribers, to the sender a number",
    "spublish": "as PUBLISH",
    "pubsub": _ANSWERS_ONLY,
    "role": _ANSWERS_ONLY,
    "latency": _ANSWERS_ONLY,
    "acl": "the users of the server; ACL WHOAMI answers the same on all connections of a user",
    "config": _SERVER_WIDE,
    "module": _SERVER_WIDE,
    "cluster": _SERVER_WIDE,
    "replicaof": _SERVER_WIDE,
    "slaveof": _SERVER_WIDE,
    "save": "no_multi because it takes long, not because of the connection",
    "bgsave": _SERVER_WIDE,
    "bgrewriteaof": _SERVER_WIDE,
    "eval": "noscript against recursion; what a script does to its client ends with it",
    "evalsha": "as EVAL",
    "eval_ro": "as EVAL",
    "evalsha_ro": "as EVAL",
    "fcall": "as EVAL",
    "fcall_ro": "as EVAL",
    "restore-asking": "carries its ASKING in itself; leaves nothing on the connection",
    "client": None,
    "script": None,
    "function": None,
}

# Known to the proxy, unknown to this server.
NOT_ON_EVERY_SERVER = {
    "waitaof": "since 7.2",
}

# Each class, and which of the server's commands belong there, by what the server says of them.
# None: the class is the proxy's own idea, and its commands stand here.
EXPECTED_MEMBERS = {
    "auth": {"auth"},
    "hello": {"hello"},
    "quit": {"quit"},
    "reset": {"reset"},
    "select": {"select"},
    "client": {"client"},
    "multi": {"multi"},
    "exec": {"exec"},
    "discard": {"discard"},
    "watch": {"watch"},
    "unwatch": {"unwatch"},
    "wait": {"wait", "waitaof"},
    "monitor": {"monitor"},
    "replication": {"sync", "psync", "replconf"},
    "lasting": {"readonly", "readwrite", "asking", "debug"},
    "script": {"script"},
    "function": {"function"},
    "outOfBand": {"shutdown", "failover"},
}


@dataclass
class Command:
    """One entry of COMMAND."""

    name: str
    flags: set
    categories: set
    subcommands: list = field(default_factory=list)

    @property
    def container(self) -> str:
        return self.name.split("|")[0]

    @property
    def ties(self) -> set:
        return (self.flags & TYING_FLAGS) | (self.categories & TYING_CATEGORIES)

    def with_subcommands(self):
        return [self, *self.subcommands]


def parse(entry) -> Command:
    """An entry of COMMAND's RESP2 output."""
    name, _, flags, _, _, _, categories, _, _, subcommands = entry
    return Command(
        name.decode().lower(),
        {flag.decode() for flag in flags},
        {category.decode() for category in categories},
        [parse(subcommand) for subcommand in subcommands],
    )


@pytest.fixture(scope="module", params=["redis", "valkey"])
def asked(request):
    """The server whose COMMAND is looked at."""
    names = {"redis": "reference", "valkey": "valkey"}
    return request.getfixturevalue(names[request.param])


@pytest.fixture(scope="module")
def commands(asked) -> dict:
    """What the server has, by name."""
    found = {entry[0].decode().lower(): parse(entry) for entry in asked.ask("COMMAND")}
    assert len(found) > 200, "COMMAND's output was not understood"
    return found


@pytest.fixture(scope="module")
def recognised() -> dict:
    """What the proxy's recogniser knows: the class of each name, in lower case."""
    source = SOURCE.read_text()
    table = {}
    for label, result in re.findall(r"case ([^\n{}]*?):\s*self = \.command\(\.(\w+)\)", source):
        # `(9, key("SUBSCRIB"), key("E"))` is one name in two words; elsewhere each word is a name.
        words = re.findall(r'key\("([A-Z]+)"\)', label)
        names = ["".join(words)] if label.startswith("(") else words
        for name in names:
            assert table.setdefault(name.lower(), result) == result, f"{name} has two classes"
    words = len(re.findall(r'key\("[A-Z]+"\)', source))
    long = len(re.findall(r"case \(\d+, key", source))
    # POST and HOST are no commands.
    assert len(table) == words - long - 2, "the recogniser's source was not understood"
    return table


def documented_names(source: str) -> dict:
    """The classes whose description in the source is the list of their names."""
    found = {}
    for text, name in re.findall(r"/// ([^\n]+)\n    case (\w+)\n", source):
        head = re.match(r"((?:[A-Z]{4,} ?)+)(?:[.:;,]|with)", text)
        if head:
            found[name] = {word.lower() for word in head.group(1).split()}
    return found


def test_every_command_that_may_be_tied_is_known_or_shared_for_a_reason(commands, recognised):
    missing = {
        entry.name: sorted(entry.ties)
        for command in commands.values()
        for entry in command.with_subcommands()
        if entry.ties and entry.container not in recognised and not SHAREABLE.get(entry.container)
    }
    assert not missing, f"neither recognised nor shareable for a reason: {missing}"


def test_every_reason_for_sharing_is_needed(commands, recognised):
    for name, reason in SHAREABLE.items():
        assert name in commands, f"{name}: the server has no such command"
        ties = set().union(*(entry.ties for entry in commands[name].with_subcommands()))
        assert ties, f"{name}: the server says nothing that would tie it"
        assert (name in recognised) == (reason is None), (
            f"{name}: a recognised command needs no reason for sharing, another one does"
        )


def test_every_recognised_name_is_a_command_of_the_server(commands, recognised):
    unknown = set(recognised) - set(commands)
    assert unknown == {name for name in NOT_ON_EVERY_SERVER if name not in commands}


def test_the_commands_that_block_are_exactly_those_that_the_server_says_block(
    commands, recognised
):
    blocking = {name for name, command in commands.items() if "blocking" in command.flags}
    assert blocking, "the server names no blocking command"
    # The replies to WAITAOF come when others have done something, as those to WAIT.
    blocking -= {name for name, found in recognised.items() if found == "wait"}
    classes = {name: recognised.get(name, "plain") for name in blocking}
    assert set(classes.values()) == {"blocking", "streamRead"}, classes
    known = {name for name, found in recognised.items() if found in ("blocking", "streamRead")}
    assert known == blocking


def test_a_command_blocks_by_option_only_if_it_has_the_option(commands, recognised, asked):
    """Those of class `streamRead` are shared without BLOCK, so BLOCK must be what makes them."""
    for name, found in recognised.items():
        if found in ("blocking", "streamRead"):
            documentation = asked.ask("COMMAND", "DOCS", name)
            assert (b"BLOCK" in flatten(documentation)) == (found == "streamRead"), name


def flatten(value) -> set:
    if isinstance(value, list):
        return set().union(*(flatten(element) for element in value)) if value else set()
    return {value}


def test_the_subscribing_commands_are_exactly_those_that_the_server_has(commands, recognised):
    """Of the server's pubsub commands, those that no script may call are about subscriptions."""
    tied = {name for name, command in commands.items() if {"pubsub", "noscript"} <= command.flags}
    assert tied, "the server names no subscribing command"
    for name in tied:
        wanted = "unsubscribe" if "unsubscribe" in name else "subscribe"
        assert recognised.get(name) == wanted, name
    assert {n for n, c in recognised.items() if c in ("subscribe", "unsubscribe")} == tied


def test_every_command_of_transactions_is_known(commands, recognised):
    found = {name for name, command in commands.items() if "@transaction" in command.categories}
    assert found == {"multi", "exec", "discard", "watch", "unwatch"}
    assert {recognised.get(name) for name in found} == found


def test_every_command_that_needs_no_login_is_the_proxys_business(commands, recognised):
    """What may be sent before a login concerns the login, and so the proxy."""
    found = {name for name, command in commands.items() if "no_auth" in command.flags}
    assert found == {"auth", "hello", "quit", "reset"}
    assert {recognised.get(name) for name in found} == found


def test_what_must_get_through_while_a_script_runs_does_not_queue_behind_it(commands, recognised):
    """allow_busy: the commands that the server still serves then. On a shared connection they
    would wait for the very script that they are meant to end or to look at."""
    for command in commands.values():
        for entry in command.with_subcommands():
            if "allow_busy" in entry.flags:
                assert entry.container in recognised, entry.name


def test_every_class_has_exactly_its_commands(recognised):
    for name, members in EXPECTED_MEMBERS.items():
        assert {n for n, found in recognised.items() if found == name} == members, name
    tested_by_flags = {"blocking", "streamRead", "subscribe", "unsubscribe"}
    assert set(recognised.values()) == set(EXPECTED_MEMBERS) | tested_by_flags


def test_the_descriptions_of_the_classes_name_what_the_recogniser_knows(recognised):
    documented = documented_names(SOURCE.read_text())
    assert len(documented) >= 15, f"the descriptions were not understood: {documented}"
    for name, members in documented.items():
        assert {n for n, found in recognised.items() if found == name} >= members, name


LOOP = "#!lua name=busy\nredis.register_function('loop', function() while true do end end)"

# What the server serves while a function keeps it busy. QUIT, RESET and SHUTDOWN end the session
# or the server, SCRIPT KILL ends no function, REPLCONF has no answer for clients.
DURING_A_FUNCTION = [
    ("FUNCTION", "STATS"), ("FUNCTION", "KILL"), ("AUTH", "default", "x"), ("HELLO", "2"),
    ("WATCH", "k"), ("UNWATCH",), ("MULTI",), ("DISCARD",),
]


@pytest.mark.parametrize("command", DURING_A_FUNCTION, ids=" ".join)
def test_what_the_server_serves_while_a_function_runs_is_served(gateway, command):
    with gateway.connect() as busy, gateway.connect() as other, gateway.server.admin() as admin:
        assert other.raw("FUNCTION", "LOAD", "REPLACE", LOOP) == b"$4\r\nbusy\r\n"
        if command == ("DISCARD",):
            assert other.raw("MULTI") == b"+OK\r\n"
        busy.send("FCALL", "loop", 0)
        eventually(lambda: admin.raw("PING").startswith(b"-BUSY"), what="the server is busy")
        try:
            other.send(*command)
            assert not other.is_silent(3), "no answer while the function runs"
            assert other.read().raw[:1] in (b"+", b"*")
        finally:
            assert admin.raw("FUNCTION", "KILL")[:3] in (b"+OK", b"-NO")
        assert busy.read().raw.startswith(b"-ERR ")
        assert admin.raw("FUNCTION", "FLUSH") == b"+OK\r\n"
