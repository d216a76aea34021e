"""The one error that a user's input can cause."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line that names the file (and line or key), what is wrong with it, and the fix. The command line prints it
    as it stands and exits with code 2; nothing half-written is left behind.
    """


class TrainingFailed(RuntimeError):
    """A training that could not go on, with its reason and a hint in one line; its last good checkpoint stays."""
