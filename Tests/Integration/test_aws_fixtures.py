"""The stand-ins for AWS's HTTP endpoints answer AWS's own library as AWS does."""

import json
import os
import urllib.error
import urllib.request

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.utils import ContainerMetadataFetcher

from harness.credential_endpoints import (
    BAD_JSON, BROKEN, CLOSED, EMPTY, ERROR_IN_BODY, NOT_FOUND, REDIRECT, REGION, ROLE, THROTTLED,
    ContainerCredentials, InstanceMetadata,
)
from harness.moto import CURRENT, PENDING, PREVIOUS, Moto


@pytest.fixture
def moto(module_moto):
    return module_moto


@pytest.fixture
def clean(monkeypatch, place):
    """No variable and no file of this machine decides who signs."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    return monkeypatch


def client(moto, service: str):
    return botocore.session.Session().create_client(
        service, "us-east-1", endpoint_url=moto.url, aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
    )


# moto


def test_a_rotation_moves_the_stages_of_a_secret(moto, clean):
    secret = {"username": "app", "password": "first"}
    arn = moto.create_secret("rotated", secret)
    assert ":secret:rotated-" in arn
    assert json.loads(moto.value("rotated")) == secret
    version = moto.put_pending("rotated", secret | {"password": "second"})
    assert json.loads(moto.value("rotated"))["password"] == "first"
    assert json.loads(moto.value("rotated", PENDING))["password"] == "second"
    moto.make_current("rotated", version)
    found = client(moto, "secretsmanager").get_secret_value(SecretId=arn, VersionStage=CURRENT)
    assert found["VersionId"] == version
    assert json.loads(found["SecretString"])["password"] == "second"
    assert json.loads(moto.value("rotated", PREVIOUS))["password"] == "first"
    moto.put_current("rotated", "plain text")
    assert moto.value("rotated") == "plain text"
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client(moto, "secretsmanager").get_secret_value(SecretId="none")


def test_a_killed_server_comes_back_on_its_port_with_its_secrets(directory, clean):
    moto = Moto(directory / "killed-moto")
    try:
        moto.create_secret("kept", "one")
        moto.put_current("kept", "two")
        version = moto.put_pending("kept", "three")
        port = moto.port
        moto.kill()
        with pytest.raises(urllib.error.URLError):
            moto.value("kept")
        moto.start()
        assert moto.port == port
        assert [moto.value("kept", stage) for stage in (CURRENT, PENDING, PREVIOUS)] == [
            "two", "three", "one"
        ]
        moto.make_current("kept", version)
        moto.kill()
        moto.start()
        assert [moto.value("kept", stage) for stage in (CURRENT, PREVIOUS)] == ["three", "two"]
        moto.pause()
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(moto.url + "/moto-api/", timeout=0.3)
        moto.resume()
        assert moto.value("kept") == "three"
    finally:
        moto.stop()


def test_roles_can_be_assumed(moto, clean):
    answer = client(moto, "sts").assume_role(
        RoleArn="arn:aws:iam::123456789012:role/cache", RoleSessionName="session"
    )
    assert set(answer["Credentials"]) >= {"AccessKeyId", "SecretAccessKey", "SessionToken"}


# Containers


@pytest.fixture(params=["127.0.0.1", "::1"])
def container(request):
    endpoint = ContainerCredentials(request.param, authorization="the token", lifetime_seconds=20)
    yield endpoint
    endpoint.stop()


def test_containers_get_credentials_with_their_token(clean):
    issued = []
    container = ContainerCredentials(authorization="the token", issued=issued.append)
    for name, value in container.environment().items():
        clean.setenv(name, value)
    found = botocore.session.Session().get_credentials().get_frozen_credentials()
    assert (found.access_key, found.secret_key, found.token) == (
        issued[0].id, issued[0].secret, issued[0].session_token
    )
    container.stop()


def test_a_container_without_its_token_gets_nothing(container):
    url = container.url + container.path
    for headers, status in (({}, 401), ({"Authorization": "other"}, 401),
                            ({"Authorization": "the token"}, 200)):
        assert fetch(url, headers)[0] == status
    assert fetch(container.url + "/other", {"Authorization": "the token"})[0] == 404
    assert [request.path for request in container.requests] == [container.path] * 3 + ["/other"]


FAULTS = [NOT_FOUND, BROKEN, THROTTLED, BAD_JSON, EMPTY, CLOSED, REDIRECT, ERROR_IN_BODY]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_requests_can_be_made_to_fail(fault):
    container = ContainerCredentials()
    container.faults = [fault, None]
    fetcher = ContainerMetadataFetcher(sleep=lambda _: None)
    uri = container.url + container.path
    if fault in (ERROR_IN_BODY, REDIRECT):
        assert fetch(uri)[1] != fetch(uri)[1]
    else:
        # The library tries again, and the second time it works.
        assert fetcher.retrieve_full_uri(uri)["AccessKeyId"] == container.keys[0].id
        assert len(container.requests) == 2
    container.lasting_fault = BROKEN
    assert fetch(uri)[0] == 500
    container.stop()


# Machines


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_machines_get_credentials_with_a_session_token(clean, address):
    metadata = InstanceMetadata(address, lifetime_seconds=20)
    for name, value in metadata.environment().items():
        clean.setenv(name, value)
    found = botocore.session.Session().get_credentials().get_frozen_credentials()
    assert found.access_key == metadata.keys[0].id
    assert metadata.requests[0].method == "PUT"
    assert metadata.requests[-1].path.endswith("/" + ROLE)
    metadata.stop()


def test_metadata_is_told_with_a_token_only():
    metadata = InstanceMetadata(is_extended=True)
    path = metadata.url + "/latest/meta-data/placement/region"
    assert fetch(path)[0] == 401
    header = "X-aws-ec2-metadata-token"
    assert fetch(metadata.url + "/latest/api/token")[0] == 405
    assert fetch(metadata.url + "/latest/api/token", method="PUT")[0] == 400
    status, token = fetch(
        metadata.url + "/latest/api/token", {header + "-ttl-seconds": "60"}, "PUT"
    )
    assert status == 200
    assert fetch(path, {header: token}) == (200, REGION)
    folder = metadata.url + "/latest/meta-data/iam/security-credentials"
    assert fetch(folder + "-extended/", {header: token}) == (200, ROLE)
    metadata.is_extended = False
    assert fetch(folder + "-extended/", {header: token})[0] == 404
    metadata.forget_tokens()
    assert fetch(path, {header: token})[0] == 401
    metadata.stop()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def fetch(url: str, headers: dict = None, method: str = "GET"):
    """Status and text; 0 if the connection was closed."""
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
