/**
 * `node infra/local/main.ts --state DIR [--port N] [--no-mover]`: runs the local stack until SIGTERM or SIGINT. One line of
 * JSON on standard output says that it is ready; everything else goes to DIR/log.
 */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { failureId, failureKind, toFailureRecord } from "@holdfast/shared/domain/failure";
import { startLocalStack } from "./local-stack.ts";

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      state: { type: "string" },
      port: { type: "string", default: "0" },
      "no-mover": { type: "boolean", default: false },
    },
  });
  const port = Number(values.port);
  if (values.state === undefined || !Number.isInteger(port) || port < 0 || port > 65_535) {
    process.stderr.write("usage: main.ts --state DIR [--port N] [--no-mover]\n");
    process.exitCode = 2;
    return;
  }
  const print = redirectOutput(join(values.state, "log", "functions.log"));
  const starting = startLocalStack({
    stateFolder: values.state,
    port,
    mover: !values["no-mover"],
  });
  // Before anybody hears that it is ready: a signal during the start ends it as soon as it has started.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.on(signal, () => {
      starting.then((stack) => stack.close()).then(() => process.exit(0), fail);
    });
  }
  const { endpoint, api, tokenFile, state } = await starting;
  print(`${JSON.stringify({ ready: true, endpoint, api, tokenFile, state })}\n`);
}

/**
 * The functions run in this process and log to standard output, which Lambda would collect: here a file does, from
 * before the first of them runs. Returns how to write to the real standard output.
 */
function redirectOutput(path: string): (text: string) => void {
  const print = process.stdout.write.bind(process.stdout);
  process.stdout.write = (chunk: string | Uint8Array) => {
    appendFileSync(path, chunk, { mode: 0o600 });
    return true;
  };
  // Whoever started this may be gone; what Node warns of is then nobody's.
  process.stderr.on("error", () => undefined);
  return (text) => {
    print(text);
  };
}

function fail(error: unknown): void {
  const { code, message, causes } = toFailureRecord(error);
  const lines = [`${failureId(code)}: ${message}`, ...causes, failureKind(code).advice];
  process.stderr.write(`${lines.join("\n  ")}\n`);
  process.exit(failureKind(code).exitCode);
}

main().catch(fail);
