"""What the comparison leaves out, what it looks at with one eye closed, and why."""

import re
from collections import namedtuple

from .frames import blur, blur_numbers, blur_positive, sort_elements, sort_unsubscribed

# Commands that are never generated. Names are those of COMMAND; a subcommand is `name|subcommand`.
EXCLUDED = {
    "sync": "raw stream of a replica, without frames",
    "psync": "as SYNC",
    "replconf": "some forms have no reply at all; for replicas only",
    "monitor": "the feed carries times and addresses, and goes on for ever",
    "migrate": "connects the server to another host",
    "cluster|meet": "as MIGRATE",
    "save": "writes to disk; its error depends on a child process's timing",
    "bgsave": "as SAVE",
    "bgrewriteaof": "as SAVE",
    "acl|load": "reads a file and closes the connections of users in use",
    "acl|save": "writes the file that the other tests' servers stand on",
    "config|rewrite": "writes the server's configuration file",
    "module|load": "loads a file into the server",
    "module|loadex": "as MODULE LOAD",
    "lolwut": "art drawn at random",
    "pfselftest": "keeps the server busy for a second; says OK",
    "latency|graph": "nothing to draw: latency monitoring is off, LATENCY HISTORY says the same",
}


# `reason`: why the reply of a command cannot be equal on two servers as it is. `frame` makes one
# frame comparable that is neither a simple string nor an error, `frames` all of one command's.
Mask = namedtuple("Mask", "reason frame frames", defaults=(None, None))

_CLOCK = "time passes between the two"
_MEMORY = "sizes in the allocator of a process"
_CONNECTIONS = "ids and addresses of connections, and how many there are"
_IDLE = "milliseconds since something happened"
_SEED = "the order of a hash table with a random seed in each server"

# Commands whose replies cannot be equal on two servers. The ones that COMMAND calls
# `nondeterministic_output_order` need no entry: their elements are sorted before comparing.
MASKS = {
    "role": Mask("an offset that moves by the server's own clock", blur_numbers),
    "info": Mask("ports, pids, counters, memory", blur),
    "time": Mask(_CLOCK, blur),
    "lastsave": Mask("the moment of the server's start", blur),
    "ttl": Mask(_CLOCK, blur_positive),
    "pttl": Mask(_CLOCK, blur_positive),
    "expiretime": Mask(_CLOCK, blur_positive),
    "pexpiretime": Mask(_CLOCK, blur_positive),
    "httl": Mask(_CLOCK, blur_positive),
    "hpttl": Mask(_CLOCK, blur_positive),
    "hexpiretime": Mask(_CLOCK, blur_positive),
    "hpexpiretime": Mask(_CLOCK, blur_positive),
    "object|idletime": Mask(_CLOCK, blur),
    "memory|usage": Mask(_MEMORY, blur),
    "memory|stats": Mask(_MEMORY, blur),
    "memory|doctor": Mask(_MEMORY, blur),
    "memory|malloc-stats": Mask(_MEMORY, blur),
    "latency|histogram": Mask(_CLOCK, blur),
    "client|id": Mask(_CONNECTIONS, blur),
    "client|list": Mask(_CONNECTIONS, blur),
    "client|info": Mask(_CONNECTIONS, blur),
    "client|getredir": Mask(_CONNECTIONS, blur_positive),
    "client|trackinginfo": Mask(_CONNECTIONS + " (the redirection's)", blur_positive),
    "acl|whoami": Mask("the user that the proxy logs in as is the point of the proxy", blur),
    "acl|log": Mask("carries times, addresses and the user's name", blur),
    "acl|genpass": Mask("drawn at random", blur),
    "randomkey": Mask("drawn at random", blur),
    "xpending": Mask(_IDLE, blur_numbers),
    "xinfo|consumers": Mask(_IDLE, blur_numbers),
    "xinfo|stream": Mask(_IDLE + "; radix tree sizes", blur_numbers),
    "dump": Mask(_SEED + " (a set's), carried in the payload", blur),
    "function|dump": Mask(_SEED + ", carried in the payload", blur),
    "scan": Mask(_SEED, sort_elements),
    "sscan": Mask(_SEED, sort_elements),
    "hscan": Mask(_SEED, sort_elements),
    "zscan": Mask(_SEED, sort_elements),
    "srandmember": Mask(_SEED + " (asked for all members)", sort_elements),
    "hrandfield": Mask(_SEED + " (asked for all fields)", sort_elements),
    "zrandmember": Mask(_SEED + " (asked for all members)", sort_elements),
    "spop": Mask(_SEED + " (asked for all members)", sort_elements),
    "sort": Mask(_SEED + ", where the weights are equal", sort_elements),
    "sort_ro": Mask(_SEED + ", where the weights are equal", sort_elements),
    "config|get": Mask(_SEED, sort_elements),
    "pubsub|channels": Mask(_SEED, sort_elements),
    "pubsub|shardchannels": Mask(_SEED, sort_elements),
    "acl|list": Mask(_SEED + " (the commands of a user's rules)", blur),
    "acl|cat": Mask(_SEED + " (the table of commands)", sort_elements),
    "script|debug": Mask("an error if an earlier reply is not written yet; so sent by itself"),
    "unsubscribe": Mask(_SEED + " (all channels at once)", frames=sort_unsubscribed),
    "punsubscribe": Mask(_SEED + " (all patterns at once)", frames=sort_unsubscribed),
    "sunsubscribe": Mask(_SEED + " (all channels at once)", frames=sort_unsubscribed),
}

# Names above that only the newer of the servers has.
NEWER = {"httl", "hpttl", "hexpiretime", "hpexpiretime"}

# Only the form without arguments is masked: the order of named channels is the client's own.
MASKED_WITHOUT_ARGUMENTS_ONLY = {"unsubscribe", "punsubscribe", "sunsubscribe"}

UNORDERED = Mask("COMMAND calls it nondeterministic_output_order", sort_elements)

# What HELLO says of the connection, wherever it stands (a list in RESP2, a map in RESP3), and what
# is said of a redirection's connection that is gone.
CONNECTION_ID = re.compile(rb"((?:\$2\r\nid|\$21\r\ntracking-redir-broken)\r\n:)\d+")

# In newer servers this error names the user, and who that is upstream is the proxy's business.
USER_IN_ERROR = re.compile(rb"(?<=NOPERM User )\S+")

# States of a session in which some commands are not sent; pair.py knows when it is in them.
QUEUEING = "inside MULTI"
SILENCED = "behind CLIENT REPLY OFF or SKIP"
SUBSCRIBED = "behind a command that subscribes or unsubscribes"
RELAYED = "behind a command that makes its replies uncountable"
HUSHED = "behind CLIENT REPLY where replies are uncountable"
WAITING = "behind a command that waits, in one burst"
ALWAYS = "in any state"

# Differences that are meant. (A login with another user's real password is never generated: who a
# client is upstream is decided by the proxy.)
DECLARED = {
    ("auth", QUEUEING): "gets an error of the proxy's, which aborts the transaction",
    ("hello", QUEUEING): "as AUTH: it may carry a login, so it is the proxy's to answer",
    ("auth", HUSHED): "refused with the error of AUTH without arguments: its place cannot be known",
    ("hello", HUSHED): "as AUTH, if it is one that the proxy refuses",
    ("client|getname", RELAYED): "the connection has the name of its principal, and the server tells it",
    ("client|getname", QUEUEING): "as where replies are uncountable",
    ("quit", SILENCED): "a server that need not answer does not close either; the proxy does",
}

MULTIPLEXED, DEDICATED = "multiplexed", "dedicated"
BOTH = (MULTIPLEXED, DEDICATED)

ON_REDIS, ON_VALKEY = ([(kind, mode) for mode in BOTH] for kind in ("redis", "valkey"))
EVERYWHERE = ON_REDIS + ON_VALKEY

# A difference that was found, as the shortest scenario that shows it: steps are (session, command,
# command ...). It is run in every run: as on the server, or, on the servers and in the modes of
# `open_in`, strictly different, so that its repair is noticed. While it is open, random scenarios
# leave out `hides`.
Found = namedtuple("Found", "name protocols steps open_in hides", defaults=((), ()))

FOUND = [
    Found(
        "a login on a relayed connection is answered", (2,),
        ((0, "multi"), (0, "subscribe news", "exec"), (0, "auth default x")),
    ),
    Found(
        "a login on a relayed connection that is not subscribed is answered", (2,),
        ((0, "multi"), (0, "subscribe news", "exec"), (0, "unsubscribe"), (0, "auth default x"),
         (0, "auth nosuch x"), (0, "hello 2 auth default x"), (0, "hello 9"), (0, "auth")),
    ),
    Found(
        "a session keeps its connection's id behind RESET", (2, 2),
        ((0, "client tracking on"), (0, "client id"), (0, "reset"), (0, "ping"),
         (1, "client kill id {id:0}"), (0, "ping")),
    ),
    Found(
        "a login on a tracking connection is answered", (2,),
        ((0, "client tracking on"), (0, "auth default x"), (0, "ping")),
    ),
    Found(
        "a refused login on a tracking connection is refused as the server does", (2,),
        ((0, "client tracking on"), (0, "auth nosuch x"), (0, "ping")),
    ),
    Found(
        "a login behind UNSUBSCRIBE is answered", (2,),
        ((0, "unsubscribe"), (0, "auth default x", "auth nosuch x"), (0, "ping")),
    ),
    Found(
        "a wrong HELLO on a tracking connection is refused as the server does", (2,),
        ((0, "client tracking on"), (0, "hello abc", "hello 1")),
    ),
    Found(
        "a login in subscribed state is refused as the server does", (2,),
        ((0, "subscribe news"), (0, "auth x")),
    ),
    Found(
        "a login behind what a subscriber may not send is refused as the server does", (2,),
        ((0, "subscribe news", "get string0"), (0, "auth x")),
    ),
    Found(
        "HELLO takes effect option by option", (2,),
        ((0, "hello 3 setname me auth nosuch x"), (0, "client getname")),
        # Here a HELLO whose login fails changes nothing.
        ON_VALKEY, (("hello 3 setname me auth nosuch x", ALWAYS),),
    ),
    Found(
        "EXEC without MULTI leaves the watch", (2, 2),
        ((0, "watch string0", "exec"), (1, "set string0 7"), (0, "multi", "get string0", "exec")),
    ),
    Found(
        "nobody inherits the watch of a client that is gone", (2, 2, 2),
        ((0, "watch string0", "exec"), (0, "quit"), (1, "set string0 7"),
         (2, "watch string1"), (2, "multi", "get string1", "exec")),
    ),
    Found(
        "nobody waits on behalf of a client that is gone", (2,),
        ((0, "multi"), (0, "exec", "blpop list1 0")),
    ),
    Found(
        "SCRIPT DEBUG on a connection that has just been given a name", (2, 2),
        ((0, "watch a"), (0, "unwatch"), (1, "client setname me"), (1, "script debug no")),
    ),
    Found("RESET takes no arguments", (2,), ((0, "reset extra"), (0, "get string0"))),
    Found(
        "RESET with arguments changes nothing for a subscriber", (2,),
        ((0, "subscribe news"), (0, "reset 1"), (0, "get string0")),
    ),
    Found(
        "RESET without a reply of its own does not wait for one", (2,),
        ((0, "client reply skip", "reset", "get string0"),),
    ),
    Found(
        "what waits before a subscription and QUIT is answered", (2,),
        ((0, "bzpopmin sorted-set1 0.01", "subscribe news", "quit"),),
    ),
    Found(
        "what waits on a tracking connection before QUIT is answered", (2,),
        ((0, "client tracking on", "bzpopmin sorted-set1 0.01", "quit"),),
    ),
    Found(
        "QUIT of a subscriber is answered after a pause", (2, 2),
        ((0, "subscribe news"), (1, "client pause 50"), (0, "quit")),
    ),
    Found(
        "QUIT on a tracking connection is answered after a pause", (2, 2),
        ((0, "client tracking on"), (1, "client pause 50"), (0, "quit")),
    ),
    Found(
        "a push that was not asked for reaches its client", (3,), ((0, "debug protocol push"),),
    ),
]
