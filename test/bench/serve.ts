/**
 * `npm run bench:serve [-- --data-mib 1024 --rounds 3 --folder /var/tmp]`: how fast a served point is read, beside our own restore of it,
 * in one run on the same files. Times are medians; every copy is compared with the image.
 */
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Serving } from "@holdfast/shared/contracts/standalone";

const command = fileURLToPath(new URL("../../console/cli/bin/holdfast.mjs", import.meta.url));
const mib = 1024 ** 2;
const { values } = parseArgs({
  options: {
    "data-mib": { type: "string", default: "1024" },
    rounds: { type: "string", default: "3" },
    folder: { type: "string", default: tmpdir() },
  },
});
const dataMib = Number(values["data-mib"]);
const rounds = Number(values.rounds);
const folder = mkdtempSync(join(values.folder, "holdfast-bench-serve-"));
const env = { ...process.env, HOLDFAST_PASSPHRASE: "bench" };
const repository = join(folder, "repository");
const image = join(folder, "disk.raw");
const copy = join(folder, "copy.raw");

try {
  makeImage();
  holdfast(["repository", "init", repository]);
  const lines = holdfast(["image", "backup", image, "--repository", repository, "--json"]);
  const point: string = lastResult(lines).point.pointId;
  const results = new Map<string, number[]>();
  for (let round = 0; round < rounds; round += 1) {
    rmSync(copy, { force: true });
    const restore = ["image", "restore", point, "--repository", repository, "-o", copy, "--json"];
    add(results, "restore to a file", lastResult(holdfast(restore)).summary.seconds);
    check();
    // A server of its own for each: nothing is in its cache.
    await served(point, async (uri) => {
      add(
        results,
        "first byte after the URI",
        timed("qemu-io", ["-r", "-f", "raw", "-c", "read 0 512", uri]),
      );
    });
    await served(point, async (uri) => {
      add(results, "nbdcopy to nowhere", timed("nbdcopy", [uri, "null:"]));
    });
    await served(point, async (uri) => {
      add(results, "nbdcopy to a file", timed("nbdcopy", [uri, copy]));
      check();
    });
    await served(point, async (uri) => {
      const convert = ["convert", "-f", "raw", "-O", "raw", uri, copy];
      add(results, "qemu-img convert to a file", timed("qemu-img", convert));
      check();
    });
    await served(point, async (uri) => {
      const compare = ["compare", "-f", "raw", "-F", "raw", image, uri];
      add(results, "qemu-img compare", timed("qemu-img", compare));
    });
  }
  const restored = median(results.get("restore to a file") ?? []);
  process.stdout.write(
    `| ${dataMib} MiB of data in ${4 * dataMib} MiB | seconds | MiB/s | of restore |\n|---|---|---|---|\n`,
  );
  for (const [name, seconds] of results) {
    const middle = median(seconds);
    const isRate = !name.startsWith("first");
    process.stdout.write(
      `| ${name} | ${middle.toFixed(2)} | ${isRate ? (dataMib / middle).toFixed(0) : ""} | ${isRate ? `${((100 * restored) / middle).toFixed(0)} %` : ""} |\n`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** Half of the data is random, half repeats itself in lines; three quarters of the image are holes. */
function makeImage(): void {
  const file = openSync(image, "w");
  const piece = Buffer.alloc(mib);
  for (let at = 0; at < dataMib; at += 1) {
    randomBytes(mib / 2).copy(piece);
    piece.fill(`line ${at} of a text that can be compressed\n`, mib / 2);
    writeSync(file, piece, 0, mib, (Math.floor(at / 16) * 64 + (at % 16)) * mib);
  }
  writeSync(file, Buffer.from([1]), 0, 1, 4 * dataMib * mib - 1);
  closeSync(file);
}

function holdfast(words: readonly string[]): string {
  return execFileSync(process.execPath, [command, ...words], {
    env,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
}

function lastResult(lines: string) {
  return JSON.parse(lines.trimEnd().split("\n").at(-1) ?? "").result;
}

async function served(point: string, use: (uri: string) => Promise<void>): Promise<void> {
  // Whoever writes a copy begins with a new file, as the restore does.
  rmSync(copy, { force: true });
  const words = [command, "serve", point, "--repository", repository, "--json"];
  const child = spawn(process.execPath, words, { env, stdio: ["ignore", "pipe", "inherit"] });
  try {
    const [line] = await once(createInterface({ input: child.stdout }), "line");
    await use(Serving.parse(JSON.parse(line)).exports[0]?.uri ?? "");
  } finally {
    const ended = once(child, "close");
    child.kill("SIGINT");
    await ended;
  }
}

function timed(program: string, words: readonly string[]): number {
  const began = performance.now();
  execFileSync(program, words, { stdio: "ignore" });
  return (performance.now() - began) / 1000;
}

function check(): void {
  execFileSync("cmp", [image, copy]);
}

function add(results: Map<string, number[]>, name: string, seconds: number): void {
  results.set(name, [...(results.get(name) ?? []), seconds]);
}

function median(all: readonly number[]): number {
  return all.toSorted((left, right) => left - right)[Math.floor(all.length / 2)] ?? Number.NaN;
}
