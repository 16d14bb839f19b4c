import { Failure } from "@holdfast/shared/domain/failure";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { expect, test } from "vitest";
import { StageEvent, stageHandler } from "./stage-event.ts";

const context = {
  callbackWaitsForEmptyEventLoop: false,
  functionName: "f",
  functionVersion: "1",
  invokedFunctionArn: "arn",
  memoryLimitInMB: "128",
  awsRequestId: "request",
  logGroupName: "g",
  logStreamName: "s",
  getRemainingTimeInMillis: () => 10_000,
  done: () => undefined,
  fail: () => undefined,
  succeed: () => undefined,
};

async function runFailing(error: unknown, event: unknown = { jobId: "a" }) {
  const handler = stageHandler({
    name: "test",
    event: StageEvent,
    logger: () => silentLogger,
    decide: async () => {
      throw error;
    },
  });
  const thrown: unknown = await Reflect.apply(handler, undefined, [event, context]).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(thrown instanceof Error)) throw new Error("did not fail");
  return { name: thrown.name, record: JSON.parse(thrown.message) };
}

test.each([
  ["aws.failed", "HoldfastRetryable"],
  ["busy", "HoldfastFailed"],
  ["vm.gone", "HoldfastFailed"],
  ["fence.lost", "HoldfastFailed"],
  ["cancelled", "HoldfastCancelled"],
] as const)("a failure %s is reported as %s with its record", async (code, name) => {
  const cause = new Error("inner");
  expect(await runFailing(new Failure(code, { message: "why", cause }))).toEqual({
    name,
    record: { code, message: "why", causes: ["inner"] },
  });
});

test("a defect is failed, not retried", async () => {
  const { name, record } = await runFailing(new TypeError("x is undefined"));
  expect(name).toBe("HoldfastFailed");
  expect(record.code).toBe("internal");
});

test("an event that does not fit says where, without its values", async () => {
  const { name, record } = await runFailing(new Error("not reached"), {
    jobId: 7,
    token: "CANARY",
  });
  expect(name).toBe("HoldfastFailed");
  expect(record.code).toBe("input.invalid");
  expect(record.message).toContain("jobId");
  expect(record.message).not.toContain("CANARY");
});

test("a good event reaches the decision, stripped to what it knows", async () => {
  const handler = stageHandler({
    name: "test",
    event: StageEvent,
    logger: () => silentLogger,
    decide: async (event) => ({ got: event }),
  });
  const answer = await Reflect.apply(handler, undefined, [{ jobId: "a", more: 1 }, context]);
  expect(answer).toEqual({ got: { jobId: "a" } });
});
