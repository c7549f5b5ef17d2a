"""`hash-password`: what it prints is what others compute, and its input is nowhere else."""

import base64
import hashlib
import re
import subprocess

import pytest

from harness.passwords import new_password
from harness.proxy import binary


def hash_password(data: bytes, *flags) -> subprocess.CompletedProcess:
    return subprocess.run(
        [binary(), "hash-password", *flags], input=data, capture_output=True, timeout=30
    )


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_scrypt_hash_is_that_of_the_line(end):
    password = new_password()
    result = hash_password(password.encode() + end)
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode()
    match = re.fullmatch(r"\$scrypt\$ln=15,r=8,p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})\n", text)
    assert match, text
    salt, expected = (base64.b64decode(part + "=" * (-len(part) % 4)) for part in match.groups())
    computed = hashlib.scrypt(
        password.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32
    )
    assert computed == expected


def test_each_hash_has_a_salt_of_its_own():
    assert hash_password(b"same").stdout != hash_password(b"same").stdout


@pytest.mark.parametrize("password", ["x", "with spaces and ü", "x" * 16_384])
def test_the_sha256_is_that_of_the_line(password):
    result = hash_password(password.encode() + b"\n", "--sha256")
    expected = hashlib.sha256(password.encode()).hexdigest()
    assert (result.returncode, result.stdout.decode()) == (0, expected + "\n")


@pytest.mark.parametrize("data", [b"", b"\n", b"one\ntwo\n", b"x" * 16_385, b"a\0b\n"])
def test_what_is_no_password_is_refused_without_being_repeated(data):
    result = hash_password(data)
    assert result.returncode == 64
    assert result.stdout == b""
    assert result.stderr.startswith(b"wanted a password on standard input, got ")
    assert b"one" not in result.stderr.removesuffix(b"nothing else\n").split(b"than one")[0]
