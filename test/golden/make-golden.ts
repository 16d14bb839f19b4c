/**
 * node test/golden/make-golden.ts FOLDER: makes test/golden/FOLDER/repository.json with the code as it is. The same code makes the same
 * bytes: chance is seeded and the clock stands still. An existing one is never written again.
 */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { RandomBytes } from "@holdfast/shared/ports/random";
import { newRecoveryKey } from "@holdfast/shared/repository/keys/recovery-key";
import { compact } from "@holdfast/shared/repository/maintenance/compact";
import {
  createRepository,
  openRepository,
  openRepositoryKeys,
} from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { backUp, collectNow, createTestClock, diskOf } from "../../mover/pipeline/test-collect.ts";
import { smallSettings } from "../../mover/pipeline/test-repository.ts";
import { type GoldenRepository, sha256 } from "./golden-repository.ts";

const passphrase = "golden passphrase";

export async function makeGolden(): Promise<GoldenRepository> {
  const random = seededRandom("holdfast golden");
  const clock = createTestClock();
  const store = createMemoryObjectStore();
  const parts = { store, passphrase, clock, random };
  const { words } = newRecoveryKey(random);
  const passphraseCost = { memoryKiB: 64, passes: 1 };
  await createRepository({ ...parts, settings: smallSettings, passphraseCost });
  const keys = await openRepositoryKeys(parts);
  await keys.add({ label: "paper", method: { kind: "recovery-key", words } });

  const points: Record<string, { sizeBytes: number; sha256: string }> = {};
  async function add(vm: string, pointId: string, disk: Uint8Array): Promise<string> {
    points[`${vm}/${pointId}`] = { sizeBytes: disk.length, sha256: sha256(disk) };
    return await backUp(await openRepository(parts), { vm, pointId, disk });
  }
  await add("a", "full", withHole(diskOf(1, 2)));
  const gone = await add("c", "gone", diskOf(6, 7, 8));
  await keys.rotate();
  await add("a", "incremental", withHole(diskOf(1, 22)).subarray(0, 2 * 65_536 - 777));
  await add("b", "shared", diskOf(1, 5));
  await add("c", "moved", diskOf(6, 70, 80));
  // Half of the first pack of `c` is garbage now: compaction moves the rest, and says where.
  await collectNow(await openRepository(parts), { expire: [gone] });
  delete points["c/gone"];
  await compact({
    repository: await openRepository(parts),
    holder: "golden",
    observer: "golden",
    allowShare: 1,
    logger: silentLogger,
  });

  const objects: Record<string, string> = {};
  for await (const { key } of store.list("")) {
    objects[key] = Buffer.from(await store.get(key)).toString("base64");
  }
  return { madeBy: "format 1", passphrase, recoveryWords: words, points, objects };
}

function withHole(disk: Uint8Array): Uint8Array {
  return disk.fill(0, 40_960, 81_920);
}

function seededRandom(seed: string): RandomBytes {
  let count = 0;
  return (lengthBytes) => {
    const bytes = new Uint8Array(lengthBytes);
    for (let at = 0; at < lengthBytes; at += 32) {
      const block = createHash("sha256").update(`${seed} ${count}`).digest();
      count += 1;
      bytes.set(block.subarray(0, Math.min(32, lengthBytes - at)), at);
    }
    return bytes;
  };
}

if (import.meta.main) {
  const [folder] = process.argv.slice(2);
  if (folder === undefined || !/^format-\d+(-[a-z0-9.-]+)?$/.test(folder)) {
    throw new Error("usage: node test/golden/make-golden.ts format-N[-RELEASE]");
  }
  const target = new URL(`${folder}/repository.json`, import.meta.url);
  mkdirSync(new URL(".", target), { recursive: true });
  writeFileSync(target, `${JSON.stringify(await makeGolden(), null, 2)}\n`, { flag: "wx" });
}
