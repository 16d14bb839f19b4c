/**
 * The process that test/faults/stopped.test.ts stops in mid-work: backs up one disk, waits half-way for a line on stdin, and tries to commit.
 * Says on stdout what it has done, as JSON lines. Argument: folder of the repository.
 */
import { createInterface } from "node:readline";
import { isFailure } from "@holdfast/shared/domain/failure";
import { systemClock as clock } from "@holdfast/shared/ports/clock";
import { silentLogger } from "@holdfast/shared/ports/logger";
import { systemRandom as random } from "@holdfast/shared/ports/random";
import { openRepository } from "@holdfast/shared/repository/repository";
import { withSession } from "../../mover/hold-session.ts";
import { createMemoryReader } from "../../mover/pipeline/memory-disk.ts";
import { newPoint, transfer } from "../../mover/pipeline/test-repository.ts";
import { diskBytes, diskOf, passphrase, storeAt } from "./killed-child.ts";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = (told: object): unknown => process.stdout.write(`${JSON.stringify(told)}\n`);
const [folder = ""] = process.argv.slice(2);
const store = storeAt(folder);
const repository = await openRepository({ store, passphrase, clock, random });
const { signal } = new AbortController();
const disk = createMemoryReader(diskOf("stopped", 1));
let isHalf = false;
const reader = {
  ...disk,
  read: async (offset: number, into: Uint8Array) => {
    if (!isHalf && offset >= diskBytes / 2) {
      isHalf = true;
      tell({ kind: "half" });
      await lines.next();
    }
    await disk.read(offset, into);
  },
};
try {
  const held = { repository, clock, signal, kind: "backup", holder: "child", pins: [] } as const;
  await withSession({ ...held, logger: silentLogger }, async (session) => {
    const { recordKey } = await transfer(repository, reader, { session });
    await repository.writePoint(session, newPoint(recordKey, { pointId: "late" }));
  });
  tell({ kind: "committed" });
} catch (error) {
  tell({ kind: "failed", code: isFailure(error) ? error.code : String(error) });
}
process.exit(0);
