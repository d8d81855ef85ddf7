-- lapse.derived_holds: rows of a policy's table that would take a held row along with them.
--
-- In: a policy; of one hold only, its table and key. Out: keys, as the policy has them, of rows that a held row refers to
-- with on delete cascade, at any number of removes, and the hold that each is kept for; one of them where there are
-- several. Goes upwards from the held rows themselves, wave by wave, each row once. A table that may not be looked at
-- (lapse.may_look) ends the way there. It is a way to lose no time: what is missed here is caught by lapse.run_batch,
-- after the step.

create or replace function lapse.derived_holds(
    p_policy     lapse.policy,
    p_hold_table text default null,
    p_hold_key   text default null
)
    returns table (key text, hold_table text, hold_key text, reason text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set row_security = off  -- a hidden row is an error, not a row that is not there
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
#variable_conflict use_column
declare
    v_goal      oid := lapse.whole_table((p_policy).target_table);
    v_holds     lapse.hold[];
    v_rels      oid[] := '{}';  -- rows found so far: the table or partition of each, its place there, and the hold it is kept for
    v_tids      tid[] := '{}';
    v_by        integer[] := '{}';
    v_more_rels oid[];
    v_more_tids tid[];
    v_more_by   integer[];
    v_from      integer := 0;
    v_to        integer;
    v_start     record;
    v_step      record;
begin
    -- Only holds on tables below this policy's.
    with recursive below as (
        select v_goal as relid
        union
        select coalesce(pg_partition_root(f.conrelid), f.conrelid)
          from below as b
          join pg_constraint as f
            on coalesce(pg_partition_root(f.confrelid), f.confrelid) = b.relid
           and f.contype = 'f' and f.confdeltype = 'c'
    )
    select array_agg(h)
      into v_holds
      from (select distinct h.target_table, h.key
              from (select b.relid from below as b
                     where b.relid <> v_goal
                        or exists (select from pg_constraint as f
                                    where f.conrelid = v_goal and f.contype = 'f' and f.confdeltype = 'c')) as b
             cross join lateral lapse.held_rows(b.relid, p_hold_table, p_hold_key) as h) as n
      join lapse.hold as h on h.target_table = n.target_table and h.key = n.key;

    for v_start in
        with holds as materialized (
            select h.*
              from unnest(v_holds) with ordinality
                   as h (target_table, target_oid, oids_of, target_names, key, key_columns, file_key, reason, held_by, held_at,
                         place)
        )
        select r.relation, h.key_columns, array_agg(h.key) as keys, array_agg(h.place::integer) as places
          from (select distinct h.target_oid, h.oids_of, h.target_names from holds as h) as t
         cross join lateral lapse.hold_relations(t.target_oid, t.oids_of, t.target_names) as r (relation)
          join holds as h
            on h.target_oid = t.target_oid and h.oids_of = t.oids_of and h.target_names = t.target_names
         where lapse.may_look(r.relation)
         group by r.relation, h.key_columns
    loop
        begin
            execute format('select array_agg(t.tableoid), array_agg(t.ctid), array_agg(k.place) '
                           'from unnest($1, $2) as k (key, place) join %s as t on %s',
                           v_start.relation::regclass, lapse.key_match(v_start.relation, v_start.key_columns, 't', 'k.key'))
               into v_more_rels, v_more_tids, v_more_by
              using v_start.keys, v_start.places;
            v_rels := v_rels || v_more_rels;
            v_tids := v_tids || v_more_tids;
            v_by := v_by || v_more_by;
        exception
            when data_exception or undefined_function or insufficient_privilege then
                null;
        end;
    end loop;

    loop
        v_to := coalesce(cardinality(v_tids), 0);
        exit when v_from = v_to;
        for v_step in
            with tables as (
                select distinct u.rel from unnest(v_rels[v_from + 1:v_to]) as u (rel)
            ),
            whole as (  -- whatever a constraint may name to mean rows of these tables
                select t.rel, t.rel as above from tables as t
                union
                select t.rel, a.relid from tables as t cross join lateral pg_partition_ancestors(t.rel) as a (relid)
            )
            select distinct f.conrelid, f.confrelid,
                   (select string_agg(format('p.%I operator(%I.%s) c.%I', pa.attname, n.nspname, e.oprname, ca.attname), ' and ')
                      from unnest(f.conkey, f.confkey, f.conpfeqop) as k (child, parent, equals)
                      join pg_operator as e on e.oid = k.equals
                      join pg_namespace as n on n.oid = e.oprnamespace
                      join pg_attribute as ca on ca.attrelid = f.conrelid and ca.attnum = k.child
                      join pg_attribute as pa on pa.attrelid = f.confrelid and pa.attnum = k.parent) as condition
              from whole as w
              join pg_constraint as f
                on f.conrelid = w.above and f.contype = 'f' and f.confdeltype = 'c' and f.conparentid = 0
             where lapse.may_look(f.conrelid) and lapse.may_look(f.confrelid)
        loop
            execute format('select array_agg(n.rel), array_agg(n.tid), array_agg(n.place) from ('
                           'select distinct on (p.tableoid, p.ctid) p.tableoid as rel, p.ctid as tid, g.place '
                           'from unnest($1, $2, $3) as g (rel, tid, place) '
                           'join %s as c on c.ctid = g.tid and c.tableoid = g.rel join %s as p on %s '
                           'where not exists (select from unnest($4, $5) as s (rel, tid) '
                           'where s.rel = p.tableoid and s.tid = p.ctid) '
                           'order by p.tableoid, p.ctid, g.place) as n',
                           v_step.conrelid::regclass, v_step.confrelid::regclass, v_step.condition)
               into v_more_rels, v_more_tids, v_more_by
              using v_rels[v_from + 1:v_to], v_tids[v_from + 1:v_to], v_by[v_from + 1:v_to], v_rels, v_tids;
            v_rels := v_rels || v_more_rels;
            v_tids := v_tids || v_more_tids;
            v_by := v_by || v_more_by;
            for key, hold_table, hold_key, reason in
                execute format('select %s, (h.hold).target_table, (h.hold).key, (h.hold).reason '
                               'from unnest($1, $2, $3) as g (rel, tid, place) '
                               'join %s as t on t.ctid = g.tid and t.tableoid = g.rel '
                               'cross join lateral (select $4[g.place] as hold) as h',
                               lapse.key_expression((p_policy).key_columns, 't'), v_goal::regclass)
                  using v_more_rels, v_more_tids, v_more_by, v_holds
            loop
                return next;
            end loop;
        end loop;
        v_from := v_to;
    end loop;
end;
$$;

comment on function lapse.derived_holds(lapse.policy, text, text) is
    'Internal: rows of a policy''s table that would take a held row along, by cascades, and the hold that each is kept for.';
