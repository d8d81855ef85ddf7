-- lapse.expiry_assignments: what the step of an update policy sets.
--
-- In: the table, the policy's name, p_set, and the columns that say whether a row is due (the predicate's and the due
-- column). Out: the SET list of an UPDATE. Raises LP026 for what is no object of columns and values, a column that
-- is not there or is generated, and where no column that is set could make a row leave: such a policy would update the same
-- rows for ever. Whether rows really leave is looked at in each run.
--
-- A value is data: a string, a number, true, false or null become a literal, whatever they say; objects and arrays do
-- for columns of json. What is to be computed is {"expression": "now()"}, and must be one expression: LP023.

create or replace function lapse.expiry_assignments(
    p_target regclass,
    p_policy text,
    p_set    jsonb,
    p_decide text[]
)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_pair   record;
    v_column record;
    v_wrong  text;
    v_list   text[] := '{}';
begin
    if p_set is null or jsonb_typeof(p_set) <> 'object' or p_set = '{}' then
        raise exception using
            errcode = 'LP026',
            message = format('policy %s on table %s does not say what to set', p_policy, p_target),
            hint    = 'Give p_set, columns and values: ''{"status": "expired", "expired_at": {"expression": "now()"}}''.';
    end if;

    for v_pair in select e.key, e.value from jsonb_each(p_set) as e (key, value) loop
        select a.attgenerated, a.attidentity, a.attnotnull, coalesce(b.typname, t.typname) as typname, t.typcategory,
               format_type(a.atttypid, null) as type
          into v_column
          from pg_attribute as a
          join pg_type as t on t.oid = a.atttypid
          left join pg_type as b on b.oid = t.typbasetype
         where a.attrelid = p_target and a.attname = v_pair.key and a.attnum > 0 and not a.attisdropped;
        v_wrong := case
            when not found                          then 'is not there'
            when v_column.attgenerated <> ''        then 'is generated from others'
            when v_column.attidentity = 'a'         then 'is an identity'
            when v_column.attnotnull and jsonb_typeof(v_pair.value) = 'null' then 'can''t be NULL'
            when jsonb_typeof(v_pair.value) in ('object', 'array')
                 and not (v_pair.value ? 'expression' and jsonb_typeof(v_pair.value) = 'object')
                 and v_column.typname not in ('json', 'jsonb') then format('is %s, and has no room for an object or a list', v_column.type)
            when v_column.typname in ('timestamptz', 'timestamp', 'date')
                 and lower(btrim(v_pair.value #>> '{}')) in ('now', 'today', 'tomorrow', 'yesterday')
            then format('would get the time at which its step was first planned from "%s"', v_pair.value #>> '{}')
        end;
        if v_wrong is not null then
            raise exception using
                errcode = 'LP026',
                message = format('policy %s: column %I of table %s %s', p_policy, v_pair.key, p_target, v_wrong),
                hint    = case when v_column.typcategory = 'A' and jsonb_typeof(v_pair.value) = 'array'
                               then format('Write an array as PostgreSQL does, in one string: {"%s": "{a,b}"}.', v_pair.key)
                               else 'p_set names columns as they are stored, and values; what is to be computed is {"expression": "now()"}.'
                          end;
        end if;

        if jsonb_typeof(v_pair.value) = 'object' and v_pair.value ? 'expression' then
            if v_pair.value - 'expression' <> '{}' or jsonb_typeof(v_pair.value -> 'expression') <> 'string' then
                raise exception using
                    errcode = 'LP026',
                    message = format('policy %s: what column %I of table %s is to be has more than an expression',
                                     p_policy, v_pair.key, p_target),
                    hint    = 'Write {"expression": "now()"}.';
            end if;
            perform lapse.expiry_columns(p_target, p_policy, format('the expression for column %I', v_pair.key),
                                         v_pair.value ->> 'expression', false);
            v_list := v_list || format('%I = (%s)', v_pair.key, (v_pair.value ->> 'expression') || chr(10));
        else
            -- What goes into a json column is json; null is NULL everywhere.
            v_list := v_list || format('%I = %L', v_pair.key,
                                       case when v_column.typname in ('json', 'jsonb') and jsonb_typeof(v_pair.value) <> 'null'
                                            then v_pair.value::text else v_pair.value #>> '{}' end);
        end if;
    end loop;

    -- Generated columns and triggers may follow any column; nothing can be said beforehand where there are some.
    if not exists (select from jsonb_object_keys(p_set) as k (name) where k.name = any (p_decide))
       and not exists (select from pg_attribute as a
                        where a.attrelid = p_target and a.attname = any (p_decide) and a.attgenerated <> '')
       and not exists (select from pg_trigger as t
                        where t.tgrelid = p_target and not t.tgisinternal and t.tgtype & 19 = 19) then
        raise exception using
            errcode = 'LP026',
            message = format('policy %s: rows of table %s would still be due after the update, and be updated for ever', p_policy, p_target),
            hint    = format('Set a column that the predicate or the due time depends on (%s), or let the predicate look at what is set.',
                             array_to_string(p_decide, ', '));
    end if;
    return array_to_string(v_list, ',' || chr(10) || '               ');
end;
$$;

comment on function lapse.expiry_assignments(regclass, text, jsonb, text[]) is
    'Internal: the SET list of an update policy''s step; raises LP026 or LP023.';
