import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { limitTool, toolMemoryBytesMax } from "./limited-tool.ts";

const hasPrlimit = spawnSync("prlimit", ["--version"]).status === 0;

function run([program, ...parameters]: readonly [string, ...string[]]) {
  return spawnSync(program, parameters, { encoding: "utf8", timeout: 30_000 });
}

test("a tool runs under limits on memory and CPU time and dumps no core", (context) => {
  context.skip(!hasPrlimit, "this machine has no prlimit");
  const { stdout, status } = run(
    limitTool(["sh", "-c", "ulimit -v; ulimit -t; ulimit -c"], { cpuSecondsMax: 7 }),
  );
  expect(status).toBe(0);
  expect(stdout.trim().split("\n")).toEqual([`${toolMemoryBytesMax / 1024}`, "7", "0"]);
});

test("root's tools have no network", (context) => {
  const may = process.getuid?.() === 0 && spawnSync("unshare", ["--net", "true"]).status === 0;
  context.skip(!may, "only root may take the network away");
  const { stdout } = run(limitTool(["cat", "/proc/net/dev"]));
  // Two lines of heading; a new namespace may have the loopback device only, and down.
  const devices = stdout
    .trim()
    .split("\n")
    .slice(2)
    .map((line) => line.trim().split(":")[0]);
  expect(devices).not.toContain("eth0");
  expect(devices.filter((name) => !/^(lo|tunl|gre|sit|ip|erspan)/.test(name ?? ""))).toEqual([]);
});

test("parameters arrive as they are", () => {
  const parameters = ["a b", "--cpu=1", "$(id)", "'", ""];
  const script = 'for a in "$@"; do printf "%s|" "$a"; done';
  const { stdout } = run(limitTool(["sh", "-c", script, "sh", ...parameters]));
  expect(stdout).toBe(parameters.map((text) => `${text}|`).join(""));
});

test("a tool that is not there stays what it is, so that starting it says so", () => {
  expect(limitTool(["holdfast-no-such-tool", "x"])).toEqual(["holdfast-no-such-tool", "x"]);
});
