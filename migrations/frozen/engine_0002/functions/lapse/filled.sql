-- lapse.filled: a template with its places filled.
--
-- In: a text with places like {path}, and what stands in each. Out: the text. Places without a value stay as they
-- are, and what was filled in is not looked at again: a predicate may hold braces.

create or replace function lapse.filled(p_template text, p_terms jsonb)
    returns text
    language sql
    immutable
    strict
    set search_path = pg_catalog, pg_temp
as $$
    select string_agg(coalesce(case when f.piece[1] ~ '^{[a-z_]+}$' then p_terms ->> trim(f.piece[1], '{}') end, f.piece[1]),
                      '' order by f.place)
      from regexp_matches(p_template, '{[a-z_]+}|[^{]+|{', 'g') with ordinality as f (piece, place)
$$;

comment on function lapse.filled(text, jsonb) is 'Internal: a template with its {places} filled.';
