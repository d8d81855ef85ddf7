-- lapse.deletion_reach: what goes, changes or stands in the way when a policy's due rows are deleted.
--
-- In: the policy, the cutoff, how far to count, and the attachments of files to look for (rows of
-- lapse.attachment). Out: one row for each foreign key that is met, nested ones included, and one for each
-- attachment: its kind (rows, files), the table, the constraint or path column, what it does (ON DELETE), the rows or files
-- that it concerns, whether these are at least so many, and why they are not known, where they aren't. A row is counted once, whichever way it
-- is reached, so a table that refers to itself comes to an end. A row of a NO ACTION constraint that goes
-- by another way does not stand in anybody's way, and is not counted there.
--
-- Runs with the caller's rights, and all of it sees one state of the database, which is what makes ctids good for
-- remembering rows here. Counting is bounded: no more than p_cap rows of the policy, or of one constraint, are
-- followed, and a large child whose constraint has no index is not read at all. Nor is a table of which a query would run
-- somebody else's code with the caller's rights: LP010 for the target (lapse.foreign_code).

create or replace function lapse.deletion_reach(
    p_policy lapse.policy,
    p_cutoff timestamptz,
    p_cap    integer,
    p_files  jsonb default '[]'
)
    returns table (kind text, relation regclass, name text, on_delete text, rows bigint, at_least boolean, note text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set row_security = off
    set jit = off
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
declare
    c_large  constant bigint := 67108864;
    v_target regclass := to_regclass(lapse.quoted_name(p_policy.target_table));
    v_joined text;
    v_more   boolean := false;
    v_from   integer := 0;  -- rows up to here have been followed
    v_to     integer;
    v_rels   oid[];
    v_tids   tid[];
    v_key    record;
    v_first  integer;
    v_new_rels oid[];
    v_new_tids tid[];
    v_found  jsonb := '{}';
    v_old    jsonb;
begin
    if lapse.foreign_code(v_target) is not null then
        raise exception 'reading % would run % with your rights', v_target, lapse.foreign_code(v_target)
            using errcode = 'LP010', hint = 'Ask as the owner of the table.';
    end if;

    -- By key, as text and back: of a declared policy no more is told. A domain's own checks have passed already.
    select string_agg(format('t.%I %s %s::%s', a.attname, lapse.equality(a.atttypid),
                             case when cardinality(p_policy.key_columns) = 1 then 'q.key'
                                  else format('(q.key::text[])[%s]', c.place) end,
                             format_type(coalesce(nullif(b.typbasetype, 0), b.oid),
                                         case when b.typbasetype = 0 then a.atttypmod else b.typtypmod end)), ' and ')
      into v_joined
      from unnest(p_policy.key_columns) with ordinality as c (name, place)
      join pg_attribute as a on a.attrelid = v_target and a.attname = c.name
      join pg_type as b on b.oid = a.atttypid;
    execute format('select array_agg(t.tableoid), array_agg(t.ctid) from (%s) as q join %s as t on %s',
                   lapse.due_query(p_policy), v_target, v_joined)
       into v_rels, v_tids
      using '-infinity'::timestamptz, p_cutoff, p_cap + 1;
    if cardinality(v_tids) > p_cap then
        v_more := true;
        v_rels := v_rels[1:p_cap];
        v_tids := v_tids[1:p_cap];
    end if;

    -- Cascades first, wave by wave; then, for all rows that go, the constraints that do something else.
    for v_wave in 1 .. 1000 loop
        v_to := coalesce(cardinality(v_tids), 0);
        v_first := case when v_from < v_to then v_from + 1 else 1 end;
        for v_key in
            with recursive parent as (  -- whatever a constraint may name to mean rows of these tables
                select t.rel, t.rel as above from (select distinct u.rel from unnest(v_rels[v_first:v_to]) as u (rel)) as t
                union
                select p.rel, i.inhparent
                  from parent as p
                  join pg_inherits as i on i.inhrelid = p.above
                  join pg_class as c on c.oid = i.inhparent and c.relkind = 'p'
            )
            select distinct k.oid, k.conname, k.conrelid, k.confrelid, k.confdeltype,
                   format('%I.%I', n.nspname, c.relname) as child_name,
                   format('%I.%I', m.nspname, p.relname) as parent_name,
                   coalesce(to_jsonb(k) ->> 'conperiod', 'false')::boolean as is_temporal,
                   (select array_agg(a.attname::text order by u.place)
                      from unnest(k.conkey) with ordinality as u (attnum, place)
                      join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.attnum) as child_names,
                   (select string_agg(format('c.%I', a.attname), ', ' order by u.place)
                      from unnest(k.conkey) with ordinality as u (attnum, place)
                      join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.attnum) as child_columns,
                   (select string_agg(format('p.%I', a.attname), ', ' order by u.place)
                      from unnest(k.confkey) with ordinality as u (attnum, place)
                      join pg_attribute as a on a.attrelid = k.confrelid and a.attnum = u.attnum) as parent_columns,
                   (with recursive held as (
                        select k.conrelid as relid
                        union
                        select i.inhrelid from held as h join pg_inherits as i on i.inhparent = h.relid
                    )
                    select sum(pg_relation_size(h.relid)) from held as h) > c_large as is_large
              from parent as a
              join pg_constraint as k on k.confrelid = a.above and k.contype = 'f' and k.conparentid = 0
              join pg_class as c on c.oid = k.conrelid
              join pg_namespace as n on n.oid = c.relnamespace
              join pg_class as p on p.oid = k.confrelid
              join pg_namespace as m on m.oid = p.relnamespace
             where (k.confdeltype = 'c') = (v_from < v_to)
             order by child_name, k.conname
        loop
            note := null;
            v_new_tids := null;
            if lapse.foreign_code(v_key.conrelid) is not null then
                note := format('not counted: reading it would run %s with your rights', lapse.foreign_code(v_key.conrelid));
            elsif v_key.is_temporal then
                note := 'not known: a constraint over a period of time';
            elsif v_key.is_large and exists (select
                                               from lapse.unindexed_children(v_key.confrelid) as u
                                              where u.columns = v_key.child_names
                                                and u.child in (select v_key.conrelid
                                                                union all
                                                                select t.inhrelid from pg_inherits as t
                                                                 where t.inhparent = v_key.conrelid)) then
                note := 'not counted: it is large, and no index serves';
            else
                begin
                    execute format(
                        'select array_agg(f.rel) as rels, array_agg(f.tid) as tids from ('
                        'select c.tableoid as rel, c.ctid as tid from %s as c where (%s) in ('
                        'select %s from unnest($1, $2) as g (rel, tid) join %s as p on p.ctid = g.tid and p.tableoid = g.rel) '
                        'and not exists (select from unnest($3, $4) as s (rel, tid) where s.rel = c.tableoid and s.tid = c.ctid) '
                        'limit $5) as f',
                        v_key.child_name, v_key.child_columns, v_key.parent_columns, v_key.parent_name)
                       into v_new_rels, v_new_tids
                      using v_rels[v_first:v_to], v_tids[v_first:v_to],
                            case when v_key.confdeltype = 'r' then '{}'::oid[] else v_rels end,
                            case when v_key.confdeltype = 'r' then '{}'::tid[] else v_tids end,
                            p_cap + 1;
                exception
                    when others then
                        note := 'not known: ' || sqlerrm;
                end;
            end if;

            if note is null then
                v_more := v_more or coalesce(cardinality(v_new_tids) > p_cap, false);
                if v_key.confdeltype = 'c' then
                    v_rels := v_rels || v_new_rels[1:p_cap];
                    v_tids := v_tids || v_new_tids[1:p_cap];
                end if;
            end if;
            v_old := v_found -> v_key.oid::text;
            v_found := v_found || jsonb_build_object(v_key.oid::text, jsonb_build_object(
                'child', v_key.conrelid::bigint, 'name', v_key.conname, 'action', v_key.confdeltype,
                'rows', case when note is null then coalesce((v_old ->> 'rows')::bigint, 0)
                                                    + least(coalesce(cardinality(v_new_tids), 0), p_cap) end,
                'more', v_more or coalesce((v_old ->> 'more')::boolean, false),
                'note', note));
        end loop;
        exit when v_from = v_to;
        v_from := v_to;
    end loop;

    return query
        select 'rows',
               (f.value ->> 'child')::bigint::oid::regclass,
               f.value ->> 'name',
               case f.value ->> 'action' when 'c' then 'cascade' when 'n' then 'set null' when 'd' then 'set default'
                                         when 'r' then 'restrict' else 'no action' end,
               (f.value ->> 'rows')::bigint,
               (f.value ->> 'more')::boolean,
               f.value ->> 'note'
          from jsonb_each(v_found) as f
         order by (f.value ->> 'child')::bigint::oid::regclass::text, f.value ->> 'name';

    -- A file that another row needs as well stays, so these are the most that can go.
    for v_key in
        select f.path_column, f.storage_column, f.removed_column, f.target_table,
               to_regclass(f.target_table) as relid
          from jsonb_to_recordset(p_files)
               as f (target_table text, path_column text, storage_column text, removed_column text)
         order by f.target_table, f.path_column
    loop
        relation := v_key.relid;
        continue when not exists (
            with recursive tree as (
                select v_key.relid::oid as relid
                union
                select i.inhrelid from tree as t join pg_inherits as i on i.inhparent = t.relid
            )
            select from tree as t where t.relid = any (v_rels));
        kind := 'files';
        name := v_key.path_column;
        on_delete := null;
        rows := null;
        note := null;
        at_least := v_more;
        begin
            execute format(
                'select count(*) from (select distinct %s t.%I from unnest($1, $2) as g (rel, tid) '
                'join %s as t on t.ctid = g.tid and t.tableoid = g.rel where t.%I is not null%s) as f',
                coalesce(quote_ident(v_key.storage_column) || ', ', ''), v_key.path_column, v_key.target_table,
                v_key.path_column, coalesce(' and t.' || quote_ident(v_key.removed_column) || ' is null', ''))
               into rows
              using v_rels, v_tids;
        exception
            when others then
                note := 'not known: ' || sqlerrm;
        end;
        return next;
    end loop;
end;
$$;

comment on function lapse.deletion_reach(lapse.policy, timestamptz, integer, jsonb) is
    'What foreign keys do when a policy''s due rows are deleted: rows of each child that go, change or stand in the way.';
