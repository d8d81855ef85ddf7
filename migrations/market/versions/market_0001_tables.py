"""The marketplace's tables.

Revision ID: market_0001
Revises:
"""

from pglapse.replaceable import run_script

revision = "market_0001"
down_revision = None
branch_labels = ("market",)
depends_on = "engine_0002"

TABLES = """
create schema market;
comment on schema market is 'A task marketplace whose data clean themselves up: the worked example of pglapse.';
"""


def upgrade() -> None:
    run_script(TABLES)


def downgrade() -> None:
    run_script("drop schema market;")
