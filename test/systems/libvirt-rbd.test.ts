import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Ceph, startCeph } from "../testbeds/ceph.ts";
import { type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import {
  BackupSeries,
  type Bench,
  convert,
  endSeries,
  frozenTruth,
  holedImage,
  leftovers,
  newContext,
  startBench,
  writeHoled,
} from "../testbeds/libvirt-bench.ts";
import { createMemoryLedger } from "../testbeds/memory-ledger.ts";
import { shell } from "../testbeds/run.ts";

/** A guest with a file and an RBD disk, on a real Ceph. */
let bench: Bench;
let ceph: Ceph;
let guest: Guest;
const image = "volumes/hf-rbd-vdb";

beforeAll(async () => {
  bench = await startBench();
  const say = (line: string) => process.stdout.write(`${line}\n`);
  ceph = await startCeph({ folder: join(bench.host.folder, "ceph"), say });
  await ceph.rbd("create", "--size", "64M", image);
  await shell(
    'truncate -s 64M "$1"; mkfs.ext4 -q -F "$1"; qemu-img convert -n -f raw -O raw "$1" "rbd:$2:conf=$3"; rm "$1"',
    [join(bench.host.folder, "rbd.tmp"), image, ceph.configFile],
  );
  guest = await startGuest(bench.host, "hf-rbd", {
    disks: [
      { target: "vda", format: "qcow2", mebibytes: 32 },
      { target: "vdb", format: "raw", mebibytes: 64, rbd: { image, configFile: ceph.configFile } },
    ],
  });
}, 600_000);

afterAll(async () => {
  await guest?.remove();
  await ceph?.rbd("snap", "purge", image).catch(() => undefined);
  await ceph?.rbd("rm", image).catch(() => undefined);
  await ceph?.stop();
});

afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
  expect((await ceph.rbd("snap", "ls", image)).trim()).toBe("");
});

test("file and RBD disks at one moment: full, incremental, discarded, stopped", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  const first = await series.snapshot({ quiesce: "require" });
  expect(first.session).toMatchObject({ strategy: "ssh-snapshot", consistency: "application" });
  await series.release(first, "committed", await series.transfer(first, frozenTruth(first)));

  await guest.execute("head -c 3000000 /dev/urandom > /mnt/vdb/gone; sync");
  const second = await series.snapshot();
  expect(second.session.disks.map(({ mode }) => mode)).toEqual(["incremental", "incremental"]);
  const results = await series.transfer(second, frozenTruth(second));
  expect(results[1]?.bytesUnchanged).toBeGreaterThan(0);
  await series.release(second, "committed", results);
  expect((await ceph.rbd("snap", "ls", image, "--format", "json")).match(/"name"/g)).toHaveLength(
    1,
  );

  await guest.execute("rm /mnt/vdb/gone; sync; fstrim /mnt/vdb || true");
  const third = await series.snapshot();
  await series.release(third, "failed");
  await guest.destroy();
  const stopped = await series.snapshot();
  expect(stopped.session.consistency).toBe("stopped");
  await series.release(stopped, "committed", await series.transfer(stopped, frozenTruth(stopped)));
  const last = await series.snapshot({ incremental: false });
  await series.release(last, "committed");
  expect([...series.ledger.entries.keys()]).toEqual([]);
  await guest.start();
});

test("R06: an image that was made anew under the same name is read in full", async () => {
  await guest.destroy();
  const series = new BackupSeries(bench.driver, guest.uuid);
  const first = await series.snapshot();
  await series.release(first, "committed", await series.transfer(first, frozenTruth(first)));
  await ceph.rbd("snap", "purge", image);
  await ceph.rbd("rm", image);
  await ceph.rbd("create", "--size", "64M", image);
  const second = await series.snapshot();
  expect(second.session.disks[1]).toMatchObject({ key: "vdb", mode: "full" });
  await series.release(second, "committed", await series.transfer(second, frozenTruth(second)));
  const last = await series.snapshot({ incremental: false });
  await series.release(last, "committed");
});

test("R07: an RBD image rolled back between two backups", async () => {
  await guest.destroy();
  const series = new BackupSeries(bench.driver, guest.uuid);
  await ceph.rbd("snap", "create", `${image}@operator`);
  await guest.start();
  await guest.execute("head -c 2000000 /dev/urandom > /mnt/vdb/after || true; sync");
  await series.backUp();
  await guest.destroy();
  await ceph.rbd("snap", "rollback", `${image}@operator`);
  // What the diff says is compared with the image itself.
  const second = await series.backUp();
  expect(second.session.disks[1]?.key).toBe("vdb");
  await endSeries(series);
  expect((await ceph.rbd("snap", "ls", image)).trim()).toContain("operator");
  await ceph.rbd("snap", "purge", image);
});

test("R08, R09: data around holes is where it was, on a used RBD image and a fresh one", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  const backup = await series.snapshot({ incremental: false });
  const metadata = await bench.driver.metadata(backup.session, backup.context);
  await series.release(backup, "committed");
  const images = new Map([
    ["vda", holedImage(6 * 1024 ** 2 + 512, 3)],
    ["vdb", holedImage(5 * 1024 ** 2, 4)],
  ]);
  const context = newContext(createMemoryLedger());
  const session = await bench.driver.prepareRestore(
    {
      metadata,
      disks: [...images].map(([key, bytes]) => ({ key, sizeBytes: bytes.length })),
      target: {
        name: "hf-rbd-holes",
        mode: "new",
        keepIdentity: false,
        start: false,
        location: ceph.pool,
        storage: "rbd",
        format: "original",
        excludedDisks: "omit",
      },
    },
    context,
  );
  const { disks } = session.state as { disks: { key: string; partial: string }[] };
  for (const { key, partial } of disks) {
    const bytes = images.get(key) ?? Buffer.alloc(0);
    const writer = await bench.driver.openTarget(session, key, context);
    await writeHoled(writer, bytes, { isUsed: key === "vda" });
    const written = await convert(`rbd:${partial}:conf=${ceph.configFile}`, "raw");
    expect(written.equals(bytes)).toBe(true);
  }
  await bench.driver.abandonRestore(session, context);
  expect((await ceph.rbd("ls", ceph.pool)).trim()).toBe("hf-rbd-vdb");
});

test("a file disk is restored to RBD, and an RBD disk to a file", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  const backup = await series.snapshot({ incremental: false });
  const metadata = await bench.driver.metadata(backup.session, backup.context);
  const results = await series.transfer(backup, frozenTruth(backup));
  await series.release(backup, "committed", results);
  for (const storage of ["rbd", "file"] as const) {
    const ledger = createMemoryLedger();
    const context = newContext(ledger);
    const name = `hf-rbd-to-${storage}`;
    const session = await bench.driver.prepareRestore(
      {
        metadata,
        disks: results.map(({ key, image: bytes }) => ({ key, sizeBytes: bytes.length })),
        target: {
          name,
          mode: "new",
          keepIdentity: false,
          start: false,
          location: storage === "rbd" ? ceph.pool : bench.host.images,
          storage,
          format: "original",
          excludedDisks: "omit",
        },
      },
      context,
    );
    for (const { key, image: bytes } of results) {
      await using writer = await bench.driver.openTarget(session, key, context);
      await writer.write(0, bytes.subarray(0, 1024 ** 2));
      await writer.flush();
    }
    await bench.driver.finishRestore(session, context);
    const xml = await bench.host.virsh("dumpxml", name);
    expect(xml.match(/protocol='rbd'/g) ?? []).toHaveLength(storage === "rbd" ? 2 : 0);
    await bench.host.virsh("undefine", name);
    if (storage === "rbd") {
      for (const key of ["vda", "vdb"]) await ceph.rbd("rm", `${ceph.pool}/${name}-${key}`);
    } else await shell('rm -f "$1"/hf-rbd-to-file-*', [bench.host.images]);
    expect([...ledger.entries.keys()]).toEqual([]);
  }
});
