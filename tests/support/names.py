"""How test sessions are told apart: each has a number, and all that it makes in a cluster carries it."""

import os

PREFIX = "pglapse_test"
SESSION = "PGLAPSE_TEST_SESSION"


def session() -> int:
    """This session's number: the same in all processes of a parallel run."""
    return int(os.environ[SESSION], 16)
