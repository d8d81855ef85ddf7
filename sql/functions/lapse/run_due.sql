-- lapse.run_due: serve every policy whose time has come. What pg_cron calls.
--
-- In: who calls (pg_cron, worker or manual); whether to stay until second 55 of
-- the minute and serve what comes due meanwhile, for pg_cron 1.4; the time
-- allowed in all. Batch by batch, the least recently served policy first. One
-- that fails is recorded and backs off while the others go on; at the end LP006 names all that
-- failed. Make it the only statement of its job, or COMMIT is refused.
--
-- As in lapse.run, each transaction first sets the path and then only calls.

create or replace procedure lapse.run_due(
    p_source text     default 'manual',
    p_stay   boolean  default false,
    p_budget interval default '50 s'
)
    language plpgsql
as $$
declare
    v_deadline timestamptz;
    v_stay     boolean;
    v_run      bigint;
    v_fresh    boolean;
    v_rest     double precision;
    v_failed   bigint;
    v_stop     boolean;
    v_failures bigint[];
begin
    commit;
    set transaction isolation level read committed;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    v_stay := lapse.may_stay(p_stay);
    v_deadline := lapse.begin_tick(p_source, v_stay, p_budget);
    commit;
    set transaction isolation level read committed;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    loop
        select n.run_id, n.fresh, n.rest
          into v_run, v_fresh, v_rest
          from lapse.next_due(p_source, v_deadline, v_stay) as n;

        if v_run is not null then
            if v_fresh then
                commit;
                set transaction isolation level read committed;
                perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
            end if;
            select b.failed, b.stop into v_failed, v_stop from lapse.run_batch(v_run) as b;
            if v_failed is not null then
                v_failures := pg_catalog.array_append(v_failures, v_failed);
            end if;
        elsif v_rest is not null then
            -- Rest without a lock: whoever alters or removes the engine's tables finds them free.
            commit;
            set transaction isolation level read committed;
            perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
            perform pg_catalog.pg_sleep(v_rest);
        else
            v_stop := true;
        end if;
        commit;
        set transaction isolation level read committed;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        exit when v_stop;
    end loop;

    perform lapse.leave_runs('ok');
    commit;
    set transaction isolation level read committed;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    perform lapse.raise_failures(v_failures);
end;
$$;

comment on procedure lapse.run_due(text, boolean, interval) is
    'Serve all policies that are due, batch by batch, the least recently served first: what pg_cron calls.';
