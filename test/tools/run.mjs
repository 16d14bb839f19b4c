// One command per job of the project, each from a clean checkout: installs what is missing, then runs with the pinned Node 24.
// Plain JavaScript without dependencies, so that Node 20.19 and npm are enough to start it.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const bin = join(root, "node_modules", ".bin");
const node = join(root, "node_modules", "node", "bin", "node");

const [command = "help", ...rest] = process.argv.slice(2);

const checks = {
  format: ["biome", "ci", "--linter-enabled=false", "."],
  lint: ["biome", "lint", "--error-on-warnings", "."],
  types: ["../typescript-native/bin/tsc", "-p", "."],
  imports: [
    "depcruise",
    "--config",
    "test/tools/import-rules.cjs",
    "shared",
    "functions",
    "mover",
    "infra",
    "console",
    "test",
  ],
  "dead code": ["knip", "--config", "test/tools/knip.json"],
};

const commands = {
  demo: () => run([node, "test/demo/demo.ts", ...rest]),
  bench: () => run([node, "test/bench/image-backup.ts", ...rest]),
  hunt: () => run([node, "test/simulation/hunt.ts", ...rest]),
  fuzz: () => run([node, "test/fuzz/fuzz-main.ts", ...rest]),
  "bench:gc": () => run([node, "test/bench/collect-scale.ts", ...rest]),
  "bench:scale": () => run([node, "test/bench/scale-model.ts", ...rest]),
  "bench:index": () => run([node, "test/bench/index-scale.ts", ...rest]),
  "bench:serve": () => run([node, "test/bench/serve.ts", ...rest]),
  test: () => vitest("unit", rest),
  systems: () => vitest("systems", rest),
  check: () => {
    for (const name of Object.keys(checks)) check(name);
    vitest("unit", rest);
  },
  static: () => {
    for (const name of Object.keys(checks)) check(name);
  },
  format: () => tool(["biome", "check", "--write", "."]),
  synth: () =>
    run([node, join(bin, "cdk"), "synth", "--quiet", ...rest], { cwd: join(root, "infra", "..") }),
};

if (!Object.hasOwn(commands, command)) {
  process.stderr.write(`usage: node test/tools/run.mjs ${Object.keys(commands).join("|")}\n`);
  process.exit(2);
}
install();
commands[command]();

/** `npm ci`, unless the lock file is the one that was installed from last time. */
function install() {
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const stamp = join(root, "node_modules", ".holdfast-lock");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  process.stderr.write("installing npm packages (npm ci)\n");
  run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  writeFileSync(stamp, lock);
}

function check(name) {
  process.stderr.write(`check: ${name}\n`);
  tool(checks[name]);
}

function vitest(project, more) {
  tool(["vitest", "run", "--project", project, ...more]);
}

/** A tool of node_modules/.bin under the pinned Node. */
function tool([name, ...args]) {
  run([join(bin, name), ...args]);
}

function run([program, ...args], options = {}) {
  const result = spawnSync(program, args, {
    cwd: root,
    stdio: "inherit",
    // node_modules/.bin has the pinned Node 24 as `node`, which the tools' #! lines then find.
    env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
    ...options,
  });
  if (result.error) {
    process.stderr.write(`${program}: ${result.error.message}\n`);
    process.exit(1);
  }
  if (result.status !== 0) process.exit(result.status ?? 1);
}
