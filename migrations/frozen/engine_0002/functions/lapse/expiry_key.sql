-- lapse.expiry_key: the columns by which a declared policy's step knows a row again.
--
-- In: the table, the policy's name, and the columns if the caller names them (NULL: find some). Out: the columns, in the
-- order of the index: the primary key, else the shortest unique index. Raises LP021 where there is no such
-- key, with what is wrong about those that there are. Never ctid: a row that is updated gets another, and
-- another row gets that one.
--
-- A key is a valid, immediate unique index over plain columns that are NOT NULL, without a condition. Rows
-- travel from the statement that locks them to the one that changes them as an array for each column, so
-- a column that is an array itself is none, nor is one of a composite type, which unnest takes to pieces.

create or replace function lapse.expiry_key(p_target regclass, p_policy text, p_columns text[])
    returns text[]
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns text[];
    v_others  text;
begin
    if p_columns is not null then
        select c.name
          into v_others
          from unnest(p_columns) as c (name)
         where not exists (select from pg_attribute as a
                            where a.attrelid = p_target and a.attname = c.name and a.attnum > 0 and not a.attisdropped)
         limit 1;
        if found or cardinality(p_columns) = 0 or array_ndims(p_columns) <> 1 then
            raise exception using
                errcode = 'LP021',
                message = format('policy %s: table %s has no key column %s', p_policy, p_target, coalesce(quote_ident(v_others), '')),
                hint    = 'Name columns as they are stored, without quotes, or leave p_key_columns out.';
        end if;
    end if;

    with candidates as (
        select i.relname, x.indisprimary, count(*) as width,
               array_agg(a.attname::text order by k.place) as names,
               concat_ws(', ',
                   case when not x.indimmediate then 'is deferrable' end,
                   case when not x.indisvalid or not x.indisready then 'is not valid' end,
                   case when x.indpred is not null then 'has a condition' end,
                   case when x.indexprs is not null then 'has an expression' end,
                   case when not bool_and(a.attnotnull)
                        then 'allows NULL in ' || string_agg(a.attname, ', ' order by k.place) filter (where not a.attnotnull) end,
                   case when bool_or(t.typcategory = 'A') then 'has a column that is an array' end,
                   case when bool_or(t.typcategory = 'C') then 'has a column that is a row' end) as wrong
          from pg_index as x
          join pg_class as i on i.oid = x.indexrelid
         cross join unnest(x.indkey::smallint[]) with ordinality as k (attnum, place)
          left join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
          left join pg_type as t on t.oid = a.atttypid
         where x.indrelid = p_target and x.indisunique and k.place <= x.indnkeyatts
         group by i.relname, x.indisprimary, x.indimmediate, x.indisvalid, x.indisready, x.indpred is not null, x.indexprs is not null, i.oid
    )
    select (select coalesce(p_columns, c.names)
              from candidates as c
             where c.wrong = ''
               and (p_columns is null
                    or (c.names <@ p_columns
                        and not exists (select from unnest(p_columns) as p (name)
                                          join pg_attribute as a on a.attrelid = p_target and a.attname = p.name
                                          join pg_type as t on t.oid = a.atttypid
                                         where not a.attnotnull or t.typcategory in ('A', 'C'))))
             order by c.indisprimary desc, c.width, c.relname
             limit 1),
           (select string_agg(format('%I %s', c.relname, c.wrong), '; ' order by c.relname) from candidates as c where c.wrong <> '')
      into v_columns, v_others;
    if v_columns is null then
        raise exception using
            errcode = 'LP021',
            message = format('policy %s: table %s has no %s%s', p_policy, p_target,
                             case when p_columns is null then 'key to know its rows by'
                                  else format('unique index over (%s) with no NULLs', array_to_string(p_columns, ', ')) end,
                             ': index ' || v_others),
            hint    = format('Give it a primary key, or a unique index over columns that are NOT NULL: '
                             'alter table %s add column id bigint generated always as identity primary key;', p_target);
    end if;
    return v_columns;
end;
$$;

comment on function lapse.expiry_key(regclass, text, text[]) is
    'Internal: the key columns of a table for a generated step; raises LP021 where there are none.';
