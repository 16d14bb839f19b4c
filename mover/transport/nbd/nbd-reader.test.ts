import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { openNbdReader } from "./nbd-reader.ts";
import {
  chunk,
  dataPayload,
  holePayload,
  openScripted,
  type Script,
  type ScriptedRequest,
  simpleReply,
  startScriptedServer,
} from "./scripted-server.ts";
import { chunkTypes } from "./wire.ts";

const allocation = { by: "allocation" } as const;
const sizeBytes = 1024 * 1024;
const disk = randomBytes(sizeBytes);
const { offsetData, offsetHole, none } = chunkTypes;

const slice = ({ offset, length }: ScriptedRequest): Buffer =>
  disk.subarray(offset, offset + length);

/** A server that answers reads in the right way, each with one data chunk. */
const honest: Script = {
  onRequest: (request, socket) =>
    socket.write(
      chunk({
        cookie: request.cookie,
        type: offsetData,
        payload: dataPayload(request.offset, slice(request)),
      }),
    ),
};

describe("reading", () => {
  test("fills exactly what was asked, many at once, at any offset", async () => {
    await using opened = await openScripted(honest);
    const ranges = Array.from({ length: 100 }, (_, index) => ({
      offset: index * 5003,
      length: 1 + index * 37,
    }));
    await Promise.all(
      ranges.map(async ({ offset, length }) => {
        const into = Buffer.alloc(length + 2, 0xee);
        await opened.reader.read(offset, into.subarray(1, 1 + length));
        expect(into.subarray(1, 1 + length).equals(disk.subarray(offset, offset + length))).toBe(
          true,
        );
        expect([into[0], into[length + 1]]).toEqual([0xee, 0xee]);
      }),
    );
    await opened.reader.read(sizeBytes, Buffer.alloc(0));
  });

  test("splits at the server's maximum", async () => {
    await using opened = await openScripted({ ...honest, blockSizes: { min: 1, max: 65_536 } });
    const into = Buffer.alloc(300_000);
    await opened.reader.read(11, into);
    expect(into.equals(disk.subarray(11, 300_011))).toBe(true);
    for (const { length } of opened.server.requests) expect(length).toBeLessThanOrEqual(65_536);
  });

  test("reads around what is not aligned to the server's blocks", async () => {
    await using opened = await openScripted({ ...honest, blockSizes: { min: 4096, max: 65_536 } });
    const into = Buffer.alloc(100_001);
    await opened.reader.read(4095, into);
    expect(into.equals(disk.subarray(4095, 104_096))).toBe(true);
    for (const { offset, length } of opened.server.requests) {
      expect([offset % 4096, length % 4096]).toEqual([0, 0]);
    }
  });

  test("takes chunks in any order, and holes as zeros over what the buffer held", async () => {
    await using opened = await openScripted({
      onRequest: (request, socket) => {
        const { cookie, offset, length } = request;
        const part = length / 4;
        const data = (index: number, isLast = false) =>
          chunk({
            cookie,
            type: offsetData,
            isLast,
            payload: dataPayload(
              offset + index * part,
              slice(request).subarray(index * part, (index + 1) * part),
            ),
          });
        socket.write(data(3));
        socket.write(data(0));
        socket.write(
          chunk({
            cookie,
            type: offsetHole,
            isLast: false,
            payload: holePayload(offset + 2 * part, part),
          }),
        );
        socket.write(data(1));
        socket.write(chunk({ cookie, type: none }));
      },
    });
    const into = Buffer.alloc(400_000, 0xaa);
    await opened.reader.read(1000, into);
    const expected = Buffer.from(disk.subarray(1000, 401_000));
    expected.fill(0, 200_000, 300_000);
    expect(into.equals(expected)).toBe(true);
  });

  test("takes replies that arrive byte by byte", async () => {
    await using opened = await openScripted({
      onRequest: (request, socket) => {
        const bytes = chunk({
          cookie: request.cookie,
          type: offsetData,
          payload: dataPayload(request.offset, slice(request)),
        });
        for (let at = 0; at < bytes.length; at++) socket.write(bytes.subarray(at, at + 1));
      },
    });
    const into = Buffer.alloc(500);
    await opened.reader.read(7, into);
    expect(into.equals(disk.subarray(7, 507))).toBe(true);
  });

  test("works with simple replies when the server has no others", async () => {
    await using opened = await openScripted(
      {
        hasStructuredReplies: false,
        onRequest: (request, socket) => {
          if (request.command === 0) socket.write(simpleReply(request.cookie, 0, slice(request)));
        },
      },
      5000,
      { by: "list", list: [], otherwise: "zero" },
    );
    const into = Buffer.alloc(200_000);
    await opened.reader.read(3, into);
    expect(into.equals(disk.subarray(3, 200_003))).toBe(true);
  });

  test("refuses a range outside of the disk before asking", async () => {
    await using opened = await openScripted(honest);
    await expect(opened.reader.read(sizeBytes - 1, Buffer.alloc(2))).rejects.toMatchObject({
      code: "internal",
    });
    await expect(opened.reader.read(-1, Buffer.alloc(2))).rejects.toMatchObject({
      code: "internal",
    });
    expect(opened.server.requests).toEqual([]);
  });

  test("a read that is given up ends at once, and the connection goes on", async () => {
    const held: (() => void)[] = [];
    await using opened = await openScripted({
      onRequest: (request, socket) => {
        const answer = () => honest.onRequest?.(request, socket);
        if (request.offset === 0) held.push(answer);
        else answer();
      },
    });
    const stop = new AbortController();
    const abandoned = Buffer.alloc(100_000);
    const reading = opened.reader.read(0, abandoned, { signal: stop.signal });
    const reason = new Error("enough");
    stop.abort(reason);
    await expect(reading).rejects.toBe(reason);
    await expect.poll(() => held.length).toBe(1);
    held[0]?.();
    const into = Buffer.alloc(1000);
    await opened.reader.read(500, into);
    expect(into.equals(disk.subarray(500, 1500))).toBe(true);
    expect(abandoned.equals(Buffer.alloc(100_000))).toBe(true);
  });

  test("memory of a read that is given up in mid-reply is written to no more once it ended", async () => {
    const held: (() => void)[] = [];
    await using opened = await openScripted({
      onRequest: (request, socket) => {
        const bytes = chunk({
          cookie: request.cookie,
          type: offsetData,
          payload: dataPayload(request.offset, slice(request)),
        });
        if (request.offset > 0) {
          socket.write(bytes);
          return;
        }
        socket.write(bytes.subarray(0, 300_000));
        held.push(() => socket.write(bytes.subarray(300_000)));
      },
    });
    const stop = new AbortController();
    const into = Buffer.alloc(500_000);
    const reading = opened.reader.read(0, into, { signal: stop.signal });
    const ended = reading.catch((reason: unknown) => {
      into.fill(0xee);
      return reason;
    });
    await expect.poll(() => into.subarray(0, 299_000).equals(disk.subarray(0, 299_000))).toBe(true);
    stop.abort(new Error("enough"));
    for (const finish of held) finish();
    await expect(ended).resolves.toMatchObject({ message: "enough" });
    const other = Buffer.alloc(200_000);
    await opened.reader.read(1, other);
    expect(other.equals(disk.subarray(1, 200_001))).toBe(true);
    expect(into.equals(Buffer.alloc(500_000, 0xee))).toBe(true);
  });

  test("an aborted connection fails everything with the signal's reason", async () => {
    await using server = await startScriptedServer({ sizeBytes });
    const stop = new AbortController();
    const reader = await openNbdReader(server.address, {
      exportName: "",
      extents: allocation,
      signal: stop.signal,
    });
    const reading = reader.read(0, Buffer.alloc(10));
    const reason = new Error("cancelled by someone");
    stop.abort(reason);
    await expect(reading).rejects.toBe(reason);
    await expect(reader.read(0, Buffer.alloc(10))).rejects.toBe(reason);
    await reader[Symbol.asyncDispose]();
  });
});
