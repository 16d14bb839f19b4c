import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openNbdReader } from "../transport/nbd/nbd-reader.ts";
import type { NbdDisk } from "./nbd-export.ts";
import { type NbdServerOptions, startNbdServer } from "./nbd-server.ts";
import { connectRaw, nameOption, type RawClient } from "./test-client.ts";

const KiB = 1024;
const size = 300 * KiB + 77;
const content = Uint8Array.from({ length: size }, (_, at) =>
  at >= 64 * KiB && at < 128 * KiB ? 0 : (at * 7 + (at >> 8)) & 0xff,
);

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-nbd-server-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const disk: NbdDisk = {
  name: "vda",
  description: "a disk",
  sizeBytes: size,
  read: async (offset, into) => into.set(content.subarray(offset, offset + into.length)),
  runs: async (offset, length) => {
    const cuts = [64 * KiB, 128 * KiB, size].filter((cut) => cut > offset);
    const runs = [];
    for (let at = offset; at < offset + length; ) {
      const end = Math.min(cuts.find((cut) => cut > at) ?? size, offset + length);
      runs.push({ offset: at, length: end - at, isHole: at >= 64 * KiB && at < 128 * KiB });
      at = end;
    }
    return runs;
  },
};

let sockets = 0;
async function start(o: Partial<NbdServerOptions> = {}) {
  sockets += 1;
  const failures: string[] = [];
  const server = await startNbdServer({
    disks: [disk],
    listen: { kind: "unix", path: join(folder, `s${sockets}`) },
    logger: silentLogger,
    onReadFailed: (name, { offset, length, failure }) =>
      failures.push(`${name} ${offset} ${length} ${failure.message}`),
    ...o,
  });
  return { ...server, failures };
}

type Started = Awaited<ReturnType<typeof start>>;

const open = ({ address }: Started, exportName = "vda") =>
  openNbdReader(address, { exportName, extents: { by: "allocation" } });

async function intoTransmission(server: Started): Promise<RawClient> {
  const client = await connectRaw(server.address);
  client.option(7, nameOption("vda"));
  expect((await client.reply()).type).toBe(3);
  expect((await client.reply()).type).toBe(1);
  return client;
}

test("what our own client reads is the disk, and its holes are told", async () => {
  await using server = await start();
  await using reader = await open(server);
  expect(reader.sizeBytes).toBe(size);
  await fc.assert(
    fc.asyncProperty(fc.nat(size - 1), fc.nat(size), async (offset, length) => {
      const into = new Uint8Array(Math.min(length, size - offset)).fill(0xaa);
      await reader.read(offset, into);
      expect(Buffer.compare(into, content.subarray(offset, offset + into.length))).toBe(0);
    }),
    { numRuns: 100 },
  );
  const extents = [];
  for await (const extent of reader.extents()) extents.push(extent);
  expect(extents).toEqual([
    { offset: 0, length: 64 * KiB, kind: "data" },
    { offset: 64 * KiB, length: 64 * KiB, kind: "zero" },
    { offset: 128 * KiB, length: size - 128 * KiB, kind: "data" },
  ]);
});

test("a client without structured replies is served as well; the only disk has no need of a name", async () => {
  await using server = await start();
  await using client = await connectRaw(server.address);
  // NBD_OPT_EXPORT_NAME, as the oldest clients do.
  client.option(1, Buffer.from(""));
  const answer = await client.inbound.read(10);
  expect(answer.readBigUInt64BE(0)).toBe(BigInt(size));
  expect(answer.readUInt16BE(8)).toBe(0b1_0000_0011);
  client.request({ command: 0, offset: 1000n, length: 500 });
  const head = await client.inbound.read(16);
  expect([head.readUInt32BE(0), head.readUInt32BE(4)]).toEqual([0x67446698, 0]);
  expect(await client.inbound.read(500)).toEqual(Buffer.from(content.subarray(1000, 1500)));
  client.request({ command: 2 });
  await client.closed;
});

test("lists disks, and says which there are to one who asks for another", async () => {
  await using server = await start({ disks: [disk, { ...disk, name: "vdb" }] });
  await using client = await connectRaw(server.address);
  client.option(3);
  expect((await client.reply()).data.toString("utf8", 4)).toBe("vda");
  expect((await client.reply()).data.toString("utf8", 4)).toBe("vdb");
  expect((await client.reply()).type).toBe(1);
  client.option(6, nameOption("vdc"));
  const { type, data } = await client.reply();
  expect([type, data.toString()]).toEqual([0x80000006, "there is: vda, vdb"]);
  client.option(4711, Buffer.from("??"));
  expect((await client.reply()).type).toBe(0x80000001);
  client.option(2);
  expect((await client.reply()).type).toBe(1);
  await client.closed;
  await expect(open(server, "")).rejects.toMatchObject({ code: "not-found" });
});

test("what cannot be read is an error to the client and told with its place; the rest is served", async () => {
  const damaged: NbdDisk = {
    ...disk,
    read: async (offset, into) => {
      if (offset >= 200 * KiB) throw new Failure("object.corrupt", { message: "chunk of packs/1" });
      await disk.read(offset, into);
    },
  };
  await using server = await start({ disks: [damaged] });
  await using reader = await open(server);
  await expect(reader.read(200 * KiB, new Uint8Array(4096))).rejects.toMatchObject({
    code: "disk.read-failed",
    message: expect.stringMatching(/EIO/),
  });
  expect(server.failures).toEqual(["vda 204800 4096 chunk of packs/1"]);
  const into = new Uint8Array(4096);
  await reader.read(0, into);
  expect(Buffer.compare(into, content.subarray(0, 4096))).toBe(0);
});

describe("hostile clients", () => {
  const rows: readonly (readonly [string, (client: RawClient) => void])[] = [
    ["an option without its magic", (client) => client.option(7, nameOption("vda"), { magic: 1n })],
    [
      "an option of 4 GiB",
      (client) => client.option(7, new Uint8Array(8), { length: 2 ** 32 - 1 }),
    ],
    ["a disk that is not there, by the old option", (client) => client.option(1, Buffer.from("x"))],
    [
      "more options than anybody needs",
      (client) => {
        for (let count = 0; count <= 256; count += 1) client.option(3);
      },
    ],
  ];
  test.each(rows)("%s: the connection ends, the server goes on", async (_name, misbehave) => {
    await using server = await start();
    await using client = await connectRaw(server.address);
    misbehave(client);
    client.socket.resume();
    await client.closed;
    await using reader = await open(server);
    await reader.read(0, new Uint8Array(16));
  });

  test("handshake flags that nobody knows", async () => {
    await using server = await start();
    await using client = await connectRaw(server.address, 0xff);
    await client.closed;
  });

  test("a handshake that never ends is ended", async () => {
    await using server = await start({ handshakeMs: 300 });
    await using client = await connectRaw(server.address);
    await client.closed;
  });

  const requests: readonly (readonly [string, Parameters<RawClient["request"]>[0], number])[] = [
    ["beyond the end", { command: 0, offset: BigInt(size) - 10n, length: 11 }, 22],
    ["at an offset above 2^53", { command: 0, offset: 2n ** 64n - 1n, length: 1 }, 22],
    ["of nothing", { command: 0, length: 0 }, 22],
    ["with flags that are not offered", { command: 0, length: 1, flags: 1 }, 22],
    ["of block status that was not chosen", { command: 7, length: 10 }, 22],
    ["to trim", { command: 4, length: 10 }, 1],
    ["to write zeros", { command: 6, length: 10 }, 1],
    ["that does not exist", { command: 99 }, 22],
  ];
  test.each(requests)(
    "a request %s is refused, the next is answered",
    async (_name, request, error) => {
      await using server = await start();
      await using client = await intoTransmission(server);
      client.request(request);
      const head = await client.inbound.read(16);
      expect(head.readUInt32BE(4)).toBe(error);
      client.request({ command: 0, offset: 5n, length: 3 });
      expect((await client.inbound.read(16)).readUInt32BE(4)).toBe(0);
      expect(await client.inbound.read(3)).toEqual(Buffer.from(content.subarray(5, 8)));
    },
  );

  test("a write is refused, and its data is not taken for requests", async () => {
    await using server = await start();
    await using client = await intoTransmission(server);
    client.request({ command: 1, offset: 0n, length: 200_000 });
    client.socket.write(Buffer.alloc(200_000, 0x25));
    expect((await client.inbound.read(16)).readUInt32BE(4)).toBe(1);
    client.request({ command: 0, offset: 0n, length: 1 });
    expect((await client.inbound.read(16)).readUInt32BE(4)).toBe(0);
  });

  test.each([
    ["a request without its magic", { command: 0, magic: 1 }],
    ["a write of 4 GiB", { command: 1, length: 2 ** 32 - 1 }],
  ])("%s ends the connection", async (_name, request) => {
    await using server = await start();
    await using client = await intoTransmission(server);
    client.request(request);
    await client.closed;
  });

  test("who doesn't take replies is not read for any more, and is cut off", async () => {
    const big = 512 * 1024 ** 2;
    let bytesWanted = 0;
    const endless: NbdDisk = {
      ...disk,
      sizeBytes: big,
      read: async (_offset, into) => {
        bytesWanted += into.length;
      },
      runs: async (offset, length) => [{ offset, length, isHole: false }],
    };
    let cutOff: () => void = () => undefined;
    const isCutOff = new Promise<void>((resolve) => {
      cutOff = resolve;
    });
    const logger = { ...silentLogger, warn: cutOff };
    await using server = await start({ disks: [endless], stalledMs: 100, logger });
    await using client = await intoTransmission(server);
    client.socket.pause();
    for (let at = 0; at < 32; at += 1) {
      client.request({ command: 0, offset: BigInt(at) * 16_777_216n, length: 16_777_216 });
    }
    await isCutOff;
    expect(bytesWanted).toBeLessThanOrEqual(48 * 1024 ** 2);
  });

  test("any bytes at all: the server answers the next client", async () => {
    await using server = await start();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 64 }), fc.constant("IHAVEOPT")), {
          maxLength: 6,
        }),
        fc.boolean(),
        async (parts, isTransmission) => {
          await using client = isTransmission
            ? await intoTransmission(server)
            : await connectRaw(server.address);
          for (const part of parts) client.socket.write(part);
          client.socket.end();
          client.socket.resume();
          await client.closed;
        },
      ),
      { numRuns: 200 },
    );
    await using reader = await open(server);
    await reader.read(0, new Uint8Array(16));
  });
});

describe("who can connect", () => {
  test("a Unix socket is its owner's alone, and goes with the server", async () => {
    const server = await start();
    if (server.address.kind !== "unix") throw new Error("no socket");
    expect((await stat(server.address.path)).mode & 0o777).toBe(0o600);
    await server[Symbol.asyncDispose]();
    await expect(stat(server.address.path)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("a path that is taken is left alone", async () => {
    const path = join(folder, "taken");
    await writeFile(path, "precious");
    await expect(start({ listen: { kind: "unix", path } })).rejects.toMatchObject({
      code: "conflict",
    });
    expect((await stat(path)).size).toBe(8);
  });

  test.each(["0.0.0.0", "::", "192.0.2.1", "10.0.0.1", "localhost"])(
    "%s is refused without TLS, before anything listens",
    async (host) => {
      await expect(start({ listen: { kind: "tcp", host, port: 0 } })).rejects.toMatchObject({
        code: "input.invalid",
      });
    },
  );

  test("loopback is fine", async () => {
    await using server = await start({ listen: { kind: "tcp", host: "127.0.0.1", port: 0 } });
    await using reader = await open(server);
    expect(reader.sizeBytes).toBe(size);
  });
});
