-- lapse.queued_storages: the storages that have rows in the queue, dead ones aside.
--
-- Out: their names, the first 1,000 in order. Jumps through the index from one storage to the next, so
-- it costs a few pages for each, however many rows each has.

create or replace function lapse.queued_storages()
    returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_sort = off
    set jit = off
as $$
begin
    return (
        with recursive known (name) as (
            (select q.storage from lapse.file_cleanup_queue as q where q.dead_at is null order by q.storage limit 1)
            union all
            select (select q.storage
                      from lapse.file_cleanup_queue as q
                     where q.dead_at is null and q.storage > k.name
                     order by q.storage
                     limit 1)
              from known as k
             where k.name is not null
        )
        select coalesce(array_agg(n.name), '{}')
          from (select k.name from known as k where k.name is not null limit 1000) as n);
end;
$$;

comment on function lapse.queued_storages() is
    'Internal: names of the storages that have rows in the queue, without looking at each row.';
