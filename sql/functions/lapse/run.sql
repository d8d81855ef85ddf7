-- lapse.run: one policy, until nothing is due or its time is up.
--
-- In: the policy; the cutoff, by default now; whether a cutoff in the future is
-- meant. Commits after each batch. Raises LP002, LP005 or LP001 as lapse.begin_run
-- does, and LP006 at the end when the run failed, all of it recorded by then. A
-- NOTICE says what a good run did. A policy that is being run already is entered as
-- skipped, with a NOTICE.
--
-- A procedure that commits can carry neither SET nor SECURITY DEFINER, and its
-- statements would resolve operators on the caller's path. So it sets the path first
-- thing in each transaction, calls functions that have both, and touches nothing
-- itself. No expression may stand between COMMIT and SET TRANSACTION, since its
-- snapshot would come too early for that. The first COMMIT refuses a call inside a
-- transaction before anything is done.

create or replace procedure lapse.run(
    p_policy       text,
    p_as_of        timestamptz default null,
    p_allow_future boolean     default false
)
    language plpgsql
as $$
declare
    v_run    bigint;
    v_again  boolean;
    v_failed bigint;
begin
    commit;
    set transaction isolation level read committed;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    v_run := lapse.begin_run(p_policy, p_as_of, p_allow_future);
    commit;
    set transaction isolation level read committed;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    v_again := v_run is not null;

    while v_again loop
        select b.again, b.failed into v_again, v_failed from lapse.run_batch(v_run) as b;
        commit;
        set transaction isolation level read committed;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    end loop;

    if v_failed is not null then
        perform lapse.raise_failures(array[v_failed]);
    elsif v_run is not null then
        perform lapse.tell_run(v_run, p_policy);
    end if;
end;
$$;

comment on procedure lapse.run(text, timestamptz, boolean) is
    'Run one policy now: batch by batch, until nothing is due or its time is up.';
