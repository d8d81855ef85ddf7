-- lapse.declared_attachment: what was declared of an attachment, as its trigger function says it in a line.
--
-- In: an attachment. Out: an object; jsonb's text has no line break, whatever is in it. lapse.record_attachment and
-- lapse.detach_files read it.

create or replace function lapse.declared_attachment(p_attachment lapse.attachment)
    returns jsonb
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'path_column',    (p_attachment).path_column,
        'storage',        (p_attachment).storage,
        'storage_column', (p_attachment).storage_column,
        'live_when',      (p_attachment).live_when,
        'due',            (p_attachment).due,
        'grace',          (p_attachment).grace,
        'removed_column', (p_attachment).removed_column,
        'lookup',         (p_attachment).lookup,
        'index_name',     (p_attachment).index_name))
$$;

comment on function lapse.declared_attachment(lapse.attachment) is
    'Internal: what was declared of an attachment, as its trigger function carries it.';
