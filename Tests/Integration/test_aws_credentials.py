"""Where AWS credentials come from: each provider against real HTTP servers, errors included.

`redis-auth-proxy token` asks the whole chain; whose key signed the token says who answered, and
the signature, recomputed, that secret and session token came with it.
"""

import hashlib
import json
import os
import time

import pytest

from harness.http import Server, iso8601
from harness.iam import AccessKey, Cache, mint
from test_token import moment, parts, run

CACHE = Cache("c")
ARGUMENTS = ("--cache-name", "c", "--user", "u", "--region", "us-east-1")

OWN = AccessKey("AKIAOWN", "own secret/+=")
ROLE = AccessKey("ASIAROLE", "role secret/+=", "role token/+==")
OTHER = AccessKey("ASIAOTHER", "other secret", "other token")


def signed_by(key: AccessKey, **variables) -> None:
    done = run(*ARGUMENTS, key=None, **variables)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.rstrip("\n")
    assert parts(printed) == parts(mint(key, CACHE, "u", at=moment(printed)))


def refused(*said, code=None, **variables):
    done = run(*ARGUMENTS, key=None, **variables)
    assert done.returncode in ((69, 78) if code is None else (code,)), done.stderr
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr, done.stderr
    for key in (OWN, ROLE, OTHER):
        assert key.secret not in done.stderr
        assert not key.session_token or key.session_token not in done.stderr
    return done.stderr


def as_json(key: AccessKey, token="Token", seconds=3600, **more) -> dict:
    return {
        "AccessKeyId": key.id, "SecretAccessKey": key.secret, token: key.session_token,
        "Expiration": iso8601(time.time() + seconds),
    } | more


def static(key: AccessKey) -> dict:
    variables = {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.secret}
    return variables | ({"AWS_SESSION_TOKEN": key.session_token} if key.session_token else {})


def sts(key: AccessKey) -> Server:
    """STS as far as it gives credentials, with the same ones to everybody."""
    return Server(lambda _: role_answer(key))


def role_answer(key: AccessKey):
    return 200, f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
        <AssumeRoleResult><AssumedRoleUser><Arn>arn:x</Arn></AssumedRoleUser><Credentials>
        <AccessKeyId>{key.id}</AccessKeyId><SecretAccessKey>{key.secret}</SecretAccessKey>
        <SessionToken>{key.session_token}</SessionToken>
        <Expiration>{iso8601(time.time() + 3600)}</Expiration></Credentials>
        </AssumeRoleResult></AssumeRoleResponse>"""


def sts_error(code: str, status: int, **headers):
    return status, (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>because</Message>"
        "</Error></ErrorResponse>"
    ), headers


@pytest.fixture
def files(tmp_path):
    """Writes the shared files and returns the variables that name them."""

    def write(config="", credentials="") -> dict:
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(credentials)
        return {
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            "HOME": str(tmp_path),
        }

    return write


KEYS = "aws_access_key_id = {0.id}\naws_secret_access_key = {0.secret}\n"


class TestOrder:
    def test_the_environment_comes_first(self, files):
        variables = files(credentials="[default]\n" + KEYS.format(OTHER))
        signed_by(ROLE, **static(ROLE), **variables)

    def test_a_profile_comes_before_web_identity(self, files):
        variables = files(credentials="[default]\n" + KEYS.format(OWN))
        signed_by(
            OWN, **variables, AWS_WEB_IDENTITY_TOKEN_FILE="/nonexistent", AWS_ROLE_ARN="arn:x"
        )

    def test_a_profile_without_credentials_is_passed_over(self, files, tmp_path):
        (tmp_path / "jwt").write_text("jwt")
        with sts(ROLE) as server:
            signed_by(
                ROLE, **files(config="[default]\nregion = us-east-1\n"),
                AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "jwt"), AWS_ROLE_ARN="arn:x",
                AWS_ENDPOINT_URL_STS=server.url,
            )

    def test_web_identity_comes_before_a_container(self, tmp_path):
        refused(
            "web identity: wanted a token", AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "none"),
            AWS_ROLE_ARN="arn:x", AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:1/",
        )

    def test_half_a_key_is_an_error_and_not_passed_over(self, files):
        variables = files(credentials="[default]\n" + KEYS.format(OTHER))
        refused("AWS_SECRET_ACCESS_KEY", **variables, AWS_ACCESS_KEY_ID="AKIA")

    def test_blank_variables_say_nothing(self, files):
        variables = files(credentials="[default]\n" + KEYS.format(OWN))
        signed_by(OWN, **variables, AWS_ACCESS_KEY_ID=" ", AWS_SECRET_ACCESS_KEY="")

    def test_where_there_are_none_every_place_is_named(self):
        said = refused("no AWS credentials")
        for place in ("environment", "profile default", "web identity", "container",
                      "AWS_EC2_METADATA_DISABLED"):
            assert place in said


class TestProfiles:
    def test_the_profile_is_named_by_a_variable(self, files):
        variables = files(credentials="[default]\n" + KEYS.format(OTHER) + "[a]\n" + KEYS.format(OWN))
        signed_by(OWN, **variables, AWS_PROFILE="a")

    def test_a_profile_that_is_not_there(self, files):
        refused('wanted "gone"', "only default",
                **files(credentials="[default]\n" + KEYS.format(OWN)), AWS_PROFILE="gone")

    def test_a_role_with_a_source_profile(self, files):
        config = (
            "[profile a]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n"
            "external_id = e x\nrole_session_name = me@example\nduration_seconds = 900\n"
        )
        with sts(ROLE) as server:
            signed_by(
                ROLE, **files(config, "[base]\n" + KEYS.format(OWN)), AWS_PROFILE="a",
                AWS_ENDPOINT_URL_STS=server.url, AWS_REGION="eu-west-1",
            )
        [request] = server.requests
        assert request.form == {
            "Action": "AssumeRole", "Version": "2011-06-15",
            "RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "me@example",
            "ExternalId": "e x", "DurationSeconds": "900",
        }
        scope = request.headers["authorization"].split("Credential=")[1].split(",")[0]
        assert scope.startswith("AKIAOWN/") and scope.endswith("/eu-west-1/sts/aws4_request")

    def test_a_chain_of_roles(self, files):
        config = (
            "[profile a]\nrole_arn = arn:two\nsource_profile = b\n"
            "[profile b]\nrole_arn = arn:one\ncredential_source = Environment\n"
        )
        answers = {"arn:one": OTHER, "arn:two": ROLE}

        with Server(lambda request: role_answer(answers[request.form["RoleArn"]])) as server:
            refused("Environment", **files(config), AWS_PROFILE="a",
                    AWS_ENDPOINT_URL_STS=server.url)
            config = config.replace("credential_source = Environment", "source_profile = c")
            signed_by(ROLE, **files(config, "[c]\n" + KEYS.format(OWN)), AWS_PROFILE="a",
                      AWS_ENDPOINT_URL_STS=server.url)
        assert [r.form["RoleArn"] for r in server.requests] == ["arn:one", "arn:two"]
        assert server.requests[1].headers["x-amz-security-token"] == OTHER.session_token

    @pytest.mark.parametrize(
        "profile, said",
        [
            ("role_arn = r\n", "got none"),
            ("role_arn = r\nsource_profile = b\ncredential_source = Environment\n", "got both"),
            ("role_arn = r\nsource_profile = b\n", "profile b: wanted it in"),
            ("role_arn = r\nsource_profile = a\n", "keys of its own"),
            ("role_arn = r\nsource_profile = b\n[profile b]\nrole_arn=s\nsource_profile=a\n",
             "leads back"),
            ("role_arn = r\nsource_profile = b\nmfa_serial = m\n", "mfa_serial"),
            ("role_arn = r\ncredential_source = Elsewhere\n", "Elsewhere"),
            ("role_arn = r\nsource_profile = b\nduration_seconds = x\n", "duration_seconds"),
            ("aws_access_key_id = x\n", "together"),
            ("credential_process = 'x\n", "quote"),
            ("sso_start_url = x\n", "sso_account_id"),
        ],
    )
    def test_a_profile_that_is_wrong(self, files, profile, said):
        refused(said, **files("[profile a]\n" + profile), AWS_PROFILE="a")

    def test_a_role_by_web_identity(self, files, tmp_path):
        (tmp_path / "jwt").write_text("a.b.c\n")
        config = f"[profile a]\nrole_arn = arn:r\nweb_identity_token_file = {tmp_path}/jwt\n"
        with sts(ROLE) as server:
            signed_by(ROLE, **files(config), AWS_PROFILE="a", AWS_ENDPOINT_URL_STS=server.url)
        [request] = server.requests
        assert request.form["WebIdentityToken"] == "a.b.c"
        assert request.form["RoleSessionName"] == "redis-auth-proxy"
        assert "authorization" not in request.headers


class TestProcess:
    def script(self, tmp_path, text: str) -> str:
        path = tmp_path / "a program"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return f"[profile a]\ncredential_process = '{path}' one \"two three\"\n"

    def test_what_it_prints_is_used(self, files, tmp_path):
        printed = json.dumps(as_json(ROLE, "SessionToken", Version=1))
        config = self.script(
            tmp_path, f"echo noise >&2\n[ \"$2\" = 'two three' ] && cat <<'E'\n{printed}\nE\n"
        )
        signed_by(ROLE, **files(config), AWS_PROFILE="a")

    @pytest.mark.parametrize(
        "text, said",
        [
            ("echo own secret/+= >&2; exit 3", "ended with 3"),
            ("echo '{'", "Version 1"),
            ('echo \'{"Version": 2}\'', "Version 1"),
            ('echo \'{"Version": 1, "AccessKeyId": "x"}\'', "not both"),
            ("kill -9 $$", "killed"),
            ("head -c 200000 /dev/zero", "more than"),
        ],
    )
    def test_what_it_must_not_do(self, files, tmp_path, text, said):
        refused(said, **files(self.script(tmp_path, text)), AWS_PROFILE="a")

    def test_a_program_that_is_not_there(self, files):
        refused(
            "cannot be started", **files("[profile a]\ncredential_process = /nonexistent\n"),
            AWS_PROFILE="a",
        )


class TestSingleSignOn:
    CONFIG = (
        "[profile a]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = r/x\n"
        "[sso-session corp]\nsso_start_url = https://corp.example\nsso_region = us-east-1\n"
    )

    def cache(self, tmp_path, **token):
        folder = tmp_path / ".aws/sso/cache"
        folder.mkdir(parents=True)
        file = folder / (hashlib.sha1(b"corp").hexdigest() + ".json")
        file.write_text(json.dumps({"accessToken": "bearer"} | token))
        return file

    def answer(self, request):
        if request.path == "/token":
            return 200, {"accessToken": "renewed", "expiresIn": 3600, "refreshToken": "next"}
        if request.headers["x-amz-sso_bearer_token"] not in ("bearer", "renewed"):
            return 401, {"__type": "UnauthorizedException", "message": "no"}
        return 200, {"roleCredentials": {
            "accessKeyId": ROLE.id, "secretAccessKey": ROLE.secret,
            "sessionToken": ROLE.session_token, "expiration": int(time.time() + 3600) * 1000,
        }}

    def test_a_cached_token_gives_a_credential(self, files, tmp_path):
        self.cache(tmp_path, expiresAt=iso8601(time.time() + 3600))
        with Server(self.answer) as server:
            signed_by(ROLE, **files(self.CONFIG), AWS_PROFILE="a", AWS_ENDPOINT_URL=server.url)
        assert server.paths() == ["GET /federation/credentials"]
        assert server.requests[0].query == {"role_name": "r/x", "account_id": "123456789012"}

    def test_a_token_near_its_end_is_renewed_and_kept(self, files, tmp_path):
        file = self.cache(
            tmp_path, expiresAt=iso8601(time.time() + 60), refreshToken="refresh", clientId="id",
            clientSecret="cs",
        )
        with Server(self.answer) as server:
            signed_by(ROLE, **files(self.CONFIG), AWS_PROFILE="a", AWS_ENDPOINT_URL=server.url)
        assert server.paths() == ["POST /token", "GET /federation/credentials"]
        assert server.requests[1].headers["x-amz-sso_bearer_token"] == "renewed"
        kept = json.loads(file.read_text())
        assert (kept["accessToken"], kept["refreshToken"]) == ("renewed", "next")
        assert os.stat(file).st_mode & 0o777 == 0o600

    def test_a_token_that_has_expired(self, files, tmp_path):
        self.cache(tmp_path, expiresAt=iso8601(time.time() - 60))
        refused("aws sso login", **files(self.CONFIG), AWS_PROFILE="a")

    def test_no_token(self, files):
        refused("aws sso login", **files(self.CONFIG), AWS_PROFILE="a")


class TestContainer:
    def test_the_token_of_pod_identity_is_sent_as_it_is_in_its_file(self, tmp_path):
        (tmp_path / "token").write_text("eyJ.pod\n")
        with Server(lambda _: (200, as_json(ROLE))) as server:
            signed_by(
                ROLE, AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url + "/v1/credentials",
                AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(tmp_path / "token"),
                AWS_CONTAINER_AUTHORIZATION_TOKEN="not this one",
            )
        assert server.paths() == ["GET /v1/credentials"]
        assert server.requests[0].headers["authorization"] == "eyJ.pod"

    def test_a_token_in_a_variable(self):
        with Server(lambda _: (200, as_json(ROLE))) as server:
            signed_by(
                ROLE, AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url + "/x",
                AWS_CONTAINER_AUTHORIZATION_TOKEN="Basic abc",
            )
        assert server.requests[0].headers["authorization"] == "Basic abc"

    def test_proxies_of_the_environment_are_not_asked(self):
        with Server(lambda _: (200, as_json(ROLE))) as server:
            signed_by(
                ROLE, AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url + "/x",
                http_proxy="http://127.0.0.1:1", all_proxy="http://127.0.0.1:1",
            )

    def test_what_fails_is_tried_three_times(self):
        answers = iter([(500, ""), (200, "{"), (200, as_json(ROLE))])
        with Server(lambda _: next(answers)) as server:
            signed_by(ROLE, AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url + "/x")
        assert len(server.requests) == 3

    @pytest.mark.parametrize(
        "answer, said",
        [
            ((404, "no"), "HTTP 404"),
            ((302, "", {"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
            ((200, "{"), "JSON"),
            ((200, "[]"), "JSON"),
            ((200, {"AccessKeyId": "x"}), "not both"),
            ((200, as_json(ROLE, Expiration="soon")), "Expiration"),
            (None, "Timeout"),
            ((200, "x" * 2_000_000), "longer than"),
        ],
    )
    def test_an_answer_that_is_none(self, answer, said):
        with Server(lambda _: answer) as server:
            refused(said, AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url + "/x", code=69)
        assert len(server.requests) == 3

    @pytest.mark.parametrize(
        "url", ["http://evil.example/", "http://169.254.169.254/", "http://127.0.0.1@evil.example/"]
    )
    def test_a_host_that_must_not_be_asked(self, url):
        refused("AWS_CONTAINER_CREDENTIALS_FULL_URI: wanted", code=78,
                AWS_CONTAINER_CREDENTIALS_FULL_URI=url)

    def test_a_line_break_in_the_token_is_sent_to_nobody(self, tmp_path):
        (tmp_path / "token").write_text("a\r\nX-Injected: yes")
        with Server(lambda _: (200, as_json(ROLE))) as server:
            refused(
                "line break", AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url + "/x",
                AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(tmp_path / "token"),
            )
        assert server.requests == []

    def test_a_token_file_that_is_not_there(self, tmp_path):
        refused(
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:1/x",
            AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(tmp_path / "none"),
        )


class Instance:
    """Instance metadata, version 2."""

    def __init__(self, knows_extended=True, credential=None, **changes):
        self.knows_extended = knows_extended
        self.credential = credential or as_json(ROLE, Code="Success")
        self.changes = changes

    def __call__(self, request):
        if request.path in self.changes:
            return self.changes[request.path]
        if request.path == "/latest/api/token":
            if request.method != "PUT" or "x-aws-ec2-metadata-token-ttl-seconds" not in (
                request.headers
            ):
                return 400, ""
            return 200, "imds-token"
        if request.headers.get("x-aws-ec2-metadata-token") != "imds-token":
            return 401, ""
        base = "/latest/meta-data/iam/security-credentials"
        if request.path == "/latest/meta-data/placement/region":
            return 200, "us-east-1"
        for folder, is_known in ((f"{base}-extended/", self.knows_extended), (f"{base}/", True)):
            if is_known and request.path == folder:
                return 200, "my-role"
            if is_known and request.path == folder + "my-role":
                return 200, self.credential
        return 404, ""


class TestInstance:
    def variables(self, server):
        return {
            "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
        }

    def test_the_extended_path_is_asked_first(self):
        with Server(Instance()) as server:
            signed_by(ROLE, **self.variables(server))
        folder = "/latest/meta-data/iam/security-credentials-extended/"
        assert server.paths() == [
            "PUT /latest/api/token", f"GET {folder}", f"GET {folder}my-role"
        ]

    def test_an_instance_without_the_extended_path(self):
        with Server(Instance(knows_extended=False)) as server:
            signed_by(ROLE, **self.variables(server))
        assert server.paths()[-1] == "GET /latest/meta-data/iam/security-credentials/my-role"

    def test_the_region_is_the_instances_own(self):
        with Server(Instance()) as server:
            done = run("--cache-name", "c", "--user", "u", key=None, **self.variables(server))
        assert done.returncode == 0, done.stderr
        assert "%2Fus-east-1%2Felasticache" in done.stdout

    @pytest.mark.parametrize(
        "instance, said",
        [
            (Instance(credential={"Code": "AssumeRoleUnauthorizedAccess", "Message": "m"}),
             "AssumeRoleUnauthorizedAccess: m"),
            (Instance(credential="<html>"), "JSON"),
            (Instance(knows_extended=False,
                      **{"/latest/meta-data/iam/security-credentials/": (404, "")}),
             "attach an instance profile"),
            (Instance(**{"/latest/api/token": (403, "")}), "HTTP 403"),
            (Instance(**{"/latest/api/token": (500, "")}), "HTTP 500"),
            (Instance(**{"/latest/api/token": None}), "hop limit"),
        ],
    )
    def test_an_instance_that_gives_none(self, instance, said):
        with Server(instance) as server:
            refused(said, "no AWS credentials", **self.variables(server))

    def test_a_mode_that_is_none(self):
        refused("wanted IPv4 or IPv6", AWS_EC2_METADATA_DISABLED="false",
                AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE="ipv5")


class TestRetries:
    def variables(self, files, server):
        config = "[profile a]\nrole_arn = arn:r\nsource_profile = b\n"
        return files(config, "[b]\n" + KEYS.format(OWN)) | {
            "AWS_PROFILE": "a", "AWS_ENDPOINT_URL_STS": server.url,
        }

    def answering(self, *answers):
        answers = iter(answers)
        return Server(lambda _: next(answers))

    @pytest.mark.parametrize(
        "first", [sts_error("Throttling", 400), sts_error("x", 503), sts_error("RequestTimeout", 400)]
    )
    def test_what_may_pass_is_tried_again(self, files, first):
        with self.answering(first, role_answer(ROLE)) as server:
            signed_by(ROLE, **self.variables(files, server))
        assert len(server.requests) == 2

    def test_a_refusal_is_final(self, files):
        with self.answering(sts_error("AccessDenied", 403)) as server:
            refused("AccessDenied: because", "arn:r", code=78, **self.variables(files, server))
        assert len(server.requests) == 1

    def test_three_attempts_and_no_more(self, files):
        error = sts_error("ServiceUnavailable", 503)
        with self.answering(error, error, error) as server:
            refused("HTTP 503", code=69, **self.variables(files, server))
        assert len(server.requests) == 3

    def test_a_wrong_clock_is_learnt_from_the_answer(self, files):
        """The token is signed with the time that AWS has."""
        ahead = time.time() + 7200
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(ahead))

        def answer(request):
            if len(server.requests) == 1:
                return sts_error("RequestTimeTooSkewed", 403, Date=date)
            return role_answer(ROLE)

        with Server(answer) as server:
            done = run(*ARGUMENTS, key=None, **self.variables(files, server))
        assert done.returncode == 0, done.stderr
        assert abs(moment(done.stdout) - ahead) < 30
        assert len(server.requests) == 2

    def test_a_signature_that_is_wrong_is_not_blamed_on_a_clock_that_is_right(self, files):
        with self.answering(sts_error("SignatureDoesNotMatch", 403)) as server:
            refused("SignatureDoesNotMatch", **self.variables(files, server))
        assert len(server.requests) == 1


def test_certificates_of_aws_are_verified_against_the_bundle(files, authority, tmp_path):
    """AWS_CA_BUNDLE replaces the system's certificates, and nothing goes out without it."""
    import ssl

    certificate = authority.issue("localhost")
    with sts(ROLE) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate_file, certificate.key_file)
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        config = "[profile a]\nrole_arn = arn:r\nsource_profile = b\n"
        variables = files(config, "[b]\n" + KEYS.format(OWN)) | {
            "AWS_PROFILE": "a", "AWS_ENDPOINT_URL_STS": f"https://localhost:{server.port}",
        }
        refused("certificate is not vouched for", **variables)
        assert server.requests == []
        signed_by(ROLE, **variables, AWS_CA_BUNDLE=str(authority.ca_file))
