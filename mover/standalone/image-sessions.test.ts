import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StandaloneLine } from "@holdfast/shared/contracts/standalone";
import { Failure, isFailure } from "@holdfast/shared/domain/failure";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { isOpen } from "@holdfast/shared/repository/session/session-state";
import { createMemoryObjectStore } from "@holdfast/shared/storage/memory/memory-object-store";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createOwnLimits } from "../limits/own-limits.ts";
import { seededBytes } from "../pipeline/test-data.ts";
import { createTestRepository, openTestRepository } from "../pipeline/test-repository.ts";
import { backUpImage } from "./back-up-image.ts";
import { restoreImage } from "./restore-image.ts";
import type { StandaloneContext } from "./standalone-context.ts";

let folder: string;
let store: ObjectStore;
const disk = seededBytes(700_000, 3);
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-image-"));
  writeFileSync(join(folder, "disk.img"), disk);
  store = createMemoryObjectStore();
  await createTestRepository(store);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function contextOn(its: ObjectStore, signal = new AbortController().signal) {
  const lines: StandaloneLine[] = [];
  const context: StandaloneContext = {
    signal,
    clock,
    random,
    logger,
    emit: (line) => lines.push(line),
    reportProgress: () => () => undefined,
    open: () => openTestRepository(its),
    limits: createOwnLimits(clock),
  };
  return { context, lines };
}

const access = { url: "memory:", passphrase: "" };
const backup = () =>
  ({
    ...access,
    kind: "image-backup",
    source: join(folder, "disk.img"),
    name: "web",
    format: "raw",
  }) as unknown as Parameters<typeof backUpImage>[1];
const restoring = (pointId: string) =>
  ({
    ...access,
    kind: "image-restore",
    pointId,
    output: join(folder, "out.img"),
    format: "raw",
    overwrite: false,
  }) as unknown as Parameters<typeof restoreImage>[1];

async function sessions() {
  const repository = await openTestRepository(store);
  const states = [...(await repository.sessions.list()).values()];
  const points: string[] = [];
  for await (const { pointId } of repository.listPoints()) points.push(pointId);
  return { open: states.filter(isOpen).length, all: states.length, points };
}

const readOnly = (): ObjectStore => ({
  ...store,
  put: async () => {
    throw new Failure("storage.refused", { message: "read only" });
  },
});

test("a backup has a session that ends with its point; the next one builds on it", async () => {
  await backUpImage(contextOn(store).context, backup());
  expect(await sessions()).toMatchObject({ open: 0, all: 1 });
  const result = await backUpImage(contextOn(store).context, backup());
  expect(result).toMatchObject({ summary: { bytesNew: 0 } });
  const { open, points } = await sessions();
  expect([open, points.length]).toEqual([0, 2]);
});

test("a backup that fails or is stopped ends its session without a point", async () => {
  const failing: ObjectStore = {
    ...store,
    put: async (key, bytes, options) => {
      if (key.startsWith("disks/")) throw new Failure("storage.no-space", { message: "full" });
      await store.put(key, bytes, options);
    },
  };
  const failed = backUpImage(contextOn(failing).context, backup());
  await expect(failed).rejects.toSatisfy((error) => isFailure(error, "storage.no-space"));
  expect(await sessions()).toEqual({ open: 0, all: 1, points: [] });

  const abort = new AbortController();
  const stopping: ObjectStore = {
    ...store,
    put: async (key, bytes, options) => {
      if (key.startsWith("packs/")) {
        abort.abort(new Failure("cancelled", { message: "stopped" }));
      }
      options?.signal?.throwIfAborted();
      await store.put(key, bytes, options);
    },
  };
  const stopped = backUpImage(contextOn(stopping, abort.signal).context, backup());
  await expect(stopped).rejects.toSatisfy((error) => isFailure(error, "cancelled"));
  expect(await sessions()).toEqual({ open: 0, all: 2, points: [] });
});

test("a restore has a session meanwhile, and none where nothing can be written: then it says so", async () => {
  await backUpImage(contextOn(store).context, backup());
  const [pointId = ""] = (await sessions()).points;
  const reader = contextOn(readOnly());
  await restoreImage(reader.context, restoring(pointId));
  expect(Buffer.compare(readFileSync(join(folder, "out.img")), disk)).toBe(0);
  expect(reader.lines).toContainEqual({
    type: "warning",
    message: expect.stringContaining("read only"),
  });
  rmSync(join(folder, "out.img"));
  const writer = contextOn(store);
  await restoreImage(writer.context, restoring(pointId));
  expect(Buffer.compare(readFileSync(join(folder, "out.img")), disk)).toBe(0);
  expect(writer.lines.filter(({ type }) => type === "warning")).toEqual([]);
  expect(await sessions()).toMatchObject({ open: 0, all: 2 });
});
