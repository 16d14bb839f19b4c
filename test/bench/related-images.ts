import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { run, shell, succeeds } from "../testbeds/run.ts";
import type { Bench } from "./bench.ts";
import { complain, holdfast, measure, mebibyte, remove, say } from "./measure.ts";

const blockBytes = mebibyte;

/**
 * What several related file system images take: two made apart from mostly the same files of this machine, in another order and with others between
 * them, and a clone of the first in which files were changed, removed and added.
 */
export async function relatedSection({ folder, environment }: Bench): Promise<void> {
  if (!(await succeeds("which", ["mke2fs"]))) {
    complain("mke2fs is not installed: no related images");
    return;
  }
  const images = await makeImages(folder);
  const repository = join(folder, "holdfast");
  const restic = join(folder, "restic");
  await measure(holdfast("repository", "init", repository), environment);
  const hasRestic = await succeeds("which", ["restic"]);
  if (hasRestic) await measure(["restic", "init", "-q", "-r", restic], environment);
  for (const image of images) {
    const backup = ["image", "backup", image, "--format", "raw", "--repository", repository];
    await measure(holdfast(...backup), environment);
    if (hasRestic) await measure(["restic", "backup", "-q", "-r", restic, image], environment);
  }
  const ours = await mebibytesOf(repository);
  const fixed = await fixedMebibytes(images);
  say(`\n### Stored bytes of ${images.length} related file system images\n`);
  say("| how | MiB | holdfast's share of it | goal |\n|---|---|---|---|");
  say(`| holdfast | ${ours.toFixed(0)} | | |`);
  const line = (how: string, mebibytes: number, goal: string): void =>
    say(`| ${how} | ${mebibytes.toFixed(0)} | ${(ours / mebibytes).toFixed(3)} | ${goal} |`);
  if (hasRestic) line("restic", await mebibytesOf(restic), "≤ 1");
  line("fixed chunks of 1 MiB, deduplicated, zstd-1", fixed, "≤ 0.9");
  await remove(repository, restic, ...images);
}

async function makeImages(folder: string): Promise<readonly string[]> {
  const [first, second, clone] = ["first", "second", "clone"].map((name) =>
    join(folder, `${name}.raw`),
  );
  if (first === undefined || second === undefined || clone === undefined) return [];
  const tree = join(folder, "tree");
  await shell(
    `mkdir -p "$1"
    for folder in /usr/share/doc /usr/share/perl /usr/share/zoneinfo /usr/lib/python3*; do
      [ ! -d "$folder" ] || cp -a "$folder" "$1"/
    done
    find /usr/lib /usr/bin -xdev -type f -size +200k -size -20000k | LC_ALL=C sort | awk 'NR <= 150' |
      while read -r file; do cp --parents "$file" "$1"/; done
    truncate -s 3G "$2"
    mke2fs -q -t ext4 -d "$1" "$2"
    # The clone: some files are written anew with another end.
    cp --sparse=always "$2" "$4"
    cd "$1"
    find . -type f ! -name '* *' | LC_ALL=C sort | awk 'NR % 37 == 5' > ../changed
    while read -r file; do
      echo changed >> "$file"
      echo "rm $file"
      echo "write $PWD/$file $file"
    done < ../changed > ../commands
    debugfs -w -f ../commands "$4" > /dev/null 2>&1
    # Made apart: in another order, with files between.
    mkdir a-first
    cp -a /etc /usr/share/locale a-first/ 2> /dev/null || true
    truncate -s 3G "$3"
    mke2fs -q -t ext4 -d "$1" "$3"
    rm ../changed ../commands
    sync "$2" "$3" "$4"`,
    [tree, first, second, clone],
  );
  await remove(tree);
  return [first, second, clone];
}

async function mebibytesOf(path: string): Promise<number> {
  return Number((await run("du", ["-sb", path])).split("\t")[0]) / mebibyte;
}

async function fixedMebibytes(images: readonly string[]): Promise<number> {
  const seen = new Set<string>();
  const block = Buffer.alloc(blockBytes);
  const zeros = Buffer.alloc(blockBytes);
  let bytes = 0;
  for (const image of images) {
    await using file = await open(image);
    const { size } = await file.stat();
    for (let at = 0; at < size; at += blockBytes) {
      const { bytesRead } = await file.read(block, 0, blockBytes, at);
      const part = block.subarray(0, bytesRead);
      if (zeros.compare(part, 0, bytesRead, 0, bytesRead) === 0) continue;
      const id = createHash("sha256").update(part).digest("hex");
      if (seen.has(id)) continue;
      seen.add(id);
      bytes += zstdCompressSync(part, { params: { 100: 1 } }).length;
    }
  }
  return bytes / mebibyte;
}
