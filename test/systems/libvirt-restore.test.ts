import { stat } from "node:fs/promises";
import { join } from "node:path";
import type {
  RestoreRequest,
  RestoreSession,
  RestoreTarget,
  VmMetadata,
} from "@holdfast/shared/ports/driver";
import { afterAll, beforeAll, expect, test } from "vitest";
import { findGuest, type Guest, guestConsole, startGuest } from "../testbeds/kvm-guest.ts";
import {
  BackupSeries,
  type Bench,
  convert,
  frozenTruth,
  holedImage,
  leftovers,
  newContext,
  startBench,
  writeHoled,
} from "../testbeds/libvirt-bench.ts";
import { createMemoryLedger } from "../testbeds/memory-ledger.ts";
import { run, shell } from "../testbeds/run.ts";

/** A UEFI guest with a qcow2 and a raw disk, backed up once, restored in every way. */
let bench: Bench;
let guest: Guest;
let metadata: VmMetadata;
let images: ReadonlyMap<string, Buffer>;
const restoredNames = ["hf-restored", "hf-raw", "hf-again"];

beforeAll(async () => {
  bench = await startBench();
  guest = await startGuest(bench.host, "hf-origin", {
    uefi: true,
    disks: [
      { target: "vda", format: "qcow2", mebibytes: 48 },
      { target: "vdb", format: "raw", mebibytes: 16 },
      { target: "vdc", format: "qcow2", mebibytes: 8 },
    ],
  });
  const series = new BackupSeries(bench.driver, guest.uuid);
  // With the overlays of a first point in place, the definition must still come out as the VM's own.
  for (const incremental of [true, false]) {
    const backup = await series.snapshot({
      strategy: "ssh-snapshot",
      excludeDisks: ["vdc"],
      incremental,
    });
    if (!incremental) metadata = await bench.driver.metadata(backup.session, backup.context);
    await series.release(backup, "committed", await series.transfer(backup, frozenTruth(backup)));
  }
  images = series.images;
}, 600_000);

afterAll(async () => {
  for (const name of restoredNames) {
    await findGuest(bench.host, name).then(
      (restored) => restored.remove(),
      () => undefined,
    );
  }
  await guest?.remove();
});

const target = (options: Partial<RestoreTarget> = {}): RestoreTarget => ({
  name: "hf-restored",
  mode: "new",
  keepIdentity: false,
  start: false,
  location: undefined,
  storage: "original",
  format: "original",
  excludedDisks: "empty",
  ...options,
});

function request(options: Partial<RestoreTarget> = {}): RestoreRequest {
  const disks = [...images].map(([key, image]) => ({ key, sizeBytes: image.length }));
  return { metadata: JSON.parse(JSON.stringify(metadata)), disks, target: target(options) };
}

async function fill(
  session: RestoreSession,
  context: ReturnType<typeof newContext>,
): Promise<void> {
  for (const { key } of session.disks) {
    const image = images.get(key) ?? Buffer.alloc(0);
    await using writer = await bench.driver.openTarget(session, key, context);
    expect(writer.sizeBytes).toBe(image.length);
    for (let at = 0; at < image.length; at += 1024 ** 2) {
      const piece = image.subarray(at, at + 1024 ** 2);
      if (piece.some((byte) => byte !== 0)) await writer.write(at, piece);
    }
    await writer.flush();
  }
}

test("the metadata describe the VM without our overlays, with its UEFI variables", () => {
  expect(metadata.documents["domain.xml"]).not.toContain(".holdfast-");
  expect(metadata.documents["domain.xml"]).not.toContain("backingStore");
  expect(Buffer.from(metadata.documents["nvram.base64"] ?? "", "base64").length).toBe(540_672);
  expect(metadata.description).toMatchObject({ name: "hf-origin", firmware: "uefi" });
  expect(metadata.description.disks.map(({ key, format }) => [key, format])).toEqual([
    ["vda", "qcow2"],
    ["vdb", "raw"],
    ["vdc", "qcow2"],
  ]);
  expect(metadata.excludedDisks.map(({ key }) => key)).toEqual(["vdc"]);
});

test("a restore under a new name has the same bytes, another identity, and boots", async () => {
  const ledger = createMemoryLedger();
  const context = newContext(ledger);
  const session = JSON.parse(
    JSON.stringify(await bench.driver.prepareRestore(request({ start: true }), context)),
  ) as RestoreSession;
  await expect(findGuest(bench.host, "hf-restored")).rejects.toThrow();
  await fill(session, context);
  const [vda] = (session.state as { disks: { partial: string }[] }).disks;
  expect(
    (await convert(vda?.partial ?? "", "qcow2")).equals(images.get("vda") ?? Buffer.alloc(0)),
  ).toBe(true);
  const restored = await bench.driver.finishRestore(session, context);
  expect(restored).toMatchObject({ name: "hf-restored", started: true, warnings: [] });
  expect(restored.externalId).not.toBe(guest.uuid);
  const again = await findGuest(bench.host, "hf-restored");
  await again.start();
  expect(await again.execute("cat /proc/cmdline; mount | grep -c ext4")).toMatch(/\n2\n$/);
  expect(await guestConsole(bench.host, "hf-restored")).toContain("mounted vda counter");
  expect([...ledger.entries.keys()]).toEqual([]);
  expect(await leftovers(bench.host, restored.externalId)).toEqual([]);
});

test("R50: a name that is taken, a running VM, a missing folder and too little space are refused", async () => {
  const refused = async (options: Partial<RestoreTarget>, code: string) => {
    const ledger = createMemoryLedger();
    const context = newContext(ledger);
    await expect(bench.driver.prepareRestore(request(options), context)).rejects.toMatchObject({
      code,
    });
    await bench.driver.abandonRestore(undefined, context);
    expect([...ledger.entries.keys()]).toEqual([]);
  };
  await refused({ name: "hf-origin" }, "target.refused");
  await refused({ name: "hf-origin", mode: "replace" }, "target.refused");
  await refused({ name: "hf-other", keepIdentity: true }, "target.refused");
  await refused({ name: "hf-other", location: "/nowhere" }, "target.refused");
  const small = join(bench.host.folder, "small-restore");
  await shell('mkdir -p "$1"; mount -t tmpfs -o size=8m tmpfs "$1"', [small]);
  await refused({ name: "hf-other", location: small }, "host.no-space");
  await run("umount", [small]);
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

test("another format; two restores to one name; an abandoned one leaves nothing", async () => {
  const firstLedger = createMemoryLedger();
  const secondLedger = createMemoryLedger();
  const [first, second] = [newContext(firstLedger), newContext(secondLedger)];
  const options = { name: "hf-raw", format: "raw", excludedDisks: "omit" } as const;
  const one = await bench.driver.prepareRestore(request(options), first);
  const two = await bench.driver.prepareRestore(request(options), second);
  await fill(one, first);
  await fill(two, second);
  await bench.driver.finishRestore(one, first);
  // The same stage again, after a lost answer.
  await bench.driver.finishRestore(one, first);
  await expect(bench.driver.finishRestore(two, second)).rejects.toMatchObject({
    code: "target.refused",
  });
  await bench.driver.abandonRestore(two, second);
  await bench.driver.abandonRestore(two, second);
  expect([...firstLedger.entries.keys(), ...secondLedger.entries.keys()]).toEqual([]);
  expect(
    (await convert(join(bench.host.images, "hf-raw-vda.raw"), "raw")).equals(
      images.get("vda") ?? Buffer.alloc(0),
    ),
  ).toBe(true);
  expect(await leftovers(bench.host, (await findGuest(bench.host, "hf-raw")).uuid)).toEqual([]);
});

test.each(["qcow2", "raw"] as const)(
  "R08, R09: data around holes of all sizes is where it was, over a used %s target and a fresh one",
  async (format) => {
    const ledger = createMemoryLedger();
    const context = newContext(ledger);
    const images = new Map([
      ["vda", holedImage(6 * 1024 ** 2 + 512, 1)],
      ["vdb", holedImage(3 * 1024 ** 2, 2)],
    ]);
    const disks = [...images].map(([key, image]) => ({ key, sizeBytes: image.length }));
    const wanted = { ...request({ name: "hf-holes", format, excludedDisks: "omit" }), disks };
    const session = await bench.driver.prepareRestore(wanted, context);
    for (const [key, image] of images) {
      await writeHoled(await bench.driver.openTarget(session, key, context), image, {
        isUsed: key === "vda",
      });
      const { partial } = partialOf(session, key);
      expect((await convert(partial, format)).equals(image)).toBe(true);
    }
    await expect(findGuest(bench.host, "hf-holes")).rejects.toThrow();
    await bench.driver.abandonRestore(session, context);
    expect([...ledger.entries.keys()]).toEqual([]);
    expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
  },
);

test("R50: a restore killed at 90 % defines no VM, leaves nothing when abandoned, and succeeds when run again", async () => {
  const ledger = createMemoryLedger();
  const names = { name: "hf-again", excludedDisks: "omit" } as const;
  const context = newContext(ledger);
  const session = await bench.driver.prepareRestore(request(names), context);
  const vda = images.get("vda") ?? Buffer.alloc(0);
  // The mover that wrote it is gone without a word: its writer is never closed.
  const lost = await bench.driver.openTarget(session, "vda", context);
  for (let at = 0; at < vda.length * 0.9; at += 1024 ** 2) {
    await lost.write(at, vda.subarray(at, at + 1024 ** 2));
  }
  await expect(findGuest(bench.host, "hf-again")).rejects.toThrow();
  // Another mover knows the job's ledger alone.
  await bench.driver.abandonRestore(undefined, context);
  expect([...ledger.entries.keys()]).toEqual([]);
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
  expect((await run("ls", [bench.host.images])).includes("hf-again")).toBe(false);
  await lost[Symbol.asyncDispose]();

  const next = newContext(ledger);
  const again = await bench.driver.prepareRestore(request(names), next);
  // This time the second mover goes on in the middle of the same job.
  const first = await bench.driver.openTarget(again, "vda", next);
  await first.write(0, vda.subarray(0, 1024 ** 2));
  await fill(again, next);
  await Promise.resolve(first[Symbol.asyncDispose]()).catch(() => undefined);
  const restored = await bench.driver.finishRestore(again, next);
  expect((await convert(join(bench.host.images, "hf-again-vda.qcow2"), "qcow2")).equals(vda)).toBe(
    true,
  );
  expect([...ledger.entries.keys()]).toEqual([]);
  expect(await leftovers(bench.host, restored.externalId)).toEqual([]);
});

function partialOf(session: RestoreSession, key: string): { readonly partial: string } {
  const { disks } = session.state as { disks: { key: string; partial: string }[] };
  const disk = disks.find((candidate) => candidate.key === key);
  if (disk === undefined) throw new Error(`no disk ${key}`);
  return disk;
}

test("replace: the stopped VM gives up its place, keeps its UUID, and its old disks stay", async () => {
  await guest.shutdown();
  const ledger = createMemoryLedger();
  const context = newContext(ledger);
  const options = { name: "hf-origin", mode: "replace", keepIdentity: true, start: true } as const;
  const session = await bench.driver.prepareRestore(request(options), context);
  await fill(session, context);
  const restored = await bench.driver.finishRestore(session, context);
  expect(restored).toMatchObject({ externalId: guest.uuid, started: true });
  expect(restored.warnings.join()).toContain("hf-origin-vda.qcow2");
  await stat(join(bench.host.images, "hf-origin-vda.qcow2"));
  await guest.start();
  expect(await guest.execute("cat /mnt/vda/counter")).toMatch(/^[0-9]+\n$/);
  expect([...ledger.entries.keys()]).toEqual([]);
});
