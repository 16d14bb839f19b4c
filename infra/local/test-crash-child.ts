/** Child of crash.test.ts: a stack whose functions note each call in a file, to be killed at any moment. */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { startLocalStack } from "./local-stack.ts";

const [stateFolder = ""] = process.argv.slice(2);
const note = (name: string) => async (event: unknown) => {
  await new Promise((resolve) => setTimeout(resolve, 5));
  const { job } = event as { job: string };
  appendFileSync(join(stateFolder, "effects.log"), `${job} ${name}\n`);
  return { [name]: true };
};

const stack = await startLocalStack({
  stateFolder,
  mover: false,
  functions: [],
  stateMachinesFolder: null,
  handlers: { Begin: note("begin"), Disk: note("disk"), Release: note("release") },
});
process.on("SIGTERM", () => stack.close().then(() => process.exit(0)));
process.stdout.write(`${JSON.stringify({ endpoint: stack.endpoint })}\n`);
