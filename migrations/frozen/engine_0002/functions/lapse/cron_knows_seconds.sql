-- lapse.cron_knows_seconds: whether a pg_cron can run a job every few seconds.
--
-- In: pg_extension.extversion ('1.4-1', '1.6'). Out: true from 1.5 on. Compared as
-- numbers, since '1.10' comes after '1.5'; a version that can't be read counts as
-- old, because the schedule for 1.4 works everywhere.

create or replace function lapse.cron_knows_seconds(p_extversion text)
    returns boolean
    language sql
    immutable
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select array[v.part[1]::bigint, v.part[2]::bigint] >= array[1::bigint, 5]
           from regexp_match(p_extversion, '^(\d{1,9})\.(\d{1,9})') as v(part)
          where v.part is not null),
        false
    )
$$;

comment on function lapse.cron_knows_seconds(text) is
    'True for versions of pg_cron that take schedules like ''10 seconds'': 1.5 and newer.';
