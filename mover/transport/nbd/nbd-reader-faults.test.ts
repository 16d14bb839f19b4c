import { randomBytes } from "node:crypto";
import type { FailureCode } from "@holdfast/shared/domain/failure";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  chunk,
  dataPayload,
  errorPayload,
  holePayload,
  openScripted,
  type Script,
  type ScriptedRequest,
  simpleReply,
  statusPayload,
} from "./scripted-server.ts";
import { chunkTypes } from "./wire.ts";

const sizeBytes = 1024 * 1024;
const disk = randomBytes(sizeBytes);
const { offsetData, offsetHole, none, error, errorOffset, blockStatus } = chunkTypes;

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

type Fault = {
  readonly name: string;
  readonly code: FailureCode;
  readonly reply: (request: ScriptedRequest) => Buffer | "close" | "nothing";
  /** Ends the request only; the connection goes on. */
  readonly isLocal?: true;
};

const faults: readonly Fault[] = [
  {
    name: "an error chunk",
    code: "disk.read-failed",
    isLocal: true,
    reply: ({ cookie }) => chunk({ cookie, type: error, payload: errorPayload(5, "bad sector") }),
  },
  {
    name: "an error at an offset after some data",
    code: "disk.read-failed",
    isLocal: true,
    reply: (request) =>
      Buffer.concat([
        chunk({
          cookie: request.cookie,
          type: offsetData,
          isLast: false,
          payload: dataPayload(request.offset, slice(request).subarray(0, 10)),
        }),
        chunk({
          cookie: request.cookie,
          type: errorOffset,
          payload: Buffer.concat([errorPayload(5, ""), Buffer.alloc(8)]),
        }),
      ]),
  },
  {
    name: "an error and then all data",
    code: "disk.read-failed",
    isLocal: true,
    reply: (request) =>
      Buffer.concat([
        chunk({
          cookie: request.cookie,
          type: error,
          isLast: false,
          payload: errorPayload(5, "bad"),
        }),
        chunk({
          cookie: request.cookie,
          type: offsetData,
          payload: dataPayload(request.offset, slice(request)),
        }),
      ]),
  },
  {
    name: "too little data",
    code: "disk.read-failed",
    isLocal: true,
    reply: (request) =>
      chunk({
        cookie: request.cookie,
        type: offsetData,
        payload: dataPayload(request.offset, slice(request).subarray(1)),
      }),
  },
  {
    name: "a gap in the middle",
    code: "disk.read-failed",
    isLocal: true,
    reply: (request) =>
      Buffer.concat([
        chunk({
          cookie: request.cookie,
          type: offsetData,
          isLast: false,
          payload: dataPayload(request.offset, slice(request).subarray(0, 50)),
        }),
        chunk({
          cookie: request.cookie,
          type: offsetData,
          payload: dataPayload(request.offset + 51, slice(request).subarray(51)),
        }),
      ]),
  },
  {
    name: "an end without data",
    code: "disk.read-failed",
    isLocal: true,
    reply: ({ cookie }) => chunk({ cookie, type: none }),
  },
  {
    name: "overlapping data",
    code: "protocol.invalid",
    reply: (request) =>
      Buffer.concat([
        chunk({
          cookie: request.cookie,
          type: offsetData,
          isLast: false,
          payload: dataPayload(request.offset, slice(request).subarray(0, 60)),
        }),
        chunk({
          cookie: request.cookie,
          type: offsetData,
          payload: dataPayload(request.offset + 59, slice(request).subarray(59)),
        }),
      ]),
  },
  {
    name: "data twice",
    code: "protocol.invalid",
    reply: (request) => {
      const once = chunk({
        cookie: request.cookie,
        type: offsetData,
        isLast: false,
        payload: dataPayload(request.offset, slice(request)),
      });
      return Buffer.concat([once, once]);
    },
  },
  {
    name: "a hole over data",
    code: "protocol.invalid",
    reply: (request) =>
      Buffer.concat([
        chunk({
          cookie: request.cookie,
          type: offsetData,
          isLast: false,
          payload: dataPayload(request.offset, slice(request)),
        }),
        chunk({
          cookie: request.cookie,
          type: offsetHole,
          payload: holePayload(request.offset, 1),
        }),
      ]),
  },
  {
    name: "a hole that is too long",
    code: "protocol.invalid",
    reply: ({ cookie, offset, length }) =>
      chunk({ cookie, type: offsetHole, payload: holePayload(offset, length + 1) }),
  },
  {
    name: "a hole of nothing",
    code: "protocol.invalid",
    reply: ({ cookie, offset }) =>
      chunk({ cookie, type: offsetHole, payload: holePayload(offset, 0) }),
  },
  {
    name: "data before the range",
    code: "protocol.invalid",
    reply: (request) =>
      chunk({
        cookie: request.cookie,
        type: offsetData,
        payload: dataPayload(request.offset - 1, slice(request)),
      }),
  },
  {
    name: "data beyond the range",
    code: "protocol.invalid",
    reply: (request) =>
      chunk({
        cookie: request.cookie,
        type: offsetData,
        payload: dataPayload(request.offset + 1, slice(request)),
      }),
  },
  {
    name: "data at an offset of 2^63",
    code: "protocol.invalid",
    reply: (request) => {
      const payload = dataPayload(0, slice(request));
      payload.writeBigUInt64BE(2n ** 63n, 0);
      return chunk({ cookie: request.cookie, type: offsetData, payload });
    },
  },
  {
    name: "4 GiB announced",
    code: "protocol.invalid",
    reply: ({ cookie }) => chunk({ cookie, type: offsetData, length: 0xffffffff }),
  },
  {
    name: "an empty data chunk",
    code: "protocol.invalid",
    reply: ({ cookie, offset }) =>
      chunk({
        cookie,
        type: offsetData,
        isLast: false,
        payload: dataPayload(offset, Buffer.alloc(0)),
      }),
  },
  {
    name: "an unknown cookie",
    code: "protocol.invalid",
    reply: ({ cookie }) => chunk({ cookie: cookie + 1000n, type: none }),
  },
  {
    name: "a cookie of 2^64 - 1",
    code: "protocol.invalid",
    reply: () => chunk({ cookie: 2n ** 64n - 1n, type: none }),
  },
  {
    name: "an unknown chunk",
    code: "protocol.invalid",
    reply: ({ cookie }) => chunk({ cookie, type: 77 }),
  },
  {
    name: "a block status for a read",
    code: "protocol.invalid",
    reply: ({ cookie, length }) =>
      chunk({ cookie, type: blockStatus, payload: statusPayload(1, [[length, 0]]) }),
  },
  {
    name: "an empty chunk without end",
    code: "protocol.invalid",
    reply: ({ cookie }) => chunk({ cookie, type: none, isLast: false }),
  },
  {
    name: "a long error",
    code: "protocol.invalid",
    reply: ({ cookie }) => chunk({ cookie, type: error, length: 1_000_000 }),
  },
  {
    name: "an error that is none",
    code: "protocol.invalid",
    reply: ({ cookie }) => chunk({ cookie, type: error, payload: errorPayload(0, "") }),
  },
  {
    name: "an error whose text leaves the chunk",
    code: "protocol.invalid",
    reply: ({ cookie }) =>
      chunk({ cookie, type: error, payload: Buffer.from([0, 0, 0, 5, 0, 9, 1]) }),
  },
  {
    name: "a simple reply to a structured read",
    code: "protocol.invalid",
    reply: (request) => simpleReply(request.cookie, 0, slice(request)),
  },
  { name: "a wrong magic", code: "protocol.invalid", reply: () => Buffer.alloc(64, 0x5a) },
  { name: "the end of the connection", code: "network.unreachable", reply: () => "close" },
  { name: "silence", code: "network.timeout", reply: () => "nothing" },
  {
    name: "silence in the middle of data",
    code: "network.timeout",
    reply: (request) =>
      chunk({
        cookie: request.cookie,
        type: offsetData,
        payload: dataPayload(request.offset, slice(request)),
      }).subarray(0, 60),
  },
];

describe("a server that answers a read with", () => {
  test.each(faults)("$name", async ({ code, reply, isLocal }) => {
    let isFaulty = false;
    await using opened = await openScripted(
      {
        onRequest: (request, socket) => {
          if (!isFaulty) {
            honest.onRequest?.(request, socket);
            return;
          }
          const bytes = reply(request);
          if (bytes === "close") socket.destroy();
          else if (bytes !== "nothing") socket.write(bytes);
        },
      },
      code === "network.timeout" ? 200 : 5000,
    );
    const into = Buffer.alloc(1000);
    await opened.reader.read(5, into);
    expect(into.equals(disk.subarray(5, 1005))).toBe(true);
    isFaulty = true;
    await expect(opened.reader.read(2000, into)).rejects.toMatchObject({ code });
    isFaulty = false;
    const later = opened.reader.read(5, into);
    if (isLocal) await later;
    else await expect(later).rejects.toMatchObject({ code });
  });

  test("a whole reply twice ends the connection after the read", async () => {
    await using opened = await openScripted({
      onRequest: (request, socket) => {
        honest.onRequest?.(request, socket);
        honest.onRequest?.(request, socket);
      },
    });
    const into = Buffer.alloc(100);
    await opened.reader.read(5, into);
    expect(into.equals(disk.subarray(5, 105))).toBe(true);
    await expect(opened.reader.read(5, into)).rejects.toMatchObject({ code: "protocol.invalid" });
  });

  test("a simple error where replies are simple", async () => {
    await using opened = await openScripted(
      {
        hasStructuredReplies: false,
        onRequest: ({ cookie, command }, socket) =>
          command === 0 && socket.write(simpleReply(cookie, 5)),
      },
      5000,
      { by: "list", list: [], otherwise: "zero" },
    );
    await expect(opened.reader.read(0, Buffer.alloc(100))).rejects.toMatchObject({
      code: "disk.read-failed",
      details: { errorNumber: 5 },
    });
  });

  test("anything at all: fails within its time, with bounded memory, and never resolves with wrong bytes", async () => {
    const property = fc.asyncProperty(
      fc.array(
        fc.record({
          type: fc.constantFrom(offsetData, offsetHole, none, error, errorOffset, blockStatus, 9),
          isLast: fc.boolean(),
          start: fc.integer({ min: -3, max: 70 }),
          length: fc.integer({ min: 0, max: 70 }),
          announced: fc.option(fc.integer({ min: 0, max: 0xffffffff }), {
            nil: undefined,
            freq: 8,
          }),
          garbage: fc.option(fc.uint8Array({ maxLength: 40 }), { nil: undefined, freq: 6 }),
        }),
        { maxLength: 8 },
      ),
      async (steps) => {
        await using opened = await openScripted(
          {
            onRequest: ({ cookie, offset, command }, socket) => {
              if (command !== 0) return;
              for (const { type, isLast, start, length, announced, garbage } of steps) {
                const data = disk.subarray(offset + start, offset + start + length);
                const payloads = new Map<number, Buffer>([
                  [offsetData, dataPayload(offset + start, data)],
                  [offsetHole, holePayload(offset + start, length)],
                  [error, errorPayload(5, "x")],
                  [blockStatus, statusPayload(1, [[length, 0]])],
                ]);
                const payload =
                  garbage === undefined
                    ? (payloads.get(type) ?? Buffer.alloc(0))
                    : Buffer.from(garbage);
                socket.write(
                  chunk({
                    cookie,
                    type,
                    isLast,
                    payload,
                    ...(announced === undefined ? {} : { length: announced }),
                  }),
                );
              }
              socket.end();
            },
          },
          2000,
        );
        const into = Buffer.alloc(64, 0xcc);
        const outcome = await opened.reader.read(100, into).then(
          () => "resolved",
          (reason: unknown) => reason,
        );
        if (outcome !== "resolved") {
          expect(outcome).toMatchObject({ name: "Failure" });
          return;
        }
        for (const [index, byte] of into.entries()) {
          expect([0, disk[100 + index]]).toContain(byte);
        }
      },
    );
    await fc.assert(property, { numRuns: 300 });
  });
});
