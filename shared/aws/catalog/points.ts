import { RecoveryPoint } from "../../contracts/catalog-items.ts";
import { Failure } from "../../domain/failure.ts";
import type { Catalog } from "../../ports/catalog.ts";
import { notFound, parseItem } from "./entities.ts";
import { absent, type Item, type Key, type Table } from "./table.ts";

/** Recovery points beside their VM, in order of their ids; index: by point id. */
type Points = Pick<Catalog, "getPoint" | "listPoints" | "unlistPoints"> & {
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
      for (const point of points) await table.remove(keyOf(point));
    },
  };
}

function keyOf({ vmId, pointId }: Pick<RecoveryPoint, "vmId" | "pointId">): Key {
  return { PK: `VM#${vmId}`, SK: `POINT#${pointId}` };
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
