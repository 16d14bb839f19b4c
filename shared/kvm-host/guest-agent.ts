import { z } from "zod";
import { Failure } from "../domain/failure.ts";
import type { Clock } from "../ports/clock.ts";
import { type Virsh, virshMessage } from "./virsh.ts";

/** The agent in the guest, by libvirt. Its answers come from the guest: bounded, checked, never interpreted. */
export type GuestAgent = {
  /** Undefined when the agent answers; otherwise why not. */
  ping(): Promise<string | undefined>;
  /** The number of file systems that were frozen. */
  freeze(): Promise<number>;
  thaw(): Promise<number>;
  execute(
    command: readonly string[],
    timeoutMs: number,
  ): Promise<{ readonly exitCode: number; readonly output: string }>;
};

const Count = z.object({ return: z.int().min(0) });
const Started = z.object({ return: z.object({ pid: z.int() }) });
const Status = z.object({
  return: z.object({
    exited: z.boolean(),
    exitcode: z.int().optional(),
    signal: z.int().optional(),
    "out-data": z.string().optional(),
    "err-data": z.string().optional(),
  }),
});
const answerCharactersMax = 1024 * 1024;
const outputCharactersMax = 4000;

export function createGuestAgent(virsh: Virsh, uuid: string, clock: Clock): GuestAgent {
  const call = async <T>(schema: z.ZodType<T>, command: object, seconds: number): Promise<T> => {
    const args = ["--timeout", String(seconds), JSON.stringify(command)];
    const result = await virsh.try(["qemu-agent-command", "--domain", uuid, ...args], {
      timeoutMs: (seconds + 15) * 1000,
    });
    const name = "execute" in command ? String(command.execute) : "command";
    if (result.exitCode !== 0) {
      throw new Failure("quiesce.failed", {
        message: `the guest agent refused ${name}: ${virshMessage(result)}`,
      });
    }
    if (result.stdout.length > answerCharactersMax) {
      throw new Failure("host.output-invalid", {
        message: `the guest agent's answer to ${name} is too long`,
      });
    }
    try {
      return schema.parse(JSON.parse(result.stdout));
    } catch (error) {
      const message = `the guest agent's answer to ${name} is not understood`;
      throw new Failure("host.output-invalid", { message, cause: error });
    }
  };
  const agent: GuestAgent = {
    ping: async () => {
      try {
        await call(z.unknown(), { execute: "guest-ping" }, 5);
        return undefined;
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    },
    freeze: async () => (await call(Count, { execute: "guest-fsfreeze-freeze" }, 15)).return,
    thaw: async () => (await call(Count, { execute: "guest-fsfreeze-thaw" }, 10)).return,
    execute: async (command, timeoutMs) => {
      const [path, ...arg] = command;
      const started = await call(
        Started,
        { execute: "guest-exec", arguments: { path, arg, "capture-output": true } },
        10,
      );
      const deadline = clock.now() + timeoutMs;
      for (;;) {
        const status = await call(
          Status,
          { execute: "guest-exec-status", arguments: { pid: started.return.pid } },
          10,
        );
        if (status.return.exited) return finished(status.return);
        if (clock.now() > deadline) {
          throw new Failure("network.timeout", {
            message: `the guest command ${path} did not end within ${timeoutMs / 1000} s`,
          });
        }
        await clock.sleep(200);
      }
    },
  };
  return agent;
}

function finished(status: z.infer<typeof Status>["return"]) {
  const decode = (text = "") => Buffer.from(text, "base64").toString("utf8");
  const output = `${decode(status["out-data"])}${decode(status["err-data"])}`;
  return {
    exitCode: status.exitcode ?? 128 + (status.signal ?? 0),
    output: output.slice(0, outputCharactersMax),
  };
}
