#!/usr/bin/env node
// Launcher: finds a Node that runs TypeScript sources (24 or newer) and starts ../main.ts with it.
// Plain JavaScript for Node 20.19, because that is what a machine may have when it only ran `npm ci`.
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import module from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(realpathSync(fileURLToPath(import.meta.url)));
const main = join(here, "..", "main.ts");
const pinned = join(here, "..", "..", "..", "node_modules", "node", "bin", "node");
const major = (version) => Number.parseInt(version, 10);
const nodeMajorMin = 24;

// Compiled sources are kept, which halves the start of this process and of those it starts. Below the user's own
// folder, never in a shared one: whoever can write there decides what runs.
const { HOME, XDG_CACHE_HOME } = process.env;
const cache = XDG_CACHE_HOME || (HOME && join(HOME, ".cache"));
if (cache) process.env.NODE_COMPILE_CACHE ??= join(cache, "holdfast", "node");

if (existsSync(pinned) && realpathSync(pinned) !== realpathSync(process.execPath)) {
  runWith(pinned);
} else if (major(process.versions.node) >= nodeMajorMin) {
  // This very process will do. main.ts sees argv exactly as a child would.
  process.argv[1] = main;
  if (process.env.NODE_COMPILE_CACHE) module.enableCompileCache(process.env.NODE_COMPILE_CACHE);
  await import(pathToFileURL(main).href);
} else {
  process.stderr.write(
    `HF-UNSUPPORTED: holdfast needs Node ${nodeMajorMin} or newer; this is ${process.version}, and the pinned one is missing (${pinned}).\n` +
      "Next: run `npm ci` in the checkout, it brings the right Node along.\n",
  );
  process.exitCode = 1;
}

function runWith(node) {
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: "inherit" });
  const isAtTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C to the child as well: passing it on would make two of one.
      const sentToBoth = isAtTerminal && (signal === "SIGINT" || signal === "SIGQUIT");
      if (!sentToBoth) child.kill(signal);
    });
  }
  child.on("error", (error) => {
    process.stderr.write(`HF-INTERNAL: ${node} does not start: ${error.message}\n`);
    process.exitCode = 1;
  });
  child.on("exit", (code, signal) => {
    process.exitCode = signal === null ? (code ?? 1) : 128 + (constants.signals[signal] ?? 0);
    for (const name of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]) process.removeAllListeners(name);
  });
}
