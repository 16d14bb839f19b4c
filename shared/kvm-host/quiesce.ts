import { isFailure } from "../domain/failure.ts";
import type { Clock } from "../ports/clock.ts";
import type { HostConnection } from "../ports/host.ts";
import type { Logger } from "../ports/logger.ts";
import { runOnHost } from "./files.ts";
import type { GuestAgent } from "./guest-agent.ts";
import { endProcesses, hasProcess } from "./host-processes.ts";

/**
 * Freezes a guest's file systems for the length of one call. The thaw does not depend on this process: before the
 * freeze, a watchdog starts on the host that thaws after 20 s and keeps trying while the agent does not answer.
 * It is ended only after a thaw that the agent confirmed.
 */
export type QuiesceHost = {
  readonly connection: HostConnection;
  readonly uri: string;
  readonly uuid: string;
  readonly agent: GuestAgent;
  /** Names the watchdog. */
  readonly jobId: string;
  readonly logger: Logger;
  readonly clock: Clock;
};

export const watchdogDelaySeconds = 20;

export type Quiesced<T> = {
  readonly result: T;
  /** Undefined: the guest was frozen throughout. Otherwise why it was not. */
  readonly failure: string | undefined;
  /** False while the watchdog still has to thaw the guest. */
  readonly isThawed: boolean;
};

/**
 * Runs `take` in any case, frozen if possible; the caller decides what to do with a point that is not. The agent has
 * answered a ping just before: a freeze that waits in a silent agent's queue would come much later.
 */
export async function whileFrozen<T>(
  host: QuiesceHost,
  take: (isFrozen: boolean, failure: string | undefined) => Promise<T>,
): Promise<Quiesced<T>> {
  await startWatchdog(host);
  const begin = host.clock.now();
  let frozen = 0;
  let failure: string | undefined;
  try {
    frozen = await host.agent.freeze();
    if (frozen === 0) failure = "the guest agent froze no file system";
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  let result: T;
  let thaw: Thaw = { isThawed: false, count: 0 };
  try {
    // A freeze that failed may still happen late: thaw first, so that the snapshot is not taken half frozen.
    if (failure !== undefined) thaw = await tryThaw(host);
    result = await take(failure === undefined, failure);
  } finally {
    if (!thaw.isThawed) thaw = await tryThaw(host);
    const { isThawed } = thaw;
    host.logger.info("guest thawed", { frozen, isThawed, durationMs: host.clock.now() - begin });
    if (isThawed) await endWatchdog(host.connection, host.jobId);
  }
  if (failure === undefined && !thaw.isThawed) {
    failure = "the guest agent did not confirm the thaw";
  } else if (failure === undefined && thaw.count !== frozen) {
    failure = `${frozen} file systems were frozen, but ${thaw.count} were still frozen after the snapshot`;
  }
  return { result, failure, isThawed: thaw.isThawed };
}

type Thaw = { readonly isThawed: boolean; readonly count: number };

async function tryThaw(host: QuiesceHost): Promise<Thaw> {
  try {
    return { isThawed: true, count: await host.agent.thaw() };
  } catch (error) {
    host.logger.warn("guest not thawed yet", {
      uuid: host.uuid,
      failure: isFailure(error) ? error.message : String(error),
    });
    return { isThawed: false, count: 0 };
  }
}

export const watchdogName = (jobId: string): string => `holdfast-thaw-${jobId}`;

async function startWatchdog({ connection, uri, uuid, jobId }: QuiesceHost): Promise<void> {
  const start = 'exec setsid -f sh -c "$@" </dev/null >/dev/null 2>&1';
  const delay = String(watchdogDelaySeconds);
  const watchdog = [watchdogScript, watchdogName(jobId), uri, uuid, delay];
  await runOnHost(connection, ["sh", "-c", start, "holdfast-start", ...watchdog]);
}

export async function endWatchdog(connection: HostConnection, jobId: string): Promise<void> {
  await endProcesses(connection, { argument: watchdogName(jobId), program: "sh" });
}

export function hasWatchdog(connection: HostConnection, jobId: string): Promise<boolean> {
  return hasProcess(connection, { argument: watchdogName(jobId), program: "sh" });
}

// An hour of attempts: an agent that was stopped takes the freeze late, when it goes on.
const watchdogScript = `
export LC_ALL=C
sleep "$3"
n=0
while [ $n -lt 600 ]; do
  virsh -q -c "$1" qemu-agent-command --domain "$2" --timeout 4 '{"execute":"guest-fsfreeze-thaw"}' && exit 0
  s=$(virsh -q -c "$1" domstate --domain "$2" 2>&1)
  case "$s" in *"shut off"*|*"failed to get domain"*|*crashed*) exit 0;; esac
  n=$((n+1)); sleep 2
done`;
