-- lapse.generated_name: what an object that pglapse makes for a policy is called.
--
-- In: its kind (expire: the step; due: the function that names due rows; index), and the policy. Out: a
-- name of at most 63 bytes. A long one is cut and gets eight digits of a digest, since
-- the server would cut two of them to the same.

create or replace function lapse.generated_name(p_kind text, p_policy text)
    returns text
    language sql
    immutable
    strict
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when octet_length(n.name) <= 63 then n.name
               else left(n.name, 54) || '_' || left(md5(n.name), 8)
           end
      from (select format('lapse_%s_%s', p_kind, p_policy) as name) as n
$$;

comment on function lapse.generated_name(text, text) is
    'Name of an object made for a policy, of at most 63 bytes.';
