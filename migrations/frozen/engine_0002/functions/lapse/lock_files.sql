-- lapse.lock_files: lock queue rows in the one order that everybody uses.
--
-- In: row numbers, and whether to wait for rows that others have locked. Out: the
-- numbers of the rows that are now locked. Waiting follows lock_timeout (55P03).
-- The order is (storage, digest), as in lapse.enqueue_files, so the two never deadlock. It is
-- spelled so that no index offers it: where statistics say that the queue is empty, the plan
-- would be to walk all of that index and compare each row with each number.

create or replace function lapse.lock_files(p_ids bigint[], p_wait boolean)
    returns bigint[]
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    if p_wait then
        return array(select l.id
                       from (select q.id
                               from lapse.file_cleanup_queue as q
                              where q.id = any (p_ids)
                              order by q.storage || '', lapse.path_digest(q.path)
                             offset 0) as f
                      cross join lateral (select q.id from lapse.file_cleanup_queue as q where q.id = f.id
                                          offset 0 for update) as l);
    end if;

    return array(select l.id
                   from (select q.id
                           from lapse.file_cleanup_queue as q
                          where q.id = any (p_ids)
                          order by q.storage || '', lapse.path_digest(q.path)
                         offset 0) as f
                  cross join lateral (select q.id from lapse.file_cleanup_queue as q where q.id = f.id
                                      offset 0 for update skip locked) as l);
end;
$$;

comment on function lapse.lock_files(bigint[], boolean) is
    'Internal: lock queue rows in (storage, digest) order, waiting or skipping; returns the numbers of those locked.';
