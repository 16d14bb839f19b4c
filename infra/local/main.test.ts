import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";

const children: ChildProcess[] = [];
let state = "";

beforeAll(() => {
  state = mkdtempSync(join(tmpdir(), "holdfast-main-"));
});
afterAll(async () => {
  for (const child of children.filter(
    ({ exitCode, signalCode }) => (exitCode ?? signalCode) === null,
  )) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  rmSync(state, { recursive: true, force: true });
});

type Ready = { ready: true; endpoint: string; api: string; tokenFile: string; state: string };

function spawnStack(...more: string[]) {
  const entry = join(import.meta.dirname, "main.ts");
  const child = spawn(process.execPath, [entry, "--state", state, "--no-mover", ...more], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  return child;
}

async function readyStack(): Promise<{ child: ChildProcess; ready: Ready }> {
  const child = spawnStack();
  for await (const line of createInterface({ input: child.stdout })) {
    return { child, ready: JSON.parse(line) as Ready };
  }
  throw new Error("the stack did not start");
}

async function end(child: ChildProcess, signal: NodeJS.Signals) {
  const exit = once(child, "exit");
  child.kill(signal);
  return (await exit)[0] as number | null;
}

test("it says that it is ready, refuses a second one, ends with 0, and starts again after a kill", async () => {
  const { child, ready } = await readyStack();
  expect(ready).toMatchObject({ ready: true, state, tokenFile: join(state, "token") });
  expect(statSync(ready.tokenFile).mode & 0o777).toBe(0o600);
  const token = readFileSync(ready.tokenFile, "utf8");

  const second = spawnStack();
  let said = "";
  second.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const [code] = (await once(second, "close")) as [number];
  expect(code).toBe(6);
  expect(said).toContain(`Process ${child.pid} runs a local stack`);

  expect(await end(child, "SIGKILL")).toBe(null);
  const again = await readyStack();
  expect(again.ready.endpoint).toBe(ready.endpoint);
  expect(readFileSync(again.ready.tokenFile, "utf8")).toBe(token);
  expect(await end(again.child, "SIGTERM")).toBe(0);
});

test("a wrong command line is refused with its usage", async () => {
  const child = spawnStack("--port", "many");
  const [code] = (await once(child, "close")) as [number];
  expect(code).toBe(2);
});

test("only a Host header that names loopback is answered", async () => {
  const { child, ready } = await readyStack();
  const statusFor = (host: string) =>
    new Promise<number>((resolve, reject) => {
      const asked = request(ready.endpoint, { headers: { host } }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      asked.on("error", reject);
      asked.end();
    });
  // Another local user can connect, but does not know the path.
  for (const path of ["/", "/schedules", "/2015-03-31/functions/Api/invocations", "/aws-guess/"]) {
    const refused = await fetch(new URL(path, ready.api), {
      method: "POST",
      headers: { "x-amz-target": "AmazonSSM.GetParameter" },
      body: JSON.stringify({ Name: "/holdfast/local/api-token-sha256", WithDecryption: true }),
    });
    expect([path, refused.status]).toEqual([path, 403]);
  }
  expect((await fetch(new URL("/schedules", ready.api))).status).toBe(403);
  expect((await fetch(new URL("/v1/status", ready.api))).status).toBe(401);
  const { port } = new URL(ready.endpoint);
  expect(await statusFor(`evil.example:${port}`)).toBe(403);
  expect(await statusFor(`127.0.0.1.evil.example:${port}`)).toBe(403);
  expect(await statusFor(`localhost:${port}`)).toBe(400);
  expect(await end(child, "SIGTERM")).toBe(0);
});
