import { randomFillSync } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { Bench } from "./bench.ts";
import { holdfast, measure, mebibyte, newestPoint, ownProgram, remove, say } from "./measure.ts";

const dataMebibytes = 512;
const changedPieces = 10_486;
const pieceBytes = 64 * 1024;

const Result = z.object({ seconds: z.number(), bytesRead: z.number(), bytesStored: z.number() });

/** Memory and time at disks of 8 GiB, 64 GiB and 1 TiB with the same amount of data, spread evenly; and of four disks at once. */
export async function sizesSection({ folder, environment }: Bench): Promise<void> {
  const repository = join(folder, "holdfast");
  const [image, out] = [join(folder, "sized.raw"), join(folder, "out")];
  say(`\n### Sparse disks of several sizes, ${dataMebibytes} MiB of random data in each\n`);
  say("Goal: at most 400 MiB, the same for all.\n");
  say("| disk | work | s | CPU s | peak MiB |\n|---|---|---|---|---|");
  const row = async (disk: string, work: string, command: readonly string[]): Promise<void> => {
    const { seconds, cpuSeconds, peakMebibytes } = await measure(command, environment);
    say(
      `| ${disk} | ${work} | ${seconds.toFixed(2)} | ${cpuSeconds.toFixed(2)} | ${peakMebibytes.toFixed(0)} |`,
    );
  };
  const begin = async (): Promise<void> => {
    await remove(repository, out);
    await measure(holdfast("repository", "init", repository), environment);
  };
  for (const gibibytes of [8, 64, 1024]) {
    await makeSpread(image, gibibytes * 1024);
    await begin();
    const disk = `${gibibytes} GiB`;
    const backup = ["image", "backup", image, "--format", "raw", "--repository", repository];
    await row(disk, "full backup", holdfast(...backup));
    await row(disk, "second backup", holdfast(...backup));
    const point = await newestPoint(repository, environment);
    const restore = ["image", "restore", point, "--repository", repository, "--output", out];
    await row(disk, "restore", holdfast(...restore));
  }
  await begin();
  await makeSpread(image, 8 * 1024);
  const files = [image, image, image, image];
  await row(
    "4 × 8 GiB",
    "full backups at once in one process",
    ownProgram("in-process.ts", repository, JSON.stringify({ files })),
  );
  await remove(image, out, repository);
}

async function makeSpread(path: string, mebibytes: number): Promise<void> {
  await remove(path);
  const file = await open(path, "w");
  const block = Buffer.alloc(mebibyte);
  for (let index = 0; index < dataMebibytes; index += 1) {
    randomFillSync(block);
    await file.write(
      block,
      0,
      mebibyte,
      Math.floor((index * mebibytes) / dataMebibytes) * mebibyte,
    );
  }
  await file.truncate(mebibytes * mebibyte);
  await file.sync();
  await file.close();
}

/**
 * Incrementals of disks that are full of data, with the same number of random changed pieces, as many as are 1 % of 64 GiB. The disks are made up
 * by the process, so that no disk of that size is needed here.
 */
export async function changesSection({ folder, rounds, environment }: Bench): Promise<void> {
  const repository = join(folder, "holdfast");
  const changedBytes = changedPieces * pieceBytes;
  say(
    `\n### Incremental: ${changedPieces} random pieces of 64 KiB changed, ${(changedBytes / mebibyte).toFixed(0)} MiB\n`,
  );
  say("Goal: at most 3 × the changed bytes read; the same time at both sizes within 20 %.\n");
  say("| disk | sampled | s | read MiB | of the changed | stored MiB |\n|---|---|---|---|---|---|");
  for (const sampleShare of [0, 0.01]) {
    for (const gibibytes of [8, 64]) {
      const results: z.infer<typeof Result>[] = [];
      for (let round = 0; round < rounds; round += 1) {
        await remove(repository);
        await measure(holdfast("repository", "init", repository), environment);
        const request = { made: { gibibytes }, changedPieces, sampleShare };
        const { stdout } = await measure(
          ownProgram("in-process.ts", repository, JSON.stringify(request)),
          environment,
        );
        results.push(Result.parse(JSON.parse(stdout)));
      }
      const middle = results.toSorted((left, right) => left.seconds - right.seconds)[
        Math.floor(results.length / 2)
      ];
      if (middle === undefined) continue;
      const { seconds, bytesRead, bytesStored } = middle;
      const share = (bytesRead / changedBytes).toFixed(2);
      const [read, stored] = [bytesRead, bytesStored].map((b) => (b / mebibyte).toFixed(0));
      say(
        `| ${gibibytes} GiB | ${sampleShare * 100} % | ${seconds.toFixed(2)} | ${read} | ${share} × | ${stored} |`,
      );
    }
  }
  await remove(repository);
}
