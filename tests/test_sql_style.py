"""sql/ keeps the house style, and each of its rules can tell."""

from pathlib import Path

import pytest

from tests.support.install import ROOT
from tests.support.sql_style import File, complaints

SQL = ROOT / "sql"
PATHS = sorted(SQL.rglob("*.sql"))

GOOD = """\
-- lapse.count_files: how many files a storage holds.
--
-- In: a storage. Out: a number. Counts at once, since nobody asks twice.

create or replace function lapse.count_files(p_storage text)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_files bigint;  -- so far
begin
    for v_turn in 1 .. 2 loop
        select count(*) into v_files from lapse.file_cleanup_queue as q where q.storage = p_storage;
    end loop;
    return v_files;
end;
$$;

comment on function lapse.count_files(text) is 'How many files a storage holds.';
"""

TRIGGER = """\
-- count_files: counts files.
--
-- Because it can.

create or replace function lapse.count_files()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$ begin return null; end; $$;

comment on function lapse.count_files() is 'Counts.';

create or replace trigger count_files after delete on market.tasks
    for each statement execute function lapse.count_files();

comment on trigger count_files on market.tasks is 'Counts.';
"""

CONSTRAINT = """\
-- count_files: counts files.
--
-- Because it can.

create or replace function lapse.count_files()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$ begin return null; end; $$;

comment on function lapse.count_files() is 'Counts.';

drop trigger if exists count_files on market.tasks;
create constraint trigger count_files after delete on market.tasks
    deferrable initially deferred for each row execute function lapse.count_files();

comment on trigger count_files on market.tasks is 'Counts.';
"""

PROCEDURE = """\
-- lapse.count_files: counts files.
--
-- Because it can.

create or replace procedure lapse.count_files(p_storage text)
    language plpgsql
as $$
begin
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    commit;
end;
$$;

comment on procedure lapse.count_files(text) is 'Counts.';
"""

INLINED = """\
-- lapse.count_files: how a name reads aloud.
--
-- In: a name. Out: the same in capitals. It is put where it is called, so it has no SET clause.

create or replace function lapse.count_files(p_name text)
    returns text
    language sql
    immutable
as $$
    select pg_catalog.upper(pg_catalog.replace(p_name, '_', ''))
$$;

comment on function lapse.count_files(text) is 'A name aloud.';
"""

BROKEN = [
    (GOOD, "create or replace function", "create function", "write create or replace"),
    (GOOD, "comment on", "create table lapse.x (); comment on", "CreateStmt has no place in functions/"),
    (GOOD, "function lapse.count_files(p", "function lapse.count_file(p", "not just lapse.count_files"),
    (GOOD, "-- lapse.count_files: how", "-- How", "the first line is not"),
    (
        GOOD,
        "--\n-- In: a storage. Out: a number. Counts at once, since nobody asks twice.\n",
        "",
        "the header",
    ),
    (GOOD, "'How many files a storage holds.'", "null", "no comment on lapse.count_files"),
    (GOOD, "pg_catalog, pg_temp", "pg_catalog", "set search_path"),
    (GOOD, "    set search_path = pg_catalog, pg_temp\n", "", "set search_path"),
    (INLINED, "pg_catalog.upper", "upper", "set search_path"),
    (INLINED, "immutable", "stable", "set search_path"),
    (INLINED, "'')", "'' operator(public.||) 'a')", "set search_path"),
    (GOOD, "    volatile\n", "", "say volatile, stable or immutable"),
    (
        GOOD,
        "    volatile\n    security definer\n",
        "    security definer\n    volatile\n",
        "not in the order",
    ),
    (GOOD, "p_storage", "storage", "parameter storage does not begin with p_"),
    (GOOD, "v_files", "files", "files: variables begin with v_"),
    (GOOD, "v_files", "c_files", "c_files: variables begin with v_"),
    (GOOD, "v_turn", "turn", "turn: variables begin with v_"),
    (GOOD, "pg_temp\n", "pg_temp\n    set enable_seqscan = off\n", "without jit = off"),
    (GOOD, "since nobody", "\N{EM DASH} nobody", "not ASCII"),
    (GOOD, "returns bigint", "RETURNS bigint", "keyword RETURNS"),
    (GOOD, "select count", "SELECT count", "keyword SELECT"),
    (TRIGGER, "    security definer\n", "", "a trigger function is security definer"),
    (TRIGGER, "comment on trigger", "-- comment on trigger", "no comment on market.tasks.count_files"),
    (TRIGGER, "trigger count_files ", "trigger recount ", "trigger recount is another file's"),
    (CONSTRAINT, "drop trigger if exists count_files on market.tasks;\n", "", "write drop trigger if exists"),
    (CONSTRAINT, "if exists ", "", "which it does not make again"),
    (CONSTRAINT, "exists count_files", "exists others", "drops market.tasks.others"),
    (TRIGGER, "create or replace trigger", "create trigger", "write create or replace"),
    (PROCEDURE, "pg_catalog, pg_temp", "public", "the procedure does not set its path"),
    (PROCEDURE, "plpgsql\n", "plpgsql\n    set search_path = pg_catalog, pg_temp\n", "may not COMMIT"),
    (PROCEDURE, "plpgsql\n", "plpgsql\n    security definer\n", "may not COMMIT"),
]


def kind(text: str) -> str:
    return "triggers" if text in (TRIGGER, CONSTRAINT) else "functions"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(SQL).as_posix())
def test_a_file_keeps_the_house_style(path: Path) -> None:
    of_kind, schema, _ = path.relative_to(SQL).parts

    assert complaints(File(of_kind, schema, path.stem, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [GOOD, INLINED, TRIGGER, CONSTRAINT, PROCEDURE],
    ids=["function", "inlined function", "trigger", "constraint trigger", "procedure"],
)
def test_what_is_good_is_not_complained_of(text: str) -> None:
    assert complaints(File(kind(text), "lapse", "count_files", text)) == []


@pytest.mark.parametrize(("text", "old", "new", "complaint"), BROKEN, ids=[row[3] for row in BROKEN])
def test_each_rule_notices_what_breaks_it(text: str, old: str, new: str, complaint: str) -> None:
    broken = text.replace(old, new)

    assert broken != text
    assert any(complaint in said for said in complaints(File(kind(text), "lapse", "count_files", broken)))


def test_all_of_sql_is_looked_at() -> None:
    assert len(PATHS) > 40
    assert {path.relative_to(SQL).parts[0] for path in PATHS} <= {"functions", "triggers", "views"}
