/**
 * What the libvirt system tests share: the host, a driver on it over SSH, backups of a VM without a repository, and
 * the look around afterwards for anything left behind.
 */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BackupOptions } from "@holdfast/shared/domain/policy";
import { systemClock } from "@holdfast/shared/ports/clock";
import type { DiskReader, DiskWriter } from "@holdfast/shared/ports/disk";
import type {
  BackupSession,
  ChangeAnchor,
  Driver,
  DriverContext,
} from "@holdfast/shared/ports/driver";
import type { CommandResult } from "@holdfast/shared/ports/host";
import type { Ledger } from "@holdfast/shared/ports/ledger";
import { createJsonLogger, silentLogger } from "@holdfast/shared/ports/logger";
import type { Transports } from "@holdfast/shared/ports/transport";
import { createLibvirtDriver } from "@holdfast/shared/providers/libvirt/driver";
import { createTransports } from "../../mover/transport/transports.ts";
import { type KvmHost, startKvmHost } from "./kvm-host.ts";
import { createMemoryLedger } from "./memory-ledger.ts";
import { run } from "./run.ts";

export const folder = process.env["HOLDFAST_TESTBED"] ?? "/var/tmp/holdfast-testbed/kvm";
const port = Number(process.env["HOLDFAST_TESTBED_SSH_PORT"] ?? 22022);
export const scratchFolder = "/var/tmp/holdfast";

export type Bench = {
  readonly host: KvmHost;
  readonly driver: Driver;
  driverWith(options: { readonly transports?: Transports; readonly scratch?: string }): Driver;
};

export async function startBench(): Promise<Bench> {
  const host = await startKvmHost({
    folder,
    port,
    say: (line) => process.stdout.write(`${line}\n`),
  });
  const driverWith: Bench["driverWith"] = ({ transports = createTransports(), scratch }) =>
    createLibvirtDriver({
      transports,
      host: host.address,
      settings: {
        kind: "libvirt",
        ssh: {
          host: host.address.host,
          port: host.address.port,
          user: host.address.user,
          hostKeys: [...host.address.hostKeys],
          login: "key",
        },
        uri: host.uri,
        ...(scratch === undefined ? {} : { scratchFolder: scratch }),
      },
      clock: systemClock,
    });
  return { host, driver: driverWith({}), driverWith };
}

/** Transports whose commands on the host go through `tap`, which may look, wait, change them or die. */
export function tappedTransports(
  tap: (
    command: readonly [string, ...string[]],
    run: (command: readonly [string, ...string[]]) => Promise<CommandResult>,
  ) => Promise<CommandResult>,
): Transports {
  const transports = createTransports();
  return {
    ...transports,
    connectHost: async (address, options) => {
      const connection = await transports.connectHost(address, options);
      return {
        name: connection.name,
        run: (command, runOptions) =>
          tap(command, (changed) => connection.run(changed, runOptions)),
        openUnixSocket: (path, more) => connection.openUnixSocket(path, more),
        openTcpSocket: (at, more) => connection.openTcpSocket(at, more),
        [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
      };
    },
  };
}

/** Gives back what a series keeps, by a backup that keeps nothing. */
export async function endSeries(series: BackupSeries): Promise<void> {
  const strategy = series.anchor?.strategy ?? "auto";
  const last = await series.snapshot({ strategy, incremental: false });
  await series.release(last, "committed");
  const left = [...series.ledger.entries.keys()];
  if (left.length > 0) throw new Error(`still in the ledger: ${left.join(", ")}`);
}

const logger =
  process.env["HOLDFAST_TEST_LOG"] === undefined
    ? silentLogger
    : createJsonLogger((line) => process.stderr.write(`${line}\n`));

let jobsMade = 0;

export function newContext(ledger: Ledger, jobId = newJobId()): DriverContext {
  return { jobId, ledger, logger, signal: new AbortController().signal };
}

export function newJobId(): string {
  jobsMade += 1;
  return `${Date.now().toString(36)}-${jobMark}${jobsMade}`;
}

/** In the ids of this process's jobs, and so in the name of all that they make. */
const jobMark = `test${process.pid}x`;

export const backupOptions = (options: Partial<BackupOptions> = {}): BackupOptions =>
  BackupOptions.parse({ scratchBytesMin: 16 * 1024 ** 2, ...options });

/** A VM's backups, one after the other, as the workflow would make them. */
export class BackupSeries {
  readonly driver: Driver;
  readonly uuid: string;
  readonly ledger = createMemoryLedger();
  anchor: ChangeAnchor | undefined;
  /** The disks as of the last committed point. */
  readonly images = new Map<string, Buffer>();

  constructor(driver: Driver, uuid: string) {
    this.driver = driver;
    this.uuid = uuid;
  }

  async snapshot(
    options: Partial<BackupOptions> = {},
    context = newContext(this.ledger),
  ): Promise<Backup> {
    const session = await this.driver.snapshot(
      { externalId: this.uuid, options: backupOptions(options), previous: this.anchor },
      context,
    );
    // A session is plain JSON: any mover can pick it up.
    return { session: JSON.parse(JSON.stringify(session)) as BackupSession, context };
  }

  /** Snapshot, transfer, release, all compared; answers with each disk's mode. */
  async backUp(options: Partial<BackupOptions> = {}): Promise<Backup> {
    const backup = await this.snapshot(options);
    await this.release(backup, "committed", await this.transfer(backup, frozenTruth(backup)));
    return backup;
  }

  /** Reads all disks as the pipeline would and compares them with what QEMU's own tool reads. */
  async transfer(backup: Backup, truth: (key: string) => Promise<Buffer>): Promise<Transferred[]> {
    const results: Transferred[] = [];
    for (const { key, mode } of backup.session.disks) {
      await using reader = await this.driver.openDisk(backup.session, key, {
        ...backup.context,
        full: false,
      });
      const base = mode === "incremental" ? this.images.get(key) : undefined;
      const result = await applyExtents(reader, base);
      const expected = await truth(key);
      if (!result.image.equals(expected)) {
        throw new Error(
          `disk ${key} (${mode}) differs at ${firstDifference(result.image, expected)}`,
        );
      }
      results.push({ key, ...result });
    }
    return results;
  }

  async release(backup: Backup, outcome: "committed" | "failed", results: Transferred[] = []) {
    const request = {
      externalId: this.uuid,
      session: backup.session,
      outcome,
      previous: this.anchor,
      endedJobIds: [],
    };
    await this.driver.release(request, backup.context);
    if (outcome === "failed") return;
    this.anchor = backup.session.anchor;
    for (const { key, image } of results) this.images.set(key, image);
  }
}

export type Backup = { readonly session: BackupSession; readonly context: DriverContext };
export type Transferred = {
  readonly key: string;
  readonly image: Buffer;
  readonly bytesRead: number;
  readonly bytesUnchanged: number;
};

export async function applyExtents(
  reader: DiskReader,
  base: Buffer | undefined,
): Promise<Omit<Transferred, "key">> {
  const image = Buffer.alloc(reader.sizeBytes);
  if (base !== undefined) base.copy(image);
  let end = 0;
  let bytesRead = 0;
  let bytesUnchanged = 0;
  for await (const { offset, length, kind } of reader.extents()) {
    if (offset !== end) throw new Error(`extents have a gap at ${end}`);
    end = offset + length;
    if (kind === "zero") image.fill(0, offset, end);
    if (kind === "unchanged") {
      if (base === undefined) throw new Error("unchanged in a full read");
      bytesUnchanged += length;
    }
    if (kind !== "data") continue;
    bytesRead += length;
    for (let at = offset; at < end; at += reader.readBytesMax) {
      await reader.read(at, image.subarray(at, Math.min(end, at + reader.readBytesMax)));
    }
  }
  if (end !== reader.sizeBytes) throw new Error(`extents end at ${end} of ${reader.sizeBytes}`);
  return { image, bytesRead, bytesUnchanged };
}

/** Data and holes of sizes around the units of disks and images, in turn, from the first byte to the last. */
export function holedImage(sizeBytes: number, seed: number): Buffer {
  const lengths = [512, 4096, 512, 65_536, 1536, 66_048, 131_072, 1024 ** 2, 4608, 196_608];
  const image = Buffer.alloc(sizeBytes);
  for (let at = 0, turn = seed; at < sizeBytes; turn++) {
    const end = Math.min(sizeBytes, at + (lengths[(turn * seed * 7) % lengths.length] ?? 512));
    if (turn % 2 === 0) image.fill((turn % 255) + 1, at, end);
    at = end;
  }
  return image;
}

/** Writes it as the pipeline would. `isUsed`: over a target that is full of other data, holes as zeros. */
export async function writeHoled(
  target: DiskWriter,
  image: Buffer,
  { isUsed }: { readonly isUsed: boolean },
): Promise<void> {
  await using writer = target;
  const piece = Buffer.alloc(Math.min(writer.writeBytesMax, 1024 ** 2), 0xaa);
  for (let at = 0; isUsed && at < image.length; at += piece.length) {
    await writer.write(at, piece.subarray(0, Math.min(piece.length, image.length - at)));
  }
  for (let at = 0; at < image.length; ) {
    const isZero = image[at] === 0;
    let end = at + 512;
    while (end < image.length && end - at < piece.length && (image[end] === 0) === isZero)
      end += 512;
    if (!isZero) await writer.write(at, image.subarray(at, end));
    else if (isUsed) await writer.zero(at, end - at);
    at = end;
  }
  await writer.flush();
}

/** The bytes of an image or export as qemu-img reads them. */
export async function convert(source: string, format?: string): Promise<Buffer> {
  const work = await mkdtemp(join(tmpdir(), "holdfast-truth-"));
  try {
    const target = join(work, "raw");
    const from = format === undefined ? [] : ["-f", format];
    await run("qemu-img", ["convert", "-U", ...from, "-O", "raw", source, target]);
    return await readFile(target);
  } finally {
    await rm(work, { recursive: true });
  }
}

/** What the session froze, read past the driver. */
export function frozenTruth({ session }: Backup): (key: string) => Promise<Buffer> {
  const state = session.state as {
    socket?: string;
    disks: Record<
      string,
      {
        kind: string;
        layers?: { path: string; format: string }[];
        snapshot?: string;
        rbd?: { image: string; configFile?: string };
      }
    >;
  };
  return async (key) => {
    const disk = state.disks[key];
    if (disk?.kind === "job-export") return convert(`nbd+unix:///${key}?socket=${state.socket}`);
    if (disk?.kind === "rbd") {
      return convert(`rbd:${disk.rbd?.image}@${disk.snapshot}:conf=${disk.rbd?.configFile}`, "raw");
    }
    const [top] = disk?.layers ?? [];
    return convert(top?.path ?? "", top?.format);
  };
}

function firstDifference(a: Buffer, b: Buffer): string {
  if (a.length !== b.length) return `length ${a.length} against ${b.length}`;
  let index = 0;
  while (a[index] === b[index]) index++;
  return `offset ${index}`;
}

/**
 * Everything that jobs of this process left on the host, and all of Holdfast that this VM still has; empty when all
 * was given back.
 */
export async function leftovers(host: KvmHost, uuid: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir(host.images)) {
    if (name.includes(jobMark)) found.push(`file ${name}`);
  }
  for (const name of await readdir(scratchFolder).catch(() => [])) {
    if (name.includes(jobMark) || name.includes(uuid)) found.push(`scratch ${name}`);
  }
  const processes = await run("ps", ["-eo", "pid,args"]);
  for (const line of processes.split("\n")) {
    if (line.includes(jobMark) && /qemu-nbd .*--socket=|holdfast-thaw-/.test(line)) {
      found.push(`process ${line.trim().slice(0, 120)}`);
    }
  }
  const isThere = (await host.virsh("list", "--all", "--uuid")).includes(uuid);
  if (!isThere) return found;
  const checkpoints = await host.virsh("checkpoint-list", uuid, "--name");
  if (checkpoints.trim() !== "") found.push(`checkpoint ${checkpoints.trim()}`);
  const xml = await host.virsh("dumpxml", uuid, "--inactive");
  if (xml.includes(".overlay")) found.push("overlay in the definition");
  const images = [...xml.matchAll(/source file='([^']+\.qcow2)'/g)].map(([, file]) => file ?? "");
  if ((await host.virsh("domstate", uuid)).trim() !== "running") {
    for (const image of images) {
      const info = await run("qemu-img", ["info", "--output=json", "-f", "qcow2", image]);
      if (/"name": *"holdfast-/.test(info)) found.push(`bitmap in ${image}`);
    }
    return found;
  }
  if ((await host.virsh("dumpxml", uuid)).includes(".overlay")) found.push("overlay in use");
  if ((await host.virsh("domjobinfo", uuid)).match(/Operation: +Backup/)) found.push("backup job");
  const query = JSON.stringify({ execute: "query-named-block-nodes", arguments: { flat: true } });
  const nodes = await host.virsh("qemu-monitor-command", uuid, query);
  if (nodes.includes('"dirty-bitmaps"') && nodes.includes("holdfast-"))
    found.push("bitmap in QEMU");
  const status = await host
    .virsh("qemu-agent-command", uuid, "--timeout", "5", '{"execute":"guest-fsfreeze-status"}')
    .catch(() => "no agent");
  if (status.includes("frozen")) found.push("frozen guest");
  return found;
}
