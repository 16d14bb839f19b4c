import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { createRepository } from "@holdfast/shared/repository/repository";
import { openObjectStore, probeStorage } from "@holdfast/shared/storage/open-object-store";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type S3Server, startS3Server } from "../test/conformance/object-store-s3-server.ts";
import { openRepositoryAt } from "./open-repository-at.ts";

const url = "s3://bucket/backups";
const passphrase = "correct horse battery staple";
const passphraseCost = { memoryKiB: 1024, passes: 1 };

let server: S3Server;
beforeEach(async () => {
  server = await startS3Server();
  vi.stubEnv("AWS_ENDPOINT_URL_S3", server.endpoint);
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "test");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server[Symbol.asyncDispose]();
});

async function putOnce(): Promise<readonly string[]> {
  const repository = await openRepositoryAt(url, { passphrase, clock, random, logger });
  const before = server.calls.length;
  const name = `metadata/${Buffer.from(random(16)).toString("hex")}`;
  await repository.objects.put(name, "vm-metadata", Buffer.from("{}"));
  const calls = server.calls.slice(before);
  const puts = calls.filter(({ operation }) => operation === "put");
  expect(puts.map(({ headers }) => headers["if-none-match"])).toEqual(["*"]);
  return calls.map(({ operation }) => operation);
}

test("on a store whose probe said that it refuses taken keys, a put is one request", async () => {
  const { supports } = await probeStorage(url);
  expect(supports).toMatchObject({ conditionalPut: true });
  const store = await openObjectStore(url, { supports });
  await createRepository({ store, passphrase, passphraseCost, clock, random });
  expect(await putOnce()).toEqual(["put"]);
});

test("on a store not known to refuse them, it looks first and asks for refusal all the same", async () => {
  const store = await openObjectStore(url);
  await createRepository({ store, passphrase, passphraseCost, clock, random });
  expect(await putOnce()).toEqual(["head", "put"]);
});
