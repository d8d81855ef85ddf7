-- lapse.attachment_call: the statement that attaches what is attached, as it is, once more.
--
-- In: an attachment. Out: a call of lapse.attach_files with p_replace, to be copied. What is at its default is left out.

create or replace function lapse.attachment_call(p_attachment lapse.attachment)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select format('select lapse.attach_files(%L, %L', (p_attachment).target_table, (p_attachment).path_column)
               || coalesce(', p_storage => ' || quote_literal((p_attachment).storage), '')
               || coalesce(', p_storage_column => ' || quote_literal((p_attachment).storage_column), '')
               || coalesce(', p_live_when => ' || quote_literal((p_attachment).live_when), '')
               || coalesce(', p_due => ' || quote_literal((p_attachment).due), '')
               || case when (p_attachment).grace <> lapse.checked_grace('0', '{}') then format(', p_graces => %L', (p_attachment).grace) else '' end
               || coalesce(', p_removed_column => ' || quote_literal((p_attachment).removed_column), '')
               || ', p_replace => true);'
$$;

comment on function lapse.attachment_call(lapse.attachment) is
    'Internal: the call of lapse.attach_files that makes an attachment anew.';
