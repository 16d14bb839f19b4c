/**
 * `npm run bench`: backups and restores of disk images by `holdfast image …`, beside restic (and borg) on the same images and the same disk, and beside
 * what bounds them (reading, hashing, compressing, writing, plain requests to S3). Prints medians, CPU time, peak memory and ratios as Markdown, and
 * asserts nothing. docs/performance.md explains the figures.
 *
 * BENCH_ONLY (all of: dense,sparse,sizes,changes,related,s3), BENCH_ROUNDS (3), BENCH_GIB (2: the dense image; the sparse one is three times as large),
 * BENCH_FOLDER (/var/tmp; about 6 times BENCH_GIB is needed). restic, borgbackup, qemu-utils, zstd and openssl come from Debian, and radosgw for the
 * section s3, which needs root; what is missing is left out and said.
 */
import { randomFillSync } from "node:crypto";
import { mkdtemp, open } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { type Bench, printRatios, printWorks } from "./bench.ts";
import { changesSection, sizesSection } from "./disk-sizes.ts";
import {
  complain,
  holdfast,
  measure,
  mebibyte,
  newestPoint,
  ownProgram,
  remove,
  say,
  takeTurns,
  type Work,
} from "./measure.ts";
import { relatedSection } from "./related-images.ts";
import { s3Section } from "./s3.ts";

const gibibytes = Number(process.env["BENCH_GIB"] ?? 2);

type Image = { readonly name: string; readonly path: string; readonly mebibytes: number };

const sections: Readonly<Record<string, (bench: Bench) => Promise<void>>> = {
  dense: (bench) => imageSection(bench, "dense", Math.round(gibibytes * 1024)),
  sparse: (bench) => imageSection(bench, "sparse", Math.round(gibibytes * 3 * 1024)),
  sizes: sizesSection,
  changes: changesSection,
  related: relatedSection,
  s3: s3Section,
};

const folder = await mkdtemp(join(process.env["BENCH_FOLDER"] ?? "/var/tmp", "holdfast-bench-"));
const bench: Bench = {
  folder,
  rounds: Number(process.env["BENCH_ROUNDS"] ?? 3),
  environment: {
    ...process.env,
    HOLDFAST_PASSPHRASE: "bench",
    RESTIC_PASSWORD: "bench",
    RESTIC_CACHE_DIR: join(folder, "restic-cache"),
    BORG_PASSPHRASE: "bench",
    BORG_BASE_DIR: join(folder, "borg-base"),
    // As the command does it, for the programs of this folder, too: otherwise they compile all sources each time.
    NODE_COMPILE_CACHE: join(folder, "node-cache"),
  },
};
try {
  say(`${cpus().length} × ${cpus()[0]?.model ?? "unknown"}; ${bench.rounds} rounds, medians`);
  for (const name of (process.env["BENCH_ONLY"] ?? Object.keys(sections).join(",")).split(",")) {
    const section = sections[name];
    if (section === undefined) throw new Error(`there is no section ${name}`);
    complain(`${name} …`);
    await section(bench);
  }
} finally {
  await remove(folder);
}

async function imageSection(bench: Bench, name: string, mebibytes: number): Promise<void> {
  const image = { name, path: join(bench.folder, `${name}.raw`), mebibytes };
  await makeImage(image);
  const medians = await takeTurns(worksOn(bench, image), bench.rounds, bench.environment);
  await remove(image.path);
  printWorks(`${name} image, ${mebibytes} MiB`, medians, mebibytes);
  const isDense = name === "dense";
  printRatios(medians, [
    { ours: "holdfast, full", theirs: "restic, full", goal: isDense ? 3 : 5 },
    { ours: "holdfast, full, not opened again", theirs: "restic, full", goal: isDense ? 3 : 5 },
    { ours: "holdfast, full", theirs: "borg, full" },
    { ours: "holdfast, again", theirs: "restic, again", goal: 5 },
    { ours: "holdfast, restore", theirs: "restic, restore and sync", goal: 3 },
    { ours: "holdfast, full", theirs: "limit: zstd -1 -T2", ...(isDense && { goal: 0.8 }) },
    { ours: "holdfast, again", theirs: "limit: SHA-256, one core" },
    { ours: "holdfast, restore", theirs: "limit: copy and sync" },
  ]);
}

function worksOn({ folder, environment }: Bench, { path }: Image): readonly Work[] {
  const repository = join(folder, "holdfast");
  const [restic, borg, out] = [join(folder, "restic"), join(folder, "borg"), join(folder, "out")];
  const shell = (script: string, ...args: string[]): readonly string[] => [
    ...["sh", "-ec", script, "sh"],
    ...args,
  ];
  const newRepository = async (): Promise<void> => {
    await remove(out, repository);
    await measure(holdfast("repository", "init", repository), environment);
  };
  const backup = holdfast(
    ...["image", "backup", path, "--format", "raw", "--repository", repository, "--name", "bench"],
  );
  const resticBackup = ["restic", "backup", "-q", "-r", restic];
  return [
    { name: "limit: cat", command: async () => shell('cat "$1" > /dev/null', path) },
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
      before: () => remove(out),
      command: async () => ["dd", `if=${path}`, `of=${out}`, "bs=4M", "conv=fsync", "status=none"],
    },
    {
      name: "limit: qemu-img convert",
      needs: "qemu-img",
      before: () => remove(out),
      command: async () => ["qemu-img", "convert", "-f", "raw", "-O", "raw", path, out],
    },
    {
      name: "holdfast, full, not opened again",
      before: newRepository,
      command: async () =>
        ownProgram("in-process.ts", repository, JSON.stringify({ check: false, files: [path] })),
    },
    { name: "holdfast, full", before: newRepository, command: async () => backup },
    { name: "holdfast, again", command: async () => backup },
    {
      name: "holdfast, restore",
      command: async () => {
        const point = await newestPoint(repository, environment);
        return holdfast("image", "restore", point, "--repository", repository, "--output", out);
      },
    },
    {
      name: "restic, full",
      needs: "restic",
      before: async () => {
        await remove(out, repository, restic);
        await measure(["restic", "init", "-q", "-r", restic], environment);
      },
      command: async () => [...resticBackup, path],
    },
    // Forced: otherwise restic takes the file's unchanged time for unchanged data and reads nothing.
    {
      name: "restic, again",
      needs: "restic",
      command: async () => [...resticBackup, "--force", path],
    },
    // It does not sync what it restores, and ours is durable when it ends.
    {
      name: "restic, restore and sync",
      needs: "restic",
      command: async () =>
        shell(
          'restic restore -q latest -r "$1" --target "$2"; sync "$2/$3"',
          ...[restic, out, path],
        ),
    },
    {
      name: "borg, full",
      needs: "borg",
      before: async () => {
        await remove(out, restic, borg);
        await measure(["borg", "init", "-e", "repokey", borg], environment);
      },
      command: async () => ["borg", "create", "-C", "zstd,1", `${borg}::bench`, path],
    },
  ];
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
