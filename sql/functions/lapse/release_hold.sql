-- lapse.release_hold: a row that was held may go again.
--
-- In: the table and the row's key, as for lapse.hold. Out: true; false where it was not held. What is due is taken by the next
-- run; so are rows that were kept for its sake, unless another held row needs them: the next batch finds that out. Files
-- that claims left are looked at again within ten minutes. For a row that is gone, the key has to be spelled as lapse.hold
-- keeps it. Runs with its caller's rights: the engine's owner.

create or replace function lapse.release_hold(p_target regclass, p_key text)
    returns boolean
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_table regclass := coalesce(pg_partition_root(p_target), p_target);
    v_key   text := p_key;
    v_hold  lapse.hold;
    v_found boolean := false;
begin
    perform pg_advisory_xact_lock(1818324343, 0);  -- a policy made at this moment would keep what is released

    if not exists (select from lapse.held_rows(v_table) as h where h.key = p_key) then
        select f.key into v_key from lapse.find_row(v_table, p_key, false) as f;
    end if;

    for v_hold in
        select h.* from lapse.held_rows(v_table) as h where h.key = v_key
    loop
        delete from lapse.blocked_row as b where b.hold_table = v_hold.target_table and b.hold_key = v_hold.key;
        delete from lapse.hold as h where h.target_table = v_hold.target_table and h.key = v_hold.key;
        v_found := true;
    end loop;
    return v_found;
end;
$$;

comment on function lapse.release_hold(regclass, text) is
    'Let a row that was held go again; false where it was not held.';
