"""Addresses of servers, as a user writes them. Nothing here imports torch."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_address(address: str) -> str | None:
    """What is wrong with an address, and its fix, in a line without what may be secret in it; None where nothing is."""
    fix = "fix: write it as http://127.0.0.1:8000"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable or any(c.isspace() for c in address):
        return f"is no address; {fix}"
    if parts.username or parts.password:
        return "an address holds a password; fix: put the key into an environment variable, api_key_env names it"
    if parts.query or parts.fragment:
        return f"an address has something after its path; {fix}"
    return None
