import type { CallOptions } from "../../ports/object-store.ts";
import { corrupt, sameBytes } from "../format/bytes.ts";
import type { RepositorySettings } from "../format/settings.ts";
import type { RepositorySecrets } from "../keys/secrets.ts";
import type { NewObjects, RepositoryObjects } from "../objects.ts";
import { createDigests, type Digests } from "./digest.ts";
import { type DiskRecord, decodeDiskRecord, encodeDiskRecord } from "./disk-record.ts";
import type { LeafTable } from "./leaf-table.ts";

export type DiskRecords = {
  readonly read: (recordKey: string, options?: CallOptions) => Promise<DiskRecord>;
  readonly write: (
    record: DiskRecord,
    objects: NewObjects,
    options?: CallOptions,
  ) => Promise<string>;
};

export function createDiskRecords(o: {
  readonly objects: RepositoryObjects;
  readonly secrets: RepositorySecrets;
  readonly settings: RepositorySettings;
}): DiskRecords {
  const digests = createDigests(o.secrets);

  function check(record: DiskRecord, name: string): void {
    if (record.leafBytes !== o.settings.leafBytes) {
      throw corrupt(`${name} has leaves of ${record.leafBytes} bytes`, { key: name });
    }
    if (!sameBytes(diskDigest(digests, record, name), record.digest)) {
      throw corrupt(`${name} lists other leaves than its digest was made of`, { key: name });
    }
  }

  return {
    read: async (recordKey, options) => {
      const record = decodeDiskRecord(await o.objects.get(recordKey, "disk-record", options));
      check(record, recordKey);
      return record;
    },
    write: async (record, objects, options) => {
      check(record, `record of disk ${record.diskKey}`);
      return objects.putNew("disks", "disk-record", encodeDiskRecord(record), options);
    },
  };
}

/** Fails with `object.corrupt` when a leaf is missing. */
export function diskDigest(
  digests: Digests,
  record: { readonly sizeBytes: number; readonly leafBytes: number; readonly leaves: LeafTable },
  name: string,
): Uint8Array {
  return digests.disk(record.sizeBytes, leafDigests(digests, record, name));
}

function* leafDigests(
  digests: Digests,
  record: { readonly sizeBytes: number; readonly leafBytes: number; readonly leaves: LeafTable },
  name: string,
): Generator<Uint8Array> {
  for (let index = 0; index < record.leaves.count; index += 1) {
    const ref = record.leaves.get(index);
    if (ref === undefined) throw corrupt(`${name} has no leaf ${index}`, { key: name });
    yield ref === "hole" ? digests.leaf(leafRange(record, index), []) : ref.digest;
  }
}

export function leafRange(
  disk: { readonly sizeBytes: number; readonly leafBytes: number },
  index: number,
): { readonly offset: number; readonly lengthBytes: number } {
  const offset = index * disk.leafBytes;
  return { offset, lengthBytes: Math.min(disk.leafBytes, disk.sizeBytes - offset) };
}
