-- merge_plain_insert: a plain INSERT into the queue is a request like any other.
--
-- In psql, insert into lapse.file_cleanup_queue (storage, path) values ('public', 'a.png') must
-- work, also for a file that is queued already, and also when two do it at once. So the row goes
-- through lapse.enqueue_file, which merges and nudges, and the INSERT itself writes nothing
-- (psql says INSERT 0 0; RETURNING returns nothing). Time, reason, source and guard count; a lease,
-- attempts and the like are not a client's business. enqueue_files writes generation 1 and so
-- passes by.

create or replace function lapse.merge_plain_insert()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may insert here needs no other right
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.enqueue_file(new.storage, new.path, new.not_before, new.reason, new.source_table, new.source_id,
                               new.expected);

    return null;
end;
$$;

comment on function lapse.merge_plain_insert() is
    'Trigger: turn a plain INSERT into the queue into lapse.enqueue_file.';

create or replace trigger merge_plain_insert
    before insert on lapse.file_cleanup_queue
    for each row
    when (new.generation = 0)
    execute function lapse.merge_plain_insert();

comment on trigger merge_plain_insert on lapse.file_cleanup_queue is
    'Plain INSERTs are merged with rows already queued and nudge the workers.';
