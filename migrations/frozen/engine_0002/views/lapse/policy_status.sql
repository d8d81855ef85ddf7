-- lapse.policy_status: each policy at a glance.
--
-- One row a policy: its schedule, its next and last run, what that one did, what is
-- waiting. The backlog is counted to 10,000 and then 'at least 10000', so looking stays cheap;
-- rows of the last day come from the history. Readers need no right on any table.

create or replace view lapse.policy_status as
    select p.name                                                     as policy,
           p.description,
           p.enabled,
           lapse.schedule_text(p.every, p.at_time, p.time_zone)       as schedule,
           s.next_run_at,
           s.run_started_at                                           as running_since,
           s.last_run_at,
           s.last_status,
           s.last_error,
           s.last_rows                                                as rows_last_run,
           coalesce((select sum(l.handled)::bigint
                       from lapse.run_log as l
                      where l.policy = p.name
                        and l.finished_at > now() - interval '1 day'), 0) as rows_last_day,
           case when b.capped then 'at least ' || b.rows else b.rows::text end as backlog,
           b.rows                                                     as backlog_rows,
           now() - b.oldest_due                                       as oldest_due_age,
           (select count(*) from lapse.blocked_row as r where r.policy = p.name and r.hold_key is null) as blocked_rows,
           (select count(*) from lapse.blocked_row as r where r.policy = p.name and r.hold_key is not null) as held_rows,
           s.consecutive_failures,
           s.braked_at,
           s.braked_rows,
           s.braked_of
      from lapse.policy as p
      join lapse.policy_state as s on s.policy = p.name
     cross join lateral lapse.backlog(p.name) as b
     order by p.name;

comment on view lapse.policy_status is
    'Each policy: schedule, next and last run, rows of the last run and day, backlog, age of the oldest due row.';
comment on column lapse.policy_status.policy is 'The policy.';
comment on column lapse.policy_status.description is 'What it is for.';
comment on column lapse.policy_status.enabled is 'False: paused.';
comment on column lapse.policy_status.schedule is 'Its cadence in words.';
comment on column lapse.policy_status.next_run_at is 'When lapse.run_due serves it next.';
comment on column lapse.policy_status.running_since is 'Since when a run is open; NULL when none is.';
comment on column lapse.policy_status.last_run_at is 'When the last run ended.';
comment on column lapse.policy_status.last_status is 'How: ok, failed, lost, stopped or braked.';
comment on column lapse.policy_status.last_error is 'Its error, if it failed; what was too much, if it was braked.';
comment on column lapse.policy_status.rows_last_run is 'Rows that the last run changed.';
comment on column lapse.policy_status.rows_last_day is 'Rows changed by the runs that ended within the last 24 hours.';
comment on column lapse.policy_status.backlog is
    'Rows due now: a number, or ''at least 10000''; NULL where the policy declares no target.';
comment on column lapse.policy_status.backlog_rows is 'The same as a number, at most 10,000.';
comment on column lapse.policy_status.oldest_due_age is 'How long the oldest of them has been due.';
comment on column lapse.policy_status.blocked_rows is 'Rows set aside: see lapse.blocked_row.';
comment on column lapse.policy_status.held_rows is 'Rows that lapse.hold keeps from it; they count neither as blocked nor as backlog.';
comment on column lapse.policy_status.consecutive_failures is 'Failed or lost runs since the last good one.';
comment on column lapse.policy_status.braked_at is
    'Since when the brake holds it: it takes nothing until lapse.release_brake. NULL: it does not.';
comment on column lapse.policy_status.braked_rows is 'Rows that were due then.';
comment on column lapse.policy_status.braked_of is 'Rows that the table had then.';
