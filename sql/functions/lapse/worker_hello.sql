-- lapse.worker_hello: a worker begins, or comes back after its connection was lost.
--
-- In: the name that it goes by in leases, its host, process and version. Out: the version of
-- the functions that it calls, and how far ahead a NOTIFY is sent: it polls no slower than
-- that. LP001 for a NULL.

create or replace function lapse.worker_hello(p_worker text, p_host text, p_pid integer, p_version text)
    returns table (api_version integer, notify_horizon interval)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if num_nulls(p_worker, p_host, p_pid, p_version) > 0 or p_worker = '' then
        raise exception 'a worker tells its name, host, process and version'
            using errcode = 'LP001', hint = 'For example: select * from lapse.worker_hello(''host:1:a'', ''host'', 1, ''1.0'').';
    end if;

    insert into lapse.worker as w (id, host, pid, version)
    values (p_worker, p_host, p_pid, p_version)
    on conflict (id) do update
       set host = excluded.host, pid = excluded.pid, version = excluded.version, last_seen_at = clock_timestamp();

    return query
    select lapse.api_version(), s.notify_horizon from lapse.setting as s;
end;
$$;

comment on function lapse.worker_hello(text, text, integer, text) is
    'For workers: make oneself known; returns the API version and how far ahead a NOTIFY is sent.';
