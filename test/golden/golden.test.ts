import { readdirSync } from "node:fs";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { openRepository, openRepositoryKeys } from "@holdfast/shared/repository/repository";
import { describe, expect, test } from "vitest";
import { restore } from "../../mover/pipeline/test-repository.ts";
import { verify } from "../../mover/pipeline/test-verify.ts";
import { readGolden, sha256, storeOf } from "./golden-repository.ts";

const folders = readdirSync(new URL(".", import.meta.url), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);

test("there are golden repositories", () => {
  expect(folders).toContain("format-1");
});

describe.each(folders)("%s", (folder) => {
  const golden = readGolden(folder);

  test.each(["passphrase", "recoveryWords"] as const)("restores with its %s", async (key) => {
    const store = await storeOf(golden);
    const repository = await openRepository({ store, passphrase: golden[key], clock, random });
    const restored: Record<string, unknown> = {};
    const onUnreadable = ({ failure }: { readonly failure: Error }): never => {
      throw failure;
    };
    for await (const point of repository.listPoints({ onUnreadable })) {
      await repository.readPoint(point.rootKey);
      const [{ recordKey, sizeBytes } = { recordKey: "", sizeBytes: 0 }] = point.disks;
      const { bytes } = await restore(repository, recordKey, { sizeBytes });
      restored[`${point.vmKey}/${point.pointId}`] = { sizeBytes, sha256: sha256(bytes) };
    }
    expect(restored).toEqual(golden.points);
  });

  test("is found whole by verify", async () => {
    const store = await storeOf(golden);
    const { passphrase } = golden;
    const report = await verify(await openRepository({ store, passphrase, clock, random }));
    expect([report.damagedPoints, report.damagedObjects]).toEqual([[], []]);
    expect(report.points).toBe(Object.keys(golden.points).length);
  });

  test("of a newer version, or with a feature that is unknown, it is refused and nothing is written", async () => {
    const { passphrase } = golden;
    const config = Buffer.from(golden.objects["config"] ?? "", "base64");
    const newer = Buffer.from(config);
    newer.writeUInt16LE(2, 8);
    const text = config.toString("latin1").replace('"features":[]', '"features":["later"]');
    const feature = Buffer.from(text, "latin1");
    feature.writeUInt32LE(feature.readUInt32LE(16) + '"later"'.length, 16);
    for (const changed of [newer, feature]) {
      const objects = { ...golden.objects, config: changed.toString("base64") };
      const { store, changes } = watched(await storeOf({ ...golden, objects }));
      const parts = { store, passphrase, clock, random };
      for (const open of [openRepository, openRepositoryKeys]) {
        await expect(open(parts)).rejects.toMatchObject({ code: "repository.format-unknown" });
      }
      expect(changes()).toBe(0);
    }
  });

  test("an object of a newer version, and a root of a newer kind, are named and not taken for right", async () => {
    const { passphrase } = golden;
    for (const prefix of ["points/", "disks/", "metadata/"]) {
      const name = Object.keys(golden.objects).find((key) => key.startsWith(prefix)) ?? "";
      const newer = Buffer.from(golden.objects[name] ?? "", "base64");
      newer.writeUInt16LE(2, 8);
      const objects = { ...golden.objects, [name]: newer.toString("base64") };
      const store = await storeOf({ ...golden, objects });
      const report = await verify(await openRepository({ store, passphrase, clock, random }));
      const told = JSON.stringify([report.damagedPoints, report.damagedObjects]);
      expect(told).toContain("format version 2");
    }
  });
});

function watched(store: ObjectStore): { store: ObjectStore; changes: () => number } {
  let changes = 0;
  return {
    changes: () => changes,
    store: {
      ...store,
      put: (...call) => {
        changes += 1;
        return store.put(...call);
      },
      remove: (...call) => {
        changes += 1;
        return store.remove(...call);
      },
    },
  };
}
