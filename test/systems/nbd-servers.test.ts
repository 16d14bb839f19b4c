import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Extent } from "@holdfast/shared/domain/extent";
import type { DiskReader } from "@holdfast/shared/ports/disk";
import type { NbdAddress, NbdReadOptions } from "@holdfast/shared/ports/transport";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openImageSource } from "../../mover/transport/image-source.ts";
import { openImageTarget } from "../../mover/transport/image-target.ts";
import { createTransports } from "../../mover/transport/transports.ts";

/** The NBD client, image sources and image targets against qemu-nbd and nbdkit as they are packaged. */
const folder = mkdtempSync(path.join(tmpdir(), "holdfast-nbdtest-"));
const at = (name: string): string => path.join(folder, name);
const { openNbd, openNbdForWriting } = createTransports();
const children: ChildProcess[] = [];
const allocation = { by: "allocation" } as const;
const mebibyte = 1024 * 1024;
const sizeBytes = 64 * mebibyte;
const image = Buffer.alloc(sizeBytes);
let sockets = 0;

const run = (program: string, ...parameters: string[]): string =>
  execFileSync(program, parameters, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

beforeAll(() => {
  randomBytes(5 * mebibyte).copy(image, 3 * mebibyte);
  randomBytes(65_536).copy(image, 40 * mebibyte);
  writeFileSync(at("disk.raw"), image);
  run("fallocate", "--dig-holes", at("disk.raw"));
  run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", at("disk.raw"), at("disk.qcow2"));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function serve(program: string, ...parameters: string[]): Promise<string> {
  sockets += 1;
  const socket = at(`server-${sockets}.sock`);
  const place = program === "nbdkit" ? ["--foreground", "--unix", socket] : ["--socket", socket];
  start(program, ...place, ...parameters);
  await expect.poll(() => existsSync(socket), { timeout: 20_000 }).toBe(true);
  return socket;
}

function start(program: string, ...parameters: string[]): void {
  children.push(spawn(program, parameters, { stdio: "ignore" }));
}

const onSocket = (socket: string): NbdAddress => ({ kind: "unix", path: socket });
const open = (socket: string, options: Partial<NbdReadOptions> = {}): Promise<DiskReader> =>
  openPatiently(() =>
    openNbd(onSocket(socket), { exportName: "", extents: allocation, ...options }),
  );

async function collect(reader: DiskReader): Promise<Extent[]> {
  const list: Extent[] = [];
  for await (const extent of reader.extents()) list.push(extent);
  return list;
}

/** What a backup would make of the disk: data read, zeros as said, the rest as `before`. */
async function readDisk(
  reader: DiskReader,
  before = Buffer.alloc(reader.sizeBytes, 0xdd),
): Promise<Buffer> {
  const bytes = Buffer.from(before);
  let end = 0;
  for await (const { offset, length, kind } of reader.extents()) {
    expect(offset).toBe(end);
    end += length;
    const range = bytes.subarray(offset, end);
    if (kind === "zero") range.fill(0);
    if (kind === "data") await reader.read(offset, range);
  }
  expect(end).toBe(reader.sizeBytes);
  return bytes;
}

async function freePort(): Promise<number> {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => listener.once("listening", resolve));
  const { port } = listener.address() as net.AddressInfo;
  await new Promise((resolve) => listener.close(resolve));
  return port;
}

describe("qemu-nbd", () => {
  test.each(["raw", "qcow2"])("gives a %s image exactly, with its holes", async (format) => {
    await using reader = await open(
      await serve("qemu-nbd", "-r", "-f", format, at(`disk.${format}`)),
    );
    expect(reader.sizeBytes).toBe(sizeBytes);
    expect((await readDisk(reader)).equals(image)).toBe(true);
    expect(await collect(reader)).toEqual([
      { offset: 0, length: 3 * mebibyte, kind: "zero" },
      { offset: 3 * mebibyte, length: 5 * mebibyte, kind: "data" },
      { offset: 8 * mebibyte, length: 32 * mebibyte, kind: "zero" },
      { offset: 40 * mebibyte, length: 65_536, kind: "data" },
      { offset: 40 * mebibyte + 65_536, length: 24 * mebibyte - 65_536, kind: "zero" },
    ]);
  });

  test("gives a named export over TCP; another name is not found", async () => {
    const port = await freePort();
    start(
      "qemu-nbd",
      "-r",
      "-t",
      "-b",
      "127.0.0.1",
      "-p",
      `${port}`,
      "-x",
      "vda",
      "-f",
      "raw",
      at("disk.raw"),
    );
    const address = { kind: "tcp", host: "127.0.0.1", port } as const;
    await using reader = await openPatiently(() =>
      openNbd(address, { exportName: "vda", extents: allocation }),
    );
    expect((await readDisk(reader)).equals(image)).toBe(true);
    await reader[Symbol.asyncDispose]();
    const other = openNbd(address, { exportName: "vdb", extents: allocation });
    await expect(other).rejects.toMatchObject({ code: "not-found" });
  });

  test("many small reads at once, at odd offsets", async () => {
    await using reader = await open(await serve("qemu-nbd", "-r", "-f", "raw", at("disk.raw")));
    const reads = Array.from({ length: 500 }, (_, index) => {
      const offset = 3 * mebibyte - 1000 + index * 9973;
      const into = Buffer.alloc(1 + ((index * 7919) % 20_000), 0xee);
      return reader.read(offset, into).then(() => {
        expect(into.equals(image.subarray(offset, offset + into.length))).toBe(true);
      });
    });
    await Promise.all(reads);
    const large = Buffer.alloc(40 * mebibyte);
    await reader.read(1, large);
    expect(large.equals(image.subarray(1, 1 + large.length))).toBe(true);
  });

  test("a dirty bitmap: changed is data, trimmed is zero, the rest unchanged", async () => {
    const file = at("dirty.qcow2");
    run("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", at("disk.qcow2"), file);
    run("qemu-img", "bitmap", "--add", "-g", "64k", "-f", "qcow2", file, "b0");
    const io = ["-f", "qcow2", "-d", "unmap", "-c", "write -P 0x51 20M 64k", "-c", "discard 4M 1M"];
    run("qemu-io", ...io, "-c", "write -z 5M 64k", file);
    const socket = await serve("qemu-nbd", "-r", "-f", "qcow2", "-B", "b0", file);
    await using reader = await open(socket, { extents: { by: "dirty-bitmap", name: "b0" } });
    expect(await collect(reader)).toEqual([
      { offset: 0, length: 4 * mebibyte, kind: "unchanged" },
      { offset: 4 * mebibyte, length: mebibyte + 65_536, kind: "zero" },
      { offset: 5 * mebibyte + 65_536, length: 15 * mebibyte - 65_536, kind: "unchanged" },
      { offset: 20 * mebibyte, length: 65_536, kind: "data" },
      { offset: 20 * mebibyte + 65_536, length: 44 * mebibyte - 65_536, kind: "unchanged" },
    ]);
    const expected = Buffer.from(image).fill(0x51, 20 * mebibyte, 20 * mebibyte + 65_536);
    expected.fill(0, 4 * mebibyte, 5 * mebibyte + 65_536);
    expect((await readDisk(reader, image)).equals(expected)).toBe(true);
  });

  test("a missing bitmap is said, never taken for no change", async () => {
    const socket = await serve("qemu-nbd", "-r", "-f", "qcow2", at("disk.qcow2"));
    const opening = open(socket, { extents: { by: "dirty-bitmap", name: "gone" } });
    await expect(opening).rejects.toMatchObject({
      code: "changes.unknown",
      message: expect.stringContaining("qemu:dirty-bitmap:gone"),
    });
  });

  test("allocation depth: only the top layer counts as changed", async () => {
    const overlay = at("overlay.qcow2");
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", at("disk.qcow2"), "-F", "qcow2", overlay);
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0x77 30M 128k", "-c", "write -z 6M 64k", overlay);
    const socket = await serve("qemu-nbd", "-r", "-A", "-f", "qcow2", overlay);
    await using reader = await open(socket, { extents: { by: "depth" } });
    expect(await collect(reader)).toEqual([
      { offset: 0, length: 6 * mebibyte, kind: "unchanged" },
      { offset: 6 * mebibyte, length: 65_536, kind: "zero" },
      { offset: 6 * mebibyte + 65_536, length: 24 * mebibyte - 65_536, kind: "unchanged" },
      { offset: 30 * mebibyte, length: 131_072, kind: "data" },
      { offset: 30 * mebibyte + 131_072, length: 34 * mebibyte - 131_072, kind: "unchanged" },
    ]);
    const expected = Buffer.from(image).fill(0x77, 30 * mebibyte, 30 * mebibyte + 131_072);
    expected.fill(0, 6 * mebibyte, 6 * mebibyte + 65_536);
    expect((await readDisk(reader, image)).equals(expected)).toBe(true);
  });

  test("more than 4 GiB of extents need several answers and join up", async () => {
    run("truncate", "--size=9G", at("large.raw"));
    run(
      "qemu-io",
      "-f",
      "raw",
      "-c",
      "write -P 1 4095M 2M",
      "-c",
      "write -P 2 9215M 1M",
      at("large.raw"),
    );
    await using reader = await open(await serve("qemu-nbd", "-r", "-f", "raw", at("large.raw")));
    expect(await collect(reader)).toEqual([
      { offset: 0, length: 4095 * mebibyte, kind: "zero" },
      { offset: 4095 * mebibyte, length: 2 * mebibyte, kind: "data" },
      { offset: 4097 * mebibyte, length: 5118 * mebibyte, kind: "zero" },
      { offset: 9215 * mebibyte, length: mebibyte, kind: "data" },
    ]);
  });

  test("killed in the middle, fails what is pending with the cause", async () => {
    const socket = await serve("qemu-nbd", "-r", "-t", "-f", "raw", at("disk.raw"));
    const server = children.at(-1);
    await using reader = await open(socket);
    await reader.read(0, Buffer.alloc(10));
    server?.kill("SIGSTOP");
    const reads = [0, 1, 2].map((index) => reader.read(index * mebibyte, Buffer.alloc(mebibyte)));
    const outcomes = Promise.allSettled(reads);
    server?.kill("SIGKILL");
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({
        status: "rejected",
        reason: { code: "network.unreachable" },
      });
    }
  });

  test("stopped, fails after the time limit", async () => {
    const socket = await serve("qemu-nbd", "-r", "-t", "-f", "raw", at("disk.raw"));
    await using reader = await open(socket, { timeoutMs: 500 });
    children.at(-1)?.kill("SIGSTOP");
    const reading = reader.read(0, Buffer.alloc(10));
    await expect(reading).rejects.toMatchObject({ code: "network.timeout" });
  });

  test.each(["raw", "qcow2"])(
    "takes writes to a %s image, zeros and out of order",
    async (format) => {
      const file = at(`target.${format}`);
      run("qemu-img", "create", "-q", "-f", format, file, `${sizeBytes}`);
      const socket = await serve("qemu-nbd", "-f", format, file);
      const writer = await openNbdForWriting(onSocket(socket), {
        exportName: "",
        startsZeroed: true,
      });
      const parts = [41, 5, 3, 40, 7, 4, 6].map((index) => index * mebibyte);
      await writer.write(10 * mebibyte, Buffer.alloc(3 * mebibyte, 0x99));
      await Promise.all(
        parts.map((offset) => writer.write(offset, image.subarray(offset, offset + mebibyte))),
      );
      await writer.zero(10 * mebibyte, 3 * mebibyte);
      await writer.flush();
      await writer[Symbol.asyncDispose]();
      run("qemu-img", "compare", "-f", "raw", "-F", format, at("disk.raw"), file);
    },
  );

  test("refuses writing to what it exports read-only", async () => {
    const socket = await serve("qemu-nbd", "-r", "-f", "raw", at("disk.raw"));
    const opening = openNbdForWriting(onSocket(socket), { exportName: "", startsZeroed: false });
    await expect(opening).rejects.toMatchObject({ code: "target.refused" });
  });
});

async function openPatiently(open: () => Promise<DiskReader>): Promise<DiskReader> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await open();
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : "";
      if (attempt >= 100 || code !== "network.unreachable") throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

describe("TLS", () => {
  const pki = at("pki");
  const pem = (name: string): string => readFileSync(path.join(pki, name), "utf8");
  let port = 0;

  function makeCertificate(name: string, subject: string, extension: string): void {
    const file = (ending: string): string => path.join(pki, `${name}.${ending}`);
    run(
      "openssl",
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      file("key"),
      "-out",
      file("csr"),
      "-subj",
      subject,
    );
    writeFileSync(file("ext"), extension);
    const ca = [
      "-CA",
      path.join(pki, "ca-cert.pem"),
      "-CAkey",
      path.join(pki, "ca-key.pem"),
      "-CAcreateserial",
    ];
    run(
      "openssl",
      "x509",
      "-req",
      "-in",
      file("csr"),
      ...ca,
      "-days",
      "2",
      "-out",
      file("crt"),
      "-extfile",
      file("ext"),
    );
  }

  beforeAll(() => {
    mkdirSync(pki);
    for (const name of ["ca", "other"]) {
      const [key, cert] = [path.join(pki, `${name}-key.pem`), path.join(pki, `${name}-cert.pem`)];
      run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        cert,
        "-days",
        "2",
        "-subj",
        `/CN=${name}`,
      );
    }
    makeCertificate("server", "/CN=hypervisor", "subjectAltName=DNS:hypervisor,IP:127.0.0.1\n");
    makeCertificate("client", "/CN=holdfast", "extendedKeyUsage=clientAuth\n");
    for (const [from, to] of [
      ["server.key", "server-key.pem"],
      ["server.crt", "server-cert.pem"],
    ] as const) {
      writeFileSync(path.join(pki, to), pem(from));
    }
  });

  async function serveTls(): Promise<void> {
    port = await freePort();
    const credentials = `tls-creds-x509,id=tls0,endpoint=server,dir=${pki},verify-peer=on`;
    const place = ["-r", "-t", "-b", "127.0.0.1", "-p", `${port}`, "-f", "raw", at("disk.raw")];
    start("qemu-nbd", "--object", credentials, "--tls-creds", "tls0", ...place);
  }
  const client = () => ({
    ca: pem("ca-cert.pem"),
    certificate: pem("client.crt"),
    privateKey: pem("client.key"),
  });
  type Tls = NonNullable<Extract<NbdAddress, { kind: "tcp" }>["tls"]>;
  const openTls = (tls: Tls | undefined) =>
    openPatiently(() =>
      openNbd(
        { kind: "tcp", host: "127.0.0.1", port, ...(tls === undefined ? {} : { tls }) },
        { exportName: "", extents: allocation },
      ),
    );

  test("gives the disk to a client with the right certificates, by address or by name", async () => {
    await serveTls();
    for (const tls of [client(), { ...client(), serverName: "hypervisor" }]) {
      await using reader = await openTls(tls);
      expect((await readDisk(reader)).equals(image)).toBe(true);
    }
  });

  test("a wrong authority, a wrong name, no certificate, or no TLS at all is refused", async () => {
    await serveTls();
    const { ca, certificate, privateKey } = client();
    const cases: readonly (Tls | undefined)[] = [
      { ca: pem("other-cert.pem"), certificate, privateKey },
      { certificate, privateKey },
      { ca, certificate, privateKey, serverName: "another" },
      undefined,
    ];
    for (const tls of cases) {
      await expect(openTls(tls)).rejects.toMatchObject({ code: "auth.denied" });
    }
    // QEMU hangs up without an alert.
    const withoutCertificate = openNbd(
      { kind: "tcp", host: "127.0.0.1", port, tls: { ca } },
      { exportName: "", extents: allocation },
    );
    await expect(withoutCertificate).rejects.toMatchObject({
      message: expect.stringContaining("client certificate"),
    });
  });

  test("a server without TLS is refused when TLS is wanted", async () => {
    port = await freePort();
    start("qemu-nbd", "-r", "-t", "-b", "127.0.0.1", "-p", `${port}`, "-f", "raw", at("disk.raw"));
    await expect(openTls(client())).rejects.toMatchObject({ code: "auth.denied" });
  });
});

describe("nbdkit", () => {
  test("gives a sparse disk of 1 TiB in few extents", async () => {
    const socket = await serve("nbdkit", "data", "data=@1099511627775 1", "size=2T");
    await using reader = await open(socket);
    const list = await collect(reader);
    expect(list.length).toBeLessThan(5);
    expect(list.at(-1)).toMatchObject({ kind: "zero" });
    const into = Buffer.alloc(3);
    await reader.read(2 ** 40 - 2, into);
    expect([...into]).toEqual([0, 1, 0]);
  });

  test("failing reads fail, in the end or now and then, and never give zeros", async () => {
    const socket = await serve(
      "nbdkit",
      "--filter=error",
      "pattern",
      "64M",
      "error-pread=EIO",
      "error-pread-rate=30%",
    );
    await using reader = await open(socket);
    let failed = 0;
    for (let index = 0; index < 60; index++) {
      const into = Buffer.alloc(8, 0xff);
      const offset = 4096 * (index + 1);
      const outcome = await reader.read(offset, into).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (outcome === undefined) expect(into.readBigUInt64BE()).toBe(BigInt(offset));
      else {
        failed += 1;
        expect(outcome).toMatchObject({ code: "disk.read-failed", details: { errorNumber: 5 } });
      }
    }
    expect(failed).toBeGreaterThan(0);
    expect(failed).toBeLessThan(60);
  });

  test("a failing map fails the extents", async () => {
    const socket = await serve(
      "nbdkit",
      "--filter=error",
      "memory",
      "64M",
      "error-extents=EIO",
      "error-extents-rate=1",
    );
    await using reader = await open(socket);
    await expect(collect(reader)).rejects.toMatchObject({ code: "disk.read-failed" });
  });

  test("slow reads end at the time limit", async () => {
    const socket = await serve("nbdkit", "--filter=delay", "memory", "64M", "rdelay=5");
    await using reader = await open(socket, { timeoutMs: 300 });
    const reading = reader.read(0, Buffer.alloc(10));
    await expect(reading).rejects.toMatchObject({ code: "network.timeout" });
  });

  test("block sizes of the server are obeyed", async () => {
    const filter = [
      "--filter=blocksize-policy",
      "blocksize-minimum=4096",
      "blocksize-maximum=65536",
      "blocksize-error-policy=error",
    ];
    const [name = "", ...settings] = filter;
    const socket = await serve("nbdkit", name, "pattern", "64M", ...settings);
    await using reader = await open(socket);
    const into = Buffer.alloc(1_000_000);
    await reader.read(8 * 1001, into);
    for (let index = 0; index + 8 <= into.length; index += 8) {
      expect(into.readBigUInt64BE(index)).toBe(BigInt(8 * 1001 + index));
    }
  });

  test("without structured replies all is read, and extents are not invented", async () => {
    const socket = await serve("nbdkit", "--no-sr", "pattern", "1M");
    await expect(open(socket)).rejects.toMatchObject({ code: "changes.unknown" });
    const source = `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
    await using reader = await openImageSource({ source, format: undefined });
    expect(reader.description).toContain("everything is read");
    expect(await collect(reader)).toEqual([{ offset: 0, length: mebibyte, kind: "data" }]);
    const into = Buffer.alloc(8);
    await reader.read(800, into);
    expect(into.readBigUInt64BE()).toBe(800n);
  });

  test("writes reach a server that cannot write zeros", async () => {
    const socket = await serve("nbdkit", "--filter=nozero", "memory", "8M");
    await using writer = await openNbdForWriting(onSocket(socket), {
      exportName: "",
      startsZeroed: true,
    });
    await writer.write(0, Buffer.alloc(5 * mebibyte, 0x33));
    await writer.zero(mebibyte + 1, 2 * mebibyte);
    await using reader = await open(socket);
    const bytes = await readDisk(reader);
    const expected = Buffer.alloc(8 * mebibyte).fill(0x33, 0, 5 * mebibyte);
    expect(bytes.equals(expected.fill(0, mebibyte + 1, 3 * mebibyte + 1))).toBe(true);
  });
});

describe("images", () => {
  const leftBehind = (): string[] =>
    readdirSync(tmpdir()).filter((name) => name.startsWith("holdfast-nbd-"));
  const nbdProcesses = (): string =>
    execFileSync("sh", ["-c", "pgrep -a qemu-nbd | grep holdfast-nbd- || true"], {
      encoding: "utf8",
    });

  test("a qcow2 file becomes a raw one and a qcow2 one with the same bytes; nothing is left", async () => {
    const before = leftBehind();
    for (const format of ["raw", "qcow2"] as const) {
      const output = at(`copy.${format}`);
      await using source = await openImageSource({ source: at("disk.qcow2"), format: "qcow2" });
      await using target = await openImageTarget({
        output,
        format,
        sizeBytes: source.sizeBytes,
        overwrite: false,
      });
      for await (const { offset, length, kind } of source.extents()) {
        if (kind !== "data") continue;
        for (let done = 0; done < length; done += mebibyte) {
          const data = Buffer.alloc(Math.min(mebibyte, length - done));
          await source.read(offset + done, data);
          await target.write(offset + done, data);
        }
      }
      expect(existsSync(output)).toBe(false);
      await target.commit();
      run("qemu-img", "compare", "-f", "raw", "-F", format, at("disk.raw"), output);
      if (format === "qcow2") run("qemu-img", "check", "-q", output);
    }
    expect(leftBehind()).toEqual(before);
    expect(nbdProcesses()).toBe("");
  });

  test("a qcow2 target that is not committed leaves nothing", async () => {
    const output = at("abandoned.qcow2");
    const target = await openImageTarget({ output, format: "qcow2", sizeBytes, overwrite: false });
    await target.write(0, Buffer.alloc(100, 1));
    await target[Symbol.asyncDispose]();
    expect([existsSync(output), existsSync(`${output}.partial`)]).toEqual([false, false]);
    expect(nbdProcesses()).toBe("");
  });

  test("a raw file's holes come from its file system", async () => {
    await using source = await openImageSource({ source: at("disk.raw"), format: "raw" });
    expect(source.description).toContain("file system");
    const data = (await collect(source)).filter(({ kind }) => kind === "data");
    expect(data.map(({ offset }) => offset)).toEqual([3 * mebibyte, 40 * mebibyte]);
    expect((await readDisk(source)).equals(image)).toBe(true);
  });

  test("a raw file of an odd size keeps it", async () => {
    writeFileSync(at("odd.raw"), image.subarray(3 * mebibyte, 4 * mebibyte + 77));
    await using source = await openImageSource({ source: at("odd.raw"), format: "raw" });
    expect(source.sizeBytes).toBe(mebibyte + 77);
    const bytes = await readDisk(source);
    expect(bytes.equals(image.subarray(3 * mebibyte, 4 * mebibyte + 77))).toBe(true);
  });

  test("qcow2 files that need others are refused before qemu sees them", async () => {
    run(
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-b",
      at("disk.raw"),
      "-F",
      "raw",
      at("backed.qcow2"),
    );
    run(
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-o",
      `data_file=${at("data.raw")}`,
      at("external.qcow2"),
      "1M",
    );
    for (const name of ["backed.qcow2", "external.qcow2"]) {
      const opening = openImageSource({ source: at(name), format: "qcow2" });
      await expect(opening, name).rejects.toMatchObject({ code: "unsupported" });
    }
    const raw = openImageSource({ source: at("disk.raw"), format: "qcow2" });
    await expect(raw).rejects.toMatchObject({ code: "input.invalid" });
  });

  test("an image that another process writes to is busy", async () => {
    await serve("qemu-nbd", "-t", "-f", "qcow2", at("disk.qcow2"));
    const opening = openImageSource({ source: at("disk.qcow2"), format: "qcow2" });
    await expect(opening).rejects.toMatchObject({ code: "busy" });
  });

  test("qemu-nbd ends when we are killed", async () => {
    const script = at("killed.ts");
    const module = path.resolve(import.meta.dirname, "../../mover/transport/image-source.ts");
    writeFileSync(
      script,
      `import { openImageSource } from ${JSON.stringify(module)};
       await openImageSource({ source: ${JSON.stringify(at("disk.qcow2"))}, format: "qcow2" });
       process.kill(process.pid, "SIGKILL");`,
    );
    expect(() => run(process.execPath, script)).toThrow();
    await expect.poll(nbdProcesses, { timeout: 10_000 }).toBe("");
    for (const name of leftBehind()) rmSync(path.join(tmpdir(), name), { recursive: true });
  });

  test("without qemu-utils a raw file is read whole, and a qcow2 file names the package", async () => {
    const { PATH } = process.env;
    process.env["PATH"] = "/nowhere";
    try {
      await using source = await openImageSource({ source: at("disk.raw"), format: "raw" }).finally(
        () => undefined,
      );
      expect(source.description).toContain("everything is read");
      const opening = openImageSource({ source: at("disk.qcow2"), format: "qcow2" });
      await expect(opening).rejects.toMatchObject({
        code: "host.package-missing",
        message: expect.stringContaining("qemu-utils"),
      });
    } finally {
      process.env["PATH"] = PATH;
    }
  });

  test("a block device is read and written, alone and with consent only", async (context) => {
    writeFileSync(at("device.img"), Buffer.alloc(16 * mebibyte, 0x5a));
    let device: string;
    try {
      device = run("losetup", "--find", "--show", at("device.img")).trim();
    } catch {
      context.skip(true, "this machine has no loop devices");
      return;
    }
    try {
      const spec = { output: device, format: "raw", sizeBytes: 16 * mebibyte } as const;
      const refused = { code: "target.refused" };
      await expect(openImageTarget({ ...spec, overwrite: false })).rejects.toMatchObject(refused);
      const small = openImageTarget({ ...spec, sizeBytes: 17 * mebibyte, overwrite: true });
      await expect(small).rejects.toMatchObject(refused);
      const target = await openImageTarget({ ...spec, overwrite: true });
      expect(target.startsZeroed).toBe(false);
      await target.write(mebibyte, image.subarray(3 * mebibyte, 4 * mebibyte));
      await target.zero(2 * mebibyte, 3 * mebibyte);
      await target.commit();
      await target[Symbol.asyncDispose]();
      await using source = await openImageSource({ source: device, format: undefined });
      const expected = Buffer.alloc(16 * mebibyte, 0x5a).fill(0, 2 * mebibyte, 5 * mebibyte);
      image.copy(expected, mebibyte, 3 * mebibyte, 4 * mebibyte);
      expect((await readDisk(source)).equals(expected)).toBe(true);
    } finally {
      run("losetup", "--detach", device);
    }
  });
});
