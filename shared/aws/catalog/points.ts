import { ExpiredPoint, RecoveryPoint } from "../../contracts/catalog-items.ts";
import { Failure } from "../../domain/failure.ts";
import type { Catalog } from "../../ports/catalog.ts";
import { notFound, parseItem } from "./entities.ts";
import { absent, type Item, type Key, type Table } from "./table.ts";

/** Reads at a time. */
const readsInFlight = 16;

/** Recovery points beside their VM, in order of their ids; index: by point id. Those that expired, by repository. */
type Points = Pick<
  Catalog,
  "getPoint" | "listPoints" | "unlistPoints" | "listExpired" | "forgetExpired"
> & {
  /** Idempotent: the same point again is no change; another object under its id is `conflict`. */
  readonly addPoint: (point: RecoveryPoint) => Promise<"added" | "present">;
};

export function createPoints(table: Table): Points {
  return {
    async addPoint(point) {
      const item = {
        ...point,
        ...keyOf(point),
        GSI1PK: indexPartition(point.pointId),
        GSI1SK: "POINT",
      };
      if (await table.put(item, absent)) return "added";
      const there = await table.get(keyOf(point));
      if (there?.["rootKey"] === point.rootKey) return "present";
      throw new Failure("conflict", {
        message: `recovery point ${point.pointId} exists already and is another object of the repository`,
      });
    },

    async getPoint(pointId) {
      const partition = indexPartition(pointId);
      for await (const item of table.query({ index: "GSI1", partition })) return toPoint(item);
      throw notFound("recovery point", pointId);
    },

    async listPoints(vmId) {
      const points: RecoveryPoint[] = [];
      for await (const item of table.query({ partition: `VM#${vmId}`, prefix: "POINT#" })) {
        points.push(toPoint(item));
      }
      return points.sort(
        (a, b) => compareText(b.takenAt, a.takenAt) || compareText(b.pointId, a.pointId),
      );
    },

    async unlistPoints(points) {
      for (const point of points) {
        // First: what is neither listed nor noted would stay in the repository for ever.
        await table.put({ ...expired(point), ...expiredKey(point) });
        await table.remove(keyOf(point));
      }
    },

    async listExpired(repositoryId) {
      const noted: ExpiredPoint[] = [];
      for await (const item of table.query({ partition: expiredPartition(repositoryId) })) {
        noted.push(parseItem(ExpiredPoint, item, `expired point ${String(item["pointId"])}`));
      }
      const unlisted: ExpiredPoint[] = [];
      for (let at = 0; at < noted.length; at += readsInFlight) {
        const some = noted.slice(at, at + readsInFlight);
        const listed = await Promise.all(some.map((point) => table.get(keyOf(point))));
        // Listed still where retention died in between, again where the point was imported.
        unlisted.push(...some.filter((_, position) => listed[position] === undefined));
      }
      return unlisted;
    },

    async forgetExpired(repositoryId, pointIds) {
      for (const pointId of pointIds) await table.remove(expiredKey({ repositoryId, pointId }));
    },
  };
}

function keyOf({ vmId, pointId }: Pick<RecoveryPoint, "vmId" | "pointId">): Key {
  return { PK: `VM#${vmId}`, SK: `POINT#${pointId}` };
}

function expired(point: RecoveryPoint): ExpiredPoint {
  const { pointId, vmId, vmName, repositoryId, rootKey, takenAt } = point;
  return { pointId, vmId, vmName, repositoryId, rootKey, takenAt };
}

function expiredPartition(repositoryId: string): string {
  return `EXPIRED#${repositoryId}`;
}

function expiredKey(point: Pick<ExpiredPoint, "repositoryId" | "pointId">): Key {
  return { PK: expiredPartition(point.repositoryId), SK: point.pointId };
}

function indexPartition(pointId: string): string {
  return `POINT#${pointId}`;
}

function toPoint(item: Item): RecoveryPoint {
  return parseItem(RecoveryPoint, item, `recovery point ${String(item["pointId"])}`);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
