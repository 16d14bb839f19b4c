import type { Logger } from "@holdfast/shared/ports/logger";
import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { createDiskRecords } from "@holdfast/shared/repository/extent-map/disk-records";
import { toHex } from "@holdfast/shared/repository/format/bytes";
import type { RepositorySecrets } from "@holdfast/shared/repository/keys/secrets";
import { createObjects } from "@holdfast/shared/repository/objects";
import { createPoints } from "@holdfast/shared/repository/recovery-point/points";
import type { Repository } from "@holdfast/shared/repository/repository";
import { createCondemnedLists } from "@holdfast/shared/repository/session/condemned";
import { createSessions } from "@holdfast/shared/repository/session/sessions";
import { createSignedNames } from "@holdfast/shared/repository/session/signed-name";
import type { Process } from "./process.ts";
import type { Seeded } from "./seeded.ts";

/** As small as the format allows, so that a disk of some blocks has several of everything. */
const settings = {
  packBytes: 64 * 1024,
  chunkBytesMin: 4096,
  chunkBytesTarget: 8192,
  chunkBytesMax: 8192,
  leafBytes: 64 * 1024,
};

export function createSecrets(seeded: Seeded): RepositorySecrets {
  return {
    repositoryId: seeded.bytes(16),
    identity: seeded.bytes(32),
    masters: new Map([[1, seeded.bytes(32)]]),
    activeEpoch: 1,
  };
}

/** What `openRepository` gives, without config, passphrase and key derivation, which takes threads and milliseconds. */
export function openFor(o: {
  readonly process: Pick<Process, "clock" | "random">;
  readonly store: ObjectStore;
  readonly secrets: RepositorySecrets;
  readonly logger: Logger;
}): Repository {
  const { store, secrets, logger } = o;
  const { clock, random } = o.process;
  const objects = createObjects({ store, secrets, random });
  const diskRecords = createDiskRecords({ objects, secrets, settings });
  const names = createSignedNames(secrets, random);
  const parts = { store, objects, clock, random, logger, names };
  const condemned = createCondemnedLists(parts);
  const sessions = createSessions({ ...parts, condemned });
  const points = createPoints({ ...parts, diskRecords, sessions });
  return {
    repositoryId: toHex(secrets.repositoryId),
    haveKeysChanged: async () => false,
    store,
    settings,
    lock: undefined,
    secrets,
    clock,
    random,
    objects,
    sessions,
    putMetadata: points.putMetadata,
    writePoint: points.write,
    readPoint: points.read,
    readSummary: points.readSummary,
    listPoints: points.list,
    readDiskRecord: diskRecords.read,
    writeDiskRecord: (session, record, options) =>
      diskRecords.write(record, session.objects, options),
  };
}
