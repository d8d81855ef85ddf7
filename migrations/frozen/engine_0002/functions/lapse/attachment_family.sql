-- lapse.attachment_family: the functions of one attachment, as the catalog has them.
--
-- In: its trigger function. Out: that one, and those beside it that are named after it: of its file source, and the
-- one that takes removal back.

create or replace function lapse.attachment_family(p_function oid)
    returns table (function oid, part text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select f.oid, s.part
      from pg_proc as p
     cross join unnest(array['', 'in_use', 'known', 'listed', 'removed', 'renamed']) as s (part)
      join pg_proc as f on f.pronamespace = p.pronamespace and f.proowner = p.proowner
                       and f.proname = p.proname || case s.part when '' then '' else '_' || s.part end
     where p.oid = p_function
       and (s.part <> '' or f.oid = p.oid)
       and pg_get_function_identity_arguments(f.oid)
               = case when s.part in ('in_use', 'known') then 'p_storages text[], p_paths text[]'
                      when s.part = 'removed' then 'p_storages text[], p_paths text[], p_claimed_at timestamp with time zone[]'
                      when s.part = 'listed' then 'p_storage text, p_after text, p_limit integer'
                      else '' end
$$;

comment on function lapse.attachment_family(oid) is
    'Internal: the functions of one attachment, found by their names.';
