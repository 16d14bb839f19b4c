/** Tells the world what happened, at least once. */
export interface EventBus {
  publish(event: BusEvent): Promise<void>;
}

export type BusEvent = {
  /** For example `holdfast.job.finished`. */
  readonly type: string;
  /** JSON; no secrets. */
  readonly detail: Readonly<Record<string, unknown>>;
};
