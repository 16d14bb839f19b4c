import {
  cpSync,
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Catalog } from "@holdfast/shared/ports/catalog";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { createRepository } from "@holdfast/shared/repository/repository";
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";
import { afterEach, beforeEach, expect, test } from "vitest";
import { aRepository } from "../test/helpers/catalog-samples.ts";
import { createRepositoryOpener, type OpenedRepository } from "./open-repository.ts";
import { openKeysAt } from "./open-repository-at.ts";

const passphrase = "correct horse battery staple";
let folder: string;
let url: string;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-opener-"));
  url = join(folder, "repository");
  const passphraseCost = { memoryKiB: 1024, passes: 1 };
  const store = await openObjectStore(url);
  await createRepository({ store, passphrase, passphraseCost, clock, random });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const opener = () =>
  createRepositoryOpener({
    catalog: { getRepository: async () => aRepository({ url }) } as unknown as Catalog,
    parameters: {
      getSecret: async () => passphrase,
      putSecret: async () => undefined,
      remove: async () => undefined,
    },
    logger,
  });

test("a repository is opened once and shared", async () => {
  const open = opener();
  const [first, second] = await Promise.all([open("main"), open("main")]);
  expect(second).toBe(first);
  expect(await open("main")).toBe(first);
});

test("keys that were rotated are read anew by the next task", async () => {
  const open = opener();
  const before = await open("main");
  const keys = await openKeysAt(url, { passphrase, clock, random, logger });
  const { activeEpoch } = await keys.rotate();
  const after = await open("main");
  expect(after).not.toBe(before);
  expect(after.repository.secrets.activeEpoch).toBe(activeEpoch);
  expect(await open("main")).toBe(after);
});

test("one that is gone is refused, and used again when it is back", async () => {
  const open = opener();
  await open("main");
  renameSync(url, `${url}-away`);
  await expect(open("main")).rejects.toMatchObject({ code: "repository.not-found" });
  renameSync(`${url}-away`, url);
  await putMetadata(await open("main"));
});

test("one whose share was mounted anew, and so is on another device, is opened anew", async (context) => {
  const other = "/dev/shm";
  const isOther = existsSync(other) && statSync(other).dev !== statSync(folder).dev;
  context.skip(!isOther, "this machine has no second device to write to");
  const mounted = mkdtempSync(join(other, "holdfast-opener-"));
  try {
    const open = opener();
    const first = await open("main");
    cpSync(url, join(mounted, "repository"), { recursive: true });
    rmSync(url, { recursive: true });
    symlinkSync(join(mounted, "repository"), url);
    // What was opened before stays with its device.
    await expect(putMetadata(first)).rejects.toMatchObject({
      code: "storage.unreachable",
    });
    await putMetadata(await open("main"));
  } finally {
    rmSync(mounted, { recursive: true, force: true });
  }
}, 120_000);

async function putMetadata({ repository }: OpenedRepository): Promise<void> {
  const start = { kind: "backup", holder: "test", pins: [], silenceSeconds: 60 } as const;
  await repository.putMetadata(await repository.sessions.begin(start), metadata);
}

const metadata = {
  providerKind: "libvirt",
  description: {
    name: "web",
    uuid: "",
    memoryBytes: 1,
    vcpus: 1,
    architecture: "x86_64",
    firmware: "bios",
    disks: [],
    nics: [],
    tags: [],
  },
  excludedDisks: [],
  documents: {},
} as const;
