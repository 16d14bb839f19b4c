/** Wakes the dispatcher for policies (EventBridge Scheduler). */
export interface Schedules {
  /** Creates or replaces the policy's schedule. `input.invalid` when the expression or time zone is refused. */
  put(schedule: PolicySchedule): Promise<void>;
  /** One that is gone already is no failure. */
  remove(policyId: string): Promise<void>;
}

export type PolicySchedule = {
  readonly policyId: string;
  /** `cron(…)` or `rate(…)`. */
  readonly expression: string;
  readonly timeZone: string;
};
