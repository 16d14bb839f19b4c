import { isFailure } from "@holdfast/shared/domain/failure";
import { expect, test } from "vitest";
import {
  chunk,
  dataPayload,
  errorPayload,
  holePayload,
  openScripted,
  type ScriptedRequest,
  simpleReply,
  statusPayload,
} from "../../mover/transport/nbd/scripted-server.ts";
import { createChance, mutate } from "./mutate.ts";

const sizeBytes = 64 * 1024;
const runs = 300;

/** What a right server may say to a read or to a question for extents, in several ways. */
function rightReply({ command, cookie, offset, length }: ScriptedRequest, way: number): Buffer {
  const data = Buffer.alloc(length, 7);
  if (command !== 0) {
    const payload = statusPayload(1, [[length, 0]]);
    return chunk({ cookie, type: 5, payload });
  }
  const half = Math.floor(length / 2);
  switch (way % 4) {
    case 0:
      return chunk({ cookie, type: 1, payload: dataPayload(offset, data) });
    case 1:
      return Buffer.concat([
        chunk({
          cookie,
          type: 1,
          isLast: false,
          payload: dataPayload(offset, data.subarray(half)),
        }),
        chunk({ cookie, type: 2, payload: holePayload(offset + length - half, half) }),
      ]);
    case 2:
      return chunk({ cookie, type: 0x8001, payload: errorPayload(5, "an error") });
    default:
      return simpleReply(cookie, 0, data);
  }
}

test("changed replies of an NBD server end in a Failure or in as many bytes as were asked for", async () => {
  let refused = 0;
  for (let seed = 1; seed <= runs; seed += 1) {
    const chance = createChance(seed);
    const onRequest: NonNullable<Parameters<typeof openScripted>[0]["onRequest"]> = (
      request,
      socket,
    ) => {
      if (request.command === 2) return;
      // Then nothing more comes: what waits for the rest is told.
      socket.end(mutate(rightReply(request, seed), chance));
    };
    await using opened = await openScripted({ sizeBytes, onRequest });
    const before = process.memoryUsage().arrayBuffers;
    try {
      if (seed % 3 === 0) {
        let end = 0;
        for await (const extent of opened.reader.extents()) {
          expect(extent.offset).toBeGreaterThanOrEqual(end);
          end = extent.offset + extent.length;
          expect(end).toBeLessThanOrEqual(sizeBytes);
        }
      } else {
        const target = new Uint8Array(4096);
        await opened.reader.read(8192, target);
      }
    } catch (error) {
      expect(isFailure(error) ? "" : error).toBe("");
      refused += 1;
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * 1024 * 1024);
  }
  expect(refused).toBeGreaterThan(runs / 2);
}, 120_000);
