/**
 * The main job on real input: a running guest that keeps writing is backed up in full and twice incrementally by a
 * policy, restored under a new name, compared byte for byte with what was frozen at snapshot time, and booted.
 * Everything goes through the `holdfast` command; what the demo makes lies in one folder that is removed at the end.
 */
import { spawn } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { JobDetail } from "@holdfast/shared/contracts/api";
import { RecoveryPoint } from "@holdfast/shared/contracts/catalog-items";
import { z } from "zod";
import { findGuest, type Guest, startGuest } from "../testbeds/kvm-guest.ts";
import { type KvmHost, startKvmHost } from "../testbeds/kvm-host.ts";
import { run } from "../testbeds/run.ts";

const here = dirname(fileURLToPath(import.meta.url));
const cli = join(here, "../../console/cli/main.ts");
const guestName = "holdfast-demo";
const restoredName = "holdfast-demo-restored";
const disks = ["vda", "vdb"];

const say = (line: string): void => void process.stdout.write(`${line}\n`);

if (process.getuid?.() !== 0) {
  say("The demo starts a real libvirt host and so needs root: run `sudo npm run demo`.");
  process.exit(2);
}
// QEMU runs as a user of its own and must reach the images, so not below a home folder.
const folder = await mkdtemp("/var/tmp/holdfast-demo-");
await chmod(folder, 0o711);
const cleanUp: (() => Promise<unknown>)[] = [];
try {
  await demo();
} finally {
  say("\nCleaning up.");
  for (const step of cleanUp.reverse()) {
    await step().catch((error: unknown) => say(`clean-up: ${String(error)}`));
  }
  if (process.env["HOLDFAST_DEMO_KEEP"] === undefined) {
    await rm(folder, { recursive: true, force: true });
  } else say(`Kept: ${folder}`);
}

async function demo(): Promise<void> {
  heading("A real libvirt host with a running guest");
  const host = await startKvmHost({ folder: join(folder, "kvm"), port: await freePort(), say });
  cleanUp.push(() => host.stop());
  cleanUp.push(() => removeGuest(host, guestName));
  const guest = await startGuest(host, guestName, { say });
  say(`${guestName} runs: ${disks.join(" (qcow2) and ")} (raw), both written to all the time.`);

  heading("Holdfast on this machine");
  await holdfast(["up", "--detach", "--state", join(folder, "state")]);
  cleanUp.push(() => holdfast(["down", "--state", join(folder, "state")]));
  await addProvider(host);
  await holdfast(["sync", "demo-host"]);
  await holdfast(["vm", "list"]);

  heading("Three backups by policy: a full and two incrementals");
  const frozen = join(folder, "frozen");
  await addPolicy(frozen);
  for (const _ of [1, 2, 3]) {
    await holdfast(["policy", "run", "demo"]);
    await guest.execute("head -c 3000000 /dev/urandom > /mnt/vda/more; sync");
  }
  const points = await listPoints();
  await holdfast(["points", guestName]);

  heading("Every disk of every point, compared with what was frozen at snapshot time");
  for (const [index, point] of points.entries()) {
    for (const [number, disk] of disks.entries()) {
      const file = join(folder, `export-${index}-${disk}.raw`);
      await holdfast(["export", point.pointId, "--disk", String(number), "-o", file], {
        quiet: true,
      });
      await expectSame(
        file,
        join(frozen, String(index), `${disk}.raw`),
        `${point.mode} ${point.pointId} ${disk}`,
      );
      await rm(file);
    }
  }

  heading("Restore under a new name, compare, boot");
  const newest = points.at(-1);
  if (newest === undefined) throw new Error("there are no points");
  cleanUp.push(() => removeGuest(host, restoredName));
  await holdfast(["restore", newest.pointId, "--name", restoredName]);
  const restored = await findGuest(host, restoredName);
  await compareRestored(host, join(frozen, String(points.length - 1)));
  await bootRestored(restored);
  await summary(points);
}

async function removeGuest(host: KvmHost, name: string): Promise<void> {
  const names = (await host.virsh("list", "--all", "--name")).split("\n");
  if (names.includes(name)) await (await findGuest(host, name)).remove();
}

async function addProvider(host: KvmHost): Promise<void> {
  const { port, user } = host.address;
  const keyFile = join(folder, "kvm", "client_key");
  const address = `ssh://${user}@127.0.0.1:${port}`;
  const hostKey = host.address.hostKeys[0] ?? "";
  await holdfast([
    ...["provider", "add", "libvirt", "demo-host", "--address", address],
    ...["--identity-file", keyFile, "--host-key", hostKey],
  ]);
}

/** The policy's post command, on the host, copies the frozen disks: an independent witness of what the point must hold. */
async function addPolicy(frozen: string): Promise<void> {
  await mkdir(frozen);
  const witness = join(folder, "witness.sh");
  await copyFile(join(here, "witness.sh"), witness);
  await chmod(witness, 0o755);
  const command = JSON.stringify([witness, guestName, frozen]);
  await holdfast([
    ...["policy", "create", "demo", "--match-name", guestName, "--keep-last", "5"],
    ...["--post-command", `host:${command}`],
  ]);
}

async function listPoints(): Promise<readonly RecoveryPoint[]> {
  const text = await holdfast(["points", guestName, "--json"], { quiet: true });
  const { items } = z.object({ items: z.array(RecoveryPoint) }).parse(JSON.parse(text));
  return items.toReversed();
}

async function compareRestored(host: KvmHost, frozen: string): Promise<void> {
  const table = await host.virsh("domblklist", restoredName, "--details");
  for (const line of table.split("\n")) {
    const [, , disk, source] = line.trim().split(/\s+/);
    if (disk === undefined || source === undefined || !disks.includes(disk)) continue;
    const raw = join(folder, `restored-${disk}.raw`);
    const format = source.endsWith(".raw") ? "raw" : "qcow2";
    await run("qemu-img", ["convert", "-f", format, "-O", "raw", source, raw]);
    await expectSame(raw, join(frozen, `${disk}.raw`), `restored ${disk}`);
    await rm(raw);
  }
}

async function bootRestored(restored: Guest): Promise<void> {
  await restored.start();
  const counter = Number(await restored.execute("cat /mnt/vda/counter"));
  if (!(counter > 0)) throw new Error(`the restored guest's counter is ${counter}`);
  say(`${restoredName} boots, its agent answers, and it goes on counting from ${counter}.`);
}

async function expectSame(file: string, expected: string, what: string): Promise<void> {
  await run("cmp", [file, expected]).catch((error: unknown) => {
    throw new Error(`${what} differs from what was frozen: ${String(error)}`);
  });
  say(`identical  ${what}`);
}

async function summary(points: readonly RecoveryPoint[]): Promise<void> {
  heading("What it took");
  const rows = [["point", "scanned", "read", "new", "stored", "time", "rate", "dedup"]];
  for (const point of points) {
    const text = await holdfast(["job", "show", point.jobId, "--json"], { quiet: true });
    const { job } = JobDetail.parse(JSON.parse(text));
    const seconds = (Date.parse(job.endedAt ?? "") - Date.parse(job.startedAt ?? "")) / 1000;
    const sum = (of: (disk: RecoveryPoint["disks"][number]) => number): number =>
      point.disks.reduce((total, disk) => total + of(disk), 0);
    const scanned = sum((disk) => disk.sizeBytes);
    const stored = sum((disk) => disk.bytesStored);
    rows.push([
      point.mode,
      mebibytes(scanned),
      mebibytes(sum((disk) => disk.bytesRead)),
      mebibytes(sum((disk) => disk.bytesNew)),
      mebibytes(stored),
      `${seconds.toFixed(1)} s`,
      `${mebibytes(scanned / seconds)}/s`,
      `${(scanned / Math.max(stored, 1)).toFixed(0)} : 1`,
    ]);
  }
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  for (const row of rows) {
    say(row.map((cell, column) => cell.padStart(widths[column] ?? 0)).join("  "));
  }
  say("\nThe time is the whole job's, with snapshot and clean-up.");
  const peak = await moverPeakBytes();
  if (peak !== undefined) say(`The mover's peak resident memory: ${mebibytes(peak)}.`);
}

/** As the kernel counted it; the mover is the child of the process that `up` left running. */
async function moverPeakBytes(): Promise<number | undefined> {
  const [pid = ""] = (await readFile(join(folder, "state", "up.pid"), "utf8")).split(" ");
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  for (const child of children.trim().split(" ")) {
    const command = await readFile(`/proc/${child}/cmdline`, "utf8");
    if (!command.includes("mover/main.ts")) continue;
    const status = await readFile(`/proc/${child}/status`, "utf8");
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }
  return undefined;
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

function heading(text: string): void {
  say(`\n== ${text}`);
}

/** Runs the CLI as a user would, shows the command and what it prints, and returns its standard output. */
async function holdfast(
  args: readonly string[],
  options: { quiet?: boolean } = {},
): Promise<string> {
  if (options.quiet !== true) say(`$ holdfast ${args.join(" ")}`);
  const child = spawn(process.execPath, [cli, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      ...process.env,
      XDG_CONFIG_HOME: join(folder, "config"),
      XDG_DATA_HOME: join(folder, "data"),
    },
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString("utf8");
    if (options.quiet !== true) process.stdout.write(chunk);
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  // 3 is done with warnings: the job's own words have been shown.
  if (code !== 0 && code !== 3) throw new Error(`holdfast ${args[0]} ended with exit code ${code}`);
  return output;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
