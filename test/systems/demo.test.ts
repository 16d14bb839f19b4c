import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

/** `npm run demo`'s script as it is: it fails when a byte differs or the restored guest does not boot. */
test("the demo ends well", async () => {
  const script = join(import.meta.dirname, "../demo/demo.ts");
  const { stdout } = await promisify(execFile)(process.execPath, [script], {
    maxBuffer: 16 * 1024 * 1024,
    timeout: 280_000,
  });
  expect(stdout.match(/^identical /gm)).toHaveLength(8);
  expect(stdout).toContain("holdfast-demo-restored boots");
});
