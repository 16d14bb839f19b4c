import type { FailureRecord } from "@holdfast/shared/domain/failure";
import { failureKind } from "@holdfast/shared/domain/failure";

/** What a script may rely on. Who is to blame is in the code; an unknown code counts as failure. */
export const exitCodes = {
  done: { code: 0, meaning: "done" },
  failed: { code: 1, meaning: "failed" },
  usage: { code: 2, meaning: "wrong usage: an unknown command, option or value" },
  warnings: {
    code: 3,
    meaning: "done with warnings: quiesce fell back, a disk was excluded, some VMs failed",
  },
  forbidden: { code: 4, meaning: "not signed in, forbidden, or a wrong passphrase" },
  notFound: { code: 5, meaning: "not found" },
  conflict: { code: 6, meaning: "busy, or in conflict with what exists" },
  temporary: { code: 7, meaning: "temporary: the same command may succeed later" },
  verification: { code: 8, meaning: "data failed verification" },
  stoppedWaiting: { code: 9, meaning: "stopped waiting: the job goes on" },
  cancelled: { code: 130, meaning: "cancelled" },
} as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]["code"];

const known: ReadonlySet<number> = new Set(Object.values(exitCodes).map(({ code }) => code));
const isExitCode = (code: number): code is ExitCode => known.has(code);

export function exitCodeOf(record: FailureRecord): ExitCode {
  const { exitCode } = failureKind(record.code);
  return isExitCode(exitCode) ? exitCode : exitCodes.failed.code;
}
