"""Prompts that a person calls the same have the same hash."""

import hashlib

import pytest

from proxy.catalog.prompts import prompt_hash


@pytest.mark.parametrize(
    "variant", ["a café", "  a\tcafé\r\n", "a  café", "a cafe\N{COMBINING ACUTE ACCENT}"]
)
def test_spelling_of_the_same_prompt_does_not_matter(variant: str) -> None:
    assert prompt_hash(variant) == hashlib.sha256("a café".encode()).hexdigest()


def test_case_matters() -> None:
    assert prompt_hash("A cat") != prompt_hash("a cat")
