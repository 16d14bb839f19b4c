import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

/** The rules are proved by planted violations: a check that cannot fail proves nothing. */
const root = join(import.meta.dirname, "../..");
const execute = promisify(execFile);
let folder = "";

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-imports-"));
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

type Cruise = { summary: { totalCruised: number; violations: { rule: { name: string } }[] } };

async function cruise(cwd: string, folders: readonly string[]): Promise<Cruise["summary"]> {
  const program = join(root, "node_modules/dependency-cruiser/bin/dependency-cruiser.mjs");
  const config = join(root, "test/tools/import-rules.cjs");
  const args = [program, "--config", config, "--output-type", "json", ...folders];
  const { stdout } = await execute(process.execPath, args, {
    cwd,
    maxBuffer: 256 * 1024 * 1024,
  }).catch((error: { stdout: string }) => error);
  const cruised: Cruise = JSON.parse(stdout);
  return cruised.summary;
}

describe("import rules", () => {
  test.each([
    ["functions-not-mover-infra", "functions/a.ts", "mover/b.ts"],
    ["mover-not-functions-infra", "mover/a.ts", "functions/b.ts"],
    ["infra-reaches-no-insides", "infra/a.ts", "functions/b.ts"],
    ["domain-is-pure", "shared/domain/a.ts", "shared/ports/b.ts"],
    ["repository-knows-no-storage-or-provider", "shared/repository/a.ts", "shared/storage/b.ts"],
    ["a-provider-knows-no-other", "shared/providers/one/a.ts", "shared/providers/two/b.ts"],
    ["cli-not-the-rest", "console/cli/a.ts", "mover/b.ts"],
    ["product-never-imports-test", "mover/a.ts", "test/helpers/b.ts"],
  ])("%s: %s must not import %s", async (rule, from, to) => {
    for (const file of [from, to]) await mkdir(join(folder, dirname(file)), { recursive: true });
    const up = "../".repeat(from.split("/").length - 1);
    await writeFile(join(folder, from), `import { b } from "${up}${to}";\nexport const a = b;\n`);
    await writeFile(join(folder, to), "export const b = 1;\n");
    const { violations } = await cruise(folder, [from.split("/")[0] ?? ""]);
    expect(violations.map((violation) => violation.rule.name)).toContain(rule);
  });

  test("every source file is looked at", async () => {
    const folders = ["shared", "functions", "mover"];
    const { totalCruised } = await cruise(root, folders);
    let files = 0;
    for (const name of folders) {
      for (const file of await readdir(join(root, name), { recursive: true })) {
        if (file.endsWith(".ts") && !file.includes("node_modules")) files += 1;
      }
    }
    expect(totalCruised).toBeGreaterThanOrEqual(files);
  });
});
