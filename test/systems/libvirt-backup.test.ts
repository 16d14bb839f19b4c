import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import {
  BackupSeries,
  type Bench,
  endSeries,
  frozenTruth,
  leftovers,
  startBench,
} from "../testbeds/libvirt-bench.ts";

/** Backups of a running guest that keeps writing, on a real libvirt host, compared with what was frozen. */
const disks = [
  { target: "vda", format: "qcow2", mebibytes: 64 },
  { target: "vdb", format: "raw", mebibytes: 32 },
  { target: "vdc", format: "qcow2", mebibytes: 16 },
] as const;

let bench: Bench;
let guest: Guest;

beforeAll(async () => {
  bench = await startBench();
  guest = await startGuest(bench.host, "hf-backup", { disks });
}, 600_000);
afterAll(() => guest?.remove());
afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

describe.each(["ssh-snapshot", "checkpoint"] as const)("strategy %s", (strategy) => {
  test("full and incrementals of a writing guest are what was frozen", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    const options = { strategy, quiesce: "require" as const, excludeDisks: ["vdc"] };
    const full = await series.snapshot(options);
    expect(full.session.consistency).toBe("application");
    expect(full.session.disks.map(({ key, mode }) => [key, mode])).toEqual([
      ["vda", "full"],
      ["vdb", "full"],
    ]);
    await guest.execute("head -c 2000000 /dev/urandom > /mnt/vda/during; sync");
    await series.release(full, "committed", await series.transfer(full, frozenTruth(full)));

    await guest.execute("rm /mnt/vda/during; head -c 1000000 /dev/urandom > /mnt/vdb/more; sync");
    const next = await series.snapshot(options);
    const raw = strategy === "checkpoint" ? "full" : "incremental";
    expect(next.session.disks.map(({ key, mode }) => [key, mode])).toEqual([
      ["vda", "incremental"],
      ["vdb", raw],
    ]);
    const results = await series.transfer(next, frozenTruth(next));
    expect(results[0]?.bytesUnchanged).toBeGreaterThan(0);
    await bench.driver.watch(next.session, next.context);
    await series.release(next, "committed", results);

    // A failed backup leaves the last point's anchor in place.
    const failed = await series.snapshot(options);
    await series.release(failed, "failed");
    await guest.execute("head -c 500000 /dev/urandom > /mnt/vda/after; sync");
    const third = await series.snapshot(options);
    expect(third.session.disks[0]?.mode).toBe("incremental");
    await series.release(third, "committed", await series.transfer(third, frozenTruth(third)));
    await endSeries(series);
  });

  test("a stopped VM", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    const options = { strategy, excludeDisks: ["vdc"] };
    const running = await series.snapshot(options);
    await series.release(
      running,
      "committed",
      await series.transfer(running, frozenTruth(running)),
    );
    await guest.shutdown();
    const stopped = await series.snapshot(options);
    expect(stopped.session.consistency).toBe("stopped");
    expect(stopped.session.disks[0]?.mode).toBe("incremental");
    await series.release(
      stopped,
      "committed",
      await series.transfer(stopped, frozenTruth(stopped)),
    );
    const failed = await series.snapshot(options);
    await series.release(failed, "failed");
    await guest.start();
    const again = await series.snapshot(options);
    expect(again.session.disks[0]?.mode).toBe("incremental");
    await series.release(again, "committed", await series.transfer(again, frozenTruth(again)));
    await guest.shutdown();
    await endSeries(series);
    await guest.start();
  });

  test("R01: QEMU killed between backups", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    const options = { strategy, excludeDisks: ["vdb"] };
    const first = await series.snapshot(options);
    await series.release(first, "committed", await series.transfer(first, frozenTruth(first)));
    await guest.kill();
    await guest.start();
    const second = await series.snapshot(options);
    const mode = strategy === "checkpoint" ? "full" : "incremental";
    expect(second.session.disks.map((disk) => disk.mode)).toEqual([mode, mode]);
    if (strategy === "checkpoint") expect(second.session.disks[0]?.reason).toMatch(/bitmap/);
    await series.release(second, "committed", await series.transfer(second, frozenTruth(second)));
    const third = await series.snapshot(options);
    expect(third.session.disks.map((disk) => disk.mode)).toEqual(["incremental", "incremental"]);
    await series.release(third, "committed", await series.transfer(third, frozenTruth(third)));
    await endSeries(series);
  });

  test("R03, R19: a disk grew and a disk is new since the last point", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    const first = await series.snapshot({ strategy, excludeDisks: ["vdb", "vdc"] });
    await series.release(first, "committed", await series.transfer(first, frozenTruth(first)));
    const second = await series.snapshot({ strategy, excludeDisks: ["vdb"] });
    expect(second.session.disks.map(({ key, mode }) => [key, mode])).toEqual([
      ["vda", "incremental"],
      ["vdc", "full"],
    ]);
    expect(second.session.disks[1]?.reason).not.toBe("");
    await series.release(second, "committed", await series.transfer(second, frozenTruth(second)));
    const grownBytes = (second.session.disks[1]?.sizeBytes ?? 0) + 3 * 65_536 + 512;
    await bench.host.virsh("blockresize", guest.uuid, "vdc", `${grownBytes}B`);
    const third = await series.snapshot({ strategy, excludeDisks: ["vdb"] });
    expect(third.session.disks.map(({ key, mode }) => [key, mode])).toEqual([
      ["vda", "incremental"],
      ["vdc", "full"],
    ]);
    expect(third.session.disks[1]?.sizeBytes).toBe(grownBytes);
    await series.release(third, "committed", await series.transfer(third, frozenTruth(third)));
    await endSeries(series);
  });

  test("libvirtd restarts in mid-backup", async () => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    const options = { strategy, excludeDisks: ["vdb", "vdc"] };
    const backup = await series.snapshot(options);
    await bench.host.restartLibvirtd();
    const results = await series.transfer(backup, frozenTruth(backup));
    await bench.driver.watch(backup.session, backup.context);
    await series.release(backup, "committed", results);
    await endSeries(series);
  });
});
