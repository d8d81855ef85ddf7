-- lapse.attached_functions: the trigger functions that lapse.attach_files made for a table, as the catalog has them.
--
-- In: a table. Out: each function, and what its source says was declared. The table itself says what is
-- attached to it: that holds after it was renamed, in a database restored from a dump, and for a caller who
-- may not read lapse.attachment. A line of its source holds the declaration, which only the owner can write.

create or replace function lapse.attached_functions(p_target regclass)
    returns table (function oid, declared jsonb)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select p.oid, substring(p.prosrc from '\n-- Declared: ({[^\n]*})\n')::jsonb
      from pg_proc as p
     where p.proname like 'lapse\_files\_%'
       and p.prosrc ~ '\n-- Declared: {[^\n]*}\n'
       and p.oid in (select t.tgfoid from pg_trigger as t where t.tgrelid = p_target and not t.tgisinternal
                                                               and not lapse.on_detached(t.oid))
$$;

comment on function lapse.attached_functions(regclass) is
    'Internal: the trigger functions of a table''s attachments, and what each says was declared.';
