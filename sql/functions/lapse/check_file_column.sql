-- lapse.check_file_column: is this a column that can hold what it is to hold?
--
-- In: the table, the column, and what it is to hold: path, storage or removed. Out: nothing. LP002 for a column that
-- is not there, LP035 for one of another kind, with what to do instead.

create or replace function lapse.check_file_column(p_target regclass, p_column text, p_holds text)
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_column record;
    v_wrong  text;
    v_hint   text;
begin
    select format_type(a.atttypid, a.atttypmod) as type, a.attgenerated, a.attnotnull,
           case when y.typtype = 'd' then b.typname else y.typname end as base, y.typcategory
      into v_column
      from pg_attribute as a
      join pg_type as y on y.oid = a.atttypid
      left join pg_type as b on b.oid = y.typbasetype
     where a.attrelid = p_target and a.attname = p_column and a.attnum > 0 and not a.attisdropped;

    if not found then
        raise exception 'table % has no column "%"', p_target, p_column
            using errcode = 'LP002', hint = 'Name columns as they are stored, without quotes.';
    end if;

    select w.wrong, w.hint
      into v_wrong, v_hint
      from (values
          (v_column.attgenerated = 'v', 'is a virtual column, which triggers can''t see',
           'Make it a stored one: generated always as (...) stored.'),
          (p_holds = 'removed' and v_column.base <> 'timestamptz', format('is %s', v_column.type),
           'When a file was deleted is said by a column of type timestamp with time zone.'),
          (p_holds = 'removed' and (v_column.attnotnull or v_column.attgenerated <> ''), 'can''t be NULL, or not be set',
           'While the file is there the column is NULL.'),
          (p_holds = 'path' and (v_column.base in ('json', 'jsonb') or v_column.typcategory = 'A'), format('is %s', v_column.type),
           'A row names one file. Keep several in a table of their own, a row each, with a foreign key on delete cascade; '
           'one that is kept inside a document can be taken out by a column: generated always as (doc ->> ''path'') stored.'),
          (p_holds = 'path' and v_column.base not in ('text', 'varchar', 'citext')
               or p_holds = 'storage' and v_column.base not in ('text', 'varchar'),
           format('is %s', v_column.type),
           format('Use text: alter table %s alter column %I type text.', p_target, p_column))
      ) as w (is_wrong, wrong, hint)
     where w.is_wrong
     limit 1;

    if found then
        raise exception 'column % of table % can''t hold %: it %', p_column, p_target,
                        case p_holds when 'path' then 'paths' when 'storage' then 'names of storages'
                                     else 'when files were removed' end,
                        v_wrong
            using errcode = 'LP035', hint = v_hint;
    end if;
end;
$$;

comment on function lapse.check_file_column(regclass, text, text) is
    'Internal: raise LP002 or LP035 unless a column can hold paths, storages or the time of removal.';
