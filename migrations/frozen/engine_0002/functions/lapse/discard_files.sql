-- lapse.discard_files: take rows out of the queue without deleting their files.
--
-- In: numbers of queue rows, and why, for the log. Out: how many went. Rows that a worker
-- holds stay, with a warning: wait until it is done. LP001 without numbers or a reason.

create or replace function lapse.discard_files(p_ids bigint[], p_reason text)
    returns bigint
    language plpgsql
    volatile
    security definer  -- an operator needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off  -- a plan made while the queue is empty is kept for a full one
    set jit = off
as $$
declare
    v_now   timestamptz := clock_timestamp();
    v_count bigint;
    v_held  bigint;
begin
    if p_ids is null or p_reason is null or p_reason !~ '\S' then
        raise exception 'which rows are to be discarded, and why?'
            using errcode = 'LP001', hint = 'For example: select lapse.discard_files(array[42], ''the disk is gone'').';
    end if;

    perform lapse.lock_files(p_ids, true);

    with gone as (
        delete from lapse.file_cleanup_queue as q
         where q.id = any (p_ids)
           and (q.leased_until is null or q.leased_until <= v_now)
        returning q.*
    )
    insert into lapse.file_cleanup_log
           (queue_id, storage, path, reason, source_table, source_id, outcome, attempts, note, enqueued_at, not_before)
    select g.id, g.storage, g.path, g.reason, g.source_table, g.source_id, 'discarded', g.attempts, p_reason,
           g.enqueued_at, g.not_before
      from gone as g;
    get diagnostics v_count = row_count;

    select count(*) into v_held from lapse.file_cleanup_queue as q where q.id = any (p_ids);
    if v_held > 0 then
        raise warning '% rows were not discarded: a worker holds them', v_held
            using hint = 'See leased_until in lapse.queue_detail, and try again after that.';
    end if;

    return v_count;
end;
$$;

comment on function lapse.discard_files(bigint[], text) is
    'Take rows out of the queue without deleting their files, and log why; returns how many.';
