"""The engine's routines, triggers and views, and the policies that look after its own tables and everybody's indexes.

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
# what is lapse.grant_...'s business.
REVOKE = """
revoke all on all tables in schema lapse from public;
revoke all on all routines in schema lapse from public;
"""

# The policies that keep the engine's own tables small, and the one that watches over everybody's indexes.
POLICIES = """
select lapse.create_policy('prune_run_log', 'lapse.prune_run_log', interval '1 day',
    'History of runs older than lapse.setting.run_log_keep goes.', p_at_time => time '03:30');
select lapse.create_policy('prune_file_log', 'lapse.prune_file_log', interval '1 day',
    'History of files older than lapse.setting.file_log_keep goes.', p_at_time => time '03:40');
select lapse.create_policy('prune_workers', 'lapse.prune_workers', interval '1 hour',
    'Heartbeats of workers that were not seen for a day go.');
select lapse.create_policy('compact_queue', 'lapse.compact_queue', interval '15 min',
    'Indexes of the file queue come back to size after a burst.', p_batch_size => 2);
select lapse.create_policy('prune_cron_details', 'lapse.prune_cron_details', interval '1 day',
    'Our old runs in cron.job_run_details, older than lapse.setting.cron_details_keep, go.', p_at_time => time '03:50');
select lapse.create_policy('prove_indexes', 'lapse.prove_indexes', interval '1 day',
    'Fails when the statement of an enabled policy is not served by an index.', p_at_time => time '04:10');
"""


def upgrade() -> None:
    apply("engine_0002", *names("engine_0002"))
    run_script(REVOKE)
    run_script(POLICIES)


# Attached tables first: their triggers would call what is gone. The tables say themselves what is attached to them.
DETACH = """
do $$
declare
    v_one record;
begin
    for v_one in
        select distinct t.tgrelid::regclass as target, f.declared ->> 'path_column' as path_column
          from pg_trigger as t
          join pg_class as c on c.oid = t.tgrelid
         cross join lateral lapse.attached_functions(t.tgrelid) as f
         where t.tgfoid = f.function and t.tgname like 'lapse\\_files\\_%' and not c.relispartition
    loop
        perform lapse.detach_files(v_one.target, v_one.path_column);
    end loop;
    perform lapse.detach_dropped();
end;
$$;
"""

# Jobs go first: they would go on calling what is gone. Those in another database can't be reached from here.
# Ticks that run now hold locks that this revision needs, and wait for locks that it would take one after the
# other: so all tables are locked at once or none, between two batches, and neither side ends in a deadlock.
UNSCHEDULE = """
do $$
declare
    v_elsewhere text := (select min(c.cron_database) from lapse.cron_job as c
                          where c.cron_database <> current_database());
    v_tables    text := (select string_agg(c.oid::regclass::text, ', ' order by c.relname) from pg_class as c
                          where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'r'
                            and c.relname <> 'pglapse_version');
    v_deadline  timestamptz := clock_timestamp() + interval '30 s';
begin
    if v_elsewhere is not null then
        raise exception 'pg_cron in database % still has jobs that call this one', v_elsewhere
              using errcode = 'LP009',
                    hint = format('Remove them first: %s (where that database is gone, or this one is a copy: '
                                  'select lapse.forget_cron_jobs();)',
                                  lapse.cron_command('unschedule', v_elsewhere));
    end if;
    perform lapse.unschedule();
    loop
        begin
            execute format('lock table %s in access exclusive mode nowait', v_tables);
            exit;
        exception
            when lock_not_available then
                if clock_timestamp() > v_deadline then
                    raise;
                end if;
                perform pg_sleep(0.02);
        end;
    end loop;
end;
$$;
"""

# What was made for declared policies stands in other schemas and belongs to the owners of their tables.
FORGET = """
do $$
declare
    v_found record;
begin
    for v_found in
        select p.name, f.oid::regprocedure as function, f.proowner::regrole as owner, pg_has_role(f.proowner, 'USAGE') as mine
          from lapse.policy as p
          join pg_proc as f on true
          join pg_namespace as n on n.oid = f.pronamespace
         where p.action is not null and format('%I.%I', n.nspname, f.proname) in (p.step, lapse.due_function(p))
    loop
        if not v_found.mine then
            raise exception 'function %, made for policy %, belongs to role %', v_found.function, v_found.name, v_found.owner
                  using errcode = 'LP029',
                        hint = format('As that role, or a superuser: select lapse.drop_expiry(%L);', v_found.name);
        end if;
        execute format('drop function %s', v_found.function);
    end loop;
    delete from lapse.policy as p where p.action is not null or p.step like 'lapse.%';
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
          join pg_proc as p on p.oid = t.tgfoid
         where c.relnamespace = 'lapse'::regnamespace and not t.tgisinternal
           and p.pronamespace = 'lapse'::regnamespace and p.proname = any (v_names)
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
    run_script(DETACH)
    run_script(UNSCHEDULE)
    run_script(FORGET)
    run_script(DROP.replace("NAMES", ",".join(PurePath(name).stem for name in names("engine_0002"))))
