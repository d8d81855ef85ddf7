-- lapse.copy_holds: let a policy leave out the rows that are held on its table.
--
-- In: a policy. Out: nothing. Called when a row is held, when a policy is made, and when its target or key changes. Rows that
-- had been set aside are held now. A row whose key this policy spells otherwise is looked up; one that is gone is left
-- out. The table of a declared policy may be somebody else's and is not looked into with the engine's rights: LP016, if
-- its key is another than the hold's. The advisory lock keeps a row that is being held at this moment from being missed.

create or replace function lapse.copy_holds(p_policy text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy lapse.policy;
    v_table  regclass;
begin
    perform pg_advisory_xact_lock(1818324343, 0);

    select p.* into v_policy from lapse.policy as p where p.name = p_policy;
    v_table := lapse.whole_table(v_policy.target_table);

    if v_policy.action is not null and exists (
           select from lapse.hold as h
            where to_regclass(h.target_table) = v_table and h.key_columns <> v_policy.key_columns) then
        raise exception 'policy % has the key (%), and rows of % are held by another', p_policy,
                        array_to_string(v_policy.key_columns, ', '), v_table
            using errcode = 'LP016', hint = 'See lapse.hold: choose that key, or have those rows released.';
    end if;

    insert into lapse.blocked_row as b (policy, key, error, run_id, retry_at, hold_key)
    select p_policy, k.key, 'held: ' || k.reason, 0, 'infinity', k.hold_key
      from (select h.key as hold_key, h.reason,
                   case when h.key_columns = v_policy.key_columns then h.key
                        else lapse.spelled_key(v_table, h.key_columns, h.key, v_policy.key_columns) end as key
              from lapse.hold as h
             where to_regclass(h.target_table) = v_table) as k
     where k.key is not null
    on conflict (policy, key) do update
       set error = excluded.error, run_id = 0, retry_at = 'infinity', hold_key = excluded.hold_key
     where b.hold_key is null or b.error <> excluded.error;
end;
$$;

comment on function lapse.copy_holds(text) is
    'Internal: enter the rows that are held on a policy''s table among those that it leaves out.';
