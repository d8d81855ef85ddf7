"""The engine's routines, triggers and views, and the policies that keep its own tables small.

Revision ID: engine_0002
Revises: engine_0001
"""

from pathlib import PurePath

from pglapse.replaceable import apply, names, run_script

revision = "engine_0002"
down_revision = "engine_0001"
branch_labels = None
depends_on = None

# EXECUTE is PUBLIC's by default, and a database's default privileges may give more away; who may call
# what is lapse.grant_…'s business.
REVOKE = """
revoke all on all tables in schema lapse from public;
revoke all on all routines in schema lapse from public;
"""


def upgrade() -> None:
    apply("engine_0002", *names("engine_0002"))
    run_script(REVOKE)


# Jobs that would go on calling what is gone. Those in another database of the cluster are out of reach from here.
UNSCHEDULE = """
do $$
declare
    v_jobs text;
    v_home text;
begin
    if to_regprocedure('lapse.unschedule()') is not null then
        perform lapse.unschedule();
    end if;
    select string_agg(j.jobname, ', ' order by j.jobname), min(j.cron_database) into v_jobs, v_home
      from lapse.cron_job as j;
    if v_jobs is not null then
        raise exception 'pg_cron in database % still has jobs that call this one: %', v_home, v_jobs
              using errcode = 'LP009',
                    hint = format('Remove them first: pglapse unschedule --cron-dsn "dbname=%s"', v_home);
    end if;
end;
$$;
"""

# Views first, then triggers, then routines: those of our files, nothing that somebody else put here.
DROP = """
do $$
declare
    v_names   text[] := '{NAMES}';
    v_command text;
begin
    for v_command in
        select format('drop view if exists lapse.%I cascade', c.relname)
          from pg_class as c
         where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v' and c.relname = any (v_names)
        union all
        select format('drop trigger %I on lapse.%I', t.tgname, c.relname)
          from pg_trigger as t
          join pg_class as c on c.oid = t.tgrelid
         where c.relnamespace = 'lapse'::regnamespace and not t.tgisinternal and t.tgname = any (v_names)
        union all
        select format('drop routine %s', p.oid::regprocedure)
          from pg_proc as p
         where p.pronamespace = 'lapse'::regnamespace and p.proname = any (v_names)
    loop
        execute v_command;
    end loop;
end;
$$;
"""


def downgrade() -> None:
    run_script(UNSCHEDULE)
    run_script(DROP.replace("NAMES", ",".join(PurePath(name).stem for name in names("engine_0002"))))
