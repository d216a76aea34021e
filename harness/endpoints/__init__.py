"""Servers that speak OpenAI's API: one client for the judge and for teachers, and replies that are on the disk at once."""
