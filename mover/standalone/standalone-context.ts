import type { StandaloneLine, StandaloneRequest } from "@holdfast/shared/contracts/standalone";
import type { Clock } from "@holdfast/shared/ports/clock";
import type { Logger } from "@holdfast/shared/ports/logger";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import type { Repository } from "@holdfast/shared/repository/repository";
import type { z } from "zod";
import type { OwnLimits } from "../limits/own-limits.ts";

/** What a request made on the CLI gets: the process's own things, and the way to tell the CLI. */
export type StandaloneContext = {
  /** Aborted when the CLI stops the request or is gone. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly logger: Logger;
  readonly emit: (line: StandaloneLine) => void;
  /** Tells the CLI how far a work is; not more often than it can be read. */
  readonly reportProgress: (disk: string) => ReportProgress;
  /** Fails with `repository.not-found`, `repository.key-wrong`, `storage.unreachable`. */
  readonly open: (access: RepositoryAccess) => Promise<Repository>;
  /** Of this process; `open` has put them on the repository's traffic already. */
  readonly limits: OwnLimits;
};

export type ReportProgress = (now: {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}) => void;

export type RepositoryAccess = { readonly url: string; readonly passphrase: string };

export type Request<Kind extends StandaloneRequest["kind"]> = z.output<typeof StandaloneRequest> & {
  readonly kind: Kind;
};
