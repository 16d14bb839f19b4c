import { TaskRecord } from "../../contracts/catalog-items.ts";
import { Failure } from "../../domain/failure.ts";
import type { Catalog } from "../../ports/catalog.ts";
import { notFound, parseItem } from "./entities.ts";
import { readJson, storeJson } from "./stored-json.ts";
import type { Item, Key, Table } from "./table.ts";

/**
 * One item a task of a job: claim, result and checkpoint together, so that the claim fences both.
 * The claim only grows; a result, once there, never changes.
 */
type Tasks = Pick<
  Catalog,
  "claimTask" | "confirmClaim" | "finishTask" | "getTaskResult" | "putCheckpoint" | "getCheckpoint"
>;

export function createTasks(table: Table): Tasks {
  const read = (jobId: string, taskName: string) => table.get(keyOf(jobId, taskName));

  return {
    async claimTask(jobId, taskName, moverId) {
      const claimed = await table.update(keyOf(jobId, taskName), {
        set: { taskName, moverId },
        compute: ["#claim = if_not_exists(#claim, :zero) + :one"],
        if: "attribute_not_exists(#result)",
        values: { ":zero": 0, ":one": 1 },
      });
      const item = claimed ?? (await read(jobId, taskName));
      if (item === undefined) throw notFound("task", `${jobId} ${taskName}`);
      return toRecord(item);
    },

    async confirmClaim(jobId, record) {
      const item = await read(jobId, record.taskName);
      if (item?.["claim"] !== record.claim || item["moverId"] !== record.moverId) {
        throw lost(jobId, record);
      }
    },

    async finishTask(jobId, record, result) {
      const stored = storeJson(`the result of ${record.taskName}`, result);
      const after = await table.update(keyOf(jobId, record.taskName), {
        set: { result: stored },
        remove: ["checkpoint"],
        if: `${holds} AND attribute_not_exists(#result)`,
        values: valuesOf(record),
      });
      if (after !== undefined) return;
      // Our own write, whose answer got lost and which the SDK sent again, is a success.
      const item = await read(jobId, record.taskName);
      const isOurs = item?.["claim"] === record.claim && item["moverId"] === record.moverId;
      if (isOurs && sameBytes(item["result"], stored)) return;
      throw lost(jobId, record);
    },

    async getTaskResult(jobId, taskName) {
      return readJson((await read(jobId, taskName))?.["result"]);
    },

    async putCheckpoint(jobId, record, checkpoint) {
      const after = await table.update(keyOf(jobId, record.taskName), {
        set: { checkpoint: storeJson(`the checkpoint of ${record.taskName}`, checkpoint) },
        if: `${holds} AND attribute_not_exists(#result)`,
        values: valuesOf(record),
      });
      if (after === undefined) throw lost(jobId, record);
    },

    async getCheckpoint(jobId, taskName) {
      return readJson((await read(jobId, taskName))?.["checkpoint"]);
    },
  };
}

const holds = "#claim = :claim AND #moverId = :mover";

function valuesOf({ claim, moverId }: TaskRecord): Item {
  return { ":claim": claim, ":mover": moverId };
}

function keyOf(jobId: string, taskName: string): Key {
  return { PK: `JOB#${jobId}`, SK: `TASK#${taskName}` };
}

function toRecord(item: Item): TaskRecord {
  const { checkpoint: _checkpoint, result: stored, ...fields } = item;
  const result = readJson(stored);
  return parseItem(
    TaskRecord,
    result === undefined ? fields : { ...fields, result },
    `task ${String(item["taskName"])}`,
  );
}

function sameBytes(a: unknown, b: string | Uint8Array): boolean {
  if (typeof b === "string") return a === b;
  return a instanceof Uint8Array && Buffer.compare(a, b) === 0;
}

function lost(jobId: string, { taskName, claim }: TaskRecord): Failure {
  return new Failure("fence.lost", {
    message: `task ${taskName} of job ${jobId} was taken over from claim ${claim}`,
  });
}
