import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { createRepository } from "@holdfast/shared/repository/repository";
import { standaloneSilenceSeconds } from "@holdfast/shared/repository/session/sessions";
import { afterAll, expect, test } from "vitest";
import {
  backUp,
  collectNow,
  createTestClock,
  diskOf,
  keysOf,
  openAt,
  restoreAll,
} from "../../mover/pipeline/test-collect.ts";
import { smallSettings } from "../../mover/pipeline/test-repository.ts";
import { passphrase, storeAt } from "./killed-child.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-stopped-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What Linux says of a process: `T` is stopped. */
const stateOf = (pid: number): string | undefined =>
  /\) ([A-Z]) /.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1];

test.skipIf(process.platform !== "linux")(
  "R23: a process that is stopped for three leases finds its commit refused when it goes on, and leaves nothing",
  async () => {
    const place = join(folder, "repository");
    mkdirSync(place);
    const store = storeAt(place);
    const clock = createTestClock();
    await createRepository({
      store,
      passphrase,
      clock,
      random,
      settings: smallSettings,
      passphraseCost: { memoryKiB: 64, passes: 1 },
    });
    const repository = await openAt(store, clock);
    const kept = diskOf(1, 2, 3);
    await backUp(repository, { vm: "a", pointId: "p1", disk: kept });
    const before = await keysOf(store, "packs/");

    const child = spawn(process.execPath, [join(import.meta.dirname, "stopped-child.ts"), place], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    try {
      const told = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const hear = async (): Promise<unknown> => JSON.parse((await told.next()).value ?? "null");
      expect(await hear()).toEqual({ kind: "half" });
      const pid = child.pid ?? 0;
      child.kill("SIGSTOP");
      while (stateOf(pid) !== "T") await wait(1);
      const stored = (await keysOf(store, "packs/")).length;
      expect(stored).toBeGreaterThan(before.length);

      // Three leases pass on the collector's clock alone; the child's clock stands still, which nobody may count on.
      const report = await collectNow(repository, { waitMs: 3 * standaloneSilenceSeconds * 1000 });
      expect(report.state).toBe("done");
      expect(await keysOf(store, "packs/")).toEqual(before);

      child.kill("SIGCONT");
      child.stdin.write("go on\n");
      expect(await hear()).toEqual({ kind: "failed", code: "session.ended" });
      await new Promise((resolve) => child.once("close", resolve));
    } finally {
      child.kill("SIGKILL");
    }
    expect(await restoreAll(repository, new Map([["a/p1", kept]]))).toEqual(["a/p1"]);
    await collectNow(repository);
    await collectNow(repository);
    expect(await keysOf(store, "packs/")).toEqual(before);
  },
);
