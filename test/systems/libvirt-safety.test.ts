import { stat } from "node:fs/promises";
import { join } from "node:path";
import { isFailure } from "@holdfast/shared/domain/failure";
import { systemClock } from "@holdfast/shared/ports/clock";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import {
  BackupSeries,
  type Bench,
  backupOptions,
  frozenTruth,
  leftovers,
  newContext,
  startBench,
  tappedTransports,
} from "../testbeds/libvirt-bench.ts";
import { createMemoryLedger } from "../testbeds/memory-ledger.ts";
import { run, shell, waitUntil } from "../testbeds/run.ts";

/** What may go wrong around a backup of a live guest, and what must be left afterwards: nothing. */
let bench: Bench;
let guest: Guest;
/** A folder with 64 MiB. */
let small: string;

beforeAll(async () => {
  bench = await startBench();
  // QEMU has mounts of its own: it sees only those that were there when it started.
  small = join(bench.host.folder, "small");
  await shell(
    'mkdir -p "$1"; mountpoint -q "$1" || mount -t tmpfs -o size=64m,mode=755 tmpfs "$1"',
    [small],
  );
  guest = await startGuest(bench.host, "hf-safety", {
    disks: [
      { target: "vda", format: "qcow2", mebibytes: 48 },
      { target: "vdb", format: "raw", mebibytes: 16 },
    ],
  });
}, 600_000);
afterAll(async () => {
  await guest?.remove();
  await run("umount", ["-l", small]);
});
afterEach(async () => {
  expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
});

class Died extends Error {}

test.each(["ssh-snapshot", "checkpoint"] as const)(
  "%s: a mover that dies at any ledger write leaves what a release from the ledger alone removes",
  async (strategy) => {
    for (let step = 1; ; step++) {
      let seen = 0;
      let isDead = false;
      const ledger = createMemoryLedger(() => {
        seen += 1;
        if (isDead || seen === step) {
          isDead = true;
          throw new Died(`dead at ${step}`);
        }
      });
      const context = newContext(ledger);
      const request = {
        externalId: guest.uuid,
        options: backupOptions({ strategy }),
        previous: undefined,
      };
      const outcome = await bench.driver.snapshot(request, context).then(
        () => "alive",
        (error: unknown) => (error instanceof Died ? "dead" : Promise.reject(error)),
      );
      // Another mover, with what is in the ledger, and no session.
      const survivor = createMemoryLedger();
      for (const entry of ledger.entries.values()) await survivor.intend(entry);
      const release = {
        externalId: guest.uuid,
        session: undefined,
        outcome: "failed" as const,
        previous: undefined,
        endedJobIds: [],
      };
      const next = { ...newContext(survivor), jobId: context.jobId };
      await bench.driver.release(release, next);
      await bench.driver.release(release, next);
      expect([...survivor.entries.keys()]).toEqual([]);
      expect(await leftovers(bench.host, guest.uuid)).toEqual([]);
      if (outcome === "alive") break;
    }
  },
);

test("R14: the agent stops between freeze and thaw; the host thaws the guest without the mover", async () => {
  const ledger = createMemoryLedger();
  const context = newContext(ledger);
  // A write that hangs shows the freeze: then the agent is stopped, and goes on 25 s later.
  await guest.execute(`(
    while :; do (echo > /mnt/vda/probe) & sleep 1; kill -0 $! 2>/dev/null && break; done
    kill -STOP $(pidof qemu-ga); sleep 25; kill -CONT $(pidof qemu-ga)
  ) </dev/null >/dev/null 2>&1 &`);
  const driver = bench.driverWith({
    transports: tappedTransports(async (command, run) => {
      if (command.includes("snapshot-create-as")) await systemClock.sleep(4000);
      return run(command);
    }),
  });
  const session = await driver.snapshot(
    {
      externalId: guest.uuid,
      options: backupOptions({ strategy: "ssh-snapshot" }),
      previous: undefined,
    },
    context,
  );
  expect(session.consistency).toBe("crash");
  expect(session.warnings.join()).toMatch(/thaw/);
  await waitUntil(
    "the host thaws the guest",
    async () => (await agentStatus()).includes("thawed"),
    60_000,
  );
  await bench.driver.release(
    { externalId: guest.uuid, session, outcome: "failed", previous: undefined, endedJobIds: [] },
    context,
  );
  expect([...ledger.entries.keys()]).toEqual([]);
});

async function agentStatus(): Promise<string> {
  const command = '{"execute":"guest-fsfreeze-status"}';
  return bench.host
    .virsh("qemu-agent-command", guest.uuid, "--timeout", "3", command)
    .catch(() => "silent");
}

test("R14: the mover dies while the guest is frozen; it is thawed within 30 s from outside", async () => {
  let isDead = false;
  const driver = bench.driverWith({
    transports: tappedTransports(async (command, run) => {
      if (command.includes("snapshot-create-as")) isDead = true;
      if (isDead) throw new Died("the mover is dead");
      return run(command);
    }),
  });
  const ledger = createMemoryLedger();
  const context = newContext(ledger);
  const request = { externalId: guest.uuid, options: backupOptions(), previous: undefined };
  await expect(driver.snapshot(request, context)).rejects.toThrow(Died);
  expect(await agentStatus()).toContain("frozen");
  await waitUntil("thawed", async () => (await agentStatus()).includes("thawed"), 30_000);
  await bench.driver.release(
    {
      externalId: guest.uuid,
      session: undefined,
      outcome: "failed",
      previous: undefined,
      endedJobIds: [],
    },
    context,
  );
});

test("a guest without its agent: crash-consistent and said so, or refused where freezing is required", async () => {
  await guest.stopAgent("(sleep 45; kill -CONT $(pidof qemu-ga)) </dev/null >/dev/null 2>&1 &");
  const series = new BackupSeries(bench.driver, guest.uuid);
  await expect(series.snapshot({ quiesce: "require" })).rejects.toMatchObject({
    code: "quiesce.failed",
  });
  const backup = await series.snapshot();
  expect(backup.session.consistency).toBe("crash");
  expect(backup.session.warnings.join()).toMatch(/agent/);
  await series.release(backup, "failed");
  await waitUntil(
    "the agent is back",
    async () => (await agentStatus()).includes("thawed"),
    90_000,
  );
});

test("R15: no space for overlays is refused before, and noticed during the job", async () => {
  {
    const driver = bench.driverWith({ scratch: small });
    const series = new BackupSeries(driver, guest.uuid);
    const mebibytes = 1024 ** 2;
    for (const strategy of ["ssh-snapshot", "checkpoint"] as const) {
      await expect(
        series.snapshot({ strategy, scratchBytesMin: 65 * mebibytes }),
      ).rejects.toMatchObject({ code: "host.no-space" });
      const backup = await series.snapshot({ strategy, scratchBytesMin: 60 * mebibytes });
      await driver.watch(backup.session, backup.context);
      await guest.execute(
        "dd if=/dev/urandom of=/mnt/vda/big bs=1M count=36; sync; rm /mnt/vda/big; sync",
      );
      const failure = await driver.watch(backup.session, backup.context).catch((e: unknown) => e);
      // A checkpoint's scratch grows only by what is overwritten for the first time.
      if (strategy === "ssh-snapshot") expect(isFailure(failure, "host.no-space")).toBe(true);
      await series.release(backup, "failed");
      await guest.execute("cat /mnt/vda/counter > /dev/null; echo alive > /mnt/vda/alive; sync");
    }
    expect((await run("ls", [small])).trim()).toBe("");
  }
});

test("R13: a template that disks share is never written", async () => {
  const template = join(bench.host.images, "hf-template.qcow2");
  await shell(
    'truncate -s 24M "$1.raw"; mkfs.ext4 -q -F "$1.raw"; qemu-img convert -O qcow2 "$1.raw" "$1"; rm "$1.raw"',
    [template],
  );
  const before = (await run("sha256sum", [template])).slice(0, 64);
  const clone = await startGuest(bench.host, "hf-clone", {
    disks: [{ target: "vda", format: "qcow2", mebibytes: 24, template }],
  });
  try {
    const series = new BackupSeries(bench.driver, clone.uuid);
    for (let round = 0; round < 2; round++) {
      const backup = await series.snapshot({ strategy: "ssh-snapshot" });
      await series.release(backup, "committed", await series.transfer(backup, frozenTruth(backup)));
    }
    await clone.destroy();
    const last = await series.snapshot({ strategy: "ssh-snapshot", incremental: false });
    await series.release(last, "committed");
    expect(await leftovers(bench.host, clone.uuid)).toEqual([]);
    expect((await run("sha256sum", [template])).slice(0, 64)).toBe(before);
  } finally {
    await clone.remove();
    await run("rm", ["-f", template]);
  }
});

test("R11: an overlay that was moved to another VM stays untouched and waits for an operator", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  const backup = await series.snapshot({ strategy: "ssh-snapshot", excludeDisks: ["vda"] });
  await series.release(backup, "committed", []);
  const overlay = [...series.ledger.entries.values()][0]?.name ?? "";
  await guest.destroy();
  const xml = await bench.host.virsh("dumpxml", guest.uuid, "--inactive");
  const other = join(bench.host.folder, "run", "hf-other.xml");
  await shell('printf %s "$2" > "$1"', [
    other,
    xml
      .replace("<name>hf-safety</name>", "<name>hf-other</name>")
      .replace(/<uuid>[^<]+<\/uuid>/, "")
      .replace(/<disk type='file'(?:(?!<\/disk>)[\s\S])*dev='vda'[\s\S]*?<\/disk>/, ""),
  ]);
  await bench.host.virsh("define", other);
  await bench.host.virsh("detach-disk", guest.uuid, "vdb", "--config");
  const before = await stat(overlay);
  const failed = await series.snapshot({ strategy: "ssh-snapshot" });
  await series.release(failed, "committed", []);
  const after = await stat(overlay);
  expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
  expect([...series.ledger.entries.values()].map(({ name }) => name)).toContain(overlay);
  // The operator gives the disk back; the next backup that keeps nothing cleans up.
  await bench.host.virsh("undefine", "hf-other");
  const definition = join(bench.host.folder, "run", "hf-back.xml");
  await shell('printf %s "$2" > "$1"', [definition, xml]);
  const root = (await bench.host.virsh("dumpxml", guest.uuid, "--inactive")).match(
    /source file='([^']*overlay)'/,
  );
  await shell('sed -i "s#[^\']*hf-safety-vda.qcow2[^\']*#$2#" "$1"', [definition, root?.[1] ?? ""]);
  await bench.host.virsh("define", definition);
  await series.release(
    await series.snapshot({ strategy: "ssh-snapshot", incremental: false }),
    "committed",
  );
  expect([...series.ledger.entries.keys()]).toEqual([]);
  await guest.start();
});

test("a VM that is removed in mid-job ends the job with its name", async () => {
  const victim = await startGuest(bench.host, "hf-victim", {
    disks: [{ target: "vda", format: "qcow2", mebibytes: 24 }],
  });
  const series = new BackupSeries(bench.driver, victim.uuid);
  const backup = await series.snapshot({ strategy: "checkpoint" });
  await victim.destroy();
  await bench.host.virsh("undefine", victim.uuid, "--checkpoints-metadata");
  await expect(bench.driver.watch(backup.session, backup.context)).rejects.toMatchObject({
    code: "vm.gone",
  });
  await shell('rm -f "$1"/hf-victim-*', [bench.host.images]);
  await series.release(backup, "failed");
  expect([...series.ledger.entries.keys()]).toEqual([]);
  await expect(series.snapshot()).rejects.toMatchObject({ code: "vm.gone" });
});

test("commands around the snapshot run on the host and in the guest", async () => {
  const series = new BackupSeries(bench.driver, guest.uuid);
  const mark = join(bench.host.folder, "run", "mark; rm -rf $(x) '\"");
  const backup = await series.snapshot({
    preCommands: [
      { where: "host", command: ["touch", mark], timeoutSeconds: 10, onFailure: "fail" },
      {
        where: "guest",
        command: ["/bin/sh", "-c", "echo pre > /mnt/vda/hook"],
        timeoutSeconds: 10,
        onFailure: "fail",
      },
    ],
    postCommands: [
      { where: "host", command: ["rm", mark], timeoutSeconds: 10, onFailure: "fail" },
      { where: "guest", command: ["/bin/false"], timeoutSeconds: 10, onFailure: "warn" },
    ],
  });
  expect(backup.session.warnings.join()).toMatch(
    /post command \/bin\/false in the guest: exit code 1/,
  );
  expect((await guest.execute("cat /mnt/vda/hook")).trim()).toBe("pre");
  await series.release(backup, "failed");
  const failing = {
    where: "host" as const,
    command: ["false"],
    timeoutSeconds: 10,
    onFailure: "fail" as const,
  };
  await expect(series.snapshot({ preCommands: [failing] })).rejects.toMatchObject({
    code: "host.command-failed",
  });
});
