"""The random campaigns in their short form; `make chaos` runs all of them for longer."""

import secrets

import pytest

from tests.chaos.campaign import run
from tests.chaos.campaigns import CAMPAIGNS


@pytest.mark.slow
@pytest.mark.xdist_group("chaos")
def test_both_invariants_hold_while_workers_server_and_connections_are_killed_and_stopped() -> None:
    report = run(CAMPAIGNS["everything"], 12, secrets.token_hex(3), modest=True)

    assert not report.failed, "\n".join(report.lines())
