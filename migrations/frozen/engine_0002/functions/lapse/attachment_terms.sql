-- lapse.attachment_terms: how the functions of an attachment speak of a row.
--
-- In: an attachment, its columns checked. Out: SQL for each place of their templates. In all of it the row is t:
--   storage, path    where its file is, as text; two files are the same if their texts are, whatever their collation says
--   held             it has a file: a path, a storage that can be one, and not removed
--   live, due        whether it needs its file, and if not, from when on the file may go (NULL: after its grace)
--   id               its key as text, for people
--   keys, same, ...  its key, for finding it again
-- A predicate that is neither true nor false keeps the file. The line break after each expression of the
-- caller's ends any comment in it.

create or replace function lapse.attachment_terms(p_attachment lapse.attachment)
    returns jsonb
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_target regclass := lapse.quoted_name(p_attachment.target_table)::regclass;
    v_path   text;
    v_exact  text;  -- the same, where its collation takes different texts for equal
    v_store  text;
    v_match  text;
    v_terms  jsonb;
    c_file   constant text := chr(1);  -- stands for the name of what gives the file
begin
    select case when a.atttypid = 'text'::regtype then format('t.%I', a.attname) else format('t.%I::text', a.attname) end,
           case when not c.collisdeterministic then ' collate "C"' else '' end
      into v_path, v_exact
      from pg_attribute as a
      left join pg_collation as c on c.oid = a.attcollation
     where a.attrelid = v_target and a.attname = p_attachment.path_column;

    v_exact := v_path || v_exact;
    select format('t.%I::text', a.attname) || case when not c.collisdeterministic then ' collate "C"' else '' end
      into v_store
      from pg_attribute as a
      left join pg_collation as c on c.oid = a.attcollation
     where a.attrelid = v_target and a.attname = p_attachment.storage_column;

    v_match := coalesce('t.' || quote_ident(p_attachment.storage_column), quote_literal(p_attachment.storage)) || ' = '
                   || c_file || '.storage and '
                   || case when v_store like '% collate "C"' then v_store || ' = ' || c_file || '.storage and ' else '' end
                   || case when p_attachment.lookup = 'path' then format('%s = ', v_path) || c_file || '.path'
                           else format('lapse.path_digest(%s) = lapse.path_digest(', v_path) || c_file || '.path)' end;

    select jsonb_build_object(
               'keys',    string_agg(format('t.%I as k%s', k.name, k.place), ', ' order by k.place),
               'sorted',  string_agg(format('k%s', k.place), ', ' order by k.place),
               'same',    string_agg(format('n.k%s %s o.k%s', k.place, k.equals, k.place), ' and ' order by k.place),
               'found',   string_agg(format('t.%I %s n.k%s', k.name, k.equals, k.place), ' and ' order by k.place),
               'marked',  string_agg(format('m.k%s %s n.k%s', k.place, k.equals, k.place), ' and ' order by k.place),
               'id',      case when count(*) = 1 then max(format('t.%I::text', k.name))
                               else format('array[%s]::text', string_agg(format('t.%I::text', k.name), ', ' order by k.place)) end)
      into v_terms
      from lapse.table_key(v_target) as k;

    return v_terms || jsonb_build_object(
        'function', p_attachment.function,
        'target',   p_attachment.target_table,
        'table',    quote_literal(p_attachment.target_table),
        'storage',  coalesce(v_store, quote_literal(p_attachment.storage) || '::text'),
        'path',     v_exact,
        'held',     v_path || ' <> '''''
                        || coalesce(' and octet_length(t.' || quote_ident(p_attachment.storage_column) || ') between 1 and 200', '')
                        || coalesce(' and t.' || quote_ident(p_attachment.removed_column) || ' is null', ''),
        'live',     coalesce('coalesce((' || p_attachment.live_when || chr(10) || '), true)', 'true'),
        'due',      coalesce('(' || p_attachment.due || chr(10) || ')', 'null::timestamptz'),
        'removed',  quote_ident(p_attachment.removed_column),
        'of_q',     replace(v_match, c_file, 'q'),
        'of_a',     replace(v_match, c_file, 'a'),
        'of_n',     replace(v_match, c_file, 'n'),
        'ours',     '$1 = ' || coalesce(v_store, quote_literal(p_attachment.storage)),
        'order',    case when p_attachment.lookup = 'path' then v_path else format('lapse.path_digest(%s)', v_path) end,
        'after',    case when p_attachment.lookup = 'path' then 'coalesce($2, '''')'
                         else 'coalesce(lapse.path_digest($2), '''')' end,
        'after_deleted',   lapse.grace_term(p_attachment.grace ->> 'deleted'),
        'after_replaced',  lapse.grace_term(p_attachment.grace ->> 'replaced'),
        'after_truncated', lapse.grace_term(p_attachment.grace ->> 'truncated'),
        'after_ended',     lapse.grace_term(p_attachment.grace ->> 'ended'));
end;
$$;

comment on function lapse.attachment_terms(lapse.attachment) is
    'Internal: SQL for each place in the templates of an attachment''s functions.';
