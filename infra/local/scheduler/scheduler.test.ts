import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  CreateScheduleCommand,
  type CreateScheduleCommandInput,
  CreateScheduleGroupCommand,
  DeleteScheduleCommand,
  GetScheduleCommand,
  ListSchedulesCommand,
  TagResourceCommand,
  UpdateScheduleCommand,
} from "@aws-sdk/client-scheduler";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { expect, test } from "vitest";
import { createHttpServer } from "../server.ts";
import { createClients, startTestStack } from "../test-stack.ts";
import { openScheduler } from "./scheduler.ts";

const group = { GroupName: "holdfast-local" };
const input = (more: Partial<CreateScheduleCommandInput> = {}): CreateScheduleCommandInput => ({
  ...group,
  Name: "nightly",
  ScheduleExpression: "cron(0 22 * * ? *)",
  ScheduleExpressionTimezone: "Europe/Berlin",
  FlexibleTimeWindow: { Mode: "OFF" },
  Target: {
    Arn: "arn:aws:lambda:us-east-1:000000000000:function:Dispatch",
    RoleArn: "arn:aws:iam::000000000000:role/local",
    Input: '{"policyId":"p","at":"<aws.scheduler.scheduled-time>"}',
  },
  ...more,
});

test("schedules are created, changed, listed and removed, and survive a restart", async () => {
  await using stack = await startTestStack({ handlers: { Dispatch: () => undefined } });
  await stack.scheduler.send(new CreateScheduleCommand(input()));
  await expect(stack.scheduler.send(new CreateScheduleCommand(input()))).rejects.toMatchObject({
    name: "ConflictException",
  });
  await stack.scheduler.send(new UpdateScheduleCommand(input({ State: "DISABLED" })));
  const { scheduler } = await stack.restart();
  const found = await scheduler.send(new GetScheduleCommand({ ...group, Name: "nightly" }));
  expect(found).toMatchObject({
    State: "DISABLED",
    ScheduleExpression: "cron(0 22 * * ? *)",
    ScheduleExpressionTimezone: "Europe/Berlin",
    Target: { Input: input().Target?.Input },
  });
  expect(found.CreationDate).toBeInstanceOf(Date);
  const { Schedules } = await scheduler.send(
    new ListSchedulesCommand({ GroupName: "holdfast-local" }),
  );
  expect(Schedules?.map(({ Name }) => Name)).toEqual(["nightly"]);
  await scheduler.send(new DeleteScheduleCommand({ ...group, Name: "nightly" }));
  await expect(
    scheduler.send(new GetScheduleCommand({ ...group, Name: "nightly" })),
  ).rejects.toMatchObject({ name: "ResourceNotFoundException" });
});

test("bad expressions, targets, groups and operations are refused", async () => {
  await using stack = await startTestStack({ handlers: { Dispatch: () => undefined } });
  const create = (more: Partial<CreateScheduleCommandInput>) =>
    stack.scheduler.send(new CreateScheduleCommand(input(more)));
  await expect(create({ ScheduleExpression: "rate(1 fortnight)" })).rejects.toMatchObject({
    name: "ValidationException",
  });
  await expect(create({ GroupName: "none" })).rejects.toMatchObject({
    name: "ResourceNotFoundException",
  });
  const Arn = "arn:aws:scheduler:::aws-sdk:sns:publish";
  await expect(create({ Target: { Arn, RoleArn: "r" } })).rejects.toThrow("sns");
  await expect(
    stack.scheduler.send(new TagResourceCommand({ ResourceArn: "arn", Tags: [] })),
  ).rejects.toMatchObject({ name: "UnknownOperationException" });
});

/** The scheduler alone on a clock that the test sets. */
async function startScheduler(folder: string, now: () => number, fail: () => boolean) {
  const fired: unknown[] = [];
  const targets = {
    supports: () => true,
    deliver: async (_: string, payload: unknown) => {
      if (fail()) throw new Error("away");
      fired.push(payload);
    },
  };
  const scheduler = openScheduler(folder, targets, { logger: silentLogger, now });
  const routes = { services: {}, dynamodb: () => undefined };
  const paths = ["/schedules", "/schedule-groups/"].map((prefix) => ({
    prefix,
    route: scheduler.route,
  }));
  const server = createHttpServer({ ...routes, paths }, "", silentLogger);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const clients = createClients(`http://127.0.0.1:${port}`);
  scheduler.start();
  return {
    fired,
    client: clients.scheduler,
    [Symbol.asyncDispose]: async () => {
      scheduler.close();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test("what came due while the process was away fires once, then in its rhythm", async () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-scheduler-"));
  let now = Date.parse("2026-03-01T12:00:00Z");
  const day = 86_400_000;
  try {
    {
      await using first = await startScheduler(
        folder,
        () => now,
        () => false,
      );
      await first.client.send(new CreateScheduleGroupCommand({ Name: "holdfast-local" }));
      await first.client.send(new CreateScheduleCommand(input()));
      expect(first.fired).toEqual([]);
    }
    now += 3 * day;
    await using second = await startScheduler(
      folder,
      () => now,
      () => false,
    );
    await expect.poll(() => second.fired.length).toBe(1);
    expect(second.fired).toEqual([{ policyId: "p", at: "2026-03-01T21:00:00Z" }]);
    now += day;
    await expect.poll(() => second.fired.length, { timeout: 10_000 }).toBe(2);
    expect(second.fired[1]).toEqual({ policyId: "p", at: "2026-03-04T21:00:00Z" });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a target that refuses is tried again", async () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-scheduler-"));
  let now = Date.parse("2026-03-01T12:00:00Z");
  let refusals = 1;
  try {
    const fail = () => refusals-- > 0;
    await using running = await startScheduler(folder, () => now, fail);
    await running.client.send(new CreateScheduleGroupCommand({ Name: "holdfast-local" }));
    const once = input({
      ScheduleExpression: "at(2026-03-01T14:00:00)",
      ActionAfterCompletion: "DELETE",
    });
    await running.client.send(new CreateScheduleCommand(once));
    now += 3_600_000;
    await expect.poll(() => running.fired.length, { timeout: 10_000 }).toBe(1);
    await expect
      .poll(async () => (await running.client.send(new ListSchedulesCommand({}))).Schedules)
      .toEqual([]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
