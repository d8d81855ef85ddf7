"""Who may let what lapse: a table's owner his own rows, with his own rights, whoever declares or runs it."""

import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support import databases, shed
from tests.support.expiry import SESSIONS, build, declare, functions
from tests.support.install import alembic

PAST = "now() - interval '1 hour'"


class Roles:
    """An author and somebody else, with a table each; a role's name is its attribute."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        number = secrets.token_hex(4)
        self.conn = conn
        self.author, self.other, self.plain = (
            f"pglapse_{number}_{kind}" for kind in ("author", "other", "plain")
        )
        for role in (self.author, self.other, self.plain):
            conn.execute(f"create role {role}; grant usage, create on schema app to {role}")
        conn.execute(f"alter table app.sessions owner to {self.author}")
        conn.execute("create table app.others (like app.sessions including all)")
        conn.execute(f"alter table app.others owner to {self.other}")
        for role in (self.author, self.other):
            conn.execute("select lapse.grant_author(%s)", [role])

    def become(self, role: str) -> None:
        self.conn.execute(sql.SQL("reset role; set role {}").format(sql.Identifier(role)))

    def drop(self) -> None:
        self.conn.execute("reset role")
        for role in (self.author, self.other, self.plain):
            self.conn.execute(
                f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}"
            )


@pytest.fixture(scope="module")
def dsn(server, template):
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def roles(conn: psycopg.Connection[Any]) -> Iterator[Roles]:
    build(conn, SESSIONS)
    made = Roles(conn)
    try:
        yield made
    finally:
        made.drop()


def refused(conn: psycopg.Connection[Any], command: str, *values: Any) -> str:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(command, values)
    assert caught.value.diag.message_hint or caught.value.sqlstate == "42501"
    return caught.value.sqlstate or ""


def test_an_author_does_all_of_it_for_a_table_of_his_own(conn, roles):
    roles.become(roles.author)
    conn.execute(f"insert into app.sessions (expires_at) select {PAST} from generate_series(1, 3)")

    declare(conn, p_index="build")
    declare(conn, p_predicate="state = 'open'", p_replace=True)
    conn.execute("select lapse.enable_expiry('sessions', false)")
    paused = shed.fails(conn, "call lapse.run('sessions')").sqlstate
    conn.execute("select lapse.enable_expiry('sessions')")
    conn.execute("reset role")
    shed.run(conn, "sessions")
    left = shed.one(conn, "select count(*) from app.sessions")
    roles.become(roles.author)
    conn.execute("select lapse.drop_expiry('sessions')")

    assert paused in ("LP005", "42501")
    assert left == 0
    assert functions(conn) == []


def test_an_author_does_nothing_to_anybody_elses_table_or_policy(conn, roles):
    roles.become(roles.other)
    declare(conn, p_name="others", p_target="app.others")
    conn.execute("reset role; grant all on app.others to public")
    before = conn.execute("select * from lapse.policy").fetchall()

    roles.become(roles.author)
    due = "app.lapse_due_others(text, timestamptz, timestamptz, integer, regclass, text[])"
    assert refused_to(conn, p_name="mine", p_target="app.others") == "LP022"
    assert refused_to(conn, p_name="others", p_target="app.others", p_replace=True) == "LP022"
    assert refused_to(conn, p_name="others", p_target="app.sessions", p_replace=True) in ("LP003", "LP028")
    assert refused(conn, "select lapse.drop_expiry('others')") == "LP022"
    assert refused(conn, "select lapse.enable_expiry('others', false)") == "LP022"
    assert refused(conn, "select lapse.forget_expiry('others')") == "LP029"
    assert refused(conn, "select lapse.pause('others')") == "42501"
    assert refused(conn, "select from app.lapse_expire_others(1, now(), now())") == "42501"
    assert refused(conn, "select from app.lapse_due_others('lock', now(), now(), 1)") == "42501"
    assert refused(conn, "select lapse.create_policy('x', 'app.x', '1 hour')") == "42501"
    for table in ("policy", "policy_state", "blocked_row", "run_log"):
        assert refused(conn, f"select from lapse.{table}") == "42501"
    assert refused(conn, f"select lapse.enter_expiry('{due}'::regprocedure, true)") == "LP022"

    conn.execute("reset role")
    after = conn.execute("select * from lapse.policy").fetchall()
    assert [row[:-1] for row in after] == [row[:-1] for row in before]


def refused_to(conn: psycopg.Connection[Any], **changes: Any) -> str:
    with pytest.raises(psycopg.Error) as caught:
        declare(conn, **changes)
    return caught.value.sqlstate or ""


@pytest.mark.parametrize("kind", ["another's table", "no step", "a step with the caller's rights", "by hand"])
def test_a_function_that_somebody_made_up_declares_nothing(conn, roles, kind):
    target = "app.others" if kind == "another's table" else "app.sessions"
    action = "null" if kind == "by hand" else '"delete"'
    definer = "" if kind == "a step with the caller's rights" else "security definer"
    roles.become(roles.author)
    if kind != "no step":
        conn.execute(
            "create function app.lapse_expire_evil(integer, timestamptz, timestamptz) returns lapse.progress"
            f" language sql {definer} as 'select null::lapse.progress'"
        )
    conn.execute(
        "create function app.lapse_due_evil() returns setof lapse.due_row language sql security definer as"
        " 'select null::lapse.due_row'"
    )
    spec = (
        f'{{"policy": {{"name": "evil", "step": "app.lapse_expire_evil", "target_table": "{target}",'
        f' "action": {action}, "predicate": "true", "key_columns": ["id"], "due_column": "expires_at"}}}}'
    )

    with conn.transaction(force_rollback=True):
        conn.execute(sql.SQL("comment on function app.lapse_due_evil() is {}").format(sql.Literal(spec)))
        assert refused(conn, "select lapse.enter_expiry('app.lapse_due_evil()', false)") == "LP022"


def test_a_policy_is_not_forgotten_because_somebody_made_its_name_ambiguous(conn, roles):
    roles.become(roles.other)
    declare(conn, p_name="others", p_target="app.others")
    roles.become(roles.author)
    conn.execute("create function app.lapse_expire_others() returns int language sql as 'select 1'")
    conn.execute("create function app.lapse_due_others() returns int language sql as 'select 1'")

    assert refused(conn, "select lapse.forget_expiry('others')") == "LP029"


def test_a_role_without_the_grant_can_not_even_ask(conn, roles):
    conn.execute(f"alter table app.sessions owner to {roles.plain}")
    roles.become(roles.plain)

    assert refused_to(conn) == "42501"


def test_the_owner_needs_no_grant_when_a_superuser_declares_for_him_and_the_step_is_his(conn, roles):
    conn.execute(f"alter table app.sessions owner to {roles.plain}")
    conn.execute(
        "alter default privileges for role current_user in schema app"
        f" grant execute on functions to {roles.other}"
    )
    conn.execute("create table app.seen (who text)")
    conn.execute(
        f"""
        grant insert on app.seen to {roles.plain};
        create function app.see() returns trigger language plpgsql as
            $$ begin insert into app.seen values (current_user); return null; end $$;
        create trigger see after delete on app.sessions execute function app.see();
        """
    )
    try:
        declare(conn)
        conn.execute(f"insert into app.sessions (expires_at) values ({PAST})")
        shed.run(conn, "sessions")

        assert shed.column(conn, "select distinct who from app.seen") == [roles.plain]
        rights = conn.execute(
            "select distinct pg_get_userbyid(p.proowner), pg_get_userbyid(a.grantee)"
            "  from pg_proc as p cross join lateral aclexplode(p.proacl) as a"
            " where p.proname like 'lapse\\_%' and p.pronamespace = 'app'::regnamespace order by 2"
        ).fetchall()
        (engine,) = shed.column(
            conn, "select nspowner::regrole::text from pg_namespace where nspname = 'lapse'"
        )
        assert set(rights) == {(roles.plain, roles.plain), (roles.plain, engine)}
    finally:
        conn.execute(
            "alter default privileges for role current_user in schema app"
            f" revoke execute on functions from {roles.other}"
        )


def test_what_would_need_the_engines_rights_fails_and_says_so(conn, roles):
    conn.execute(
        """
        create function app.pry() returns trigger language plpgsql as
            $$ begin update lapse.policy set enabled = false; return old; end $$;
        create trigger pry before delete on app.sessions for each row execute function app.pry();
        """
    )
    roles.become(roles.author)
    declare(conn)
    conn.execute(f"insert into app.sessions (expires_at) values ({PAST})")
    conn.execute("reset role")

    error = shed.fails(conn, "call lapse.run('sessions')")

    assert "42501" in error.diag.message_detail
    assert "permission denied for table policy" in error.diag.message_detail
    assert shed.one(conn, "select count(*) from lapse.blocked_row") == 0


EVIL = """
create type app.kind as enum ('open', 'closed');
create sequence app.tripped;
-- A sequence keeps its value also where everything else is rolled back.
create function app.act() returns void language plpgsql as $$
begin
    if current_user <> '{author}' then
        perform pg_catalog.nextval('app.tripped');
    end if;
end $$;
create function app.as_text(app.kind) returns text language plpgsql immutable as
    $$ begin perform app.act(); return 'open'; end $$;
create function app.always(bigint) returns boolean language plpgsql immutable as
    $$ begin perform app.act(); return true; end $$;
create cast (app.kind as text) with function app.as_text(app.kind) ;
create table app.trap (id bigint, kind app.kind, due timestamptz, note text, primary key (id, kind));
create index on app.trap (due);
create index on app.trap (due, (app.always(7)));
create statistics app.more on (app.always(8)), due from app.trap;
insert into app.trap values (1, 'open', now() - interval '1 hour');
analyze app.trap;
"""


@pytest.mark.parametrize("declarer", ["the author", "a superuser"])
def test_nothing_that_hides_behind_a_table_ever_runs_with_the_rights_of_the_engine(conn, roles, declarer):
    roles.become(roles.author)
    conn.execute(EVIL.format(author=roles.author))
    if declarer == "a superuser":
        conn.execute("reset role")
    declare(
        conn,
        p_name="trap",
        p_target="app.trap",
        p_due_column="due",
        p_predicate="kind = 'open' and kind::text like 'op%' and app.always(1)",
        p_action="update",
        p_set={"note": {"expression": "app.as_text('open')"}, "due": None},
        p_enabled=True,
    )
    conn.execute("reset role")

    conn.execute("select lapse.due_keys('trap'), lapse.backlog('trap')")
    conn.execute("select * from lapse.policy_status; select * from lapse.index_proof('trap')")
    conn.execute("select lapse.alter_policy('trap', p_batch_size => 1)")
    shed.run(conn, "trap")

    # Asked first: whoever only looks at the table himself lends it his rights.
    assert not shed.one(conn, "select is_called from app.tripped")
    roles.become(roles.author)
    assert shed.one(conn, "select due is null and note = 'open' from app.trap")


def test_a_function_to_call_must_be_the_owners_own_or_a_superusers(conn, roles):
    roles.become(roles.other)
    conn.execute("create function app.take(bigint[]) returns void language sql as ''")
    roles.become(roles.author)

    assert refused_to(conn, p_action="call", p_function="app.take") == "LP022"
    conn.execute("reset role; alter function app.take(bigint[]) owner to current_user")
    conn.execute("revoke execute on function app.take from public")
    roles.become(roles.author)
    assert refused_to(conn, p_action="call", p_function="app.take") == "LP022"
    conn.execute(f"reset role; grant execute on function app.take to {roles.author}")
    roles.become(roles.author)
    declare(conn, p_action="call", p_function="app.take")


def test_an_owner_who_may_not_make_functions_in_the_schema_is_told_so(conn, roles):
    conn.execute(f"revoke create on schema app from {roles.author}")
    roles.become(roles.author)

    with pytest.raises(psycopg.Error) as caught:
        declare(conn)

    assert caught.value.sqlstate == "LP022"
    assert caught.value.diag.message_hint.endswith(f"grant create on schema app to {roles.author};")


def test_an_engine_of_an_ordinary_role_serves_tables_that_it_has_no_right_on(server: str, empty: str) -> None:
    number = secrets.token_hex(4)
    engine, author = f"pglapse_{number}_engine", f"pglapse_{number}_author"
    name = str(conninfo_to_dict(empty)["dbname"])
    with psycopg.connect(empty, autocommit=True) as admin:
        try:
            admin.execute(f"create role {engine} login; create role {author}")
            admin.execute(
                sql.SQL("grant create on database {} to {}").format(
                    sql.Identifier(name), sql.Identifier(engine)
                )
            )
            alembic(make_conninfo(empty, options=f"-c role={engine}"), "upgrade", "engine@head")
            admin.execute(f"create schema app authorization {author}; grant usage on schema app to {engine}")
            admin.execute(f"set role {engine}; select lapse.grant_author('{author}'); set role {author}")
            admin.execute(SESSIONS)
            admin.execute("alter table app.sessions enable row level security")
            admin.execute("create table app.children (session bigint references app.sessions)")
            admin.execute("create index on app.children (session)")
            declare(admin)
            admin.execute(
                f"insert into app.sessions (expires_at) select {PAST} from generate_series(1, 20);"
                "insert into app.children values (7)"
            )
            admin.execute(f"reset role; set role {engine}")

            denied = refused(admin, "select from app.sessions")
            backlog = admin.execute(
                "select backlog from lapse.policy_status where policy = 'sessions'"
            ).fetchone()
            admin.execute("call lapse.run('sessions')")
            keys = shed.column(admin, "select key from lapse.blocked_row")
            downgrade = alembic(
                make_conninfo(empty, options=f"-c role={engine}"), "downgrade", "base", check=False
            )
            admin.execute(f"reset role; set role {author}")
            left = shed.column(admin, "select id from app.sessions")
            admin.execute("select lapse.drop_expiry('sessions')")
            admin.execute("reset role")
            alembic(make_conninfo(empty, options=f"-c role={engine}"), "downgrade", "base")

            assert denied == "42501"
            assert backlog == ("20",)
            assert keys == ["7"]
            assert left == [7]
            assert downgrade.returncode == 1
            assert "drop_expiry('sessions')" in downgrade.stderr
            assert functions(admin) == []
        finally:
            admin.execute("reset role")
            for role in (author, engine):
                admin.execute(f"drop owned by {role}; drop role {role}")
