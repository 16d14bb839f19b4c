import { createHash } from "node:crypto";
import { z } from "zod";
import { type ImportedPoint, type RecoveryPoint, Vm } from "../../contracts/catalog-items.ts";
import { Failure } from "../../domain/failure.ts";
import type { Catalog } from "../../ports/catalog.ts";
import type { InventoryItem } from "../../ports/driver.ts";
import { notFound, parseItem } from "./entities.ts";
import { readJson, storeJson } from "./stored-json.ts";
import { absent, type Item, type Key, type Table } from "./table.ts";

/**
 * One item a VM. Lock, fence and head lie flat in it, so that one conditional update decides each of
 * "who holds the VM" and "which attempt committed". Index: all VMs by name.
 */
type Vms = Pick<
  Catalog,
  "upsertVm" | "markGone" | "getVm" | "findVm" | "listVms" | "lockVm" | "unlockVm" | "clearAnchor"
> & {
  readonly setHead: (
    point: RecoveryPoint,
    options: { readonly fence: number; readonly anchor: Head["anchor"] },
  ) => Promise<void>;
  /** A VM that only a repository tells of; one that is known keeps what an inventory or a newer point says of it. */
  readonly importVm: (imported: ImportedPoint) => Promise<void>;
  readonly importHead: (point: RecoveryPoint) => Promise<void>;
  readonly forgetProvider: (providerId: string) => Promise<void>;
};
type Head = NonNullable<Vm["head"]>;

const FlatVm = z.looseObject({
  lockJobId: z.string().optional(),
  lockFence: z.int().optional(),
  headPointId: z.string().optional(),
  headRepositoryId: z.string().optional(),
  headJobId: z.string().optional(),
  headTakenAt: z.string().optional(),
  headAnchor: z.unknown().optional(),
});

const partitionOfAll = "VM";
const lockAttemptsMax = 5;
const importedReason = "imported from a repository; not seen on a provider since";
/** An index key holds 1024 bytes: a name's first 200 characters are at most 800. */
const namePrefixMax = 200;

export function createVms(table: Table): Vms {
  const readVm = async (vmId: string): Promise<Vm> => {
    const item = await table.get(keyOf(vmId));
    if (item === undefined) throw notFound("VM", vmId);
    return toVm(item);
  };

  const listVms = async (
    filter: { readonly providerId?: string } = {},
    name?: string,
  ): Promise<readonly Vm[]> => {
    const vms: Vm[] = [];
    const prefix = name === undefined ? {} : { prefix: nameKey(name) };
    for await (const item of table.query({ index: "GSI1", partition: partitionOfAll, ...prefix })) {
      if (filter.providerId === undefined || item["providerId"] === filter.providerId) {
        vms.push(toVm(item));
      }
    }
    return vms;
  };

  return {
    async upsertVm(providerId, item, seenAt) {
      const vmId = vmIdOf(providerId, item.externalId);
      await table.update(keyOf(vmId), {
        set: { ...inventoryFields(providerId, item), vmId, seenAt, gone: false },
        compute: ["#fence = if_not_exists(#fence, :zero)"],
        values: { ":zero": 0 },
      });
      return vmId;
    },

    async markGone(providerId, seenAt) {
      let count = 0;
      for (const { vmId, gone } of await listVms({ providerId })) {
        if (gone) continue;
        // The index may lag: the item itself says when it was seen.
        const marked = await table.update(keyOf(vmId), {
          set: { gone: true },
          if: "attribute_exists(#PK) AND #seenAt < :seenAt",
          values: { ":seenAt": seenAt },
        });
        if (marked !== undefined) count += 1;
      }
      return count;
    },

    getVm: readVm,
    listVms: (filter) => listVms(filter),

    async findVm(idOrName) {
      const byId = await table.get(keyOf(idOrName));
      if (byId !== undefined) return toVm(byId);
      const named = (await listVms({}, idOrName)).filter(
        ({ description }) => description.name === idOrName,
      );
      const present = named.filter(({ gone }) => !gone);
      const candidates = present.length > 0 ? present : named;
      const [first] = candidates;
      if (first === undefined) throw notFound("VM", idOrName);
      if (candidates.length === 1) return readVm(first.vmId);
      const list = candidates
        .slice(0, 20)
        .map(({ vmId, providerId }) => `${vmId} on ${providerId}`);
      throw new Failure("conflict", {
        message: `${candidates.length} VMs are named ${JSON.stringify(idOrName)}; use an id: ${list.join(", ")}`,
      });
    },

    async lockVm(vmId, jobId) {
      for (let attempt = 1; attempt <= lockAttemptsMax; attempt += 1) {
        const after = await table.update(keyOf(vmId), {
          set: { lockJobId: jobId },
          compute: ["#fence = #fence + :one", "#lockFence = #fence + :one"],
          if: "attribute_exists(#PK) AND attribute_not_exists(#lockJobId)",
          values: { ":one": 1 },
        });
        const { lock } = after === undefined ? await readVm(vmId) : toVm(after);
        if (lock?.jobId === jobId) return lock.fence;
        // Without a lock by now, its holder gave it back between the two looks: once more.
        if (lock === undefined) continue;
        throw new Failure("busy", {
          message: `VM ${vmId} is held by job ${lock.jobId}`,
          jobId: lock.jobId,
        });
      }
      throw new Failure("conflict", { message: `VM ${vmId} changes hands too fast; try again` });
    },

    async unlockVm(vmId, jobId) {
      await table.update(keyOf(vmId), {
        remove: ["lockJobId", "lockFence"],
        if: "#lockJobId = :job",
        values: { ":job": jobId },
      });
    },

    async clearAnchor(vmId, jobId) {
      const after = await table.update(keyOf(vmId), {
        remove: ["headAnchor"],
        if: "#lockJobId = :job",
        values: { ":job": jobId },
      });
      if (after === undefined) throw lost(vmId, jobId);
    },

    async setHead(point, { fence, anchor }) {
      const { vmId, jobId, pointId } = point;
      const after = await table.update(keyOf(vmId), {
        set: {
          headPointId: pointId,
          headRepositoryId: point.repositoryId,
          headJobId: jobId,
          headTakenAt: point.takenAt,
          headAnchor: anchor && storeJson(`the anchor of VM ${vmId}`, anchor),
        },
        remove: anchor === undefined ? ["headAnchor"] : [],
        // The same job with the same fence commits one point only: of two attempts the first wins.
        if: "#lockJobId = :job AND #lockFence = :fence AND (attribute_not_exists(#headJobId) OR #headJobId <> :job OR #headPointId = :point)",
        values: { ":job": jobId, ":fence": fence, ":point": pointId },
      });
      if (after !== undefined) return;
      const { head } = await readVm(vmId);
      if (head?.jobId === jobId && head.pointId === pointId) return;
      throw lost(vmId, jobId);
    },

    async importVm({ point: { vmId, providerId, takenAt }, fence, description }) {
      const item = {
        ...indexKeys(vmId, description.name),
        ...{ vmId, providerId, description, externalId: description.uuid },
        ...{ power: "unknown", strategy: "ssh-snapshot", strategyReason: importedReason },
        ...{ gone: true, seenAt: takenAt, fence },
      };
      if (await table.put({ ...keyOf(vmId), ...item }, absent)) return;
      // Attempts of before are behind all that come.
      await table.update(keyOf(vmId), {
        set: { fence },
        if: "#fence < :fence",
        values: { ":fence": fence },
      });
      await table.update(keyOf(vmId), {
        set: { ...indexKeys(vmId, description.name), description, seenAt: takenAt },
        if: "#gone = :gone AND #strategyReason = :reason AND #seenAt < :takenAt",
        values: { ":gone": true, ":reason": importedReason, ":takenAt": takenAt },
      });
    },

    async importHead({ vmId, pointId, repositoryId, jobId, takenAt }) {
      await table.update(keyOf(vmId), {
        set: {
          headPointId: pointId,
          headRepositoryId: repositoryId,
          headJobId: jobId,
          headTakenAt: takenAt,
        },
        if: "attribute_exists(#PK) AND attribute_not_exists(#lockJobId) AND attribute_not_exists(#headAnchor) AND (attribute_not_exists(#headPointId) OR #headTakenAt < :takenAt)",
        values: { ":takenAt": takenAt },
      });
    },

    async forgetProvider(providerId) {
      for (const { vmId } of await listVms({ providerId })) {
        const removed = await table.remove(keyOf(vmId), {
          if: "attribute_not_exists(#headPointId) AND attribute_not_exists(#lockJobId)",
        });
        if (removed) continue;
        await table.update(keyOf(vmId), { set: { gone: true }, if: "attribute_exists(#PK)" });
      }
    },
  };
}

/** Deterministic, so that two syncs at once make one VM. */
function vmIdOf(providerId: string, externalId: string): string {
  const hash = createHash("sha256").update(`${providerId}\0${externalId}`).digest("hex");
  return `vm-${hash.slice(0, 20)}`;
}

function keyOf(vmId: string): Key {
  return { PK: `VM#${vmId}`, SK: "VM" };
}

function nameKey(name: string): string {
  return Array.from(name).slice(0, namePrefixMax).join("");
}

function indexKeys(vmId: string, name: string): Item {
  return { GSI1PK: partitionOfAll, GSI1SK: `${nameKey(name)}#${vmId}` };
}

function inventoryFields(providerId: string, item: InventoryItem): Item {
  const vmId = vmIdOf(providerId, item.externalId);
  return {
    ...indexKeys(vmId, item.description.name),
    providerId,
    externalId: item.externalId,
    description: item.description,
    power: item.power,
    strategy: item.strategy,
    strategyReason: item.strategyReason,
  };
}

function toVm(item: Item): Vm {
  const {
    lockJobId,
    lockFence,
    headPointId,
    headRepositoryId,
    headJobId,
    headTakenAt,
    headAnchor,
    ...fields
  } = FlatVm.parse(item);
  const head = headPointId !== undefined && {
    pointId: headPointId,
    repositoryId: headRepositoryId,
    jobId: headJobId,
    ...(headTakenAt === undefined ? {} : { takenAt: headTakenAt }),
    ...(headAnchor === undefined ? {} : { anchor: readJson(headAnchor) }),
  };
  return parseItem(
    Vm,
    {
      ...fields,
      ...(lockJobId === undefined ? {} : { lock: { jobId: lockJobId, fence: lockFence } }),
      ...(head ? { head } : {}),
    },
    `VM ${String(item["vmId"])}`,
  );
}

function lost(vmId: string, jobId: string): Failure {
  return new Failure("fence.lost", {
    message: `job ${jobId} no longer holds VM ${vmId}, or another of its attempts committed first`,
  });
}
