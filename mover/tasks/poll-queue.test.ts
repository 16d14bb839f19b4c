import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import type { ReceivedTask, TaskQueue } from "@holdfast/shared/ports/task-queue";
import { expect, test } from "vitest";
import { pollQueue } from "./poll-queue.ts";

/** Messages by receipt; a hidden one is not handed out until it is shown again. */
function createQueue(names: readonly string[]) {
  const visible = [...names];
  const hiddenFor = new Map<string, number>();
  const changes: string[] = [];
  const queue: TaskQueue = {
    async receive(signal) {
      for (;;) {
        const receipt = visible.shift();
        if (receipt !== undefined) return { messageId: receipt, body: receipt, receipt };
        if (signal.aborted) return undefined;
        await clock.sleep(5, signal).catch(() => undefined);
      }
    },
    async extend(receipt, seconds) {
      changes.push(`${receipt} ${seconds}`);
      if (seconds === 0) visible.push(receipt);
      else hiddenFor.set(receipt, seconds);
    },
    async remove() {},
  };
  const showAll = (): void => {
    visible.push(...hiddenFor.keys());
    hiddenFor.clear();
  };
  return { queue, hiddenFor, changes, showAll };
}

test("what waits while all places are taken is tended, and run when a place is free", async () => {
  const { queue, hiddenFor, showAll } = createQueue(["a", "b", "c"]);
  const stop = new AbortController();
  const gates = new Map<string, () => void>();
  const ran: string[] = [];
  const tended: string[] = [];
  const polling = pollQueue({
    queue,
    tasksMax: 1,
    drainMs: 0,
    stop: stop.signal,
    clock,
    logger: silentLogger,
    run: async ({ receipt }: ReceivedTask) => {
      ran.push(receipt);
      await new Promise<void>((resolve) => gates.set(receipt, resolve));
    },
    tend: async ({ receipt }) => {
      tended.push(receipt);
      await queue.extend(receipt, 30);
    },
  });
  await expect.poll(() => [...hiddenFor.keys()]).toEqual(["b", "c"]);
  expect(ran).toEqual(["a"]);
  gates.get("a")?.();
  showAll();
  await expect.poll(() => ran.length).toBe(2);
  await expect.poll(() => tended.length).toBeGreaterThanOrEqual(3);
  showAll();
  gates.get(ran[1] ?? "")?.();
  await expect.poll(() => ran.length).toBe(3);
  gates.get(ran[2] ?? "")?.();
  stop.abort();
  await polling;
  expect(ran.toSorted()).toEqual(["a", "b", "c"]);
});

test("nobody is tended to while places are free", async () => {
  const { queue } = createQueue(["a", "b"]);
  const stop = new AbortController();
  const ran: string[] = [];
  const polling = pollQueue({
    queue,
    tasksMax: 4,
    drainMs: 0,
    stop: stop.signal,
    clock,
    logger: silentLogger,
    run: async ({ receipt }) => void ran.push(receipt),
    tend: () => Promise.reject(new Error("not needed")),
  });
  await expect.poll(() => ran.toSorted()).toEqual(["a", "b"]);
  stop.abort();
  await polling;
});
