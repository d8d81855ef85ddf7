-- lapse.tick_acquire: become the one worker that ticks.
--
-- In: the worker's name, as in lapse.worker_hello. Out: true when it is its turn now, also when
-- it was before; false when another's is it, or when this worker is not on the list or was not
-- seen for a minute. Never waits. LP001 without a name.
--
-- A row and not a session's lock: it is kept by the heartbeats of its worker, so one that was
-- killed, stopped or cut off hands over within a minute or so, and behind a pooler, where
-- sessions are nobody's, there is one who ticks just the same. The database's clock decides.
-- Should two tick for a moment, no harm is done: each policy is served by one of them.

create or replace function lapse.tick_acquire(p_worker text)
    returns boolean
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_patience constant interval := interval '1 minute';
    v_holder   text;
    v_held     boolean;
    v_at_work  boolean;
begin
    if p_worker is null or p_worker = '' then
        raise exception 'a worker needs a name'
            using errcode = 'LP001', hint = 'Give the name that lapse.worker_hello was given.';
    end if;

    select t.worker into v_holder from lapse.tick_turn as t;
    if v_holder = p_worker then
        return true;
    end if;

    select coalesce(bool_or(w.id = v_holder), false), coalesce(bool_or(w.id = p_worker), false)
      into v_held, v_at_work
      from lapse.worker as w
     where w.id in (v_holder, p_worker)
       and w.last_seen_at > clock_timestamp() - c_patience
       and w.last_seen_at < clock_timestamp() + c_patience;
    if v_held or not v_at_work then
        return false;
    end if;

    -- Of several who see the same dead worker, the first takes over.
    insert into lapse.tick_turn as t (worker)
    values (p_worker)
    on conflict (only_row) do update
       set worker = excluded.worker, since = excluded.since
     where t.worker = v_holder;
    return found;
end;
$$;

comment on function lapse.tick_acquire(text) is
    'For workers: take the turn of the one that ticks; true when it is this worker''s. Kept by heartbeats, until lapse.tick_release.';
