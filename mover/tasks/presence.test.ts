import { Failure } from "@holdfast/shared/domain/failure";
import type { Clock } from "@holdfast/shared/ports/clock";
import { createJsonLogger } from "@holdfast/shared/ports/logger";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type ControlPlane, openControlPlane } from "../../test/helpers/control-plane.ts";
import { showPresence } from "./presence.ts";

let plane: ControlPlane;
beforeEach(async () => {
  plane = await openControlPlane();
});
afterEach(() => plane[Symbol.asyncDispose]());

const mover = { moverId: "m", siteId: "local", version: "0.1.0" };

/** Sleeps until it is told to wake, and tells when it has fallen asleep. */
function createStepClock() {
  let now = Date.parse("2026-11-20T10:00:00.000Z");
  let asleep = Promise.withResolvers<void>();
  let wake = Promise.withResolvers<void>();
  const clock: Clock = {
    now: () => now,
    sleep: async (delayMs, signal) => {
      asleep.resolve();
      const stopped = Promise.withResolvers<never>();
      signal?.addEventListener("abort", () => stopped.reject(signal.reason));
      await Promise.race([wake.promise, stopped.promise]);
      now += delayMs;
    },
  };
  return {
    clock,
    asleep: () => asleep.promise,
    async step() {
      await asleep.promise;
      asleep = Promise.withResolvers();
      wake.resolve();
      wake = Promise.withResolvers();
      await asleep.promise;
    },
  };
}

test("a mover is seen while it runs and gone when it has ended", async () => {
  const steps = createStepClock();
  {
    await using _presence = showPresence({ ...plane, mover, clock: steps.clock });
    await steps.asleep();
    const startedAt = "2026-11-20T10:00:00.000Z";
    expect(await plane.catalog.listMovers()).toEqual([{ ...mover, startedAt, seenAt: startedAt }]);
    await steps.step();
    expect(await plane.catalog.listMovers()).toEqual([
      { ...mover, startedAt, seenAt: "2026-11-20T10:00:30.000Z" },
    ]);
  }
  expect(await plane.catalog.listMovers()).toEqual([]);
});

test("what movers of a crash loop left is removed after an hour, younger ones stay", async () => {
  const startedAt = "2026-11-20T08:00:00.000Z";
  const old = { ...mover, moverId: "old", startedAt, seenAt: startedAt };
  const young = { ...old, moverId: "young", seenAt: "2026-11-20T09:59:00.000Z" };
  for (const one of [old, young]) await plane.catalog.recordMover(one);
  const steps = createStepClock();
  await using _presence = showPresence({ ...plane, mover, clock: steps.clock });
  await steps.asleep();
  expect((await plane.catalog.listMovers()).map(({ moverId }) => moverId)).toEqual(["m", "young"]);
});

test("a catalog that does not answer is logged, and tried again", async () => {
  let refusals = 2;
  const catalog = {
    ...plane.catalog,
    recordMover: async (one: Parameters<typeof plane.catalog.recordMover>[0]) => {
      refusals -= 1;
      if (refusals > 0) throw new Failure("aws.failed", { message: "no answer" });
      await plane.catalog.recordMover(one);
    },
  };
  const lines: string[] = [];
  const steps = createStepClock();
  const logger = createJsonLogger((line) => lines.push(line));
  await using _presence = showPresence({ catalog, mover, clock: steps.clock, logger });
  await steps.step();
  expect(lines.join()).toContain("no answer");
  expect(await plane.catalog.listMovers()).toHaveLength(1);
});
