-- lapse.compact_queue: step of policy compact_queue; the queue's indexes come back to size after a burst.
--
-- In and out: as every step; p_after is not used. Rebuilds the indexes of lapse.file_cleanup_queue when they have grown far
-- beyond what its rows need: at least 8 MB, and 1 kB for each row that is left. Vacuum gives a table's empty
-- end back, but of an index it never gives back a page. Answers one row handled when it did so, none otherwise.
--
-- A rebuild locks the table as a whole, so it is tried only while that takes no time: with at most 10,000
-- rows left, and with nobody at the table at this moment, without waiting. Otherwise the next run tries again.

create or replace function lapse.compact_queue(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_most  constant bigint := 10000;
    c_least constant bigint := 8 * 1024 * 1024;
    v_rows  bigint;
begin
    if pg_indexes_size('lapse.file_cleanup_queue') < c_least then
        return row(0, 0, null)::lapse.progress;
    end if;
    begin
        lock table lapse.file_cleanup_queue in access exclusive mode nowait;
    exception
        when lock_not_available then
            return row(0, 0, null)::lapse.progress;
    end;
    -- Counted by what vacuum left: a scan of a huge table with everybody waiting would be the wrong moment.
    if pg_relation_size('lapse.file_cleanup_queue') > c_least * 2 then
        return row(0, 0, null)::lapse.progress;
    end if;
    select count(*) into v_rows from (select from lapse.file_cleanup_queue as q limit c_most + 1) as q;
    if v_rows > c_most or pg_indexes_size('lapse.file_cleanup_queue') < v_rows * 1024 then
        return row(0, 0, null)::lapse.progress;
    end if;

    reindex table lapse.file_cleanup_queue;
    return row(1, 1, p_cutoff)::lapse.progress;
end;
$$;

comment on function lapse.compact_queue(integer, timestamptz, timestamptz) is
    'Step: rebuild the indexes of the queue where a burst left them far too large, and nobody has to wait.';
