"""policy: what AWS must allow, judged as AWS judges it."""

import fnmatch
import json
import os
import subprocess

import pytest
import yaml

from harness.doctor import CONFIGURATION, OK, USAGE
from harness.iam import NO_AWS
from harness.proxy import REPOSITORY, binary

ACCOUNT = "123456789012"
EXAMPLES = REPOSITORY / "config" / "examples"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def call(*arguments, expected=OK, environment=None) -> subprocess.CompletedProcess:
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("REDIS_AUTH_PROXY", "AWS_"))
    }
    run = subprocess.run(
        [binary(), "policy", *map(str, arguments)], capture_output=True, text=True, timeout=30,
        env=inherited | NO_AWS | (environment or {}),
    )
    assert run.returncode == expected, run.stdout + run.stderr
    if expected != OK:
        assert run.stdout == ""
    return run


def allows(policy: str, action: str, resource: str) -> bool:
    """What stands in no statement is refused."""
    statements = json.loads(policy)["Statement"]
    return any(
        statement["Effect"] == "Allow" and statement["Action"] == action
        and any(fnmatch.fnmatchcase(resource, each) for each in statement["Resource"])
        for statement in statements
    )


@pytest.mark.parametrize(
    "example, action, resources",
    [
        (
            "iam-elasticache", "elasticache:Connect",
            ["elasticache:us-east-1:%s:replicationgroup:my-cache",
             "elasticache:us-east-1:%s:user:app"],
        ),
        (
            "iam-serverless", "elasticache:Connect",
            ["elasticache:us-east-1:%s:serverlesscache:my-cache",
             "elasticache:us-east-1:%s:user:app"],
        ),
        (
            "iam-memorydb", "memorydb:Connect",
            ["memorydb:us-east-1:%s:cluster/my-cluster", "memorydb:us-east-1:%s:user/app"],
        ),
        (
            "secrets-manager", "secretsmanager:GetSecretValue",
            ["secretsmanager:us-east-1:%s:secret:production/cache/app-AbC123"],
        ),
    ],
)  # fmt: skip
def test_an_example_is_allowed_what_it_needs_and_no_more(example, action, resources):
    run = call("--config", EXAMPLES / f"{example}.yaml", "--account", ACCOUNT)
    policy = run.stdout
    for resource in resources:
        arn = f"arn:aws:{resource % ACCOUNT}"
        assert allows(policy, action, arn)
        for other in (
            arn + "x", arn.replace(ACCOUNT, "999999999999"), arn.replace("us-east-1", "us-east-2"),
            arn.replace(":app", ":admin").replace("/app", "/admin").replace(":my-", ":other-")
            .replace("/my-", "/other-"),
        ):  # fmt: skip
            assert not allows(policy, action, other), other
        assert not allows(policy, action.partition(":")[0] + ":*", arn)
    assert len(json.loads(policy)["Statement"]) == 1
    assert ("--kms-key" in run.stderr) == (example == "secrets-manager")
    assert run.stderr.count("\n") == (example == "secrets-manager")


def test_it_is_the_policy_of_the_recipe():
    recipes = REPOSITORY / "Sources/RedisAuthProxy/Documentation.docc/Recipes.md"
    printed = json.loads(recipes.read_text().split("```json\n")[1].split("```")[0])
    policy = json.loads(
        call("--config", EXAMPLES / "iam-elasticache.yaml", "--account", ACCOUNT).stdout
    )
    assert policy == printed


def test_one_document_has_everything_of_a_configuration_or_of_a_user():
    file = REPOSITORY / "config" / "full.yaml"
    everything = call("--config", file, "--account", ACCOUNT, "--kms-key", KEY)
    assert everything.stderr == ""
    sids = [statement["Sid"] for statement in json.loads(everything.stdout)["Statement"]]
    assert sids == ["ElastiCacheConnect", "ReadSecrets", "DecryptSecrets"]
    worker = call("--config", file, "--account", ACCOUNT, "--user", "worker").stdout
    assert [statement["Sid"] for statement in json.loads(worker)["Statement"]] == sids[:1]
    decrypt = json.loads(everything.stdout)["Statement"][2]
    assert decrypt["Resource"] == [KEY]
    assert decrypt["Condition"]["StringEquals"] == {
        "kms:ViaService": ["secretsmanager.us-east-1.amazonaws.com"]
    }


def test_a_rotation_and_a_change_of_users_have_documents_of_their_own(place):
    user = f"arn:aws:elasticache:us-east-1:{ACCOUNT}:user:app"
    secret = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:production/cache/app-??????"
    example = EXAMPLES / "secrets-manager.yaml"
    rotation = call("--config", example, "--account", ACCOUNT, "--for", "rotate")
    assert [(each["Resource"], each["Action"]) for each in json.loads(rotation.stdout)["Statement"]] == [
        ([user], ["elasticache:DescribeUsers", "elasticache:ModifyUser"]),
        ([secret], [f"secretsmanager:{step}" for step in (
            "DescribeSecret", "GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage")]),
    ]  # fmt: skip
    assert "kms:GenerateDataKey" in rotation.stderr
    # Nobody's access is declared there, and then somebody's is.
    assert call("--config", example, "--for", "users-apply").stdout == ""
    settings = yaml.safe_load(example.read_text())
    settings["users"]["app"]["access_string"] = "on ~app:* -@all +get"
    file = place / "proxy.yaml"
    file.write_text(yaml.safe_dump(settings))
    users = call("--config", file, "--account", ACCOUNT, "--for", "users-apply")
    assert [(each["Resource"], each["Action"]) for each in json.loads(users.stdout)["Statement"]] == [
        ([user], [f"elasticache:{name}" for name in ("DescribeUsers", "CreateUser", "ModifyUser")]),
        ([secret], "secretsmanager:GetSecretValue"),
    ]  # fmt: skip
    tokens = call("--config", EXAMPLES / "iam-elasticache.yaml", "--for", "rotate")
    assert tokens.stdout == "" and "nothing must be allowed" in tokens.stderr


def test_what_is_not_known_is_said_and_where_it_can_be_given(place):
    settings = yaml.safe_load((EXAMPLES / "iam-elasticache.yaml").read_text())
    del settings["users"]["app"]["credentials"]["iam"]["region"]
    file = place / "proxy.yaml"
    file.write_text(yaml.safe_dump(settings))
    run = call("--config", file)
    assert "arn:aws:elasticache:<REGION>:<ACCOUNT-ID>:user:app" in run.stdout
    assert "--account" in run.stderr and "--region" in run.stderr
    environment = {"AWS_REGION": "cn-north-1", "REDIS_AUTH_PROXY_CONFIG": str(file)}
    run = call("--account", ACCOUNT, environment=environment)
    assert f"arn:aws-cn:elasticache:cn-north-1:{ACCOUNT}:user:app" in run.stdout
    assert run.stderr == ""
    run = call("--region", "eu-west-1", "--account", ACCOUNT, environment=environment)
    assert f"arn:aws:elasticache:eu-west-1:{ACCOUNT}:user:app" in run.stdout
    profile = place / "config"
    profile.write_text("[default]\nregion = us-gov-west-1\n")
    run = call("--config", file, environment={"AWS_CONFIG_FILE": str(profile)})
    assert "arn:aws-us-gov:elasticache:us-gov-west-1:<ACCOUNT-ID>:user:app" in run.stdout


def test_a_configuration_without_aws_needs_nothing():
    run = call("--config", EXAMPLES / "password-file.yaml")
    assert run.stdout == ""
    assert "nothing must be allowed" in run.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "give --config FILE"),
        (["--config", EXAMPLES / "iam-elasticache.yaml", "--account", "1234"], "12 digits"),
        (["--config", EXAMPLES / "iam-elasticache.yaml", "--region", "A b"], "--region: wanted"),
        (["--config", EXAMPLES / "iam-elasticache.yaml", "--user", "none"], "wanted one of app"),
        (["--config", EXAMPLES / "iam-elasticache.yaml", "--kms-key", "alias/x"], "--kms-key"),
    ],
)
def test_a_call_that_makes_no_sense_is_a_usage_error(arguments, words):
    assert words in call(*arguments, expected=USAGE).stderr


def test_a_configuration_or_shared_files_that_cannot_be_used_are_told(place):
    file = place / "proxy.yaml"
    file.write_text("upstreams: 1\n")
    assert "proxy.yaml:1:12: error" in call("--config", file, expected=CONFIGURATION).stderr
    run = call(
        "--config", EXAMPLES / "iam-elasticache.yaml", expected=CONFIGURATION,
        environment={"AWS_PROFILE": "none"},
    )
    assert 'AWS profile: wanted "none"' in run.stderr
    run = call(
        "--config", EXAMPLES / "iam-elasticache.yaml", expected=CONFIGURATION,
        environment={"AWS_REGION": "US East"},
    )
    assert "region: wanted a region" in run.stderr
