-- lapse.finish_gone: rows whose file is gone leave the queue for the log, if each is as its claim left it.
--
-- In: the worker; numbers, lease tokens and bytes released of files that are deleted, side by side. Out: whether
-- it was done. If not, nothing has happened: some row is another worker's by now, was cancelled, asked for
-- again or locked by somebody, or a file source could not record that its file is gone. Then
-- lapse.settle_files does it, row by row. LP001 for lists that don't match.
--
-- One statement for what nearly every result is: no row is locked before it is deleted, no list is made of the
-- rows and joined again. Instead of asking for locks, it leaves alone what anybody but the claim has marked: a
-- claimed row bears the number of the claiming transaction both as its writer and as its locker, or no
-- locker. Who locks a row in the moment between that look and its deletion is waited for, but no longer than
-- the timeout below. Rows are found by a range of one number, since an equality could also be planned as a
-- merge, which reads an index from end to end where statistics say that the queue is empty.

create or replace function lapse.finish_gone(p_worker text, p_ids bigint[], p_tokens bigint[], p_bytes bigint[])
    returns boolean
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_hashjoin = off
    set enable_mergejoin = off
    set enable_bitmapscan = off
    set jit = off
    set lock_timeout = '5ms'
as $$
declare
    v_tell     boolean := exists (select from lapse.file_source as s where s.removed is not null);
    v_count    bigint;
    v_storages text[];
    v_paths    text[];
    v_claimed  timestamptz[];
begin
    if array_ndims(p_ids) > 1 or array_ndims(p_tokens) > 1 or array_ndims(p_bytes) > 1
       or cardinality(p_tokens) is distinct from cardinality(p_ids)
       or cardinality(p_bytes) is distinct from cardinality(p_ids)
       or array_position(p_ids, null) is not null or array_position(p_tokens, null) is not null
       or 0 > any (p_bytes) then
        raise exception 'numbers, tokens and bytes of the files that are gone don''t match'
            using errcode = 'LP001', hint = 'Give one token and the bytes released for each number.';
    end if;

    with finished as (
        delete from lapse.file_cleanup_queue as q
         using unnest(p_ids, p_tokens, p_bytes) as g (id, token, bytes)
         where q.id >= g.id and q.id <= g.id
           and q.lease_token = g.token
           and q.again_at is null
           and q.cancelled_at is null
           and (q.xmax = q.xmin or q.xmax = '0')
        returning q.id, q.storage, q.path, q.reason, q.source_table, q.source_id, q.attempts, q.enqueued_at, q.not_before,
                  q.leased_at, g.bytes
    ),
    logged as (
        insert into lapse.file_cleanup_log
               (queue_id, storage, path, reason, source_table, source_id, outcome, bytes, worker, attempts, enqueued_at,
                not_before)
        select f.id, f.storage, f.path, f.reason, f.source_table, f.source_id, 'deleted', f.bytes, p_worker, f.attempts,
               f.enqueued_at, f.not_before
          from finished as f
    )
    select count(*), array_agg(f.storage) filter (where v_tell), array_agg(f.path) filter (where v_tell),
           array_agg(f.leased_at) filter (where v_tell)
      into v_count, v_storages, v_paths, v_claimed
      from finished as f;

    if v_count < cardinality(p_ids) then
        raise no_data_found;
    end if;

    if v_tell then
        perform lapse.tell_removed(v_storages, v_paths, v_claimed);

        if found then
            raise no_data_found;
        end if;
    end if;

    return true;
exception
    when no_data_found or lock_not_available or deadlock_detected then
        return false;
end;
$$;

comment on function lapse.finish_gone(text, bigint[], bigint[], bigint[]) is
    'Internal: move rows whose file is gone from the queue to the log, all of them or none.';
