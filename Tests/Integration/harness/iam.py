"""IAM tokens of ElastiCache and MemoryDB: made, and judged, with botocore.

A token is a presigned URL without its scheme; who checks it computes it again from what should
have been signed and compares. What is wrong with one is found out before that, because a signature
that differs says nothing of the reason, and tests want to know it.
"""

import datetime
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

import botocore.auth
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

TOKEN_EXPIRES_SECONDS = 900
# How far ahead of the server's clock the signer's may be.
ALLOWED_SKEW_SECONDS = 300
DATE_FORMAT = "%Y%m%dT%H%M%SZ"

ACCEPTED = "accepted"

# For a proxy that shall find nothing of this machine's own settings.
NO_AWS = {
    "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class AccessKey:
    """What AWS gives a program to sign with; `expires_at` is in seconds since 1970."""

    id: str
    secret: str
    session_token: str = None
    expires_at: float = None

    def environment(self) -> dict:
        """For a proxy that shall sign with this key."""
        keys = {"AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret}
        if self.session_token is not None:
            keys["AWS_SESSION_TOKEN"] = self.session_token
        return NO_AWS | keys


@dataclass(frozen=True)
class Cache:
    """What the tokens of one cache must be signed for."""

    name: str
    region: str = "us-east-1"
    service: str = "elasticache"
    is_serverless: bool = False


def mint(key: AccessKey, cache: Cache, user: str, at: float = None, **changed) -> str:
    """A token of the moment `at`; `changed` is signed instead of what is right (name, region,
    service, is_serverless, expires)."""
    expires = changed.pop("expires", TOKEN_EXPIRES_SECONDS)
    cache = Cache(**(vars(cache) | changed))
    moment = datetime.datetime.fromtimestamp(
        int(time.time() if at is None else at), datetime.timezone.utc
    ).replace(tzinfo=None)
    parameters = {"Action": "connect", "User": user}
    if cache.is_serverless:
        parameters["ResourceType"] = "ServerlessCache"
    request = AWSRequest("GET", f"https://{cache.name}/", params=parameters)
    signer = SigV4QueryAuth(
        Credentials(key.id, key.secret, key.session_token), cache.service, cache.region, expires
    )
    # There is no other way to tell botocore the time.
    clock = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *_, **__: moment
    try:
        signer.add_auth(request)
    finally:
        botocore.auth.get_current_datetime = clock
    return request.url.removeprefix("https://")


@dataclass
class Judge:
    """The server's side: which keys it knows, for how long a token is good.

    `token_seconds` may be far below the 900 that are signed, down to the grain of one second that
    X-Amz-Date has: then it is this clock that runs fast, and the tokens are as they always are.
    """

    cache: Cache
    token_seconds: float = TOKEN_EXPIRES_SECONDS
    clock_offset_seconds: float = 0.0
    keys: dict = field(default_factory=dict)

    def trust(self, key: AccessKey) -> None:
        self.keys[key.id] = key

    def verdict(self, token: str, user: str) -> str:
        """ACCEPTED, or what is wrong."""
        now = time.time() + self.clock_offset_seconds
        host, separator, query = token.partition("/?")
        if not separator:
            return "no presigned URL"
        if host != host.lower():
            return "cache name not in lower case"
        if host != self.cache.name:
            return f"signed for the cache {host}"
        pairs = _pairs(query)
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            return "a parameter twice"
        given = dict(pairs)
        wanted = {"Action": "connect", "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                  "X-Amz-SignedHeaders": "host", "X-Amz-Expires": str(TOKEN_EXPIRES_SECONDS)}
        for name, value in wanted.items():
            if given.get(name) != value:
                return f"{name} is {given.get(name)}"
        if given.get("User") != user or user != user.lower():
            return f"signed for the user {given.get('User')}"
        resource = "ServerlessCache" if self.cache.is_serverless else None
        if given.get("ResourceType") != resource:
            return f"ResourceType is {given.get('ResourceType')}"
        return self._verdict_on_signature(given, pairs, user, now)

    def _verdict_on_signature(self, given: dict, pairs, user: str, now: float) -> str:
        date = given.get("X-Amz-Date", "")
        scope = given.get("X-Amz-Credential", "").split("/")
        if len(scope) != 5:
            return "no credential scope"
        key_id, day, region, service, end = scope
        if (day, end) != (date[:8], "aws4_request"):
            return f"scope is of {day}, {end}"
        if region != self.cache.region:
            return f"signed for the region {region}"
        if service != self.cache.service:
            return f"signed for the service {service}"
        key = self.keys.get(key_id)
        if key is None:
            return "unknown access key"
        if given.get("X-Amz-Security-Token") != key.session_token:
            return "not this access key's session token"
        try:
            signed_at = datetime.datetime.strptime(date, DATE_FORMAT)
        except ValueError:
            return f"X-Amz-Date is {date}"
        signed_at = signed_at.replace(tzinfo=datetime.timezone.utc).timestamp()
        # Everything is looked at before the times, so that a late token is late and no more.
        again = mint(key, self.cache, user, signed_at)
        if sorted(_pairs(again.partition("/?")[2])) != sorted(pairs):
            return "wrong signature"
        if signed_at > now + ALLOWED_SKEW_SECONDS:
            return "signed in the future"
        if now > signed_at + self.token_seconds:
            return "expired token"
        if key.expires_at is not None and now > key.expires_at:
            return "expired access key"
        return ACCEPTED


def _pairs(query: str) -> list:
    """Names and values, decoded as a URL's are: `+` is no space here."""
    split = (pair.partition("=")[::2] for pair in query.split("&"))
    return [(unquote(name), unquote(value)) for name, value in split]
