"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from pglapse.replaceable import apply, run_script

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    raise NotImplementedError("write the upgrade")


def downgrade() -> None:
    raise NotImplementedError("write the downgrade")
