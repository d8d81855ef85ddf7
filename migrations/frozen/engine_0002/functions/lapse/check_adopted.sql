-- lapse.check_adopted: refuse to go on in a database that is not known to be ours.
--
-- Out: nothing when all is well. Raises LP014 with lapse.halt_reason otherwise.

create or replace function lapse.check_adopted()
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason text := lapse.halt_reason();
begin
    if v_reason is not null then
        raise exception using
            errcode = 'LP014',
            message = v_reason,
            detail  = 'A copy must neither expire rows nor delete the original''s files.',
            hint    = 'If it is to work from now on: select lapse.adopt_database();';
    end if;
end;
$$;

comment on function lapse.check_adopted() is
    'Internal: raises LP014 in a database that was restored, cloned, renamed or disowned, until it is adopted.';
