import { asFailure, Failure } from "../../domain/failure.ts";
import { parseBackupSocket } from "../../kvm-host/domain-xml.ts";
import { runOnHost } from "../../kvm-host/files.ts";
import { stopNbdExport } from "../../kvm-host/nbd-export.ts";
import { endWatchdog, hasWatchdog } from "../../kvm-host/quiesce.ts";
import { rbdExists, rbdInfo, removeRbdSnapshot } from "../../kvm-host/rbd.ts";
import { virshFailure } from "../../kvm-host/virsh.ts";
import type { Ledger, LedgerEntry } from "../../ports/ledger.ts";
import type { Logger } from "../../ports/logger.ts";
import { dropCheckpoint } from "./drop-checkpoint.ts";
import type { LibvirtHost } from "./libvirt-host.ts";
import { mergeOverlay } from "./merge-overlay.ts";
import { CheckpointDetails, OverlayDetails, parseState, RbdSnapshotDetails } from "./state.ts";

/**
 * Removes what ledger entries of a backup name, and settles each once its thing is gone. The guest comes first:
 * thaw, then everything that holds its images open, then what is in its chains. One entry that cannot be removed
 * does not keep the others; the first failure is thrown at the end.
 */
export type SweepContext = {
  readonly host: LibvirtHost;
  readonly uuid: string;
  readonly ledger: Ledger;
  readonly logger: Logger;
};

const order = [
  "freeze",
  "nbd-export",
  "backup-job",
  "checkpoint",
  "overlay",
  "rbd-snapshot",
  "scratch",
] as const;
type Kind = (typeof order)[number];

/** What a point leaves for the next incremental. */
const keptKinds: readonly string[] = ["checkpoint", "overlay", "rbd-snapshot"];

export function isKeepable(entry: LedgerEntry): boolean {
  return keptKinds.includes(entry.kind);
}

export async function sweep(context: SweepContext, entries: readonly LedgerEntry[]): Promise<void> {
  const failures: Failure[] = [];
  for (const kind of order) {
    // Newest first: the newest overlay is the top one.
    for (const entry of entries.filter((candidate) => candidate.kind === kind).toReversed()) {
      try {
        const result = await remove(context, kind, entry);
        if (result === "left") continue;
        await context.ledger.settle(entry.id);
      } catch (error) {
        const failure = asFailure(error, "host.command-failed", `${kind} ${entry.name}`);
        context.logger.warn("clean-up failed", { entry: entry.id, failure: failure.message });
        failures.push(failure);
      }
    }
  }
  const [first] = failures;
  if (first !== undefined) throw first;
}

async function remove(
  context: SweepContext,
  kind: Kind,
  entry: LedgerEntry,
): Promise<"removed" | "merged" | "left"> {
  const { host } = context;
  switch (kind) {
    case "freeze":
      await thaw(context, entry);
      return "removed";
    case "nbd-export":
      await stopNbdExport(host.connection, entry.name);
      return "removed";
    case "backup-job":
      await endBackupJob(context, entry.name);
      return "removed";
    case "checkpoint": {
      const details = parseState(CheckpointDetails, entry.details, "the ledger entry");
      return dropCheckpoint(context, entry.name, details);
    }
    case "overlay":
      return mergeOverlay(
        context,
        entry,
        parseState(OverlayDetails, entry.details, "the ledger entry"),
      );
    case "rbd-snapshot":
      return dropRbdSnapshot(context, entry);
    case "scratch":
      await removeFolder(host, entry.name);
      return "removed";
    default:
      return kind satisfies never;
  }
}

/** Fails while a running guest does not confirm and the watchdog on the host goes on trying; it ends only with a thaw. */
async function thaw({ host, uuid, logger }: SweepContext, entry: LedgerEntry): Promise<void> {
  const state = await host.virsh.try(["domstate", "--domain", uuid]);
  const mayBeFrozen = state.exitCode === 0 && !/shut off|crashed/.test(state.stdout);
  if (mayBeFrozen) {
    try {
      await host.agent(uuid).thaw();
    } catch (error) {
      if (await hasWatchdog(host.connection, entry.jobId)) throw error;
      logger.warn("agent silent, thawed by the watchdog before", { uuid, failure: String(error) });
    }
  }
  await endWatchdog(host.connection, entry.jobId);
}

/** Ends libvirt's backup job if it is the one with our socket. */
export async function endBackupJob({ host, uuid }: SweepContext, socket: string): Promise<void> {
  const job = await host.virsh.try(["backup-dumpxml", "--domain", uuid]);
  if (job.exitCode !== 0) {
    if (/no domain backup job present|failed to get domain|not running/i.test(job.stderr)) return;
    throw virshFailure(["backup-dumpxml"], job);
  }
  if (parseBackupSocket(job.stdout) !== socket) return;
  const aborted = await host.virsh.try(["domjobabort", "--domain", uuid]);
  if (aborted.exitCode === 0) return waitForJobEnd({ host, uuid }, socket);
  if (/not running|no job is active/i.test(aborted.stderr)) return;
  throw virshFailure(["domjobabort"], aborted);
}

async function waitForJobEnd(
  { host, uuid }: Pick<SweepContext, "host" | "uuid">,
  socket: string,
): Promise<void> {
  for (let attempt = 0; attempt < 150; attempt++) {
    const job = await host.virsh.try(["backup-dumpxml", "--domain", uuid]);
    if (job.exitCode !== 0 || parseBackupSocket(job.stdout) !== socket) return;
    await host.clock.sleep(200);
  }
  throw new Failure("busy", { message: "libvirt's backup job does not end" });
}

async function dropRbdSnapshot(
  { host, logger }: SweepContext,
  entry: LedgerEntry,
): Promise<"removed" | "left"> {
  const { rbd, identity } = parseState(RbdSnapshotDetails, entry.details, "the ledger entry");
  if (!(await rbdExists(host.connection, rbd))) return "removed";
  const info = await rbdInfo(host.connection, rbd);
  if (info.identity !== identity) {
    logger.warn("rbd image was made anew", { image: rbd.image });
    return "removed";
  }
  await removeRbdSnapshot(host.connection, rbd, entry.name);
  return "removed";
}

/** The job's folder, which holds sockets and scratch files and nothing else. */
async function removeFolder(host: LibvirtHost, folder: string): Promise<void> {
  if (!folder.startsWith("/") || folder.split("/").length < 3 || folder.includes("/../")) {
    throw new Failure("internal", { message: `not a job's folder: ${folder}` });
  }
  await runOnHost(host.connection, ["find", folder, "-xdev", "-depth", "-delete"]).catch(
    async (error: unknown) => {
      const gone = await host.connection.run(["test", "-e", folder]);
      if (gone.exitCode === 0) throw error;
    },
  );
}
