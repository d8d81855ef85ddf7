-- lapse.cron_command: the command line that schedules from another database.
--
-- In: schedule or unschedule, and the database where pg_cron lives. Out: the exact
-- command to type, for hints. What the DSN leaves out (host, port, user) the
-- command takes from the connection to this database.

create or replace function lapse.cron_command(p_verb text, p_cron_database text)
    returns text
    language sql
    immutable
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select format(
        'pglapse %s --cron-dsn %s',
        p_verb,
        case
            when p_cron_database ~ '^[A-Za-z0-9_.-]+$' then 'dbname=' || p_cron_database
            else format('"dbname=''%s''"', regexp_replace(p_cron_database, '([\\''])', '\\\1', 'g'))
        end
    )
$$;

comment on function lapse.cron_command(text, text) is
    'The pglapse command that schedules or unschedules from the database where pg_cron lives.';
