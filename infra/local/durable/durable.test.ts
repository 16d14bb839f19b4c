import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openAppendLog, readAppendLog } from "./append-log.ts";
import { openJsonMapFile } from "./json-file.ts";
import { lockState } from "./state-lock.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-durable-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a log gives back what was appended, without the line that a crash tore", async () => {
  const path = join(folder, "torn.jsonl");
  const first = openAppendLog(path);
  first.log.append({ n: 1, text: "zwölf\n" });
  first.log.append({ n: 2 });
  await first.log.flush();
  first.log.close();
  appendFileSync(path, '{"n":3,"te');
  const second = openAppendLog(path);
  expect(second.records).toEqual([{ n: 1, text: "zwölf\n" }, { n: 2 }]);
  second.log.append({ n: 4 });
  await second.log.flush();
  second.log.close();
  expect(readAppendLog(path)).toEqual([{ n: 1, text: "zwölf\n" }, { n: 2 }, { n: 4 }]);
});

test("flushes that come together all resolve, and so does one that a closing overtakes", async () => {
  const { log } = openAppendLog(join(folder, "many.jsonl"));
  const flushes = Array.from({ length: 50 }, (_, n) => {
    log.append({ n });
    return log.flush();
  });
  log.close();
  await Promise.all(flushes);
  expect(() => log.append({ n: 51 })).toThrow("closed");
});

test("damage that no crash explains is named and stops the start", () => {
  const path = join(folder, "damaged.jsonl");
  writeFileSync(path, '{"n":1}\n{"n":\n{"n":3}\n');
  expect(() => openAppendLog(path)).toThrow(`${path} is damaged in line 2`);
});

test("a map file keeps its entries, and refuses those of another shape", () => {
  const path = join(folder, "map.json");
  const parse = (value: unknown) => {
    if (typeof value !== "string") throw new Error("not a string");
    return value;
  };
  const map = openJsonMapFile(path, parse);
  map.set("a", "1");
  map.set("b", "2");
  expect(map.delete("a")).toBe(true);
  expect(map.delete("a")).toBe(false);
  expect(openJsonMapFile(path, parse).values()).toEqual(["2"]);
  writeFileSync(path, '{"c":3}');
  expect(() => openJsonMapFile(path, parse)).toThrow("not a string");
});

test("a lock holds while its process lives, and one of a dead process is taken over", () => {
  const unlock = lockState(folder);
  expect(() => lockState(folder)).toThrow(`Process ${process.pid} runs a local stack`);
  unlock();
  lockState(folder)();
  // This process id exists, but the process that wrote this one started at another time.
  writeFileSync(join(folder, "lock"), `${process.pid} 1`);
  const again = lockState(folder);
  expect(readFileSync(join(folder, "lock"), "utf8")).not.toBe(`${process.pid} 1`);
  again();
});
