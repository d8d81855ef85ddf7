-- lapse.copy_holds: let a policy leave out the rows that are held on its table, and those that would take a held row along.
--
-- In: a policy; whether to look for the second kind (lapse.derived_holds) as well; of one hold only, its table and key.
-- Out: how many rows are new on its list. Called when a row is held, when a policy is made, when its target or key
-- changes, and when a batch was undone because a held row would have gone with it. Rows that had been set aside are held
-- now. A row that a held one has left since is kept on: to look whether it may go again would take rights that whoever
-- held the row may have had and this caller has not. A row whose key this policy spells otherwise is looked up; one that
-- is gone is left out. The table of a declared policy may be somebody else's and is not looked into with the engine's
-- rights: LP016, if its key is another than the hold's. The advisory lock keeps a row that is being held at this moment
-- from being missed.

create or replace function lapse.copy_holds(
    p_policy     text,
    p_upwards    boolean default false,
    p_hold_table text    default null,
    p_hold_key   text    default null
)
    returns integer
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy lapse.policy;
    v_table  regclass;
    v_new    integer;
    v_more   integer;
begin
    perform pg_advisory_xact_lock(1818324343, 0);

    select p.* into v_policy from lapse.policy as p where p.name = p_policy;
    v_table := lapse.whole_table(v_policy.target_table);
    if v_table is null or not exists (select from lapse.hold) then
        return 0;
    end if;

    if v_policy.action is not null and exists (
           select from lapse.held_rows(v_table, p_hold_table, p_hold_key) as h where h.key_columns <> v_policy.key_columns) then
        raise exception 'policy % has the key (%), and rows of % are held by another', p_policy,
                        array_to_string(v_policy.key_columns, ', '), v_table
            using errcode = 'LP016', hint = 'See lapse.hold: choose that key, or have those rows released.';
    end if;

    with entered as (
        insert into lapse.blocked_row as b (policy, key, error, run_id, retry_at, hold_table, hold_key)
        select distinct on (k.key) p_policy, k.key, 'held: ' || k.reason, 0, 'infinity'::timestamptz, k.hold_table, k.hold_key
          from (select h.target_table as hold_table, h.key as hold_key, h.reason,
                       case when h.key_columns = v_policy.key_columns then h.key
                            else lapse.spelled_key(v_table, h.key_columns, h.key, v_policy.key_columns) end as key
                  from lapse.held_rows(v_table, p_hold_table, p_hold_key) as h) as k
         where k.key is not null
         order by k.key, k.hold_table, k.hold_key
        on conflict (policy, key) do update
           set error = excluded.error, run_id = 0, retry_at = 'infinity',
               hold_table = excluded.hold_table, hold_key = excluded.hold_key
         where b.hold_key is null or (b.error, b.hold_table, b.hold_key)
                                     is distinct from (excluded.error, excluded.hold_table, excluded.hold_key)
        returning 1
    )
    select count(*) into v_new from entered;

    if p_upwards then
        with parent as materialized (
            select distinct on (d.key) d.* from lapse.derived_holds(v_policy, p_hold_table, p_hold_key) as d order by d.key
        ),
        entered as (
            insert into lapse.blocked_row as b (policy, key, error, run_id, retry_at, hold_table, hold_key)
            select p_policy, d.key, format('held: row %s of %s would go along with it: %s', d.hold_key, d.hold_table, d.reason),
                   0, 'infinity', d.hold_table, d.hold_key
              from parent as d
             where octet_length(d.key) <= 2000
            on conflict (policy, key) do update
               set error = excluded.error, run_id = 0, retry_at = 'infinity',
                   hold_table = excluded.hold_table, hold_key = excluded.hold_key
             where b.hold_key is null
            returning 1
        )
        select count(*) into v_more from entered;
    end if;
    return v_new + coalesce(v_more, 0);
end;
$$;

comment on function lapse.copy_holds(text, boolean, text, text) is
    'Internal: enter the rows that are held on a policy''s table, and those above held rows, among those that it leaves out.';
