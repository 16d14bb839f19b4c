import { isFailure } from "@holdfast/shared/domain/failure";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { Session } from "@holdfast/shared/repository/session/sessions";

/** What a verification remembers, in its session's name. Where the storage refuses it, the work goes on and says so. */
export type VerifyNotes = {
  readonly putNew: PutNew;
  /** Why nothing, or not all, was remembered. */
  readonly notRemembered: () => string | undefined;
};

export type PutNew = (
  folder: string,
  type: "verified" | "damage",
  plain: Uint8Array,
) => Promise<void>;

export function createVerifyNotes(o: {
  readonly session?: Session | undefined;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}): VerifyNotes {
  const { session, signal } = o;
  let reason = session === undefined ? "nothing was to be written, or could be" : undefined;
  return {
    notRemembered: () => reason,
    putNew: async (folder, type, plain) => {
      if (reason !== undefined) return;
      try {
        await session?.objects.putNew(folder, type, plain, { signal });
      } catch (error) {
        if (!isFailure(error, "storage.refused")) throw error;
        reason = error.message;
        o.logger.warn("verification is not remembered", { reason });
      }
    },
  };
}
