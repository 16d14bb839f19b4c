/**
 * `npm run bench:gc`: garbage collection over the metadata of a million packs, which are made up when they are asked for: VMs with a full
 * backup and incrementals, the oldest point of each expires, and one backup in twenty has failed. Prints times and peak memory as Markdown; asserts nothing.
 * Without an index: what is left of it is read and written anew at the speed of the storage.
 *
 * BENCH_PACKS (1000000), BENCH_POINTS (20 points a VM), BENCH_LEAVES (5000 leaves a disk, of 64 MiB: 320 GiB).
 */
import { createHash } from "node:crypto";
import { systemClock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom } from "@holdfast/shared/ports/random";
import { createByteWriter } from "@holdfast/shared/repository/format/bytes";
import { sealObject } from "@holdfast/shared/repository/format/sealed-object";
import { collect } from "@holdfast/shared/repository/maintenance/collect";
import { encodeRoot } from "@holdfast/shared/repository/recovery-point/point";
import {
  createRepository,
  openRepository,
  type Repository,
} from "@holdfast/shared/repository/repository";
import { createSignedNames } from "@holdfast/shared/repository/session/signed-name";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";

const packsWanted = Number(process.env["BENCH_PACKS"] ?? 1_000_000);
const points = Number(process.env["BENCH_POINTS"] ?? 20);
const leaves = Number(process.env["BENCH_LEAVES"] ?? 5000);
const leafBytes = 64 * 1024 ** 2;
const packBytes = 32 * 1024 ** 2;
/** Of the leaves, from one point to the next. */
const changedShare = 0.02;
const failedShare = 0.05;
const leavesPerMetadataPack = 250;

const changed = Math.round(leaves * changedShare);
const packsPerVm = Math.round(
  (leaves + changed * (points - 1)) * (1 + failedShare) +
    points * Math.ceil(leaves / leavesPerMetadataPack),
);
const vms = Math.max(1, Math.round(packsWanted / packsPerVm));

/** Always the same bytes for the same words. */
function madeUp(length: number, ...words: readonly (string | number)[]): Buffer {
  return createHash("shake256", { outputLength: length }).update(words.join("/")).digest();
}

const sessionIds = new Map<number, string>();
function sessionOf(vm: number, point: number): string {
  const known = sessionIds.get(vm * points + point);
  if (known !== undefined) return known;
  const sessionId = madeUp(8, "session", vm, point).toString("hex");
  sessionIds.set(vm * points + point, sessionId);
  return sessionId;
}
const failedSession = (vm: number): string => madeUp(8, "failed", vm).toString("hex");

/** In which point leaf `index` was written last, seen from `point`: each point changes the next `changed` leaves. */
function writtenIn(index: number, point: number): number {
  for (let its = point; its > 0; its -= 1) {
    const first = ((its - 1) * changed) % leaves;
    if ((index - first + leaves) % leaves < changed) return its;
  }
  return 0;
}

const ids = new Map<string, Buffer>();
function sessionBytes(sessionId: string): Buffer {
  const known = ids.get(sessionId);
  if (known !== undefined) return known;
  const bytes = Buffer.from(sessionId, "hex");
  ids.set(sessionId, bytes);
  return bytes;
}

/** Spread like random bytes, and cheap. */
function idOf(sessionId: string, kind: number, number: number): Uint8Array {
  const id = Buffer.alloc(16);
  sessionBytes(sessionId).copy(id);
  id.writeUInt32LE(Math.imul(number + 1, 2_654_435_761) >>> 0, 8);
  id.writeUInt32LE((kind << 28) | number, 12);
  return id;
}

const packKey = (id: Uint8Array): string => {
  const hex = Buffer.from(id).toString("hex");
  return `packs/${hex.slice(0, 2)}/${hex}`;
};

/**
 * As `encodeDiskRecord` writes it, but at once: what is measured is reading. Each leaf has a pack of its own, and each fourth one of the first
 * backup shares some chunks with its neighbour.
 */
function diskRecord(vm: number, point: number): Uint8Array {
  const packs: Uint8Array[] = [];
  const numbers = new Map<number, number>();
  const numberOf = (kind: number, number: number, written: number): number => {
    const key = (written * 4 + kind) * leaves * 2 + number;
    const known = numbers.get(key);
    if (known !== undefined) return known;
    packs.push(idOf(sessionOf(vm, written), kind, number));
    numbers.set(key, packs.length - 1);
    return packs.length - 1;
  };
  const rows = Buffer.alloc(leaves * (24 + 96 + 4 + 24));
  const ids = madeUp(96, "leaf", vm, point);
  let at = 0;
  const u32 = (value: number): void => {
    at = rows.writeUInt32LE(value >>> 0, at);
  };
  for (let index = 0; index < leaves; index += 1) {
    const written = writtenIn(index, point);
    u32(numberOf(2, Math.floor(index / leavesPerMetadataPack), written));
    for (const value of [64, 100, 90, 20_000, 25_000]) u32(value);
    at += ids.copy(rows, at);
    const isShared = index % 4 === 0 && written === 0;
    u32(isShared ? 2 : 1);
    for (const value of [numberOf(1, index, written), 400, packBytes - 100_000]) u32(value);
    if (isShared)
      for (const value of [numberOf(1, Math.max(0, index - 1), 0), 3, 100_000]) u32(value);
  }
  const head = createByteWriter(128 + packs.length * 20)
    .u8(1)
    .text("vda")
    .u64(leaves * leafBytes)
    .u32(leafBytes)
    .bytes(new Uint8Array(32))
    .u64(1)
    .u64(1)
    .u64(1)
    .u32(packs.length);
  for (const packId of packs) head.bytes(packId).u32(1);
  return Buffer.concat([head.u32(leaves).done(), rows.subarray(0, at)]);
}

type World = { readonly store: ObjectStore; readonly expire: readonly string[]; spentMs: number };

/** Small objects lie in memory; packs are listed only; disk records are made when they are read. */
async function makeWorld(): Promise<World> {
  const small = createMemoryObjectStore();
  const passphraseCost = { memoryKiB: 64, passes: 1 };
  const opening = { store: small, passphrase: "bench", clock: systemClock, random: systemRandom };
  const repository = await createRepository({ ...opening, passphraseCost });
  const { secrets } = repository;
  const names = createSignedNames(secrets, systemRandom);
  const expire: string[] = [];

  const sign = (sessionId: string, stem: string): string =>
    names.sign(`sessions/${sessionId}/${stem}`);

  const recordKey = (vm: number, point: number): string =>
    `disks/${Buffer.from(idOf(sessionOf(vm, point), 3, vm * points + point)).toString("hex")}`;
  const recordsByKey = new Map<string, readonly [number, number]>();
  for (let vm = 0; vm < vms; vm += 1) {
    for (let point = 0; point < points; point += 1) {
      const sessionId = sessionOf(vm, point);
      const rootEnd = madeUp(8, "root", vm, point).toString("hex");
      const rootKey = `points/vm-${vm}/p${point}-j${point}-1-${sessionId}${rootEnd}`;
      const metadataKey = `metadata/${Buffer.from(idOf(sessionId, 4, point)).toString("hex")}`;
      const key = recordKey(vm, point);
      recordsByKey.set(key, [vm, point]);
      const root = encodeRoot({
        v: 1,
        pointId: `p${point}`,
        vmKey: `vm-${vm}`,
        vmName: `vm-${vm}`,
        providerId: "bench",
        jobId: `j${point}`,
        fence: 1,
        takenAt: "",
        committedAt: "",
        mode: "full",
        consistency: "crash",
        warnings: [],
        metadataKey,
        disks: [
          {
            key: "vda",
            sizeBytes: leaves * leafBytes,
            recordKey: key,
            digest: "0".repeat(64),
            mode: "full",
            reason: "",
            bytesRead: 1,
            bytesNew: 1,
            bytesStored: 1,
          },
        ],
      });
      await small.put(
        rootKey,
        sealObject({
          secrets,
          type: "recovery-point",
          name: rootKey,
          plain: root,
          random: systemRandom,
        }),
      );
      await small.put(metadataKey, new Uint8Array(16));
      await small.put(sign(sessionId, "start-"), new Uint8Array(1));
      await small.put(sign(sessionId, `end-${rootEnd}-`), new Uint8Array(1));
      if (point === 0) expire.push(rootKey);
    }
    await small.put(sign(failedSession(vm), "start-"), new Uint8Array(1));
    await small.put(sign(failedSession(vm), "end-none-"), new Uint8Array(1));
  }

  function* packIds(): Generator<Uint8Array> {
    for (let vm = 0; vm < vms; vm += 1) {
      for (let point = 0; point < points; point += 1) {
        const sessionId = sessionOf(vm, point);
        const first = ((point - 1) * changed) % leaves;
        const count = point === 0 ? leaves : changed;
        const metadata = new Set<number>();
        for (let number = 0; number < count; number += 1) {
          const index = point === 0 ? number : (first + number) % leaves;
          metadata.add(Math.floor(index / leavesPerMetadataPack));
          yield idOf(sessionId, 1, index);
        }
        for (const number of metadata) yield idOf(sessionId, 2, number);
      }
      const failed = Math.round((leaves + changed * (points - 1)) * failedShare);
      for (let number = 0; number < failed; number += 1) yield idOf(failedSession(vm), 1, number);
    }
  }

  const world: World = { store: small, expire, spentMs: 0 };
  const store: ObjectStore = {
    ...small,
    get: async (key, options) => {
      const of = recordsByKey.get(key);
      if (of === undefined) return await small.get(key, options);
      const begun = performance.now();
      const bytes = sealObject({
        secrets,
        type: "disk-record",
        name: key,
        plain: diskRecord(...of),
        random: systemRandom,
      });
      world.spentMs += performance.now() - begun;
      return bytes;
    },
    async *list(prefix, options): AsyncGenerator<ObjectHead> {
      yield* small.list(prefix, options);
      if (prefix !== "") return;
      for (const key of recordsByKey.keys()) yield { key, sizeBytes: leaves * 150 };
      for (const id of packIds()) yield { key: packKey(id), sizeBytes: packBytes };
    },
  };
  return Object.assign(world, { store });
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const peakMebibytes = (): number => Math.round(process.resourceUsage().maxRSS / 1024);

const world = await makeWorld();
const open = (): Promise<Repository> =>
  openRepository({
    store: world.store,
    passphrase: "bench",
    clock: systemClock,
    random: systemRandom,
  });
const before = peakMebibytes();
say("| work | seconds | of these making up what is read | peak MiB of the process |");
say("|---|---|---|---|");
say(`| (before) | | | ${before} |`);
for (const isDryRun of [true, false]) {
  world.spentMs = 0;
  const began = performance.now();
  const report = await collect({
    repository: await open(),
    expire: world.expire,
    isDryRun,
    holder: "bench",
    observer: "bench",
    logger: silentLogger,
  });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const { stored, points: its, garbage } = report;
  say(
    `| ${isDryRun ? "dry run" : "collection"} | ${seconds} | ${(world.spentMs / 1000).toFixed(1)} | ${peakMebibytes()} |`,
  );
  if (!isDryRun) {
    say(
      `\n${stored.packs} packs, ${vms} VMs, ${vms * points} points (${its.expired.length} expire), ${garbage.objects} objects of garbage; state: ${report.state}`,
    );
  }
}
