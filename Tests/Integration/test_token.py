"""`redis-auth-proxy token`: what it prints is what botocore would have signed."""

import calendar
import datetime
import json
import os
import subprocess
import time
from urllib.parse import parse_qsl, unquote

import botocore.auth
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from harness.iam import AccessKey, Cache, mint
from harness.proxy import binary

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION = AccessKey("ASIAEXAMPLE", "aB3/+xYz09//==qWeRtYuIoPaSdFgHjKlZxCvBnM", "IQoJ+/==%x&y z")


def environment(key: AccessKey = None, **variables) -> dict:
    """This process's, with AWS's variables from here alone."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("AWS_")}
    kept |= {"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"}
    if key:
        kept |= {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.secret}
        if key.session_token:
            kept["AWS_SESSION_TOKEN"] = key.session_token
    return kept | {n: v for n, v in variables.items() if v is not None}


def run(*arguments, key=KEY, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        [binary(), "token", *arguments], env=environment(key, **variables), capture_output=True,
        text=True, timeout=60, stdin=subprocess.DEVNULL,
    )


def token(*arguments, key=KEY, **variables) -> str:
    done = run(*arguments, key=key, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n") and done.stdout.count("\n") == 1
    return done.stdout[:-1]


def parts(token: str) -> tuple:
    """Host and pairs; their order means nothing."""
    host, query = token.split("/?", 1)
    return host, sorted(query.split("&"))


def moment(token: str) -> int:
    date = dict(parse_qsl(token.split("?", 1)[1]))["X-Amz-Date"]
    return calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))


@pytest.mark.parametrize("key", [KEY, SESSION], ids=["long-lived key", "session"])
@pytest.mark.parametrize(
    "flags, cache",
    [
        ((), Cache("my-cache")),
        (("--serverless",), Cache("my-cache", is_serverless=True)),
        (("--service", "memorydb"), Cache("my-cache", service="memorydb")),
        (("--region", "cn-north-1"), Cache("my-cache", region="cn-north-1")),
    ],
    ids=["node based", "serverless", "MemoryDB", "China"],
)
def test_a_cache_token_is_what_botocore_signs(flags, cache, key):
    region = () if "--region" in flags else ("--region", cache.region)
    printed = token("--cache-name", "My-Cache", "--user", "App-1", *region, *flags, key=key)
    wanted = mint(key, cache, "app-1", at=moment(printed))
    assert parts(printed) == parts(wanted)
    assert abs(moment(printed) - time.time()) < 60


def test_a_database_token_is_what_botocore_signs():
    printed = token(
        "--service", "rds-db", "--host", "DB.example", "--port", "5432", "--user", "App",
        "--region", "eu-west-1", key=SESSION,
    )
    assert printed.startswith("db.example:5432/?")
    pairs = dict(parse_qsl(printed.split("?", 1)[1]))
    assert pairs["Action"] == "connect" and pairs["DBUser"] == "App"
    assert unquote(pairs["X-Amz-Credential"]).endswith("/eu-west-1/rds-db/aws4_request")
    at = datetime.datetime.fromtimestamp(moment(printed), datetime.timezone.utc)
    request = AWSRequest(
        "GET", "https://db.example:5432/", params={"Action": "connect", "DBUser": "App"}
    )
    clock = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *_, **__: at.replace(tzinfo=None)
    try:
        SigV4QueryAuth(
            Credentials(SESSION.id, SESSION.secret, SESSION.session_token), "rds-db", "eu-west-1",
            900,
        ).add_auth(request)
    finally:
        botocore.auth.get_current_datetime = clock
    assert parts(printed) == parts(request.url.removeprefix("https://"))


def test_environment_lines_are_for_a_shell():
    done = run(
        "--cache-name", "c", "--user", "u", "--region", "us-east-1", "--format", "env", key=SESSION
    )
    shown = subprocess.run(
        ["sh", "-c", done.stdout + 'printf %s "$REDISCLI_AUTH"'], capture_output=True, text=True
    ).stdout
    assert parts(shown) == parts(mint(SESSION, Cache("c"), "u", at=moment(shown)))


def test_json_says_until_when():
    done = run("--cache-name", "c", "--user", "u", "--region", "us-east-1", "--format", "json")
    printed = json.loads(done.stdout)
    ends = calendar.timegm(time.strptime(printed["expires_at"], "%Y-%m-%dT%H:%M:%SZ"))
    assert ends == moment(printed["token"]) + 900
    assert (printed["service"], printed["host"], printed["user"], printed["region"]) == (
        "elasticache", "c", "u", "us-east-1",
    )


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (("--user", "u"), 64, "--cache-name"),
        (("--service", "rds-db", "--user", "u"), 64, "--host"),
        (("--cache-name", "c", "--user", "u", "--host", "h"), 64, "rds-db"),
        (("--service", "memorydb", "--cache-name", "c", "--user", "u", "--serverless"), 64,
         "--serverless"),
        (("--cache-name", "c.abc.cache.amazonaws.com", "--user", "u", "--region", "r"), 78,
         "looks like an endpoint"),
        (("--cache-name", "c", "--user", "a b", "--region", "us-east-1"), 78, "user"),
        (("--cache-name", "c", "--user", "u", "--region", "US"), 78, "us-east-1"),
        (("--cache-name", "c", "--user", "u"), 78, "no region: set AWS_REGION"),
    ],
)
def test_what_cannot_be_signed_is_refused(arguments, code, said):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert KEY.secret not in done.stderr
