"""Run migrations: everything in one transaction, one upgrade at a time.

The version table is ``lapse.pglapse_version``, so an application's own Alembic is never touched. It
lives in a schema that exists before the first revision and goes after the last, which is why this
file, and no revision, creates and drops schema ``lapse``.
"""

from alembic import context
from sqlalchemy import create_engine, pool, text

from pglapse.connect import connect

LOCK = 7_813_263_518_091  # any number, the same for every pglapse


def offline() -> None:
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        version_table="pglapse_version",
        version_table_schema="lapse",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def online() -> None:
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK})
        connection.execute(text("create schema if not exists lapse"))
        context.configure(
            connection=connection,
            version_table="pglapse_version",
            version_table_schema="lapse",
            transaction_per_migration=False,
        )
        context.run_migrations()
        if not connection.execute(text("select count(*) from lapse.pglapse_version")).scalar():
            connection.execute(text("drop table lapse.pglapse_version; drop schema lapse"))


if context.is_offline_mode():
    offline()
else:
    online()
