-- lapse.release_hold: a row that was held may go again.
--
-- In: the table and the row's key, as for lapse.hold. Out: true; false where it was not held. What is due is taken by the next
-- run; files that claims left are looked at again within ten minutes. For a row that is gone, the key
-- has to be spelled as lapse.hold keeps it. Runs with its caller's rights: the engine's owner.

create or replace function lapse.release_hold(p_target regclass, p_key text)
    returns boolean
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_table regclass := coalesce(pg_partition_root(p_target), p_target);
    v_key   text;
begin
    perform pg_advisory_xact_lock(1818324343, 0);  -- a policy made at this moment would keep what is released

    select h.key
      into v_key
      from lapse.hold as h
     where to_regclass(h.target_table) = v_table and h.key = p_key;
    if not found then
        select f.key into v_key from lapse.find_row(v_table, p_key, false) as f;
    end if;

    delete from lapse.blocked_row as b
     where b.hold_key = v_key and b.policy in (select lapse.policies_on(v_table));
    delete from lapse.hold as h
     where to_regclass(h.target_table) = v_table and h.key = v_key;
    return found;
end;
$$;

comment on function lapse.release_hold(regclass, text) is
    'Let a row that was held go again; false where it was not held.';
