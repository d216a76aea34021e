"""What is secret on a command line is not written down."""

from __future__ import annotations

import pytest

from harness.config.secrets import command_without_secrets


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("API_KEY=abc", "API_KEY=${API_KEY}"),
        ("--set=HF_TOKEN=abc", "--set=HF_TOKEN=${HF_TOKEN}"),
        ("headers.authorization=Bearer abc", "headers.authorization=${AUTHORIZATION}"),
        ("TEACHER=http://me:abc@box:8000", "TEACHER=http://${LOGIN}@box:8000"),
        ("max_new_tokens=12", "max_new_tokens=12"),
        ("TEACHER=models/teacher", "TEACHER=models/teacher"),
        ("--matrix", "--matrix"),
    ],
)
def test_values_that_are_secret_by_name_and_logins_in_addresses_are_left_out(argument: str, written: str) -> None:
    assert command_without_secrets([argument]) == [written]
