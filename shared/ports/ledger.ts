/**
 * The record of every temporary thing a job makes on a hypervisor. An entry is written, and durable,
 * before the thing is made, under a deterministic name; it is settled after the thing is gone.
 * A release removes what the ledger names and nothing else.
 */
export interface Ledger {
  /** Records the intent to create. Same id again: no change. */
  intend(entry: LedgerEntry): Promise<void>;
  /** The thing outlives its job: it is the base of the VM's next incremental. */
  keep(entryId: string): Promise<void>;
  /** The thing is gone (or was never made). Unknown ids are fine. */
  settle(entryId: string): Promise<void>;
  /** All entries of this VM that are not settled, oldest first. */
  list(): Promise<readonly LedgerEntry[]>;
}

export type LedgerEntry = {
  /** Unique within the VM, deterministic: `<job id>/<kind>/<name>`. */
  readonly id: string;
  readonly jobId: string;
  /** For example `overlay`, `checkpoint`, `backup-job`, `scratch`, `nbd-export`, `rbd-snapshot`, `freeze`, `restore-file`, `restore-domain`. */
  readonly kind: string;
  /** What it is called on the hypervisor. */
  readonly name: string;
  /** What the removal needs to know; JSON values, no secrets. */
  readonly details: Readonly<Record<string, unknown>>;
  /** True once it is kept for the next incremental. */
  readonly kept: boolean;
};
