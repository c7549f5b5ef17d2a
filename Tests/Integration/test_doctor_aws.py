"""doctor, for users whose credentials are AWS's: what it would send, and why that is refused."""

import pytest

from harness.credential_endpoints import ContainerCredentials
from harness.doctor import STEPS, UNAVAILABLE, Patient, assert_ends
from harness.iam import NO_AWS, AccessKey, Cache
from harness.passwords import new_password

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SECRET = "doctor/cache"


@pytest.fixture
def front(start_elasticache):
    """A cache that takes tokens of KEY."""
    front = start_elasticache(Cache("cache-01"))
    front.trust(KEY)
    return front


def patient_of(place, front, **iam) -> Patient:
    patient = Patient(place, front, password=new_password())
    patient.user["credentials"] = {"iam": {"cache_name": "cache-01", "region": "us-east-1"} | iam}
    patient.environment = KEY.environment()
    return patient


def test_a_token_is_told_with_all_that_was_signed(place, front):
    steps = patient_of(place, front, cache_name="Cache-01").examine()
    assert list(steps) == STEPS
    assert {step["outcome"] for step in steps.values()} == {"ok"}
    # Names as they are signed, which is not as they are written.
    for words in (
        "signed for elasticache cache cache-01 (node based), user app, region us-east-1, at 20",
        "with the access key AKIDEXAMPLE from the environment, does not expire",
    ):
        assert words in steps["credential"]["origin"]


def test_a_session_is_told_with_its_source_and_end(place, front):
    source = ContainerCredentials(lifetime_seconds=800, issued=front.trust)
    try:
        patient = patient_of(place, front)
        patient.environment = NO_AWS | source.environment()
        origin = patient.examine()["credential"]["origin"]
    finally:
        source.stop()
    assert "from container credentials at http://127.0.0.1:" in origin
    assert ", expires 20" in origin


def test_a_region_that_is_nowhere_in_the_settings_is_told_all_the_same(place, front):
    patient = patient_of(place, front)
    del patient.user["credentials"]["iam"]["region"]
    patient.environment |= {"AWS_REGION": "us-west-1"}
    steps = patient.examine(UNAVAILABLE)
    assert_ends(steps, "login", "WRONGPASS", "region us-west-1", "AKIDEXAMPLE")


WRONG = {
    "cache name": ({"cache_name": "cache-02"}, "cache cache-02 (node based)"),
    "region": ({"region": "eu-west-1"}, "region eu-west-1"),
    "service": ({"service": "memorydb"}, "memorydb cluster cache-01"),
    "serverless": ({"serverless": True}, "cache cache-01 (serverless)"),
}


@pytest.mark.parametrize("wrong, signed", WRONG.values(), ids=WRONG)
def test_a_token_that_is_refused_has_its_usual_causes_in_their_order(place, front, wrong, signed):
    steps = patient_of(place, front, **wrong).examine(UNAVAILABLE)
    assert_ends(steps, "login", "WRONGPASS", signed)
    advice = steps["login"]["advice"]
    causes = (
        "elasticache:Connect", "user group", "cache's name", "serverless", "access key", "clock",
    )
    assert sorted(causes, key=advice.index) == list(causes), advice
    # A password is not what was sent.
    assert "password" not in advice
    for signature in front.signatures():
        assert signature not in str(steps)


def test_no_credentials_end_it_with_every_place_that_was_looked_in(place, front):
    patient = patient_of(place, front)
    patient.environment = NO_AWS
    steps = patient.examine(UNAVAILABLE)
    assert "no AWS credentials: none in the environment" in steps["credential"]["message"]
    assert "login" not in steps
    assert steps["tls"]["outcome"] == "ok"


@pytest.mark.parametrize("is_right", [True, False])
def test_a_secret_is_told_with_its_stage(place, server, module_moto, is_right):
    password = server.passwords["app"] if is_right else new_password()
    name = f"{SECRET}/{is_right}"
    module_moto.create_secret(name, password)
    patient = Patient(place, server)
    patient.user["credentials"] = {"secrets_manager": {"secret_id": name, "region": "us-east-1"}}
    patient.environment = NO_AWS | module_moto.environment
    if is_right:
        assert patient.examine()["credential"]["origin"] == "AWSCURRENT"
    else:
        steps = patient.examine(UNAVAILABLE)
        assert_ends(steps, "login", "WRONGPASS", "the credential was AWSCURRENT", "ACL GETUSER app")
