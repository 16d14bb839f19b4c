import { Failure } from "../../domain/failure.ts";
import { freeBytes, makeFolder } from "../../kvm-host/files.ts";
import { whileFrozen } from "../../kvm-host/quiesce.ts";
import type {
  BackupSession,
  ChangeAnchor,
  Consistency,
  DriverContext,
  SnapshotRequest,
} from "../../ports/driver.ts";
import { type HostVersions, parseVersions } from "./choose-strategy.ts";
import { runHooks } from "./hooks.ts";
import { jobFolder, type LibvirtHost } from "./libvirt-host.ts";
import { type BackupPlan, planBackup } from "./plan-backup.ts";
import { releaseJob } from "./release.ts";
import type { AnchorState, SessionState } from "./state.ts";
import { isKeepable, sweep } from "./sweep.ts";
import { beginBackup, describeCheckpoint, prepareCheckpoint } from "./take-checkpoint.ts";
import {
  describeOverlays,
  makeOverlays,
  overlayFolderOf,
  prepareOverlays,
  type Taken,
} from "./take-overlays.ts";
import { takeStopped } from "./take-stopped.ts";
import { lookAtVm, type VmFacts } from "./vm-facts.ts";

/** Pre commands, freeze, snapshot or checkpoint, thaw, post commands. When it fails, nothing of it is left. */
export async function takeSnapshot(
  host: LibvirtHost,
  request: SnapshotRequest,
  context: DriverContext,
): Promise<BackupSession> {
  try {
    return await snapshot(host, request, context);
  } catch (error) {
    context.logger.warn("snapshot failed", { failure: String(error) });
    await releaseJob(
      host,
      {
        externalId: request.externalId,
        session: undefined,
        outcome: "failed",
        previous: request.previous,
        endedJobIds: [],
      },
      context,
    ).catch((failure: unknown) =>
      // The release stage tries again; the cause of the failure is what the operator must see.
      context.logger.error("clean-up after a failed snapshot failed", { failure: String(failure) }),
    );
    throw error;
  }
}

async function snapshot(
  host: LibvirtHost,
  asked: SnapshotRequest,
  context: DriverContext,
): Promise<BackupSession> {
  const { externalId: uuid } = asked;
  const versions = await hostVersions(host);
  await sweepOlderJobs(host, asked, context);
  const { request, facts, plan } = await lookAndPlan(host, asked, context, versions);
  const { options } = request;
  checkPlan(facts, plan);
  const spaceFolders = spaceFoldersOf(host, facts, plan);
  await checkSpace(host, spaceFolders, options.scratchBytesMin);
  await makeJobFolder(host, facts, context);

  const preWarnings = await runHooks(host, uuid, "pre", options.preCommands, context);
  let moment: Moment;
  let postWarnings: readonly string[];
  try {
    moment = await takeMoment(host, facts, plan, request, context);
  } finally {
    // What a pre command stopped must go on, also when the snapshot failed.
    postWarnings = await runHooks(host, uuid, "post", options.postCommands, context);
  }
  const { taken, consistency, takenAt, warnings } = moment;
  return {
    jobId: context.jobId,
    externalId: uuid,
    strategy: plan.strategy,
    takenAt,
    consistency,
    warnings: [...preWarnings, ...warnings, ...taken.warnings, ...postWarnings],
    disks: taken.disks,
    anchor: anchorOf(request, facts, plan, taken, context.jobId),
    state: {
      folder: jobFolder(host, context.jobId),
      ...(taken.socket === undefined ? {} : { socket: taken.socket }),
      spaceFolders,
      scratchBytesMin: options.scratchBytesMin,
      disks: { ...taken.states },
      excluded: [...plan.excluded],
    } satisfies SessionState,
  };
}

/**
 * The VM is held by this job alone, so whatever other jobs left unkept is of dead ones; it would stand in the way
 * of this snapshot. What belongs to the previous point stays even if its release died before marking it as kept.
 */
async function sweepOlderJobs(
  host: LibvirtHost,
  { externalId, previous }: SnapshotRequest,
  context: DriverContext,
): Promise<void> {
  const anchorJobId = previous?.state["jobId"];
  const entries = (await context.ledger.list()).filter(
    (entry) =>
      entry.jobId !== context.jobId &&
      !entry.kept &&
      !(entry.jobId === anchorJobId && isKeepable(entry)),
  );
  await sweep({ host, uuid: externalId, ledger: context.ledger, logger: context.logger }, entries);
}

/**
 * A change of strategy first takes what the other one kept out of the VM's chains: the two do not mix. A transient
 * VM keeps nothing: whoever creates it again knows nothing of an overlay that its data went to.
 */
async function lookAndPlan(
  host: LibvirtHost,
  asked: SnapshotRequest,
  context: DriverContext,
  versions: HostVersions,
): Promise<{ request: SnapshotRequest; facts: VmFacts; plan: BackupPlan }> {
  const { externalId: uuid } = asked;
  const facts = await lookAtVm(host, uuid);
  const request = facts.isPersistent
    ? asked
    : { ...asked, options: { ...asked.options, incremental: false } };
  const plan = await planBackup(host, facts, versions, request);
  const foreignKind = plan.strategy === "checkpoint" ? "overlay" : "checkpoint";
  const foreign = (await context.ledger.list()).filter((entry) => entry.kind === foreignKind);
  if (foreign.length === 0) return { request, facts, plan };
  const { ledger, logger } = context;
  await sweep({ host, uuid, ledger, logger }, foreign);
  const again = await lookAtVm(host, uuid);
  return { request, facts: again, plan: await planBackup(host, again, versions, request) };
}

async function hostVersions(host: LibvirtHost): Promise<HostVersions> {
  return parseVersions(await host.virsh.run(["version"]));
}

function checkPlan(facts: VmFacts, plan: BackupPlan): void {
  const { name } = facts.domain;
  if (plan.disks.length === 0) {
    throw new Failure("vm.unsupported", { message: `${name} has no disk left to back up` });
  }
  if (facts.power === "unknown") {
    throw new Failure("vm.unsupported", { message: `${name} is in a state that is not known` });
  }
}

function spaceFoldersOf(host: LibvirtHost, facts: VmFacts, plan: BackupPlan): string[] {
  if (plan.strategy === "checkpoint") return facts.isActive ? [host.scratchFolder] : [];
  const folders = plan.disks.flatMap(({ facts: disk }) =>
    disk.kind === "image" ? [overlayFolderOf(host, disk)] : [],
  );
  return [...new Set(folders)];
}

async function checkSpace(
  host: LibvirtHost,
  folders: readonly string[],
  bytesMin: number,
): Promise<void> {
  for (const folder of folders) {
    if (folder === host.scratchFolder) {
      await host.connection.run(["mkdir", "-p", "-m", "0711", "--", folder]);
    }
    const free = await freeBytes(host.connection, folder);
    if (free < bytesMin) {
      throw new Failure("host.no-space", {
        message: `${folder} has ${free} bytes free; the policy asks for ${bytesMin} before a snapshot`,
        folder,
      });
    }
  }
}

async function makeJobFolder(
  host: LibvirtHost,
  facts: VmFacts,
  { jobId, ledger }: DriverContext,
): Promise<void> {
  const folder = jobFolder(host, jobId);
  await ledger.intend({
    id: `${jobId}/scratch/folder`,
    jobId,
    kind: "scratch",
    name: folder,
    details: {},
    kept: false,
  });
  await makeFolder(host.connection, folder, facts.domain.qemuOwner);
}

type Moment = {
  readonly taken: Taken;
  readonly consistency: Consistency;
  readonly takenAt: string;
  readonly warnings: readonly string[];
};

async function takeMoment(
  host: LibvirtHost,
  facts: VmFacts,
  plan: BackupPlan,
  request: SnapshotRequest,
  context: DriverContext,
): Promise<Moment> {
  const { incremental } = request.options;
  const takenAt = () => new Date(host.clock.now()).toISOString();
  if (plan.strategy === "checkpoint" && !facts.isActive) {
    const taken = await takeStopped(host, plan, context);
    return { taken, consistency: "stopped", takenAt: takenAt(), warnings: [] };
  }
  if (plan.strategy === "checkpoint") {
    const files = await prepareCheckpoint(host, facts, plan, context, incremental);
    const frozen = await freezeFor(host, facts, request, context, async () => {
      const disks = await beginBackup(host, facts, plan, files, incremental);
      return { disks, at: takenAt() };
    });
    const taken = await describeCheckpoint(host, frozen.result.disks, files, context.jobId);
    return { taken, takenAt: frozen.result.at, ...momentOf(facts, frozen) };
  }
  await prepareOverlays(host, facts, plan, context, incremental);
  const frozen = await freezeFor(host, facts, request, context, async () => {
    await makeOverlays(host, facts, plan, context.jobId);
    return { at: takenAt() };
  });
  const isFrozen = frozen.failure === undefined;
  const taken = await describeOverlays(host, facts, plan, context.jobId, isFrozen);
  return { taken, takenAt: frozen.result.at, ...momentOf(facts, frozen) };
}

type Frozen<T> = { readonly result: T; readonly failure: string | undefined };

function momentOf(facts: VmFacts, { failure }: Frozen<unknown>) {
  if (!facts.isActive) return { consistency: "stopped" as const, warnings: [] };
  if (failure === undefined) return { consistency: "application" as const, warnings: [] };
  return { consistency: "crash" as const, warnings: [`crash-consistent: ${failure}`] };
}

/** Freezes as the policy asks. `failure`: why the guest was not frozen. */
async function freezeFor<T>(
  host: LibvirtHost,
  facts: VmFacts,
  { options, externalId: uuid }: SnapshotRequest,
  context: DriverContext,
  take: () => Promise<T>,
): Promise<Frozen<T>> {
  const { jobId, ledger, logger } = context;
  const agent = host.agent(uuid);
  const refusal = whyNoFreeze(facts, options.quiesce) ?? (await agent.ping());
  const refuse = (reason: string) =>
    new Failure("quiesce.failed", { message: `${facts.domain.name} was not frozen: ${reason}` });
  if (refusal !== undefined) {
    if (options.quiesce === "require" && facts.isActive) throw refuse(refusal);
    return { result: await take(), failure: refusal };
  }
  const entryId = `${jobId}/freeze/guest`;
  await ledger.intend({
    id: entryId,
    jobId,
    kind: "freeze",
    name: uuid,
    details: {},
    kept: false,
  });
  const { connection, uri, clock } = host;
  const quiesceHost = { connection, uri, uuid, agent, jobId, logger, clock };
  const { result, failure, isThawed } = await whileFrozen(quiesceHost, async (_frozen, reason) => {
    if (reason !== undefined && options.quiesce === "require") throw refuse(reason);
    return take();
  });
  if (isThawed) await ledger.settle(entryId);
  if (failure !== undefined && options.quiesce === "require") throw refuse(failure);
  return { result, failure };
}

function whyNoFreeze(facts: VmFacts, quiesce: string): string | undefined {
  if (!facts.isActive) return "the VM is stopped";
  if (quiesce === "never") return "the policy does not ask for it";
  if (facts.power !== "running") return "the VM is paused";
  return facts.domain.hasAgentChannel ? undefined : "the VM has no guest agent channel";
}

/** A stopped VM under checkpoint makes nothing new; the last point's checkpoint goes on counting. */
function anchorOf(
  { options, previous }: SnapshotRequest,
  facts: VmFacts,
  plan: BackupPlan,
  taken: Taken,
  jobId: string,
): ChangeAnchor | undefined {
  if (!options.incremental) return undefined;
  if (plan.strategy === "checkpoint" && !facts.isActive) {
    return previous?.strategy === "checkpoint" && plan.anchor !== undefined ? previous : undefined;
  }
  if (Object.keys(taken.anchorDisks).length === 0) return undefined;
  const state: AnchorState = {
    jobId,
    ...(taken.checkpoint === undefined ? {} : { checkpoint: taken.checkpoint }),
    disks: { ...taken.anchorDisks },
  };
  return { strategy: plan.strategy, state };
}
