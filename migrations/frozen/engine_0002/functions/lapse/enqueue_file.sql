-- lapse.enqueue_file: condemn one file. The rules are those of lapse.enqueue_files.
--
-- In: where the file is; when it may go (NULL: now); why; which row asked; what the file must still be
-- (NULL: no matter). Out: the number of its queue row. LP001 without storage or path, or for a
-- guard that can't be one.

create or replace function lapse.enqueue_file(
    p_storage      text,
    p_path         text,
    p_not_before   timestamptz default now(),
    p_reason       text        default 'requested',
    p_source_table text        default null,
    p_source_id    text        default null,
    p_expected     jsonb       default null
)
    returns bigint
    language plpgsql
    volatile
    security definer  -- an application needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off  -- a plan made while the queue is empty is kept for a full one
    set jit = off
as $$
begin
    if p_storage is null or p_path is null then
        raise exception 'a file to delete needs a storage and a path'
            using errcode = 'LP001', hint = 'For example: select lapse.enqueue_file(''public'', ''tasks/1/a.png'').';
    end if;

    perform lapse.enqueue_files(
        array[row(p_storage, p_path, p_not_before, p_reason, p_source_table, p_source_id, p_expected)::lapse.file_request]);

    return (select q.id
              from lapse.file_cleanup_queue as q
             where q.storage = p_storage
               and lapse.path_digest(q.path) = lapse.path_digest(p_path));
end;
$$;

comment on function lapse.enqueue_file(text, text, timestamptz, text, text, text, jsonb) is
    'Queue one file for deletion in this transaction; returns the number of its queue row.';
