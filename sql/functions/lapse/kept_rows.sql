-- lapse.kept_rows: which held rows are there now?
--
-- In: a hold, by table and key as lapse.hold has them, without them all; the policy that is about to run; the tables
-- to look at, NULL for all. Out: a text for each held row that
-- exists, as this transaction sees it: the number of its table, a blank, its key. lapse.run_batch asks before the step
-- and after it: whatever became of a held row in between, by a cascade, a trigger or a step that never looked, the
-- batch is undone. A table that the engine's owner may not read, or only by running what somebody else wrote, is passed
-- over, and lapse.hold says so; so are keys whose column has got another type. A table that is locked
-- as a whole is an error, unless the policy says that it can't reach it: its table has no such child, and its step is made.

create or replace function lapse.kept_rows(
    p_table     text         default null,
    p_key       text         default null,
    p_policy    lapse.policy default null,
    p_relations oid[]        default null
)
    returns setof text
    language plpgsql
    volatile
    security definer  -- what counts is what the engine's owner can see
    set search_path = pg_catalog, pg_temp
    set row_security = off
    set jit = off
    set enable_hashjoin = off  -- a few rows of a large table: each is looked up
    set enable_mergejoin = off
    set enable_seqscan = off
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
declare
    v_held record;
begin
    for v_held in
        select r.relation, h.key_columns, array_agg(u.key) as keys
          from (select g.target_oid, g.oids_of, g.target_names, g.key_columns, array_agg(g.key) as keys
                  from lapse.hold as g
                 where p_table is null or (g.target_table = p_table and g.key = p_key)
                 group by g.target_oid, g.oids_of, g.target_names, g.key_columns) as h
         cross join lateral lapse.hold_relations(h.target_oid, h.oids_of, h.target_names) as r (relation)
         cross join lateral unnest(h.keys) as u (key)
         where (p_relations is null or r.relation = any (p_relations))
           and lapse.may_look(r.relation)
         group by r.relation, h.key_columns
    loop
        begin
            return query execute format(
                'select %L || k.key from unnest($1) as k (key) where exists (select from %s as t where %s)',
                v_held.relation || ' ', v_held.relation::regclass,
                lapse.key_match(v_held.relation, v_held.key_columns, 't', 'k.key'))
                using v_held.keys;
        exception
            when lock_not_available then
                if p_policy.name is null or (p_policy.action is null and p_policy.step not like 'lapse.%') or exists (
                       with recursive below as (
                           select lapse.whole_table(p_policy.target_table)::oid as relid
                           union
                           select coalesce(pg_partition_root(f.conrelid), f.conrelid)
                             from below as b
                             join pg_constraint as f
                               on coalesce(pg_partition_root(f.confrelid), f.confrelid) = b.relid and f.contype = 'f'
                       )
                       select from below as b where b.relid = v_held.relation) then
                    raise exception 'table % is locked, and rows of it are held', v_held.relation::regclass
                        using errcode = 'lock_not_available', hint = 'Nothing was done; the policy is tried again.';
                end if;
            when data_exception or undefined_function or syntax_error_or_access_rule_violation then
                null;
        end;
    end loop;
end;
$$;

comment on function lapse.kept_rows(text, text, lapse.policy, oid[]) is
    'Internal: the held rows that exist, as number of the table and key; those of one hold or of all.';
