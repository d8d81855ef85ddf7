-- lapse.hold: keep this row, and its files, whatever is due: for a lawsuit, a complaint, a look at it.
--
-- In: the table, the row's key (as lapse.blocked_row spells it, or any other way that its types read; of several columns an
-- array: {7,abc}), and why. Out: the key as it is spelled here. Held is the row for each policy on the table, those made later
-- too; claims leave files that it asked to delete; and a batch that would take it along in any other way, as by a cascade from a
-- parent row, is undone (lapse.run_batch). A second call gives another reason. Raises LP016 where there is no such row,
-- LP001 for a NULL or an empty reason, LP002 for what is no table. A WARNING says where the engine's owner can't
-- see the row, so that only policies on its own table leave it out. Runs with its caller's rights: the engine's owner.
--
-- Batches that are in progress are waited for, of all policies, since any may reach the row; and so is whoever is deleting it.
-- Each batch first locks its policy's state, and looks only then. So when this returns, either the row is there and
-- stays, or there was none. What applications delete themselves goes all the same.
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
    v_known   text;
    v_columns text[];
    v_found   record;
    v_policy  record;
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

    if not (has_table_privilege(v_table, 'select') and has_table_privilege(v_table, 'update')) then
        raise exception 'role % may not look at the rows of %, or not lock them', current_user, v_name
            using errcode = 'insufficient_privilege',
                  hint = format('As its owner: grant select, update on %s to %I; or hold the row as a superuser.', v_name,
                                current_user);
    end if;

    perform pg_advisory_xact_lock(1818324343, 0);
    perform from lapse.policy_state as s order by s.policy for update;
    perform lapse.note_hold_names();

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

    -- A row that was held before its table was renamed is not held twice.
    v_known := (select h.target_table
                  from lapse.held_rows(v_table) as h
                 where h.key = v_found.key
                 order by h.target_table = v_name desc
                 limit 1);

    -- Attached files are queued under the table's own key, whatever the policy's is.
    v_columns := array(select k.name from lapse.table_key(v_table) as k order by k.place);

    insert into lapse.hold as h (target_table, target_oid, oids_of, target_names, key, key_columns, file_key, reason, held_by)
    values (coalesce(v_known, v_name), v_table, 'lapse.hold'::regclass, array[v_name], v_found.key, v_found.key_columns,
            case when v_columns in (v_found.key_columns, '{}') then v_found.key
                 else lapse.spelled_key(v_table, v_found.key_columns, v_found.key, v_columns) end,
            p_reason, current_user)
    on conflict (target_table, key) do update
       set target_oid   = excluded.target_oid,
           oids_of      = excluded.oids_of,
           target_names = case when v_name = any (h.target_names) then h.target_names else h.target_names || v_name end,
           key_columns  = excluded.key_columns,
           file_key     = excluded.file_key,
           reason       = excluded.reason,
           held_by      = excluded.held_by;

    for v_policy in
        select p.name, p.action
          from lapse.policy as p
         where p.name in (select lapse.policies_on(v_table)) or p.action = 'delete'
         order by p.name
    loop
        perform lapse.copy_holds(v_policy.name, v_policy.action is not distinct from 'delete',
                                 coalesce(v_known, v_name), v_found.key);
    end loop;

    if not exists (select from lapse.kept_rows(coalesce(v_known, v_name), v_found.key)) then
        raise warning 'the engine''s owner can''t see row % of %: where it goes along with another row, nothing keeps it',
                      v_found.key, v_name
            using hint = format('He needs select on that table, with row security off, and without functions of others in its '
                                'indexes; or hold the rows that it refers to as well. %s',
                                coalesce('It would run: ' || lapse.foreign_code(v_table), ''));
    end if;

    return v_found.key;
end;
$$;

comment on function lapse.hold(regclass, text, text) is
    'Keep a row and its files, whatever is due, until lapse.release_hold; returns its key. LP016 where it is gone.';
