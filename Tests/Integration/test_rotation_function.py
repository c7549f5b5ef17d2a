"""The program as the rotation function of Secrets Manager: started without arguments in the
environment of AWS Lambda (harness/lambda_runtime.py), driven through all steps."""

import json
import time
import uuid

import pytest

from harness.lambda_runtime import LambdaRuntime
from harness.moto import CURRENT, PENDING
from harness.process import Process
from harness.proxy import binary
from harness.resp import eventually
from test_rotate import SECRET, place  # noqa: F401

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class Function:
    """A running function, and Secrets Manager's side of rotations."""

    def __init__(self, place, start: bool = True, **environment):
        self.place = place
        self.lambda_runtime = LambdaRuntime()
        self.arn = None
        self.environment = place.environment | self.lambda_runtime.environment | {
            "REDIS_AUTH_PROXY_ROTATE_SERVER": f"rediss://localhost:{place.server.port}",
            "REDIS_AUTH_PROXY_ROTATE_CA_FILE": str(place.server.authority.ca_file),
            "WAITING_RETRY_INTERVAL_IN_SECONDS": "1",
        } | environment
        self.process = None
        if start:
            self.start()

    def start(self) -> None:
        self.process = Process(
            [binary()], self.place.directory / "function.log", environment=self.environment
        )

    def begin(self, is_test: bool = False) -> str:
        """A rotation that Secrets Manager wants; its token."""
        token = str(uuid.uuid4())
        self.place.aws.begin_rotation(SECRET, token, is_test)
        return token

    def invoke(self, step: str, token: str, seconds: float = 60.0, **more):
        event = {"Step": step, "SecretId": SECRET, "ClientRequestToken": token} | more
        return self.lambda_runtime.invoke(event, seconds).wait()

    def rotate(self, token: str) -> None:
        for step in STEPS:
            invocation = self.invoke(step, token)
            assert invocation.succeeded, (step, invocation.error)

    def log(self) -> str:
        return self.process.log()

    def stop(self) -> None:
        self.lambda_runtime.stop()
        if self.process:
            self.process.kill()
            self.place.check_hidden(self.log())


@pytest.fixture
def start_function(place):
    started = []

    def start(**options) -> Function:
        started.append(Function(place, **options))
        return started[-1]

    yield start
    for function in started:
        function.stop()


@pytest.mark.parametrize("service", ["elasticache", "memorydb"])
def test_all_steps_in_their_order(place, start_function, service):
    place.add(service)
    place.aws.set(modifying_seconds=0.3)
    function = start_function()
    before = place.old
    for _ in range(3):
        token = function.begin()
        function.rotate(token)
        new = place.password()
        assert new != before and place.logs_in(new) and place.logs_in(before)
        assert place.stages()[token] == {CURRENT, PENDING}
        before = new
    assert "logged in at localhost" in function.log()


def test_each_step_can_come_again_at_any_time(place, start_function):
    place.add()
    function = start_function()
    token = function.begin()
    for step in STEPS:
        for again in STEPS[: STEPS.index(step) + 1]:
            assert function.invoke(again, token).succeeded
    new = place.password()
    # Secrets Manager tries the whole of it again.
    function.rotate(token)
    assert place.password() == new
    place.check_rotated()


def test_a_step_that_fails_is_told_and_succeeds_the_next_time(place, start_function):
    place.add()
    function = start_function()
    token = function.begin()
    for step, operation in zip(
        STEPS, ("PutSecretValue", "ModifyUser", "DescribeUsers", "UpdateSecretVersionStage")
    ):
        place.aws.fail(operation, "AccessDeniedException")
        failed = function.invoke(step, token)
        assert failed.error["errorType"] == failed.error_type == "Rotation.Denied"
        assert operation in failed.error["errorMessage"]
        assert place.logs_in(place.password())
        assert function.invoke(step, token).succeeded
    place.check_rotated()
    assert function.process.is_running


def test_a_process_that_is_gone_is_followed_by_another(place, start_function):
    place.add()
    function = start_function()
    token = function.begin()
    for step, operation in (("createSecret", "PutSecretValue"), ("setSecret", "ModifyUser"),
                            ("finishSecret", "UpdateSecretVersionStage")):
        for moment in ("before", "after"):
            place.aws.hold(operation, moment)
            event = {"Step": step, "SecretId": SECRET, "ClientRequestToken": token}
            function.lambda_runtime.invoke(event)
            # What was done already is not asked for again: then nothing is held.
            eventually(
                lambda: place.aws.is_held() or "already" in function.process.log_since_mark(), 20)
            function.process.child.kill()
            function.process.child.wait()
            place.aws.release()
            assert place.logs_in(place.password())
            function.start()
            function.process.mark_log()
        assert function.invoke(step, token).succeeded
    assert function.invoke("testSecret", token).succeeded
    place.check_rotated()


def test_the_deadline_ends_the_waiting_before_lambda_does(place, start_function):
    place.add()
    place.aws.set(modifying_seconds=8.0)
    function = start_function()
    token = function.begin()
    assert function.invoke("createSecret", token).succeeded
    assert function.invoke("setSecret", token).succeeded
    began = time.monotonic()
    late = function.invoke("testSecret", token, seconds=5.0)
    assert late.error_type == "Rotation.TimedOut" and time.monotonic() - began < 5.0
    assert "modifying" in late.error["errorMessage"]
    # As Secrets Manager does: the steps again, with the same token.
    function.rotate(token)
    place.check_rotated()


def test_the_longest_wait_is_a_variable_of_the_functions(place, start_function):
    place.add()
    place.aws.set(modifying_seconds=6.0)
    function = start_function(MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS="2")
    token = function.begin()
    for step in ("createSecret", "setSecret"):
        assert function.invoke(step, token).succeeded
    assert function.invoke("testSecret", token).error_type == "Rotation.TimedOut"


@pytest.mark.parametrize("is_test", [False, True], ids=["no value", "the value of AWSCURRENT"])
def test_a_test_alone_changes_nothing(place, start_function, is_test):
    """RotateImmediately=false."""
    value = place.add()
    function = start_function()
    assert function.invoke("testSecret", function.begin(is_test)).succeeded
    # A password to be replaced by the first rotation, which nobody has.
    place.aws.put_current(SECRET, value | {"password": "to-be-replaced-by-rotation"})
    token = function.begin(is_test)
    place.aws.forget()
    assert function.invoke("testSecret", token).succeeded
    assert "refuses what the secret has now" in function.log()
    assert set(place.aws.requests()) == {"DescribeSecret", "GetSecretValue", "DescribeUsers"}


def test_the_rotation_token_goes_back_with_the_value(place, start_function):
    place.add()
    function = start_function()
    rotation_token = "rotation-token-" * 4
    token = function.begin()
    assert function.invoke("createSecret", token, RotationToken=rotation_token).succeeded
    assert place.aws.tell("rotation token") == rotation_token


def test_variables_of_awss_function(place, start_function):
    place.add()
    environment = {
        "SECRETS_MANAGER_ENDPOINT": place.aws.url, "SECRET_ARN": SECRET, "USER_NAME": "app",
        "EXCLUDE_CHARACTERS": "/@\"'\\abcdefghijklm", "PASSWORD_LENGTH": "20",
    }
    function = start_function(AWS_ENDPOINT_URL="", AWS_ENDPOINT_URL_ELASTICACHE=place.aws.url,
                              **environment)
    function.rotate(function.begin())
    new = place.check_rotated()
    assert len(new) == 20 and not set(new) & set(environment["EXCLUDE_CHARACTERS"])


@pytest.mark.parametrize("environment, change, words", [
    ({"SECRET_ARN": "arn:another"}, {}, "wanted the secret of SECRET_ARN"),
    ({"USER_NAME": "somebody"}, {}, "somebody by the settings"),
    ({}, {"Step": "dropPrevious"}, "wanted a Step of"),
    ({}, {"Step": None}, "wanted a Step of"),
    ({}, {"ClientRequestToken": str(uuid.uuid4())}, "which is to be rotated to"),
    ({}, {"SecretId": "no/such"}, "ResourceNotFoundException"),
])
def test_events_that_cannot_be(place, start_function, environment, change, words):
    place.add()
    function = start_function(**environment)
    event = {
        "Step": "createSecret", "SecretId": SECRET, "ClientRequestToken": function.begin(),
    } | change
    invocation = function.lambda_runtime.invoke(event).wait()
    assert words in invocation.error["errorMessage"], invocation.error
    assert words in function.log()
    assert "PutSecretValue" not in place.aws.requests()


@pytest.mark.parametrize("event", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"Step": 7}'])
def test_events_that_are_none(place, start_function, event):
    function = start_function()
    invocation = function.lambda_runtime.invoke(event).wait()
    assert invocation.error_type == "Rotation.Unusable"
    assert function.process.is_running


def test_a_secret_that_is_not_to_be_rotated(place, start_function):
    place.add()
    function = start_function()
    version = place.aws.put_pending(SECRET, json.loads(place.aws.value(SECRET)))
    invocation = function.invoke("createSecret", version)
    assert "not set up to be rotated" in invocation.error["errorMessage"]


@pytest.mark.parametrize("variable, value", [
    ("PASSWORD_LENGTH", "8"), ("PASSWORD_LENGTH", "many"),
    ("MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS", "0"),
])
def test_an_environment_that_cannot_be_is_told_at_the_start(
    place, start_function, variable, value
):
    function = start_function(**{variable: value})
    assert function.process.wait() == 78
    assert function.lambda_runtime.init_error["errorType"] == "Rotation.Unusable"


def test_a_runtime_that_is_out_of_order_ends_the_process(place, start_function):
    function = start_function(start=False)
    function.lambda_runtime.next_status = 500
    function.start()
    assert function.process.wait() == 69


def test_with_arguments_it_is_no_function(place, start_function):
    """A proxy beside a function has its environment."""
    function = start_function(start=False)
    process = Process(
        [binary(), "--version"], place.directory / "version.log", environment=function.environment
    )
    assert process.wait() == 0
    assert process.log().startswith("0.")
