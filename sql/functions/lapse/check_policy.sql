-- lapse.check_policy: is this a policy that can run?
--
-- In: a policy as it would be stored. Out: nothing when all is well. Raises, each
-- with a hint, LP001 for a value out of range, LP002 for a step or table that
-- is not there, and what lapse.check_step raises. Every check is made before
-- anything is written, so a refused policy changes nothing.

create or replace function lapse.check_policy(p_policy lapse.policy)
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_wrong text;
    v_hint  text;
    v_table oid;
    v_type  oid;
    v_query text;
    v_probe refcursor;
begin
    v_wrong := case
        when p_policy.name is null         then 'p_name'
        when p_policy.description is null  then 'p_description'
        when p_policy.step is null         then 'p_step'
        when p_policy.every is null        then 'p_every'
        when p_policy.time_zone is null    then 'p_time_zone'
        when p_policy.batch_size is null   then 'p_batch_size'
        when p_policy.max_runtime is null  then 'p_max_runtime'
        when p_policy.lock_timeout is null then 'p_lock_timeout'
        when p_policy.enabled is null      then 'p_enabled'
    end;
    if v_wrong is not null then
        raise exception using
            errcode = 'LP001',
            message = format('%s may not be NULL', v_wrong),
            hint    = 'Leave the argument out to have its default.';
    end if;

    -- Months and years have no fixed length, and an interval of them compares as 30 or 365 days.
    select w.wrong, w.hint
      into v_wrong, v_hint
      from (values
          (p_policy.name !~ '^[a-z][a-z0-9_]{0,62}$',
           format('"%s" is not a name for a policy', p_policy.name),
           'Use a lower-case letter, then up to 62 lower-case letters, digits and underscores.'),
          (not isfinite(p_policy.every)
               or extract(year from p_policy.every) <> 0
               or extract(month from p_policy.every) <> 0
               or p_policy.every not between interval '10 s' and interval '366 days'
               or extract(epoch from p_policy.every) <> floor(extract(epoch from p_policy.every)),
           format('a policy can''t run every %s', p_policy.every),
           'Use 10 seconds to 366 days, in whole seconds; months and years have no fixed length.'),
          (p_policy.at_time is not null and mod(extract(epoch from p_policy.every), 86400) <> 0,
           format('a time of day does not go with a cadence of %s', p_policy.every),
           'Give p_at_time only where p_every is a whole number of days.'),
          (p_policy.batch_size not between 1 and 100000,
           format('a batch can''t have %s rows', p_policy.batch_size),
           'Use 1 to 100,000.'),
          (not isfinite(p_policy.max_runtime)
               or p_policy.max_runtime not between interval '1 s' and interval '1 hour',
           format('a run can''t last %s', p_policy.max_runtime),
           'Use 1 second to 1 hour; what is left is taken by the next run.'),
          (not isfinite(p_policy.lock_timeout)
               or p_policy.lock_timeout not between interval '1 ms' and interval '60 s',
           format('a batch can''t wait %s for a lock', p_policy.lock_timeout),
           'Use 1 millisecond to 60 seconds.'),
          (num_nulls(p_policy.target_table, p_policy.key_columns, p_policy.due_column) not in (0, 3),
           'target, key columns and due column go together',
           'Give all three of p_target, p_key_columns and p_due_column, or none.'),
          (p_policy.predicate is not null and p_policy.target_table is null,
           'a predicate needs a target',
           'Give p_target, p_key_columns and p_due_column with it.'),
          (num_nonnulls(p_policy.older_than, p_policy.due_zone, p_policy.action) > 0 and p_policy.target_table is null,
           'an age, a zone and an action need a target',
           'Give p_target, p_key_columns and p_due_column with them.'),
          (p_policy.older_than is not null
               and (not isfinite(p_policy.older_than)
                    or p_policy.older_than not between interval '1 microsecond' and interval '1000 years'
                    or least(date_part('year', p_policy.older_than), date_part('month', p_policy.older_than),
                             date_part('day', p_policy.older_than), date_part('hour', p_policy.older_than),
                             date_part('minute', p_policy.older_than), date_part('second', p_policy.older_than)) < 0),
           format('rows can''t be kept for %s', p_policy.older_than),
           'p_older_than is a span of time, all its parts forwards, up to 1,000 years: interval ''30 days''.'),
          (p_policy.action not in ('delete', 'update', 'call'),
           format('there is no action "%s"', p_policy.action),
           'Use delete, update or call.'),
          (p_policy.key_columns is not null
               and (array_ndims(p_policy.key_columns) is distinct from 1
                    or array_position(p_policy.key_columns, null) is not null),
           'the key columns are not a list of names',
           'Give at least one column name, in index order.'),
          (p_policy.max_fraction is not null and (p_policy.max_fraction <= 0 or p_policy.max_fraction > 1),
           format('a run can''t be braked at %s of its table', p_policy.max_fraction),
           'Use more than 0 and at most 1; 1 takes the brake off.'),
          (p_policy.brake_rows < 0,
           format('%s rows can''t be let through', p_policy.brake_rows),
           'Use 0 or more: so many rows may go whatever their share of the table.'),
          (p_policy.brake_rows is not null and p_policy.max_fraction is null,
           'p_brake_rows is nothing without p_max_fraction',
           'Give p_max_fraction, the share of the table that one run may take; or leave both out.'),
          (p_policy.max_fraction is not null and p_policy.target_table is null,
           'a brake needs a target',
           'Give p_target, p_key_columns and p_due_column with it: what is due is counted there.')
      ) as w (is_wrong, wrong, hint)
     where w.is_wrong
     limit 1;
    if found then
        raise exception using errcode = 'LP001', message = v_wrong, hint = v_hint;
    end if;

    select z.zone
      into v_wrong
      from (values (p_policy.time_zone), (p_policy.due_zone)) as z (zone)
     where z.zone is not null
       and not exists (select from pg_timezone_names as n where n.name = z.zone)
     limit 1;
    if found then
        raise exception using
            errcode = 'LP001',
            message = format('there is no time zone "%s"', v_wrong),
            hint    = 'Use a name from pg_timezone_names, such as UTC or Europe/Berlin.';
    end if;

    perform lapse.check_step(p_policy.step);

    if p_policy.target_table is null then
        return;
    end if;

    v_table := to_regclass(lapse.quoted_name(p_policy.target_table));
    if v_table is null
       or not exists (select from pg_class as c where c.oid = v_table and c.relkind in ('r', 'p')) then
        raise exception using
            errcode = 'LP002',
            message = format('there is no table "%s"', p_policy.target_table),
            hint    = 'Name the target schema.table.';
    end if;

    select c.name
      into v_wrong
      from unnest(p_policy.key_columns || p_policy.due_column) as c (name)
     where not exists (select from pg_attribute as a
                        where a.attrelid = v_table and a.attname = c.name
                          and a.attnum > 0 and not a.attisdropped)
     limit 1;
    if found then
        raise exception using
            errcode = 'LP002',
            message = format('table %s has no column "%s"', p_policy.target_table, v_wrong),
            hint    = 'Name columns as they are stored, without quotes.';
    end if;

    select a.atttypid
      into v_type
      from pg_attribute as a
     where a.attrelid = v_table and a.attname = p_policy.due_column;
    select w.wrong, w.hint
      into v_wrong, v_hint
      from (values
          (v_type = 'date'::regtype,
           'is a date, which has neither a time of day nor a zone',
           format('Say which moment it means, in a column of its own: alter table %s add column %I timestamptz generated '
                  'always as ((%I + 1)::timestamp at time zone ''Europe/Berlin'') stored;',
                  lapse.quoted_name(p_policy.target_table), p_policy.due_column || '_ends_at', p_policy.due_column)),
          (v_type = 'timestamp'::regtype and p_policy.due_zone is null,
           'is timestamp without time zone, not timestamptz: another moment in every session',
           'Say in which zone it is written, p_due_zone => ''UTC'' or another of pg_timezone_names, or make it timestamptz.'),
          (v_type = 'timestamptz'::regtype and p_policy.due_zone is not null,
           'is timestamptz and needs no zone to be named',
           'Leave p_due_zone out.'),
          (v_type not in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype),
           format('is %s, not timestamptz', format_type(v_type, null)),
           'Point to a column with the moment, if need be one that is generated: to_timestamp(seconds), for instance.')
      ) as w (is_wrong, wrong, hint)
     where w.is_wrong
     limit 1;
    if found then
        raise exception using
            errcode = 'LP001',
            message = format('due column %s.%s %s', p_policy.target_table, p_policy.due_column, v_wrong),
            hint    = v_hint;
    end if;

    v_query := lapse.due_query(p_policy);
    begin
        -- One that closes the parentheses around it would undo the rest of the query. What stands both in
        -- brackets and in parentheses closes neither. A cursor takes no second statement, and nothing after the predicate
        -- has a quote that could end one of its own. Declared policies are probed by lapse.create_expiry.
        if p_policy.action is null and p_policy.predicate is not null then
            open v_probe for execute format(
                'with t as not materialized (select t.*, t.tableoid from %s as t) select array[%s' || chr(10) || '] from t',
                lapse.quoted_name(p_policy.target_table), p_policy.predicate);
            close v_probe;
            open v_probe for execute format(
                'with t as not materialized (select t.*, t.tableoid from %s as t) select (%s' || chr(10) || ') is true from t',
                lapse.quoted_name(p_policy.target_table), p_policy.predicate);
            close v_probe;
        end if;
        execute v_query using '-infinity'::timestamptz, '-infinity'::timestamptz, 0;
    exception
        when others then
            raise exception using
                errcode = 'LP001',
                message = case when p_policy.action is null
                               then format('the predicate of policy %s does not work: %s', p_policy.name, sqlerrm)
                               else format('the due rows of policy %s, table %s, can''t be read: %s', p_policy.name,
                                           p_policy.target_table, sqlerrm) end,
                hint    = case when p_policy.action is null
                               then 'Write a condition over the target''s columns, with literals: status = ''active''.'
                               else 'It is tried as the owner of the table; lapse.create_expiry(..., p_replace => true) makes it anew.' end;
    end;
end;
$$;

comment on function lapse.check_policy(lapse.policy) is
    'Raises LP001, LP002 or LP010 with a hint when a policy could not run; changes nothing.';
