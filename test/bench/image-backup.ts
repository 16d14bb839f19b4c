/**
 * `npm run bench`: backups and restores of disk images by `holdfast image …`, beside restic on the same images and the same disk, and beside
 * what bounds them (reading, hashing, compressing, writing). All works take turns in every round, so that a busy machine
 * harms all alike; prints medians, peak memory and ratios as Markdown; asserts nothing. docs/performance.md explains the figures.
 *
 * BENCH_ROUNDS (3), BENCH_GIB (2: the dense image; the sparse one is three times as large), BENCH_FOLDER (/var/tmp; about 6 times BENCH_GIB is needed).
 * restic, qemu-utils, zstd and openssl come from Debian; what is missing is left out and said.
 */
import { spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { succeeds } from "../testbeds/run.ts";

const cli = join(dirname(fileURLToPath(import.meta.url)), "../../console/cli/bin/holdfast.mjs");
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const gibibytes = Number(process.env["BENCH_GIB"] ?? 2);
const mebibyte = 1024 ** 2;

type Image = { readonly name: string; readonly path: string; readonly mebibytes: number };
type Run = { readonly seconds: number; readonly peakMebibytes: number; readonly stdout: string };
/** `before` is not measured. `needs` is a program that may be missing. */
type Work = {
  readonly name: string;
  readonly needs?: string;
  readonly before?: () => Promise<void>;
  readonly command: () => Promise<readonly string[]>;
};
/** Speed of one work over that of another, and what is aimed at (the project's issue 3). */
const ratios = [
  { image: "dense", ours: "holdfast, full", theirs: "restic, full", goal: 3 },
  { image: "sparse", ours: "holdfast, full", theirs: "restic, full", goal: 5 },
  { image: "dense", ours: "holdfast, again", theirs: "restic, again", goal: 5 },
  { image: "sparse", ours: "holdfast, again", theirs: "restic, again", goal: 5 },
  { image: "dense", ours: "holdfast, restore", theirs: "restic, restore", goal: 3 },
  { image: "sparse", ours: "holdfast, restore", theirs: "restic, restore", goal: 3 },
  { image: "dense", ours: "holdfast, full", theirs: "limit: qemu-img convert", goal: undefined },
  { image: "sparse", ours: "holdfast, full", theirs: "limit: qemu-img convert", goal: undefined },
  { image: "dense", ours: "holdfast, restore", theirs: "limit: copy and sync", goal: undefined },
];

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
  const images: readonly Image[] = [
    { name: "dense", path: join(folder, "dense.raw"), mebibytes: gibibytes * 1024 },
    { name: "sparse", path: join(folder, "sparse.raw"), mebibytes: gibibytes * 3 * 1024 },
  ];
  say(`${cpus().length} × ${cpus()[0]?.model ?? "unknown"}; ${rounds} rounds, medians\n`);
  say("| image | work | s | MiB/s of the disk | peak MiB |\n|---|---|---|---|---|");
  const medians = new Map<string, number>();
  for (const image of images) {
    await makeImage(image);
    const works = await available(worksOn(image));
    const runs = new Map<string, Run[]>(works.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round += 1) {
      for (const work of works) {
        await work.before?.();
        runs.get(work.name)?.push(await measure(await work.command()));
      }
    }
    for (const [name, all] of runs) {
      const seconds = median(all.map((run) => run.seconds));
      medians.set(`${image.name} ${name}`, seconds);
      const peak = Math.max(...all.map((run) => run.peakMebibytes));
      const rate = image.mebibytes / seconds;
      say(
        `| ${image.name} | ${name} | ${seconds.toFixed(2)} | ${rate.toFixed(0)} | ${peak.toFixed(0)} |`,
      );
    }
    await rm(image.path);
  }
  say("\n| image | work | against | speed | goal |\n|---|---|---|---|---|");
  for (const { image, ours, theirs, goal } of ratios) {
    const ratio =
      (medians.get(`${image} ${theirs}`) ?? Number.NaN) /
      (medians.get(`${image} ${ours}`) ?? Number.NaN);
    if (Number.isNaN(ratio)) continue;
    say(`| ${image} | ${ours} | ${theirs} | ${ratio.toFixed(2)} × | ${goal ? `${goal} ×` : ""} |`);
  }
}

function worksOn({ path }: Image): readonly Work[] {
  const repository = join(folder, "holdfast");
  const restic = join(folder, "restic");
  const out = join(folder, "out");
  const holdfast = (...args: string[]): readonly string[] => [process.execPath, cli, ...args];
  const backup = holdfast(
    ...["image", "backup", path, "--format", "raw", "--repository", repository, "--name", "bench"],
  );
  const resticBackup = ["restic", "backup", "-q", "-r", restic];
  const remove = (...paths: readonly string[]): Promise<unknown> =>
    Promise.all(paths.map((each) => rm(each, { recursive: true, force: true })));
  const withoutOut = async (): Promise<void> => void (await remove(out));
  return [
    { name: "limit: cat", command: async () => ["sh", "-c", 'cat "$1" > /dev/null', "sh", path] },
    {
      name: "limit: SHA-256, one core",
      needs: "openssl",
      command: async () => ["openssl", "dgst", "-sha256", path],
    },
    {
      name: "limit: zstd -1 -T2",
      needs: "zstd",
      command: async () => ["zstd", "-q", "-1", "-T2", "-f", "-o", "/dev/null", path],
    },
    {
      name: "limit: copy and sync",
      before: withoutOut,
      command: async () => ["dd", `if=${path}`, `of=${out}`, "bs=4M", "conv=fsync", "status=none"],
    },
    {
      name: "limit: qemu-img convert",
      needs: "qemu-img",
      before: withoutOut,
      command: async () => ["qemu-img", "convert", "-f", "raw", "-O", "raw", path, out],
    },
    {
      name: "holdfast, full",
      before: async () => {
        await remove(out, repository);
        await measure(holdfast("repository", "init", repository));
      },
      command: async () => backup,
    },
    { name: "holdfast, again", command: async () => backup },
    {
      name: "holdfast, restore",
      command: async () => {
        const { stdout } = await measure(
          holdfast("image", "points", "--repository", repository, "--json"),
        );
        const point = /"pointId":"([^"]+)"/.exec(stdout)?.[1] ?? "";
        return holdfast("image", "restore", point, "--repository", repository, "--output", out);
      },
    },
    {
      name: "restic, full",
      needs: "restic",
      before: async () => {
        await remove(out, repository, restic);
        await measure(["restic", "init", "-q", "-r", restic]);
      },
      command: async () => [...resticBackup, path],
    },
    // Forced: otherwise restic takes the file's unchanged time for unchanged data and reads nothing.
    {
      name: "restic, again",
      needs: "restic",
      command: async () => [...resticBackup, "--force", path],
    },
    {
      name: "restic, restore",
      needs: "restic",
      command: async () => ["restic", "restore", "-q", "latest", "-r", restic, "--target", out],
    },
  ];
}

async function available(works: readonly Work[]): Promise<readonly Work[]> {
  const missing = new Set<string>();
  for (const needs of new Set(works.flatMap((work) => work.needs ?? []))) {
    if (await succeeds("which", [needs])) continue;
    missing.add(needs);
    process.stderr.write(`${needs} is not installed: left out\n`);
  }
  return works.filter(({ needs }) => needs === undefined || !missing.has(needs));
}

/** The dense image is full; the sparse one has a sixth of data in pieces of 16 MiB. Of data, half is random and half repeated text. */
async function makeImage({ name, path, mebibytes }: Image): Promise<void> {
  const file = await open(path, "w");
  const block = Buffer.alloc(mebibyte);
  for (let index = 0; index < mebibytes; index += 1) {
    if (name === "sparse" && Math.floor(index / 16) % 6 !== 0) continue;
    for (let offset = 0; offset < mebibyte; offset += 8192) {
      randomFillSync(block, offset, 4096);
      block.fill(`line ${index} ${offset} of the quick brown fox\n`, offset + 4096, offset + 8192);
    }
    await file.write(block, 0, mebibyte, index * mebibyte);
  }
  await file.truncate(mebibytes * mebibyte);
  // Writing it back must not slow down what is measured.
  await file.sync();
  await file.close();
}

/** Wall time, and the highest resident memory of any one of its processes as the kernel counted it. */
async function measure([program = "", ...args]: readonly string[]): Promise<Run> {
  const started = performance.now();
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString("utf8")).slice(-2000);
  });
  let stdout = "";
  child.stdout.on("data", (chunk: Buffer) => {
    if (stdout.length < 100_000) stdout += chunk.toString("latin1");
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
  return { seconds: (performance.now() - started) / 1000, peakMebibytes, stdout };
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
