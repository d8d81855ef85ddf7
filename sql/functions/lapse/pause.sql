-- lapse.pause: leave a policy alone until lapse.resume.
--
-- In: its name. Out: nothing; pausing twice is fine. Raises LP002 for an unknown
-- policy. A run under way looks before each batch, so it stops within one.

create or replace function lapse.pause(p_name text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.alter_policy(p_name, p_enabled => false);
end;
$$;

comment on function lapse.pause(text) is
    'Pause a policy: a run under way stops within one batch, and no other begins.';
