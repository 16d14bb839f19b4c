import type { Driver } from "@holdfast/shared/ports/driver";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import {
  type Backup,
  BackupSeries,
  type Bench,
  convert,
  endSeries,
  frozenTruth,
  leftovers,
  startBench,
  type Transferred,
  tappedTransports,
} from "../testbeds/libvirt-bench.ts";
import { run, waitUntil } from "../testbeds/run.ts";

/** What is written into the VM's images, when, and what follows if the mover dies then. */
let bench: Bench;
let guest: Guest;

beforeAll(async () => {
  bench = await startBench();
  const disks = [{ target: "vda", format: "qcow2", mebibytes: 32 }] as const;
  guest = await startGuest(bench.host, "hf-merge", { disks });
}, 600_000);
afterAll(() => guest?.remove());
afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

class Died extends Error {}

/** A driver whose mover dies once that command was done. */
function dyingDriver(isLast: (line: string) => boolean): Driver {
  let isDead = false;
  return bench.driverWith({
    transports: tappedTransports(async (command, execute) => {
      if (isDead) throw new Died("the mover is dead");
      const result = await execute(command);
      isDead = isLast(command.join(" "));
      if (isDead) throw new Died(`died after ${command.join(" ")}`);
      return result;
    }),
  });
}

/** A release by a mover that dies in it, then by another one; the guest's data and the next increment are right. */
async function releaseTwice(
  series: BackupSeries,
  backup: Backup,
  results: Transferred[],
  dying: Driver,
): Promise<void> {
  const request = {
    externalId: guest.uuid,
    session: backup.session,
    outcome: "committed" as const,
    previous: series.anchor,
    endedJobIds: [],
  };
  await expect(dying.release(request, backup.context)).rejects.toThrow(/died|dead/i);
  await series.release(backup, "committed", results);
}

const overlays = (series: BackupSeries) =>
  [...series.ledger.entries.values()].map(({ kind }) => kind);

test("a release killed in the middle of a live commit: merged once by the next, nothing lost", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  await series.backUp({ strategy: "ssh-snapshot" });
  await guest.execute("head -c 9000000 /dev/urandom > /mnt/vda/big; sync");
  const sum = await guest.execute("sha256sum /mnt/vda/big");
  const backup = await series.snapshot({ strategy: "ssh-snapshot" });
  const results = await series.transfer(backup, frozenTruth(backup));
  let isDead = false;
  const dying = bench.driverWith({
    transports: tappedTransports(async (command, execute) => {
      if (isDead) throw new Died("the mover is dead");
      if (!command.includes("blockcommit")) return execute(command);
      isDead = true;
      // 1 MiB/s: it is in its middle for seconds, and its virsh lives on without the mover.
      const slow = execute([...command, "--bandwidth", "1"]).catch(() => undefined);
      const hasBegun = async () =>
        /Commit/.test(await bench.host.virsh("blockjob", guest.uuid, "vda", "--info"));
      await Promise.race([slow, waitUntil("the commit runs", hasBegun)]);
      throw new Died("the mover is dead");
    }),
  });
  await releaseTwice(series, backup, results, dying);
  expect(overlays(series)).toEqual(["overlay"]);
  expect(await guest.execute("echo 3 > /proc/sys/vm/drop_caches; sha256sum /mnt/vda/big")).toBe(
    sum,
  );
  expect(await bench.host.virsh("blockjob", guest.uuid, "vda", "--info")).not.toMatch(/Commit/);
  await series.backUp({ strategy: "ssh-snapshot" });
  await endSeries(series);
  expect(await guest.execute("echo 3 > /proc/sys/vm/drop_caches; sha256sum /mnt/vda/big")).toBe(
    sum,
  );
});

test("a mover that dies right after a live commit: the next removes the overlay's file", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  for (const incremental of [true, true, false]) {
    const options = { strategy: "ssh-snapshot", incremental } as const;
    const backup = await series.snapshot(options);
    await guest.execute("head -c 500000 /dev/urandom > /mnt/vda/more; sync");
    const results = await series.transfer(backup, frozenTruth(backup));
    if (series.anchor === undefined) await series.release(backup, "committed", results);
    else {
      const dying = dyingDriver((line) => line.includes("blockcommit"));
      await releaseTwice(series, backup, results, dying);
    }
    expect(overlays(series)).toEqual(incremental ? ["overlay"] : []);
  }
});

test("a mover that dies after any step of a stopped VM's merge: the next completes it", async () => {
  await guest.shutdown();
  for (const last of ["qemu-img commit", "qemu-img rebase", " define ", "rm -f -- ~.overlay"]) {
    const series = new BackupSeries(bench.driver, guest.uuid);
    await series.backUp({ strategy: "ssh-snapshot" });
    // As the guest would, had it run meanwhile.
    const overlay = [...series.ledger.entries.values()][0]?.name ?? "";
    await run("qemu-io", ["-f", "qcow2", "-c", "write -P 90 9M 300k", overlay]);
    const backup = await series.snapshot({ strategy: "ssh-snapshot" });
    const results = await series.transfer(backup, frozenTruth(backup));
    const [start = "", end = ""] = last.split("~");
    const isLast = (line: string) => line.includes(start) && line.endsWith(end);
    await releaseTwice(series, backup, results, dyingDriver(isLast));
    expect(overlays(series)).toEqual(["overlay"]);
    await endSeries(series);
    const image = await convert(`${guest.file("vda")}.qcow2`, "qcow2");
    expect(image.equals(results[0]?.image ?? Buffer.alloc(0))).toBe(true);
  }
  await guest.start();
});

test("R12: no tool of ours opens an image in use for writing", async () => {
  const seen: { readonly line: string; readonly state: string }[] = [];
  const driver = bench.driverWith({
    transports: tappedTransports(async (command, execute) => {
      const line = command.join(" ").replace(/^timeout [0-9]+ /, "");
      if (/qemu-img|qemu-nbd|^rm|^mv|^cp|^dd|^find/.test(line)) {
        const state = (await bench.host.virsh("domstate", guest.uuid)).trim();
        seen.push({ line, state });
      }
      return execute(command);
    }),
  });
  const series = new BackupSeries(driver, guest.uuid);
  for (const strategy of ["ssh-snapshot", "checkpoint"] as const) {
    await series.backUp({ strategy });
    await series.release(await series.snapshot({ strategy }), "failed");
    await guest.shutdown();
    await series.backUp({ strategy });
    await guest.start();
    await series.backUp({ strategy });
  }
  await endSeries(series);
  const image = `${guest.file("vda")}.qcow2`;
  const tools = seen.filter(({ line }) => /^qemu-/.test(line));
  const writers = tools.filter(
    ({ line }) => !/^qemu-img (info|map) -U |^qemu-nbd .* --read-only /.test(line),
  );
  // Reading tools were seen, and writing ones, each while the VM was off.
  expect(tools.length).toBeGreaterThan(writers.length);
  expect(writers.length).toBeGreaterThan(0);
  expect(writers.filter(({ state }) => state !== "shut off")).toEqual([]);
  const exports = tools.filter(({ line }) => line.startsWith("qemu-nbd"));
  expect(exports.filter(({ line }) => /^qemu-nbd (?!.*"read-only":true)/.test(line))).toEqual([]);
  // Nothing removes, moves or copies over the VM's own image.
  const others = seen.filter(({ line }) => !/^qemu-/.test(line));
  expect(others.filter(({ line }) => line.split(" ").includes(image))).toEqual([]);
});
