import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import {
  BackupSeries,
  type Bench,
  convert,
  endSeries,
  leftovers,
  startBench,
} from "../testbeds/libvirt-bench.ts";
import { run } from "../testbeds/run.ts";

/** A guest with a raw disk on a block device of the host. */
let bench: Bench;
let guest: Guest;
let device: string;
let backing: string;

beforeAll(async () => {
  bench = await startBench();
  backing = join(bench.host.folder, "run", "hf-block.img");
  await run("truncate", ["-s", "16M", backing]);
  device = (await run("losetup", ["--find", "--show", backing])).trim();
  guest = await startGuest(bench.host, "hf-block", {
    disks: [
      { target: "vda", format: "qcow2", mebibytes: 16 },
      { target: "vdb", format: "raw", mebibytes: 16, device },
    ],
  });
}, 600_000);
afterAll(async () => {
  await guest?.remove();
  if (device !== undefined) await run("losetup", ["--detach", device]);
  await rm(backing, { force: true });
});
afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

test.each(["ssh-snapshot", "checkpoint"] as const)(
  "%s: a disk on a block device, running and stopped; afterwards it is that device again",
  async (strategy) => {
    const series = new BackupSeries(bench.driver, guest.uuid);
    await series.backUp({ strategy });
    await guest.execute("head -c 300000 /dev/urandom > /mnt/vdb/more; sync");
    const second = await series.backUp({ strategy });
    expect(second.session.disks.map(({ mode }) => mode)).toEqual([
      "incremental",
      strategy === "checkpoint" ? "full" : "incremental",
    ]);
    await guest.shutdown();
    await series.backUp({ strategy });
    await endSeries(series);
    const image = await convert(device, "raw");
    expect(image.equals(series.images.get("vdb") ?? Buffer.alloc(0))).toBe(true);
    const xml = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
    expect(xml).toContain(`<source dev='${device}'`);
    await guest.start();
    expect((await guest.execute("mount | grep -c ext4")).trim()).toBe("2");
  },
);
