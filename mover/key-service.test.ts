import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger as logger } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { createRepository } from "@holdfast/shared/repository/repository";
import { openObjectStore } from "@holdfast/shared/storage/open-object-store";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { keyService } from "./key-service.ts";
import { openKeysAt, openRepositoryAt } from "./open-repository-at.ts";

const arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555";
const parts = { clock, random, logger };
const passphraseCost = { memoryKiB: 64, passes: 1 };
const masterKey = randomBytes(32);

let server: Server;
let refusal: string | undefined;
let folder: string;
let url: string;
const contexts: unknown[] = [];

/** What AWS KMS says over HTTP: AWS JSON 1.1, the context authenticated. One for all: a client stays with its address. */
beforeAll(async () => {
  server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += String(part);
    const { status, answer } = answerTo(String(request.headers["x-amz-target"]), JSON.parse(body));
    response.writeHead(status, { "content-type": "application/x-amz-json-1.1" });
    response.end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  vi.stubEnv("AWS_ENDPOINT_URL_KMS", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv("AWS_ACCESS_KEY_ID", "test");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "test");
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await new Promise((resolve) => server.close(resolve));
});
beforeEach(() => {
  refusal = undefined;
  contexts.length = 0;
  folder = mkdtempSync(join(tmpdir(), "holdfast-kms-"));
  url = join(folder, "repository");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

type Input = {
  readonly KeyId: string;
  readonly Plaintext?: string;
  readonly CiphertextBlob?: string;
  readonly EncryptionContext: Record<string, string>;
};

function answerTo(target: string, input: Input) {
  const failed = (type: string) => ({ status: 400, answer: { __type: type, message: type } });
  if (refusal !== undefined) return failed(refusal);
  if (input.KeyId !== arn) return failed("NotFoundException");
  contexts.push(input.EncryptionContext);
  const aad = Buffer.from(JSON.stringify(Object.entries(input.EncryptionContext).sort()));
  if (target === "TrentService.Encrypt") {
    const nonce = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", masterKey, nonce).setAAD(aad);
    const sealed = cipher.update(Buffer.from(input.Plaintext ?? "", "base64"));
    cipher.final();
    const blob = Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString("base64");
    return { status: 200, answer: { CiphertextBlob: blob, KeyId: arn } };
  }
  const blob = Buffer.from(input.CiphertextBlob ?? "", "base64");
  const decipher = createDecipheriv("aes-256-gcm", masterKey, blob.subarray(0, 12));
  decipher.setAAD(aad).setAuthTag(blob.subarray(12, 28));
  const plain = decipher.update(blob.subarray(28));
  try {
    decipher.final();
  } catch {
    return failed("InvalidCiphertextException");
  }
  return { status: 200, answer: { Plaintext: plain.toString("base64"), KeyId: arn } };
}

async function createWithKms(): Promise<string> {
  const store = await openObjectStore(url);
  const { repositoryId } = await createRepository({
    ...parts,
    store,
    passphrase: "words",
    passphraseCost,
    keys: [{ label: "cloud", method: { kind: "aws-kms", keyArn: arn, kms: keyService } }],
  });
  return repositoryId;
}

test("a repository opens by AWS KMS without a passphrase, also after a rotation by the passphrase", async () => {
  const repositoryId = await createWithKms();
  await (await openKeysAt(url, { ...parts, passphrase: "words" })).rotate();
  const opened = await openRepositoryAt(url, { ...parts, passphrase: "aws:kms" });
  expect(opened.repositoryId).toBe(repositoryId);
  expect(opened.secrets.activeEpoch).toBeGreaterThan(1);
  for (const context of contexts) {
    expect(context).toEqual({
      "holdfast:repository": repositoryId,
      "holdfast:object": expect.stringMatching(/^keys\/wrapping-[0-9a-f]{32}$/),
    });
  }
  expect(contexts).toHaveLength(2);
});

test.each([
  ["AccessDeniedException", "auth.denied"],
  ["KMSInvalidStateException", "key-service.refused"],
  ["DisabledException", "key-service.refused"],
] as const)("%s of the key service is told as it is, not as a wrong key", async (name, code) => {
  await createWithKms();
  refusal = name;
  await expect(openRepositoryAt(url, { ...parts, passphrase: "aws:kms" })).rejects.toMatchObject({
    code,
  });
  await openRepositoryAt(url, { ...parts, passphrase: "words" });
});

test("what is not the ARN of a KMS key is refused before anything is sent", async () => {
  const request = { keyId: "arn:aws:s3:::bucket", bytes: new Uint8Array(32), context: {} };
  await expect(keyService.encrypt(request)).rejects.toMatchObject({ code: "input.invalid" });
  expect(contexts).toEqual([]);
});
