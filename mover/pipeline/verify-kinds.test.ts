import { isFailure } from "@holdfast/shared/domain/failure";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { encodeRelocation, relocationName } from "@holdfast/shared/repository/pack/relocations";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { beforeAll, expect, test } from "vitest";
import { beginSession, openTestRepository, restore } from "./test-repository.ts";
import { flip, replace, sizeBytes, stored, verify } from "./test-verify.ts";

/** R34: rot, cuts, swaps, removals and replays of every kind of object. */
const kinds = [
  "condemned",
  "damaged",
  "disks",
  "index",
  "keys",
  "metadata",
  "packs",
  "points",
  "relocations",
  "sessions",
  "verified",
] as const;
const damages = ["flip", "cut", "empty", "swap", "delete", "replay"] as const;

let base: Awaited<ReturnType<typeof stored>>;
let all: string[] = [];

beforeAll(async () => {
  base = await stored();
  const { repository } = base;
  const session = await beginSession(repository, { kind: "verify" });
  await verify(repository, { session });
  const packId = new Uint8Array(16).fill(7);
  const to = { packId: new Uint8Array(16).fill(8), epoch: 1, offset: 64, storedLength: 20 };
  const name = relocationName(packId, session.newId());
  const plain = encodeRelocation({ packId, rows: [{ offset: 64, to }] });
  await session.objects.put(name, "relocation", plain);
  const damage = JSON.stringify({ v: 1, foundAt: "", replaces: [], packs: [], points: [] });
  await session.objects.putNew("damaged", "damage", Buffer.from(damage));
  await session.abort();
  await repository.sessions.condemned.put({
    madeAt: 0,
    packs: [Buffer.alloc(16, 9).toString("hex")],
    compacting: [],
    roots: [],
    objects: [],
  });
  all = await names(base.store);
});

async function names(store: ObjectStore): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.list("")) found.push(key);
  return found;
}

test("there is an object of every kind", () => {
  expect([...new Set(all.map((name) => name.split("/")[0] ?? ""))].sort()).toEqual(
    ["config", ...kinds].sort(),
  );
});

test.each(damages.flatMap((damage) => kinds.map((kind) => [kind, damage] as const)))(
  "%s: %s",
  async (kind, damage) => {
    for (const name of all.filter((one) => one.startsWith(`${kind}/`))) {
      await check(name, damage);
    }
  },
);

async function check(name: string, damage: (typeof damages)[number]): Promise<void> {
  const store = createMemoryObjectStore();
  for (const one of all) await store.put(one, await base.store.get(one));
  const bytes = await base.store.get(name);
  const sibling = all.find((one) => one !== name && one.split("/")[0] === name.split("/")[0]);
  const other = sibling ?? all.find((one) => one !== name) ?? "";
  const changed = {
    flip: flip(bytes, bytes.length >> 1),
    cut: bytes.subarray(0, bytes.length - 1),
    empty: new Uint8Array(0),
    swap: await base.store.get(other),
    delete: undefined,
    // The same bytes under another name of the kind.
    replay: bytes,
  }[damage];
  if (damage === "replay") {
    const fresh = name.replace(/[0-9a-f]{6}$/, "abcdef");
    if (fresh !== name) await store.put(fresh, bytes);
  } else await replace(store, name, changed);

  let repository: Repository;
  try {
    repository = await openTestRepository(store);
  } catch (error) {
    // The only wrapping of the key.
    expect([name.split("/")[0], isFailure(error)]).toEqual(["keys", true]);
    return;
  }
  const report = await verify(repository).catch((error: unknown) => {
    if (!isFailure(error)) throw error;
    return error;
  });
  if (isFailure(report)) {
    // No listing of points can be trusted without what condemns some of them.
    expect([name.split("/")[0], report.code]).toEqual(["condemned", "object.corrupt"]);
    expect(report.message).toContain(name);
    return;
  }
  // Exactly the points that are not named restore, and those that are named do not.
  for (const [number, { recordKey, rootKey, record }] of [
    base.first,
    base.second,
    base.third,
  ].entries()) {
    const pointId = `point-${number + 1}`;
    const isNamed =
      report.damagedPoints.some((point) => point.pointId === pointId && point.disks.length > 0) ||
      [...report.damagedObjects, ...report.harmless].some(({ object }) => object === rootKey);
    const isListed = await lists(repository, rootKey);
    const restored = await restore(repository, recordKey, {
      sizeBytes: Math.max(sizeBytes, record.sizeBytes),
    }).then(
      () => true,
      () => false,
    );
    expect({ name, damage, pointId, isNamed }).toEqual({
      name,
      damage,
      pointId,
      isNamed: !(isListed && restored),
    });
  }
}

async function lists(repository: Repository, rootKey: string): Promise<boolean> {
  for await (const point of repository.listPoints()) if (point.rootKey === rootKey) return true;
  return false;
}
