import {
  type HeadObjectCommandOutput,
  PutObjectLegalHoldCommand,
  PutObjectRetentionCommand,
} from "@aws-sdk/client-s3";
import type { ObjectLockState, ObjectLocks, Retention } from "@holdfast/shared/ports/object-store";
import { type S3Bucket, sendOptions } from "./s3-bucket.ts";

/** Retention and legal hold of objects in a bucket that was created with Object Lock. */
export function createS3Locks(
  { client, place, failure, look }: S3Bucket,
  checkClock: () => void,
): ObjectLocks {
  return {
    async look(key, call) {
      const found = await look(key, call);
      return found && lockStateOf(found);
    },
    async extend(key, retention, call) {
      checkClock();
      const { ObjectLockMode: Mode, ObjectLockRetainUntilDate: RetainUntilDate } =
        retentionFields(retention);
      const command = new PutObjectRetentionCommand({
        ...place(key, call),
        Retention: { Mode, RetainUntilDate },
      });
      await client.send(command, sendOptions(call)).catch((error: unknown) => {
        throw failure(error, "extend the retention of", key, call);
      });
    },
    async hold(key, isOn, call) {
      const command = new PutObjectLegalHoldCommand({
        ...place(key, call),
        LegalHold: { Status: isOn ? "ON" : "OFF" },
      });
      await client.send(command, sendOptions(call)).catch((error: unknown) => {
        throw failure(error, "change the legal hold of", key, call);
      });
    },
  };
}

export function retentionFields(retention: Retention) {
  return {
    ObjectLockMode:
      retention.mode === "compliance" ? ("COMPLIANCE" as const) : ("GOVERNANCE" as const),
    ObjectLockRetainUntilDate: new Date(retention.untilMs),
  };
}

function lockStateOf(found: HeadObjectCommandOutput): ObjectLockState {
  const {
    ObjectLockMode: mode,
    ObjectLockRetainUntilDate: until,
    ObjectLockLegalHoldStatus: status,
  } = found;
  const retention: Retention | undefined =
    mode === undefined || until === undefined
      ? undefined
      : { mode: mode === "COMPLIANCE" ? "compliance" : "governance", untilMs: until.getTime() };
  return { retention, legalHold: status === "ON" };
}
