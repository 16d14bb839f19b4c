/**
 * `npm run bench`: a full backup, a second one and a restore of a disk image by `holdfast image …`, beside
 * `qemu-img convert` to a local file and restic on the same image and the same disk. Prints a table of medians and
 * ratios; asserts nothing. Needs qemu-utils and restic from Debian; what is missing is left out and said.
 */
import { spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { succeeds } from "../testbeds/run.ts";

const cli = join(dirname(fileURLToPath(import.meta.url)), "../../console/cli/main.ts");
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const gibibytes = Number(process.env["BENCH_GIB"] ?? 2);
const mebibyte = 1024 ** 2;

type Run = { readonly seconds: number; readonly peakMebibytes: number };
type Work = { readonly name: string; readonly prepare?: string[][]; readonly command: string[] };

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const folder = await mkdtemp(join(process.env["BENCH_FOLDER"] ?? "/var/tmp", "holdfast-bench-"));
const environment = {
  ...process.env,
  HOLDFAST_PASSPHRASE: "bench",
  RESTIC_PASSWORD: "bench",
  RESTIC_CACHE_DIR: join(folder, "restic-cache"),
};
try {
  await bench();
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function bench(): Promise<void> {
  const image = join(folder, "image.raw");
  await makeImage(image);
  say(
    `image: ${gibibytes} GiB, a quarter holes, half of the data compressible; ${rounds} rounds, medians\n`,
  );
  const repository = join(folder, "holdfast");
  const restic = join(folder, "restic");
  const fresh = ["sh", "-c", `rm -rf "${repository}" "${restic}" "${folder}"/out.*`];
  const holdfast = (...args: string[]): string[] => [process.execPath, cli, ...args];
  const init = holdfast("repository", "init", repository);
  const backup = holdfast(
    ...["image", "backup", image, "--format", "raw", "--repository", repository, "--name", "bench"],
  );
  const hasRestic = await succeeds("restic", ["version"]);
  const hasQemu = await succeeds("qemu-img", ["--version"]);
  const works: Work[] = [
    { name: "cat image > /dev/null", command: ["sh", "-c", `cat "${image}" > /dev/null`] },
    ...(hasQemu
      ? [
          {
            name: "qemu-img convert to a local file",
            prepare: [fresh],
            command: [
              "qemu-img",
              "convert",
              "-f",
              "raw",
              "-O",
              "raw",
              image,
              join(folder, "out.raw"),
            ],
          },
        ]
      : []),
    { name: "holdfast, full", prepare: [fresh, init], command: backup },
    { name: "holdfast, again, nothing changed", prepare: [fresh, init, backup], command: backup },
    ...(hasRestic
      ? [
          {
            name: "restic, full",
            prepare: [fresh, ["restic", "init", "-q", "-r", restic]],
            command: ["restic", "backup", "-q", "-r", restic, image],
          },
        ]
      : []),
  ];
  if (!hasRestic) say("restic is not installed: left out");
  if (!hasQemu) say("qemu-img is not installed: left out");
  const medians = new Map<string, number>();
  for (const work of works) {
    const runs: Run[] = [];
    for (let round = 0; round < rounds; round++) {
      for (const step of work.prepare ?? []) await measure(step);
      runs.push(await measure(work.command));
    }
    const seconds = median(runs.map((run) => run.seconds));
    medians.set(work.name, seconds);
    const peak = Math.max(...runs.map((run) => run.peakMebibytes));
    const rate = (gibibytes * 1024) / seconds;
    say(
      `${work.name.padEnd(36)} ${seconds.toFixed(2).padStart(7)} s ${rate.toFixed(0).padStart(6)} MiB/s  peak ${peak.toFixed(0).padStart(5)} MiB`,
    );
  }
  const ours = medians.get("holdfast, full") ?? Number.NaN;
  say("");
  for (const [name, seconds] of medians) {
    if (!name.startsWith("holdfast"))
      say(`holdfast's full backup is ${(seconds / ours).toFixed(2)} × the speed of: ${name}`);
  }
}

/** Holes, random and repeated text in a fixed pattern; the same for every run of one size. */
async function makeImage(path: string): Promise<void> {
  const file = await open(path, "w");
  const block = Buffer.alloc(mebibyte);
  for (let index = 0; index < gibibytes * 1024; index++) {
    if (index % 4 === 3) continue;
    for (let offset = 0; offset < mebibyte; offset += 8192) {
      randomFillSync(block, offset, 4096);
      block.fill(`line ${index} ${offset} of the quick brown fox\n`, offset + 4096, offset + 8192);
    }
    await file.write(block, 0, mebibyte, index * mebibyte);
  }
  await file.truncate(gibibytes * 1024 ** 3);
  await file.close();
}

/** Wall time, and the highest resident memory of any one of its processes as the kernel counted it. */
async function measure([program = "", ...args]: readonly string[]): Promise<Run> {
  const started = performance.now();
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], env: environment });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString("utf8")).slice(-2000);
  });
  let peakMebibytes = 0;
  const watch = setInterval(() => {
    void peakOfTree(child.pid ?? 0).then((peak) => {
      peakMebibytes = Math.max(peakMebibytes, peak);
    });
  }, 50);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  clearInterval(watch);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}: ${errors}`);
  return { seconds: (performance.now() - started) / 1000, peakMebibytes };
}

async function peakOfTree(pid: number): Promise<number> {
  const own = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const peak = Number(/VmHWM:\s+(\d+)/.exec(own)?.[1] ?? 0) / 1024;
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  const others = await Promise.all(
    children
      .split(" ")
      .filter(Boolean)
      .map((id) => peakOfTree(Number(id))),
  );
  return Math.max(peak, ...others);
}

function median(values: readonly number[]): number {
  return (
    values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN
  );
}
