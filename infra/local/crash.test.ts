import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import {
  CreateStateMachineCommand,
  DescribeExecutionCommand,
  GetExecutionHistoryCommand,
  SendTaskSuccessCommand,
  StartExecutionCommand,
} from "@aws-sdk/client-sfn";
import { DeleteMessageCommand, ReceiveMessageCommand } from "@aws-sdk/client-sqs";
import { expect, test } from "vitest";
import { createClients } from "./test-stack.ts";

const kills = 20;
const jobs = Array.from({ length: 8 }, (_, index) => `job-${index}`);
const disks = ["a", "b", "c"];

const lambda = (name: string) => ({
  Type: "Task",
  Resource: `arn:aws:lambda:us-east-1:000000000000:function:${name}`,
  Parameters: { "job.$": "$.job" },
  ResultPath: null,
});
const definition = {
  StartAt: "Begin",
  States: {
    Begin: { ...lambda("Begin"), Next: "Disks" },
    Disks: {
      Type: "Map",
      ItemsPath: "$.disks",
      MaxConcurrency: 2,
      ItemSelector: { "job.$": "$.job", "disk.$": "$$.Map.Item.Value" },
      ItemProcessor: {
        StartAt: "Note",
        States: {
          Note: { ...lambda("Disk"), Next: "Move" },
          Move: {
            Type: "Task",
            Resource: "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
            Parameters: {
              QueueUrl: "holdfast-site-local",
              MessageBody: { "token.$": "$$.Task.Token", "disk.$": "$.disk" },
            },
            End: true,
          },
        },
      },
      ResultPath: "$.moved",
      Next: "Breathe",
    },
    Breathe: { Type: "Wait", Seconds: 1, Next: "Release" },
    Release: { ...lambda("Release"), End: true },
  },
};

async function startChild(state: string): Promise<{ child: ChildProcess; endpoint: string }> {
  const entry = join(import.meta.dirname, "test-crash-child.ts");
  const child = spawn(process.execPath, [entry, state], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    return { child, endpoint: (JSON.parse(line) as { endpoint: string }).endpoint };
  }
  throw new Error("the stack did not start");
}

/** Answers tasks as a mover does; calls that fail because the stack is away come again by themselves. */
async function move(endpoint: string, signal: AbortSignal): Promise<void> {
  const { sqs, sfn } = createClients(endpoint);
  const QueueUrl = `${endpoint}/000000000000/holdfast-site-local`;
  while (!signal.aborted) {
    try {
      const { Messages = [] } = await sqs.send(
        new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 1, VisibilityTimeout: 1 }),
      );
      for (const { Body, ReceiptHandle } of Messages) {
        const { token, disk } = JSON.parse(Body ?? "{}") as { token: string; disk: string };
        try {
          const output = JSON.stringify({ disk });
          await sfn.send(new SendTaskSuccessCommand({ taskToken: token, output }));
        } catch (error) {
          if (!(error instanceof Error) || error.name !== "TaskTimedOut") throw error;
        }
        await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      }
    } catch {
      await pause(20);
    }
  }
}

const pause = (delayMs: number) => new Promise((resolve) => setTimeout(resolve, delayMs));

async function kill(child: ChildProcess, signal: NodeJS.Signals): Promise<unknown[]> {
  const exit = once(child, "exit");
  child.kill(signal);
  return exit;
}

test("killed at twenty random moments, every execution ends exactly once with all its effects", {
  timeout: 180_000,
}, async () => {
  const state = mkdtempSync(join(tmpdir(), "holdfast-crash-"));
  const stop = new AbortController();
  let { child, endpoint } = await startChild(state);
  let moving: Promise<void> | undefined;
  try {
    moving = move(endpoint, stop.signal);
    const created = await createClients(endpoint).sfn.send(
      new CreateStateMachineCommand({
        name: "crash",
        definition: JSON.stringify(definition),
        roleArn: "arn:aws:iam::000000000000:role/x",
      }),
    );
    const stateMachineArn = created.stateMachineArn;
    const arns = new Map<string, string>();
    for (let round = 0; round < kills; round += 1) {
      const { sfn } = createClients(endpoint);
      const job = jobs[round % jobs.length] ?? "";
      const input = JSON.stringify({ job, disks });
      // Asked for again under its name when the answer may have been lost: never a second execution.
      const asked = sfn
        .send(new StartExecutionCommand({ stateMachineArn, name: job, input }))
        .then(({ executionArn = "" }) => arns.set(job, executionArn))
        .catch(() => undefined);
      await pause(Math.random() * 300);
      await kill(child, "SIGKILL");
      await asked;
      const again = await startChild(state);
      expect(again.endpoint).toBe(endpoint);
      ({ child, endpoint } = again);
    }
    const { sfn } = createClients(endpoint);
    for (const job of jobs.filter((name) => !arns.has(name))) {
      const input = JSON.stringify({ job, disks });
      const command = new StartExecutionCommand({ stateMachineArn, name: job, input });
      await sfn.send(command).catch(() => undefined);
      arns.set(job, `arn:aws:states:us-east-1:000000000000:execution:crash:${job}`);
    }
    const effects = () => readFileSync(join(state, "effects.log"), "utf8").split("\n");
    for (const [job, executionArn] of arns) {
      await expect
        .poll(async () => (await sfn.send(new DescribeExecutionCommand({ executionArn }))).status, {
          timeout: 60_000,
        })
        .toBe("SUCCEEDED");
      const { output } = await sfn.send(new DescribeExecutionCommand({ executionArn }));
      expect(JSON.parse(output ?? "")).toEqual({
        job,
        disks,
        moved: disks.map((disk) => ({ disk })),
      });
      const { events = [] } = await sfn.send(
        new GetExecutionHistoryCommand({ executionArn, maxResults: 1000 }),
      );
      const count = (type: string) => events.filter((event) => event.type === type).length;
      expect(count("ExecutionStarted")).toBe(1);
      expect(count("ExecutionSucceeded")).toBe(1);
      expect(count("TaskSucceeded")).toBe(disks.length);
      expect(count("LambdaFunctionSucceeded")).toBe(disks.length + 2);
      expect(events.map(({ id }) => id)).toEqual(events.map((_, index) => index + 1));
      for (const [name, times] of [
        ["begin", 1],
        ["disk", 3],
        ["release", 1],
      ] as const) {
        const seen = effects().filter((line) => line === `${job} ${name}`).length;
        expect(seen).toBeGreaterThanOrEqual(times);
      }
    }
  } finally {
    stop.abort();
    await kill(child, "SIGTERM");
    await moving;
    rmSync(state, { recursive: true, force: true });
  }
});
