-- lapse.hold: keep this row, and its files, whatever is due: for a lawsuit, a complaint, a look at it.
--
-- In: the table, the row's key (as lapse.blocked_row spells it, or any other way that its types read; of several columns an
-- array: {7,abc}), and why. Out: the key as it is spelled here. Held is the row for each policy on the table, those made later
-- too; and claims leave files that it asked to delete. A second call gives another reason. Raises LP016 where there is no such row,
-- LP001 for a NULL or an empty reason, LP002 for what is no table. A WARNING names the row to hold as well, where this one
-- would go along with it: the parent of a cascading foreign key that a policy works on. Runs with its
-- caller's rights: the engine's owner.
--
-- Batches that are in progress are waited for, and so is whoever is deleting this row: each batch first locks
-- its policy's state, and looks only then. So when this returns, either the row is there and stays, or there was
-- none. What applications delete themselves goes all the same.
-- Lock order: one hold or new policy at a time, the policies' states by name, the row.

create or replace function lapse.hold(
    p_target regclass,
    p_key    text,
    p_reason text
)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_table   regclass := coalesce(pg_partition_root(p_target), p_target);
    v_name    text;
    v_columns text[];
    v_found   record;
    v_policy  record;
    v_parent  record;
begin
    if num_nulls(p_target, p_key, p_reason) > 0 or btrim(p_reason) = '' then
        raise exception 'a row is held by its table and key, and for a reason'
            using errcode = 'LP001', hint = 'For example: select lapse.hold(''market.tasks'', ''17'', ''case 4711'');';
    end if;

    select format('%I.%I', n.nspname, c.relname)
      into v_name
      from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where c.oid = v_table and c.relkind in ('r', 'p');
    if not found then
        raise exception '% is not a table', p_target
            using errcode = 'LP002', hint = 'Name the table that has the row.';
    end if;

    perform pg_advisory_xact_lock(1818324343, 0);
    perform from lapse.policy_state as s
      where s.policy in (select lapse.policies_on(v_table))
      order by s.policy
        for update;

    select f.* into v_found from lapse.find_row(v_table, p_key, true) as f;
    if v_found.key is null then
        raise exception 'table % has no row %', v_table, p_key
            using errcode = 'LP016',
                  hint = format('It may be gone, or the key is spelled otherwise: select * from lapse.why(%L, %L) knows more.',
                                v_name, p_key);
    end if;
    if octet_length(v_found.key) > 2000 then
        raise exception 'the key of this row is longer than 2,000 bytes'
            using errcode = 'LP016', hint = 'No index entry has room for it. Declare other key columns.';
    end if;

    -- Attached files are queued under the table's own key, whatever the policy's is.
    v_columns := array(select k.name from lapse.table_key(v_table) as k order by k.place);

    insert into lapse.hold as h (target_table, key, key_columns, file_key, reason, held_by)
    values (v_name, v_found.key, v_found.key_columns,
            case when v_columns in (v_found.key_columns, '{}') then v_found.key
                 else lapse.spelled_key(v_table, v_found.key_columns, v_found.key, v_columns) end,
            p_reason, current_user)
    on conflict (target_table, key) do update
       set reason = excluded.reason, held_by = excluded.held_by;

    for v_policy in
        select p.name from lapse.policy as p where p.name in (select lapse.policies_on(v_table)) order by p.name
    loop
        perform lapse.copy_holds(v_policy.name);
    end loop;

    for v_parent in
        select c.* from lapse.cascading_parents(v_table, v_found.key_columns, v_found.key) as c
    loop
        raise warning 'policy % works on %, and this row goes along with its row %', v_parent.policy,
                      v_parent.target, v_parent.key
            using hint = format('Hold that, too: select lapse.hold(%L, %L, %L);', v_parent.target, v_parent.key, p_reason);
    end loop;

    return v_found.key;
end;
$$;

comment on function lapse.hold(regclass, text, text) is
    'Keep a row and its files, whatever is due, until lapse.release_hold; returns its key. LP016 where it is gone.';
