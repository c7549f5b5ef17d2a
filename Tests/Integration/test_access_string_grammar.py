"""Access strings that `check` accepts are those that ACL SETUSER accepts, and no others."""

import json
import random
import re
import subprocess

import pytest

from harness.proxy import binary
from harness.resp import Error

# One of everything that the grammar has, right and wrong.
WORDS = """
on off ON nopass resetpass reset allkeys resetkeys allchannels resetchannels allcommands nocommands
sanitize-payload skip-sanitize-payload clearselectors AllKeys onn nokeys alldb clear
~ ~* ~a ~a:* ~a%~b ~[ab]? %R~a %W~a %RW~a %rw~a %WR~ %R %RW % %~ %~a %X~a %RR~a %RWR~a %R~*
& &* &a &a.* &&
+@all -@all +@read -@write +@Dangerous +@nope -@ +@ +@all| +@get
+get -get +GET +gett -gett + - +| +|x +get| +get|x -get|x +get||x +get|x|y ++get +-get +~a
+config -config +config|get -config|get +CONFIG|Set +config|gett -config|gett +config| +config|get|x
-config|get|x +client|kill +client|kill|id +acl|setuser +select|0 -select|0 +select|0|1 +hexpire
( ) () ( ) (~a +get) (+@all -@all) (on) (reset) ((~a)) (~a)) (~a (+get) (+get (%R~a &b -@all +set)
( ~a ) (allkeys) (clearselectors) (+gett) )( (~*~a) get read a=b .
""".split()


def verdicts_of_server(server, strings) -> list:
    """Whether ACL SETUSER takes each of them for a new user, and what it says."""
    answers = []
    with server.admin() as admin:
        for text in strings:
            admin.value("ACL", "DELUSER", "someone")
            answer = admin.value("ACL", "SETUSER", "someone", *text.split())
            answers.append(answer.decode() if isinstance(answer, Error) else None)
        admin.value("ACL", "DELUSER", "someone")
    return answers


def verdicts_of_check(place, strings) -> list:
    """What `check` says against each of them, asked all at once; None where it is content."""
    users = [
        # A line for each, so that the line says whose it is.
        f'  u{number}: {{ upstream: cache, credentials: {{ password_file: /dev/null }},'
        f" access_string: {json.dumps(text)} }}"
        for number, text in enumerate(strings)
    ]
    file = place / "grammar.yaml"
    file.write_text(
        "\n".join(
            ['upstreams: { cache: { address: "cache.example:6379" } }', "users:"]
            + users
            + ['listeners: [{ address: "127.0.0.1:0", identities: [{ any: true, user: u0 }] }]']
        )
        + "\n"
    )
    run = subprocess.run(
        [binary(), "check", "--config", file], capture_output=True, text=True, timeout=60
    )
    found = [None] * len(strings)
    for line, message in re.findall(r"grammar\.yaml:(\d+):\d+: error: (.*)", run.stderr):
        found[int(line) - 3] = message
    assert (run.returncode == 78) == any(found), run.stderr
    return found


def assert_agreement(server, place, strings, origin):
    strings = [text for text in strings if text.split()]
    theirs, ours = verdicts_of_server(server, strings), verdicts_of_check(place, strings)
    disagreements = [
        (text, their, our)
        for text, their, our in zip(strings, theirs, ours)
        if (their is None) != (our is None)
        # What is newer than this server is not wrong for every server.
        and "+hexpire" not in text
    ]
    assert not disagreements, f"{origin}: {disagreements[:20]}"
    return sum(their is None for their in theirs)


def test_every_single_rule_is_judged_as_by_the_server(reference, place):
    accepted = assert_agreement(reference, place, WORDS, "words")
    assert 0 < accepted < len(WORDS)


def test_every_command_and_category_of_the_server_is_known(reference, place):
    with reference.admin() as admin:
        names = [name.decode() for name in admin.value("COMMAND", "LIST")]
        categories = [name.decode() for name in admin.value("ACL", "CAT")]
    assert len(names) > 350 and len(categories) > 20
    strings = [f"{sign}{name}" for name in names for sign in "+-"]
    strings += [f"{sign}@{name}" for name in categories for sign in "+-"]
    assert assert_agreement(reference, place, strings, "names") == len(strings)


def test_sequences_of_rules_are_judged_as_by_the_server(reference, place, full_size):
    seed = random.randrange(1 << 32)
    generator = random.Random(seed)
    # Mostly right words, or hardly any sequence would be accepted.
    right = [word for word, said in zip(WORDS, verdicts_of_server(reference, WORDS)) if not said]
    strings = []
    for _ in range(4000 if full_size else 800):
        length = generator.randint(1, 7)
        words = generator.choices(right, k=length)
        if generator.random() < 0.4:
            words[generator.randrange(length)] = generator.choice(WORDS)
        strings.append(" ".join(words))
    accepted = assert_agreement(reference, place, strings, f"seed {seed}")
    assert len(strings) / 10 < accepted < len(strings)


@pytest.mark.parametrize(
    "text",
    ["on ~a:* %R~b:* &c:* -@all +@read +@connection +config|get -get (~d:* +set) (%W~e +@write)"],
)
def test_what_the_server_makes_of_an_access_string_is_accepted_again(reference, place, text):
    with reference.admin() as admin:
        admin.value("ACL", "SETUSER", "someone", "reset", *text.split())
        line = next(
            entry for entry in admin.value("ACL", "LIST") if entry.startswith(b"user someone ")
        )
        admin.value("ACL", "DELUSER", "someone")
    assert verdicts_of_check(place, [line.decode().split(" ", 2)[2]]) == [None]
