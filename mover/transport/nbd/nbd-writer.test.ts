import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { openNbdWriter } from "./nbd-writer.ts";
import {
  type Script,
  type ScriptedServer,
  simpleReply,
  startScriptedServer,
} from "./scripted-server.ts";
import { commands } from "./wire.ts";

const sizeBytes = 1024 * 1024;
const withoutZeroes = 0b101;

/** A server with a disk of 0xAA that does as it is told. */
function honest(disk: Buffer): Script {
  return {
    sizeBytes,
    onRequest: ({ command, cookie, offset, length, data }, socket) => {
      if (command === commands.write) data.copy(disk, offset);
      if (command === commands.writeZeroes) disk.fill(0, offset, offset + length);
      if (command !== commands.disconnect) socket.write(simpleReply(cookie));
    },
  };
}

async function open(server: ScriptedServer, timeoutMs = 5000) {
  return openNbdWriter(server.address, { exportName: "", startsZeroed: false, timeoutMs });
}

const commandsOf = (server: ScriptedServer): number[] =>
  server.requests.map(({ command }) => command);

describe("writing", () => {
  test("many writes at once land where they belong, and closing says goodbye", async () => {
    const disk = Buffer.alloc(sizeBytes, 0xaa);
    await using server = await startScriptedServer({
      ...honest(disk),
      blockSizes: { min: 1, max: 65_536 },
    });
    const writer = await open(server);
    expect(writer.startsZeroed).toBe(false);
    const expected = Buffer.from(disk);
    const pieces = [0, 1, 2, 3].map((index) => ({
      offset: index * 200_000,
      data: randomBytes(150_001),
    }));
    for (const { offset, data } of pieces) data.copy(expected, offset);
    await Promise.all(pieces.map(({ offset, data }) => writer.write(offset, data)));
    await writer.zero(5, 100);
    expected.fill(0, 5, 105);
    await writer.flush();
    await writer[Symbol.asyncDispose]();
    expect(disk.equals(expected)).toBe(true);
    for (const { length } of server.requests) expect(length).toBeLessThanOrEqual(65_536);
    await expect.poll(() => commandsOf(server).at(-1)).toBe(commands.disconnect);
    expect(commandsOf(server).at(-2)).toBe(commands.flush);
  });

  test("zeros are written out where the server cannot make them", async () => {
    const disk = Buffer.alloc(sizeBytes, 0xaa);
    await using server = await startScriptedServer({ ...honest(disk), flags: withoutZeroes });
    await using writer = await open(server);
    await writer.zero(3, 500_000);
    const expected = Buffer.alloc(sizeBytes, 0xaa).fill(0, 3, 500_003);
    expect(disk.equals(expected)).toBe(true);
    expect(commandsOf(server)).not.toContain(commands.writeZeroes);
  });

  test("a flush is asked for only where the server knows it", async () => {
    await using server = await startScriptedServer({
      ...honest(Buffer.alloc(sizeBytes)),
      flags: 1,
    });
    await using writer = await open(server);
    await writer.flush();
    expect(commandsOf(server)).toEqual([]);
  });

  test("a read-only export is refused", async () => {
    await using server = await startScriptedServer({ sizeBytes, flags: 0b11 });
    await expect(open(server)).rejects.toMatchObject({ code: "target.refused" });
  });

  test("a write outside of the disk, or across the server's blocks, is refused before it is sent", async () => {
    await using server = await startScriptedServer({
      ...honest(Buffer.alloc(sizeBytes)),
      blockSizes: { min: 4096, max: 65_536 },
    });
    await using writer = await open(server);
    const outside = writer.write(sizeBytes - 1, Buffer.alloc(2));
    await expect(outside).rejects.toMatchObject({ code: "internal" });
    await expect(writer.zero(0, sizeBytes + 1)).rejects.toMatchObject({ code: "internal" });
    const unaligned = writer.write(512, Buffer.alloc(4096));
    await expect(unaligned).rejects.toMatchObject({ code: "unsupported" });
    expect(server.requests).toEqual([]);
  });

  test("an error is a failed write with the server's reason", async () => {
    await using server = await startScriptedServer({
      sizeBytes,
      onRequest: ({ command, cookie }, socket) =>
        command !== commands.disconnect && socket.write(simpleReply(cookie, 28)),
    });
    await using writer = await open(server);
    for (const work of [writer.write(0, Buffer.alloc(10)), writer.zero(0, 10), writer.flush()]) {
      await expect(work).rejects.toMatchObject({
        code: "disk.write-failed",
        details: { errorNumber: 28 },
      });
    }
  });

  test("silence and loss fail every write in flight", async () => {
    for (const [code, isLost] of [
      ["network.timeout", false],
      ["network.unreachable", true],
    ] as const) {
      await using server = await startScriptedServer({
        sizeBytes,
        onRequest: (_request, socket) => isLost && socket.destroy(),
      });
      await using writer = await open(server, isLost ? 5000 : 200);
      const writes = [0, 1, 2].map((offset) => writer.write(offset, Buffer.alloc(1)));
      for (const write of writes) await expect(write).rejects.toMatchObject({ code });
    }
  });
});
