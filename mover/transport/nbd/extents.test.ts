import type { Extent } from "@holdfast/shared/domain/extent";
import type { FailureCode } from "@holdfast/shared/domain/failure";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  chunk,
  dataPayload,
  errorPayload,
  openScripted,
  type ScriptedRequest,
  simpleReply,
  statusPayload,
} from "./scripted-server.ts";
import { chunkTypes } from "./wire.ts";

const allocation = { by: "allocation" } as const;
const sizeBytes = 1024 * 1024;
const { offsetData, none, error, blockStatus } = chunkTypes;

async function collect(extents: AsyncIterable<Extent>): Promise<Extent[]> {
  const list: Extent[] = [];
  for await (const extent of extents) list.push(extent);
  return list;
}

describe("extents", () => {
  const bitmap = "qemu:dirty-bitmap:b";
  const rules = [
    { rule: allocation, contexts: { "base:allocation": 7 } },
    { rule: { by: "dirty-bitmap", name: "b" }, contexts: { "base:allocation": 7, [bitmap]: 3 } },
    { rule: { by: "depth" }, contexts: { "base:allocation": 7, "qemu:allocation-depth": 3 } },
  ] as const;
  const size = 64;
  const flags = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: size, maxLength: size });

  test.each(rules)(
    "of $rule.by say for every byte what the contexts say, however the replies are cut",
    async ({ rule, contexts }) => {
      const property = fc.asyncProperty(
        flags,
        flags,
        fc.array(fc.nat(size), { minLength: 4, maxLength: 40 }),
        async (allocationFlags, otherFlags, cuts) => {
          let cutIndex = 0;
          const nextCut = (): number => 1 + (cuts[cutIndex++ % cuts.length] ?? 0);
          const runsOf = (list: readonly number[], from: number): [number, number][] => {
            const runs: [number, number][] = [];
            const end = Math.min(size, from + nextCut());
            for (let at = from; at < end; at++) {
              const last = runs.at(-1);
              if (last !== undefined && last[1] === list[at] && at % 5 !== 0) last[0] += 1;
              else runs.push([1, list[at] ?? 0]);
            }
            const last = runs.at(-1);
            // A server may say more than it was asked for.
            if (last !== undefined && end === size) last[0] += 1_000_000;
            return runs;
          };
          await using opened = await openScripted(
            {
              sizeBytes: size,
              contexts,
              onRequest: ({ cookie, offset, command }, socket) => {
                if (command !== 7) return;
                const chunks: [number, readonly number[]][] = [[7, allocationFlags]];
                if (rule.by !== "allocation") chunks.unshift([3, otherFlags]);
                for (const [id, list] of chunks) {
                  socket.write(
                    chunk({
                      cookie,
                      type: blockStatus,
                      isLast: false,
                      payload: statusPayload(id, runsOf(list, offset)),
                    }),
                  );
                }
                socket.write(chunk({ cookie, type: none }));
              },
            },
            5000,
            rule,
          );
          const list = await collect(opened.reader.extents());
          const byAllocation = (at: number) =>
            ((allocationFlags[at] ?? 0) & 2) === 0 ? "data" : "zero";
          const expected = Array.from({ length: size }, (_, at) => {
            if (rule.by === "dirty-bitmap" && ((otherFlags[at] ?? 0) & 1) === 0) return "unchanged";
            if (rule.by === "depth" && otherFlags[at] !== 1) return "unchanged";
            return byAllocation(at);
          });
          expect(list.flatMap(({ kind, length }) => Array.from({ length }, () => kind))).toEqual(
            expected,
          );
          let at = 0;
          for (const [index, extent] of list.entries()) {
            expect(extent.offset).toBe(at);
            expect(extent.kind).not.toBe(list[index - 1]?.kind);
            at += extent.length;
          }
          expect(at).toBe(size);
        },
      );
      await fc.assert(property, { numRuns: 60 });
    },
  );

  const statusFaults: readonly {
    readonly name: string;
    readonly code: FailureCode;
    readonly reply: (request: ScriptedRequest) => Buffer;
  }[] = [
    {
      name: "no context's answer",
      code: "protocol.invalid",
      reply: ({ cookie }) => chunk({ cookie, type: none }),
    },
    {
      name: "another context's answer",
      code: "protocol.invalid",
      reply: ({ cookie }) =>
        chunk({ cookie, type: blockStatus, payload: statusPayload(9, [[100, 0]]) }),
    },
    {
      name: "a run of nothing",
      code: "protocol.invalid",
      reply: ({ cookie }) =>
        chunk({ cookie, type: blockStatus, payload: statusPayload(1, [[0, 0]]) }),
    },
    {
      name: "no runs",
      code: "protocol.invalid",
      reply: ({ cookie }) => chunk({ cookie, type: blockStatus, payload: statusPayload(1, []) }),
    },
    {
      name: "two answers for a context",
      code: "protocol.invalid",
      reply: ({ cookie }) => {
        const once = chunk({
          cookie,
          type: blockStatus,
          isLast: false,
          payload: statusPayload(1, [[100, 0]]),
        });
        return Buffer.concat([once, once]);
      },
    },
    {
      name: "half a run",
      code: "protocol.invalid",
      reply: ({ cookie }) =>
        chunk({ cookie, type: blockStatus, payload: statusPayload(1, [[100, 0]]).subarray(0, 10) }),
    },
    {
      name: "4 GiB announced",
      code: "protocol.invalid",
      reply: ({ cookie }) => chunk({ cookie, type: blockStatus, length: 0xfffffffc }),
    },
    {
      name: "data",
      code: "protocol.invalid",
      reply: ({ cookie }) =>
        chunk({ cookie, type: offsetData, payload: dataPayload(0, Buffer.alloc(10)) }),
    },
    {
      name: "an error",
      code: "disk.read-failed",
      reply: ({ cookie }) => chunk({ cookie, type: error, payload: errorPayload(5, "no map") }),
    },
    {
      name: "a simple reply",
      code: "protocol.invalid",
      reply: ({ cookie }) => simpleReply(cookie),
    },
  ];
  test.each(statusFaults)("fail with $code on $name", async ({ code, reply }) => {
    await using opened = await openScripted({
      onRequest: (request, socket) => request.command === 7 && socket.write(reply(request)),
    });
    await expect(collect(opened.reader.extents())).rejects.toMatchObject({ code });
  });

  test("whoever stops early leaves nothing pending, and may start again", async () => {
    await using opened = await openScripted({
      onRequest: ({ cookie, offset, command }, socket) =>
        command === 7 &&
        socket.write(
          chunk({
            cookie,
            type: blockStatus,
            payload: statusPayload(1, [[65_536, (offset / 65_536) % 2 === 0 ? 0 : 3]]),
          }),
        ),
    });
    for await (const extent of opened.reader.extents()) {
      expect(extent).toEqual({ offset: 0, length: 65_536, kind: "data" });
      break;
    }
    expect(await collect(opened.reader.extents())).toHaveLength(16);
  });

  test("a list is filled up, and one that makes no sense is refused", async () => {
    const list = [
      { offset: 100, length: 50, kind: "data" },
      { offset: 150, length: 50, kind: "data" },
      { offset: 300, length: 10, kind: "zero" },
    ] as const;
    await using opened = await openScripted({}, 5000, { by: "list", list, otherwise: "unchanged" });
    expect(await collect(opened.reader.extents())).toEqual([
      { offset: 0, length: 100, kind: "unchanged" },
      { offset: 100, length: 100, kind: "data" },
      { offset: 200, length: 100, kind: "unchanged" },
      { offset: 300, length: 10, kind: "zero" },
      { offset: 310, length: sizeBytes - 310, kind: "unchanged" },
    ]);
    for (const wrong of [
      [list[1], list[0]],
      [{ ...list[0], length: sizeBytes }],
      [{ ...list[0], offset: 0.5 }],
    ]) {
      const opening = openScripted({}, 5000, { by: "list", list: wrong, otherwise: "zero" });
      await expect(opening).rejects.toMatchObject({ code: "changes.unknown" });
    }
  });

  test("an empty disk has none", async () => {
    await using opened = await openScripted({ sizeBytes: 0 });
    expect(await collect(opened.reader.extents())).toEqual([]);
  });
});
