import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { MoverProcess } from "../mover-process.ts";
import { parseSshAddress, parseTimeMs } from "../parse-values.ts";
import { createTemporaryFolder, runCli, startScriptedApi } from "../testing.ts";

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
const hostKeys = [{ key, fingerprint: "SHA256:abcdef" }];

/** Stands in for the child process that would fetch keys; what it fetches is checked against sshd in test/systems. */
const mover: MoverProcess = {
  run: async (request) => {
    expect(request).toEqual({ kind: "fetch-host-keys", host: "kvm1", port: 2222 });
    return { hostKeys } as never;
  },
};

async function addProvider(words: readonly string[], more: Parameters<typeof runCli>[1] = {}) {
  await using folder = await createTemporaryFolder();
  const password = join(folder.path, "password");
  writeFileSync(password, "s3cret\n");
  await using api = await startScriptedApi(({ body }) => {
    const { secret: _, ...rest } = body as { secret: string };
    return { status: 201, body: { ...rest, createdAt: "2026-11-20T12:00:00Z" } };
  });
  const commandLine = [
    "provider",
    "add",
    "libvirt",
    "kvm1",
    "--address",
    "ssh://op@kvm1:2222",
    ...words,
  ];
  const run = await runCli(
    commandLine.map((word) => (word === "PASSWORD" ? password : word)),
    { endpoint: api.endpoint, mover, ...more },
  );
  return { ...run, exchanges: api.exchanges };
}

test("an unknown host key is shown and refused, and nothing is sent", async () => {
  const { code, stderr, exchanges } = await addProvider(["--password-file", "PASSWORD"]);
  expect(code).toBe(4);
  expect(stderr).toContain("HF-HOST-KEY-UNKNOWN");
  expect(stderr).toContain("ssh-ed25519 SHA256:abcdef");
  expect(stderr).toContain("--accept-host-key");
  expect(exchanges).toEqual([]);
});

test("--accept-host-key pins what the host presents, and says what that was", async () => {
  const { code, stdout, stderr, exchanges } = await addProvider([
    "--password-file",
    "PASSWORD",
    "--accept-host-key",
  ]);
  expect(code).toBe(0);
  expect(stderr).toContain("SHA256:abcdef");
  expect(exchanges[0]?.body).toEqual({
    providerId: "kvm1",
    siteId: "local",
    settings: {
      kind: "libvirt",
      ssh: { host: "kvm1", port: 2222, user: "op", hostKeys: [key], login: "password" },
      uri: "qemu:///system",
    },
    secret: "s3cret",
  });
  expect(stdout + stderr).not.toContain("s3cret");
});

test.each([
  [true, 0],
  [false, 4],
])("at a terminal a person decides: %s", async (answer, code) => {
  const prompt = {
    canAsk: true,
    secret: async () => "",
    confirm: async () => answer,
  };
  expect((await addProvider(["--password-file", "PASSWORD"], { prompt })).code).toBe(code);
});

test.each([
  ["as the host's own line", key],
  ["as known_hosts has it", `[kvm1]:2222 ${key}`],
  ["with a comment", `${key} root@kvm1`],
])("a key given %s is pinned and not fetched", async (_, text) => {
  const run = async (): Promise<never> => {
    throw new Error("nothing is to be fetched");
  };
  const { code, exchanges } = await addProvider(
    ["--password-file", "PASSWORD", "--host-key", text],
    { mover: { run } },
  );
  expect(code).toBe(0);
  expect(exchanges[0]?.body).toMatchObject({ settings: { ssh: { hostKeys: [key] } } });
});

test.each([
  ["two logins", ["--password-file", "PASSWORD", "--password-stdin", "--host-key", key]],
  ["an identity file that holds no key", ["--identity-file", "PASSWORD", "--host-key", key]],
  ["a host key that is none", ["--password-file", "PASSWORD", "--host-key", "AAAA"]],
  ["no login and nobody to ask", ["--host-key", key]],
])("%s is refused", async (_, words) => {
  const prompt = {
    canAsk: false,
    secret: () => Promise.reject(Object.assign(new Error("no terminal"))),
    confirm: async () => false,
  };
  const { code, exchanges } = await addProvider(words, { prompt });
  expect(code).not.toBe(0);
  expect(exchanges).toEqual([]);
});

test.each([
  ["ssh://host", { user: "root", host: "host", port: 22 }],
  ["ssh://op@192.0.2.7:2222", { user: "op", host: "192.0.2.7", port: 2222 }],
  ["ssh://root@[2001:db8::1]:22/", { user: "root", host: "2001:db8::1", port: 22 }],
])("%s is an address", (text, address) => expect(parseSshAddress(text)).toEqual(address));

test.each([
  "host",
  "ssh://",
  "http://host",
  "ssh://a b",
  "ssh://h:0",
  "ssh://h:99999",
  "ssh://h/path",
])("%j is no address", (text) => expect(() => parseSshAddress(text)).toThrow());

test("a password in the address is refused without being repeated", () => {
  expect(() => parseSshAddress("ssh://root:hunter2@host")).toThrow(
    /^(?!.*hunter2).*--password-file/,
  );
});

test.each([
  ["90", 90_000],
  ["30s", 30_000],
  ["5m", 300_000],
  ["2h", 7_200_000],
])("%s is a time", (text, ms) => expect(parseTimeMs("--timeout", text)).toBe(ms));
