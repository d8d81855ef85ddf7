-- lapse.sweep_begin: may this worker sweep a storage now?
--
-- In: the storage, and how long ago the last sweep must have begun. Out: true for one worker at a time, which then
-- calls lapse.sweep_end; false when it is not time yet. A sweep whose worker died is begun again after
-- that time. LP001 for an interval that is not positive, LP014 in a database that is not adopted.

create or replace function lapse.sweep_begin(p_storage text, p_every interval)
    returns boolean
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_every is null or p_every <= interval '0' then
        raise exception 'can''t sweep every %', coalesce(p_every::text, 'NULL')
            using errcode = 'LP001', hint = 'Give an interval of more than nothing, such as 6 hours.';
    end if;

    perform lapse.check_adopted();

    update lapse.storage as s
       set sweep_began_at = clock_timestamp()
     where s.name = p_storage
       and (s.sweep_began_at is null or s.sweep_began_at <= clock_timestamp() - p_every);

    return found;
end;
$$;

comment on function lapse.sweep_begin(text, interval) is
    'For workers: take the turn at sweeping a storage, if it is time.';
