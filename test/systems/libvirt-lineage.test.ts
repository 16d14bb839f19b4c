import { join } from "node:path";
import { withDiskImage } from "@holdfast/shared/kvm-host/domain-xml";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import {
  type Backup,
  BackupSeries,
  type Bench,
  endSeries,
  frozenTruth,
  leftovers,
  startBench,
} from "../testbeds/libvirt-bench.ts";
import { run, shell } from "../testbeds/run.ts";

/** What happens to a VM between two backups: whatever breaks the line is seen, and that disk is read in full. */
let bench: Bench;
let guest: Guest;
const disks = [
  { target: "vda", format: "qcow2", mebibytes: 24 },
  { target: "vdb", format: "qcow2", mebibytes: 16 },
] as const;
const strategies = ["ssh-snapshot", "checkpoint"] as const;

beforeAll(async () => {
  bench = await startBench();
  guest = await startGuest(bench.host, "hf-lineage", { disks });
}, 600_000);
afterAll(() => guest?.remove());
afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

const modes = ({ session }: Backup) => session.disks.map(({ key, mode }) => [key, mode]);
const reasons = ({ session }: Backup) => session.disks.map(({ reason }) => reason).join();
const file = (target: string) => `${guest.file(target)}.qcow2`;

/** Defines the VM from this XML; what it was is gone. */
async function define(xml: string): Promise<void> {
  const path = join(bench.host.folder, "run", "hf-lineage-define.xml");
  await shell('printf %s "$2" > "$1"', [path, xml]);
  await bench.host.virsh("define", path);
}

describe.each(strategies)("strategy %s", (strategy) => {
  test("R08: what was written, backed up and then zeroed or discarded reads zeros", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    await guest.execute("head -c 4000000 /dev/urandom | tee /mnt/vda/old > /mnt/vdb/old; sync");
    await series.backUp({ strategy });
    await guest.execute(`
      dd if=/dev/zero of=/mnt/vda/old bs=64k count=60 conv=notrunc; rm /mnt/vdb/old; sync; fstrim /mnt/vdb
    `);
    const backup = await series.snapshot({ strategy });
    expect(modes(backup)).toEqual([
      ["vda", "incremental"],
      ["vdb", "incremental"],
    ]);
    const results = await series.transfer(backup, frozenTruth(backup));
    const zeros = results.map((disk) => disk.image.length - disk.bytesRead - disk.bytesUnchanged);
    expect(zeros[1]).toBeGreaterThan(2_000_000);
    await series.release(backup, "committed", results);
    await endSeries(series);
  });

  test("a disk removed between backups: the others go on, its data is not touched", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    await series.backUp({ strategy });
    await guest.execute("echo mine > /mnt/vdb/mine; sync");
    await guest.destroy();
    const xml = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
    await bench.host.virsh("detach-disk", guest.uuid, "vdb", "--config");
    await guest.start();
    expect(modes(await series.backUp({ strategy }))).toEqual([["vda", "incremental"]]);
    await guest.destroy();
    // With the disk back, as it was, what was kept of it for an operator goes too.
    const [back] =
      /<disk type='file'(?:(?!<\/disk>)[\s\S])*dev='vdb'[\s\S]*?<\/disk>/.exec(xml) ?? [];
    const now = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
    await define(now.replace("<controller", `${back}<controller`));
    await guest.start();
    expect((await guest.execute("cat /mnt/vdb/mine")).trim()).toBe("mine");
    const again = await series.backUp({ strategy });
    expect(modes(again)).toEqual([
      ["vda", "incremental"],
      ["vdb", "full"],
    ]);
    await endSeries(series);
    expect((await guest.execute("cat /mnt/vdb/mine")).trim()).toBe("mine");
  });

  test("a transient VM is backed up in full each time, and nothing stays with it", async () => {
    await guest.destroy();
    const path = join(bench.host.folder, "run", "hf-lineage-transient.xml");
    const xml = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
    await shell('printf %s "$2" > "$1"', [path, xml]);
    await bench.host.virsh("undefine", guest.uuid);
    try {
      await bench.host.virsh("create", path);
      await guest.start();
      const series = new BackupSeries(bench.driver, guest.uuid);
      for (let round = 0; round < 2; round++) {
        const backup = await series.backUp({ strategy });
        expect(modes(backup)).toEqual([
          ["vda", "full"],
          ["vdb", "full"],
        ]);
        expect([...series.ledger.entries.keys()]).toEqual([]);
        expect(series.anchor).toBeUndefined();
      }
      expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
    } finally {
      await bench.host.virsh("define", path);
    }
    await guest.destroy();
    await guest.start();
  });

  test("a VM renamed between backups and in mid-job, undefined and defined again: the UUID tells", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    await series.backUp({ strategy });
    await guest.destroy();
    const xml = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
    await bench.host.virsh("undefine", guest.uuid, "--checkpoints-metadata");
    await define(xml.replace("<name>hf-lineage</name>", "<name>hf-renamed</name>"));
    const backup = await series.snapshot({ strategy });
    expect(modes(backup)).toEqual([
      ["vda", "incremental"],
      ["vdb", "incremental"],
    ]);
    await bench.host.virsh("domrename", "hf-renamed", "hf-lineage");
    const results = await series.transfer(backup, frozenTruth(backup));
    await bench.driver.watch(backup.session, backup.context);
    await series.release(backup, "committed", results);
    await guest.start();
    const next = await series.backUp({ strategy });
    // libvirt's record of the checkpoint went with the old definition.
    const mode = strategy === "checkpoint" ? "full" : "incremental";
    expect(modes(next)).toEqual([
      ["vda", mode],
      ["vdb", mode],
    ]);
    if (strategy === "checkpoint") expect(reasons(next)).toMatch(/checkpoint/);
    await endSeries(series);
  });

  test("R07: an image replaced in place by an older copy", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    const copy = join(bench.host.images, "hf-lineage-copy");
    await guest.shutdown();
    await run("cp", [file("vda"), copy]);
    await guest.start();
    await series.backUp({ strategy });
    const overlays = overlaysIn(await bench.host.virsh("dumpxml", guest.uuid, "--inactive"));
    await guest.destroy();
    await shell('cat "$1" > "$2"; rm "$1"', [copy, file("vda")]);
    if (strategy === "ssh-snapshot") {
      // The operator lets the VM write its own image again, which an overlay of ours still lies upon.
      const now = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
      await define(withDiskImage(now, "vda", { path: file("vda"), format: "qcow2" }));
    }
    const second = await series.backUp({ strategy });
    expect(modes(second)).toEqual([
      ["vda", "full"],
      ["vdb", "incremental"],
    ]);
    expect(reasons(second)).toMatch(/not the overlay that the last point left|bitmap/);
    await guest.start();
    await series.backUp({ strategy });
    // What the old overlay holds is in no image of the VM any more: it is the operator's to remove.
    if (strategy === "ssh-snapshot") {
      expect([...series.ledger.entries.values()].map(({ name }) => name)).toContain(overlays[0]);
      await run("rm", [overlays[0] ?? ""]);
    }
    await endSeries(series);
  });
});

const overlaysIn = (xml: string) =>
  [...xml.matchAll(/source file='([^']*[.]overlay)'/g)].map(([, path]) => path ?? "");

test("R01: only libvirt's record of the checkpoint is gone: full reads, and the bitmaps go too", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  await series.backUp({ strategy: "checkpoint" });
  const name = String(series.anchor?.state["checkpoint"]);
  await bench.host.virsh("checkpoint-delete", guest.uuid, name, "--metadata");
  const second = await series.backUp({ strategy: "checkpoint" });
  expect(modes(second)).toEqual([
    ["vda", "full"],
    ["vdb", "full"],
  ]);
  expect(reasons(second)).toMatch(/no longer has the last point's checkpoint/);
  expect((await bench.host.virsh("checkpoint-list", guest.uuid, "--name")).trim()).toBe(
    series.anchor?.state["checkpoint"],
  );
  const query = JSON.stringify({ execute: "query-named-block-nodes", arguments: { flat: true } });
  expect(await bench.host.virsh("qemu-monitor-command", guest.uuid, query)).not.toContain(name);
  await endSeries(series);
});

test("R01: only one disk's bitmap is gone: that disk in full, the other incremental", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  await series.backUp({ strategy: "checkpoint" });
  const name = String(series.anchor?.state["checkpoint"]);
  await guest.shutdown();
  await run("qemu-img", ["bitmap", "-f", "qcow2", "--remove", file("vda"), name]);
  await guest.start();
  const second = await series.backUp({ strategy: "checkpoint" });
  expect(modes(second)).toEqual([
    ["vda", "full"],
    ["vdb", "incremental"],
  ]);
  expect(reasons(second)).toMatch(/bitmap/);
  await endSeries(series);
});

test("R07: a VM reverted to an operator's snapshot; its snapshots survive our backups", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  await series.backUp({ strategy: "ssh-snapshot" });
  await guest.execute("echo before > /mnt/vda/state; sync");
  await guest.shutdown();
  await bench.host.virsh("snapshot-create-as", guest.uuid, "operator");
  await guest.start();
  await guest.execute("echo after > /mnt/vda/state; sync");
  const second = await series.backUp({ strategy: "ssh-snapshot" });
  expect(modes(second)[0]).toEqual(["vda", "incremental"]);
  await guest.destroy();
  await bench.host.virsh("snapshot-revert", guest.uuid, "operator");
  await guest.start();
  expect((await guest.execute("cat /mnt/vda/state")).trim()).toBe("before");
  const third = await series.backUp({ strategy: "ssh-snapshot" });
  expect(modes(third)[0]).toEqual(["vda", "full"]);
  expect(reasons(third)).toMatch(/not the overlay that the last point left/);
  await bench.host.virsh("snapshot-delete", guest.uuid, "operator", "--metadata");
  await guest.shutdown();
  for (const layer of await filesOf("hf-lineage-")) {
    await run("qemu-img", ["snapshot", "-d", "operator", layer]).catch(() => undefined);
  }
  // What the revert threw away is in overlays that no chain has: they stay until the operator removes them.
  const abandoned = [...series.ledger.entries.values()].filter(({ jobId }) => {
    return jobId === second.session.jobId;
  });
  expect(abandoned.map(({ kind }) => kind)).toEqual(["overlay", "overlay"]);
  for (const { name } of abandoned) await run("rm", [name]);
  await endSeries(series);
  await guest.start();
  expect((await guest.execute("cat /mnt/vda/state")).trim()).toBe("before");
});

async function filesOf(prefix: string): Promise<string[]> {
  const names = await run("ls", [bench.host.images]);
  return names
    .split("\n")
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(bench.host.images, name));
}
