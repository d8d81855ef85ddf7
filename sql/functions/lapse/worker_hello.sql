-- lapse.worker_hello: a worker begins, or comes back after its connection was lost.
--
-- In: the name that it goes by in leases, its host, process and version, and the storages that it
-- deletes from. Out: the version of the functions that it calls, and how far ahead a NOTIFY is
-- sent: it polls no slower than that. LP001 for a NULL or a name that can't be one.
--
-- A storage served for the first time gets back the files that were given up because no worker
-- had ever served it; one that somebody is changing just now is being revived, retried or discarded anyway.
-- The lock keeps lapse.bury_unserved from giving up more of them at this moment.

create or replace function lapse.worker_hello(
    p_worker   text,
    p_host     text,
    p_pid      integer,
    p_version  text,
    p_storages text[] default '{}'
)
    returns table (api_version integer, notify_horizon interval)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_new text[];
begin
    if num_nulls(p_worker, p_host, p_pid, p_version, p_storages) > 0 or p_worker = '' then
        raise exception 'a worker tells its name, host, process, version and storages'
            using errcode = 'LP001',
                  hint = 'For example: select * from lapse.worker_hello(''host:1:a'', ''host'', 1, ''1.0'', ''{public}'').';
    end if;

    p_storages := array(select distinct n.name from unnest(p_storages) as n (name) order by n.name);
    if exists (select from unnest(p_storages) as n (name)
                where n.name is null or n.name = '' or octet_length(n.name) > 200) then
        raise exception 'the name of a storage is NULL, empty or longer than 200 bytes'
            using errcode = 'LP001', hint = 'Give the names that the worker''s configuration has.';
    end if;

    insert into lapse.worker as w (id, host, pid, version, storages)
    values (p_worker, p_host, p_pid, p_version, p_storages)
    on conflict (id) do update
       set host = excluded.host, pid = excluded.pid, version = excluded.version, storages = excluded.storages,
           troubles = '{}', last_seen_at = clock_timestamp();

    v_new := array(select n.name from unnest(p_storages) as n (name)
                    where not exists (select from lapse.storage as s where s.name = n.name));

    if v_new <> '{}' then
        perform pg_advisory_xact_lock(1818324342, 0);

        insert into lapse.storage (name)
        select n.name from unnest(v_new) as n (name)
        on conflict (name) do nothing;

        with given_up as materialized (
            select q.id
              from lapse.file_cleanup_queue as q
             where q.dead_at is not null
               and q.storage = any (v_new)
               and starts_with(q.last_error, 'no worker has ever served storage ')
               for update skip locked
        )
        update lapse.file_cleanup_queue as q
           set dead_at = null, attempts = 0, lost = 0, last_error = null, not_before = clock_timestamp()
         where q.id = any (array(select g.id from given_up as g));
    end if;

    perform lapse.touch_storages(p_storages);

    return query
    select lapse.api_version(), s.notify_horizon from lapse.setting as s;
end;
$$;

comment on function lapse.worker_hello(text, text, integer, text, text[]) is
    'For workers: make oneself and one''s storages known; returns the API version and how far ahead a NOTIFY is sent.';
