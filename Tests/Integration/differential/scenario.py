"""What several sessions do, one after the other: a list of steps that can be printed and shortened.

A step is a burst of commands that one session sends at once. All its replies are awaited, on both
sides, before the next session's step: so that the commands of all sessions run in the same order on
both servers. Half of the commands are of any kind; the other half are those that change what a
session is, so that transactions, subscriptions, protocols and waits overlap with everything else.
"""

from dataclasses import dataclass, field, replace
from random import Random

from .commands import Generator, Grammar

# What a burst ends with, besides staying.
STAY, CLOSE, ABORT, HALF_CLOSE = "stay", "close", "abort", "half-close"

LONGEST_BURST = 8
LONG_BURST = 120

# Commands that make a session special, and those that make it plain again, with their weights.
STATEFUL = {
    "multi": 8, "exec": 10, "discard": 2, "watch": 4, "unwatch": 1, "select": 4, "hello": 5,
    "reset": 2, "subscribe": 4, "psubscribe": 2, "ssubscribe": 2, "unsubscribe": 4,
    "punsubscribe": 2, "sunsubscribe": 2, "publish": 8, "spublish": 3, "client|reply": 2,
    "client|setname": 2, "client|getname": 3, "client|id": 3, "client|tracking": 3,
    "client|caching": 1, "client|unblock": 2, "client|kill": 1, "auth": 3, "quit": 1, "blpop": 4,
    "brpop": 1, "blmove": 2, "bzpopmin": 2, "bzmpop": 1, "xread": 3, "xreadgroup": 2, "wait": 2,
    "eval": 3, "evalsha": 2, "script|load": 2, "function|load": 2, "fcall": 2, "rpush": 8, "set": 8,
    "get": 8, "ping": 5, "zadd": 4, "xadd": 4, "debug": 4, "flushall": 1, "swapdb": 1, "hset": 3,
    "sadd": 3, "config|set": 1, "incr": 3, "lrange": 2,
}

STATEFUL_AND_NEWER = {
    "client|setinfo": 3, "client|no-touch": 2, "client|capa": 1, "waitaof": 2, "hsetex": 2,
    "hgetex": 1,
}

# Commands that say something about data; what transactions of recipes are made of.
DATA = [
    "set", "get", "incr", "append", "rpush", "lpop", "lrange", "llen", "hset", "hget", "hmget",
    "sadd", "sismember", "zadd", "zrange", "zscore", "exists", "type", "del", "mget", "setbit",
    "bitcount", "pfadd", "xlen", "xrange", "getset", "strlen", "blpop", "xread", "wait", "publish",
]


@dataclass
class Step:
    session: int
    commands: list
    ending: str = STAY
    # Sent to the proxy in two parts, the first of this share of the bytes.
    cut: float = 1.0


@dataclass
class Scenario:
    name: str
    protocols: list
    steps: list = field(default_factory=list)

    def with_steps(self, steps) -> "Scenario":
        return replace(self, steps=list(steps))

    def describe(self) -> str:
        lines = [f"{self.name}: sessions speak RESP" + ", RESP".join(map(str, self.protocols))]
        for step in self.steps:
            more = [
                *([step.ending] if step.ending != STAY else []),
                *([f"cut at {step.cut:.0%}"] if step.cut < 1 else []),
            ]
            shown = "  ".join(describe_command(command) for command in step.commands[:40])
            if len(step.commands) > 40:
                shown += f"  … {len(step.commands)} commands"
            lines.append(f"  {step.session}: {shown}" + (f"   ({', '.join(more)})" if more else ""))
        return "\n".join(lines)


def from_words(name: str, protocols, steps) -> Scenario:
    """A scenario written by hand, see tables.FOUND."""
    made = [Step(session, [text.split(" ") for text in texts]) for session, *texts in steps]
    return Scenario(name, list(protocols), made)


def describe_command(command) -> str:
    words = []
    for word in command:
        text = word.decode("latin-1") if isinstance(word, bytes) else word
        plain = text and text.isprintable() and not set(text) & set(" '\"")
        words.append(text if plain else repr(word))
    return "[" + " ".join(words) + "]"


def generate(grammar: Grammar, seed: str, sessions: int, steps: int) -> Scenario:
    """The scenario of a seed; always the same one for the same server."""
    dice = Random(seed)
    generator = Generator(grammar, dice)
    scenario = Scenario(seed, [dice.choice([2, 3]) for _ in range(sessions)])
    # Broadcast invalidations are sent once per turn of the server's loop, so they depend on how
    # many commands arrive together. They have scenarios of their own, with one command at a time.
    broadcasts = dice.random() < 0.15
    stateful = STATEFUL | {
        name: weight for name, weight in STATEFUL_AND_NEWER.items() if name in grammar.entries
    }
    names, weights = list(stateful), list(stateful.values())
    in_transaction = [False] * sessions
    planned = [[] for _ in range(sessions)]
    for _ in range(steps):
        session = dice.randrange(sessions)
        if dice.random() < 0.2:
            _plan(generator, dice, planned)
        length = 1
        if not broadcasts and dice.random() < 0.45:
            length = dice.randint(2, LONGEST_BURST)
            if dice.random() < 0.03:
                length = LONG_BURST
        commands = []
        while len(commands) < length:
            if planned[session] and dice.random() < 0.9:
                command = planned[session].pop(0)
            elif in_transaction[session] and dice.random() < 0.25:
                command = ["exec"]
            elif dice.random() < 0.5:
                command = generator.named(dice.choices(names, weights)[0])
            else:
                command = generator.anything()
            words = {word.lower() if isinstance(word, str) else word for word in command}
            if not broadcasts and {"tracking", "bcast"} <= words:
                continue
            first = command[0].lower() if isinstance(command[0], str) else ""
            if first == "multi":
                in_transaction[session] = True
            elif first in ("exec", "discard", "reset", "quit"):
                in_transaction[session] = False
            commands.append(command)
        step = Step(session, commands)
        if dice.random() < 0.15:
            step.cut = dice.random()
        draw = dice.random()
        if draw < 0.03:
            step.ending = dice.choice([CLOSE, ABORT, HALF_CLOSE])
            in_transaction[session] = False
        scenario.steps.append(step)
    return scenario


# What one or two sessions do that chance alone would seldom complete: the first's commands, then
# the second's. KEY is a string's, DATA any command on data, OPTION one of CLIENT TRACKING's.
RECIPES = """
multi; DATA; DATA; DATA; exec |
watch KEY; get KEY; multi; incr KEY; exec | set KEY 5
watch KEY; get KEY; multi; incr KEY; exec | set string2 5
subscribe news sport; ping; get KEY; ping x; unsubscribe; get KEY | publish news 1; publish sport 2
ssubscribe news sport; ping; get KEY; sunsubscribe; get KEY | spublish news 1; spublish sport 2
psubscribe n* s*; subscribe news; punsubscribe n*; unsubscribe; punsubscribe; get KEY |\
 multi; publish news x; publish sport y; exec
hello 3; client tracking on OPTION; client caching yes; get KEY; mget KEY string2; incr KEY;\
 client tracking off; get KEY | set KEY 7; del string2
blpop list1 list2 0; get KEY | rpush list2 a b; lrange list2 0 -1
brpop list1 list2 0; get KEY | rpush list2 a b; lrange list2 0 -1
bzpopmin sorted-set2 0; get KEY | zadd sorted-set2 1 a 2 b; zcard sorted-set2
xread block 20 streams stream2 $; get KEY | xadd stream2 7-* f v
select 1; set KEY there; client setname me; subscribe news; quit; get KEY; client getname |
config set notify-keyspace-events KEA; psubscribe __key*; punsubscribe |\
 set KEY 1; rpush list0 x; del KEY list0
""".replace("\\\n", "").strip().split("\n")


def _plan(generator: Generator, dice: Random, planned: list) -> None:
    """Lets one or two sessions follow a recipe from here on, between whatever else they do."""
    recipe = dice.choice(RECIPES)
    recipe = recipe.replace("KEY", f"string{dice.randrange(2)}")
    recipe = recipe.replace("OPTION", dice.choice(["", "noloop", "optin", "optout"]))
    sessions = dice.sample(range(len(planned)), 2)
    for session, commands in zip(sessions, recipe.split("|")):
        for command in commands.split(";"):
            words = command.split()
            if words == ["DATA"]:
                words = generator.tame(dice.choice(DATA))
            planned[session] += [words] if words else []
