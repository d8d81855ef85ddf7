-- lapse.doctor_as_owner: what one check of lapse.doctor finds, with the engine owner's rights.
--
-- In: the check's name, and the time to judge by. Out: all its findings, as a JSON array of
-- {"level", "message", "command"}. LP002 for a name that is none. Whoever may ask how
-- things are has no right on the tables that tell; the names are those of
-- lapse.doctor_checks, so nothing else can be called this way.

create or replace function lapse.doctor_as_owner(
    p_check text,
    p_now   timestamptz default clock_timestamp()
)
    returns jsonb
    language plpgsql
    volatile
    security definer  -- an observer has no right on any table
    set search_path = pg_catalog, pg_temp
    set row_security = off  -- rows that are hidden from us are an error, not a clean bill of health
    set lock_timeout = '200 ms'
    set jit = off
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
as $$
declare
    v_found jsonb;
begin
    if not exists (select from lapse.doctor_checks() as c where c.name = p_check) then
        raise exception 'there is no check %', coalesce(p_check, 'NULL')
            using errcode = 'LP002', hint = 'See lapse.doctor_checks() for the names.';
    end if;

    execute format('select coalesce(jsonb_agg(to_jsonb(f)), ''[]'') from lapse.%I($1) as f', 'doctor_' || p_check)
       into v_found
      using p_now;
    return v_found;
end;
$$;

comment on function lapse.doctor_as_owner(text, timestamptz) is
    'For lapse.doctor: all findings of one check, as JSON, with the rights of the engine''s owner.';
