"""The folder of a run: identities, records, locks, and what a running job holds."""
