import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Serving } from "@holdfast/shared/contracts/standalone";
import { afterAll, beforeAll, expect, test } from "vitest";

/** The real command, served to QEMU's and libnbd's tools; incrementals by QEMU's own dirty bitmaps. */
const command = fileURLToPath(new URL("../../console/cli/bin/holdfast.mjs", import.meta.url));
const run = promisify(execFile);
const MiB = 1024 ** 2;
const imageBytes = 512 * MiB;

let folder = "";
let repository = "";
let image = "";
let point = "";
const at = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-serve-"));
  repository = at("repository");
  image = at("disk.raw");
  const file = openSync(image, "w");
  writeSync(file, randomBytes(24 * MiB), 0, 24 * MiB, 0);
  writeSync(file, Buffer.alloc(9 * MiB, "text "), 0, 9 * MiB, 200 * MiB);
  writeSync(file, randomBytes(5 * MiB), 0, 5 * MiB, imageBytes - 5 * MiB);
  await holdfast(["repository", "init", repository]);
  point = (await backUp([image, "--name", "served"])).point.pointId;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const environment = (): NodeJS.ProcessEnv => ({
  PATH: process.env["PATH"],
  HOME: folder,
  HOLDFAST_PASSPHRASE: "correct horse",
});

async function holdfast(words: readonly string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [command, ...words], { env: environment() });
  return stdout;
}

type Backup = {
  readonly point: {
    readonly pointId: string;
    readonly disks: readonly { readonly mode: string; readonly reason: string }[];
  };
  readonly summary: { readonly bytesRead: number; readonly bytesNew: number };
};

async function backUp(words: readonly string[]): Promise<Backup> {
  const lines = await holdfast(["image", "backup", ...words, "--repository", repository, "--json"]);
  return JSON.parse(lines.trimEnd().split("\n").at(-1) ?? "").result;
}

/** Serves until disposed of. */
async function serve(words: readonly string[] = []) {
  const arguments_ = [command, "serve", point, "--repository", repository, "--json", ...words];
  const child = spawn(process.execPath, arguments_, {
    env: environment(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let complaints = "";
  child.stderr.on("data", (text: Buffer) => {
    complaints += text.toString();
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done === true) throw new Error(`nothing was served: ${complaints}`);
  const serving = Serving.parse(JSON.parse(first.value));
  return {
    ...serving,
    uri: serving.exports[0]?.uri ?? "",
    async [Symbol.asyncDispose]() {
      const ended = new Promise((resolve) => child.once("close", resolve));
      child.kill("SIGINT");
      expect(await ended).toBe(0);
    },
  };
}

test("QEMU and libnbd read exactly the image that was backed up", async () => {
  await using served = await serve();
  expect(statSync(served.socket ?? "").mode & 0o777).toBe(0o600);
  const { stdout } = await run("nbdinfo", [served.uri]);
  expect(stdout).toMatch(/is_read_only: true/);
  expect(stdout).toMatch(/can_multi_conn: true/);
  expect(stdout).toMatch(/using structured packets/);
  await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, served.uri]);
  await run("nbdcopy", [served.uri, at("copy.raw")]);
  await run("cmp", [image, at("copy.raw")]);
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", served.uri, at("copy.qcow2")]);
  await run("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", image, at("copy.qcow2")]);
  const map = JSON.parse((await run("nbdinfo", ["--json", "--map", served.uri])).stdout);
  const dataBytes = map
    .filter(({ type }: { type: number }) => type === 0)
    .reduce((sum: number, { length }: { length: number }) => sum + length, 0);
  expect(dataBytes).toBe(38 * MiB);
});

test("a writable overlay over the export: what is written stays in the overlay", async () => {
  await using served = await serve();
  const overlay = at("overlay.qcow2");
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", served.uri, overlay]);
  await run("qemu-io", ["-f", "qcow2", "-c", "write -P 0x5a 1M 64k", overlay]);
  await run("qemu-io", ["-f", "qcow2", "-c", "read -P 0x5a 1M 64k", overlay]);
  await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, served.uri]);
});

test("writes are refused by the export itself", async () => {
  await using served = await serve(["--listen", "127.0.0.1:0"]);
  expect(served.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/disk$/);
  await expect(run("qemu-io", ["-f", "raw", "-c", "write 0 4k", served.uri])).rejects.toThrow();
  await run("qemu-img", ["compare", "-f", "raw", "-F", "raw", image, served.uri]);
});

test("over TLS with a client's certificate, and not without", async () => {
  const tls = at("tls");
  await makeCertificates(tls);
  await using served = await serve(["--listen", "127.0.0.1:0", "--tls", tls]);
  const withTls = `${served.uri}?tls-certificates=${tls}`;
  expect((await run("nbdinfo", ["--size", withTls])).stdout.trim()).toBe(String(imageBytes));
  await run("nbdcopy", [withTls, at("tls.raw")]);
  await run("cmp", [image, at("tls.raw")]);
  await expect(run("nbdinfo", [served.uri.replace("nbds:", "nbd:")])).rejects.toThrow();
  const stranger = at("stranger");
  await makeCertificates(stranger);
  await run("cp", [join(tls, "ca-cert.pem"), join(stranger, "ca-cert.pem")]);
  await expect(run("nbdinfo", [`${served.uri}?tls-certificates=${stranger}`])).rejects.toThrow();
});

test("an incremental by QEMU's dirty bitmap reads what changed, and restores exactly", async () => {
  const qcow2 = at("live.qcow2");
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", image, qcow2]);
  const base = await backUp([qcow2, "--format", "qcow2", "--name", "bitmap"]);
  await run("qemu-img", ["bitmap", "--add", "-f", "qcow2", qcow2, "daily"]);
  const writes = [
    "write -P 1 3M 256k",
    "write -P 2 205M 64k",
    "write -z 210M 1M",
    "write -P 3 400M 128k",
  ];
  await run("qemu-io", ["-f", "qcow2", ...writes.flatMap((write) => ["-c", write]), qcow2]);
  await using nbd = await startQemuNbd(qcow2, "daily");
  const words = ["--name", "bitmap", "--base", base.point.pointId, "--bitmap", "daily"];
  const incremental = await backUp([nbd.uri, ...words]);
  expect(incremental.point.disks).toMatchObject([{ mode: "incremental", reason: "" }]);
  // The changes, the chunks that they touch, and the sample of 1 %.
  expect(incremental.summary.bytesRead).toBeLessThan(16 * MiB);
  const output = at("incremental.raw");
  const id = incremental.point.pointId;
  await holdfast(["image", "restore", id, "--repository", repository, "-o", output]);
  await run("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", "-U", qcow2, output]);

  const none = await backUp([nbd.uri, "--name", "bitmap", "--base", "latest", "--bitmap", "none"]);
  expect(none.point.disks).toMatchObject([{ mode: "full", reason: expect.stringMatching(/none/) }]);
});

test("a list of changes by qemu-img map of an overlay; a false list is found out and said", async () => {
  const overlay = at("over.qcow2");
  const flat = at("flat.raw");
  await backUp([image, "--name", "listed"]);
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, overlay]);
  await run("qemu-io", [
    "-f",
    "qcow2",
    "-c",
    "write -P 7 10M 1M",
    "-c",
    "write -z 201M 64k",
    overlay,
  ]);
  const { stdout } = await run("qemu-img", ["map", "--output=json", "-f", "qcow2", overlay]);
  writeFileSync(at("changes.json"), stdout);
  await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", overlay, flat]);
  const words = ["--name", "listed", "--base", "latest", "--changes", at("changes.json")];
  const listed = await backUp([flat, ...words]);
  expect(listed.point.disks).toMatchObject([{ mode: "incremental" }]);
  const output = at("listed.raw");
  await holdfast([
    "image",
    "restore",
    listed.point.pointId,
    "--repository",
    repository,
    "-o",
    output,
  ]);
  await run("cmp", [flat, output]);

  writeFileSync(at("changes.json"), "[]");
  await run("qemu-io", ["-f", "raw", "-c", "write -P 9 12M 8M", flat]);
  const caught = await backUp([flat, ...words, "--sample-share", "100%"]);
  expect(caught.point.disks).toMatchObject([
    { mode: "full", reason: expect.stringMatching(/unchanged/) },
  ]);
});

async function startQemuNbd(file: string, bitmap: string) {
  const socket = at("qemu-nbd.sock");
  const child = spawn(
    "qemu-nbd",
    [
      "--read-only",
      "--persistent",
      "--shared=4",
      "-f",
      "qcow2",
      `--bitmap=${bitmap}`,
      "-k",
      socket,
      file,
    ],
    { stdio: "ignore" },
  );
  const closed = new Promise((resolve) => child.once("close", resolve));
  for (let tries = 0; !existsSync(socket) && tries < 100; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await closed;
    },
  };
}

/** A CA, and a server's and a client's certificate of it, named as QEMU and libnbd name them. */
async function makeCertificates(folderPath: string): Promise<void> {
  const script = `
    set -e; mkdir -p "$1"; cd "$1"
    key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
    key ca-key.pem
    openssl req -x509 -new -key ca-key.pem -subj /CN=test-ca -days 2 -out ca-cert.pem -addext keyUsage=critical,keyCertSign
    for who in server client; do
      key $who-key.pem
      openssl req -new -key $who-key.pem -subj /CN=$who -out $who.csr
      printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=%sAuth\\nkeyUsage=critical,digitalSignature\\n' $who > $who.ext
      openssl x509 -req -in $who.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $who.ext -out $who-cert.pem
    done`;
  await run("bash", ["-c", script, "bash", folderPath]);
}
