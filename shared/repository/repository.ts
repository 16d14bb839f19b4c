import { Failure, isFailure } from "../domain/failure.ts";
import type { Clock } from "../ports/clock.ts";
import type { VmMetadata } from "../ports/driver.ts";
import type { KeyService } from "../ports/key-service.ts";
import { type Logger, silentLogger } from "../ports/logger.ts";
import type { CallOptions, ObjectStore, ObjectStoreSupports } from "../ports/object-store.ts";
import type { RandomBytes } from "../ports/random.ts";
import type { DiskRecord } from "./extent-map/disk-record.ts";
import { createDiskRecords } from "./extent-map/disk-records.ts";
import { toHex } from "./format/bytes.ts";
import {
  type Config,
  checkConfig,
  configName,
  decodeConfig,
  encodeConfig,
} from "./format/config.ts";
import { type LockSettings, withRetention } from "./format/retention.ts";
import { defaultSettings, RepositorySettings } from "./format/settings.ts";
import {
  addWrapping,
  checkKeys,
  describeKeys,
  type KeyCheck,
  type KeyReport,
  removeWrapping,
  rotateKeys,
  type WrappingReport,
} from "./keys/manage-keys.ts";
import { listKeyNames, openKeys } from "./keys/open-keys.ts";
import type { RepositorySecrets } from "./keys/secrets.ts";
import type { NewMethod, PassphraseCost } from "./keys/unlock.ts";
import { createWrapping } from "./keys/wrapping.ts";
import { createObjects, type RepositoryObjects } from "./objects.ts";
import type { DiskOfPoint, PointSummary } from "./recovery-point/point.ts";
import { createPoints } from "./recovery-point/points.ts";
import { createCondemnedLists } from "./session/condemned.ts";
import { createSessions, type Session, type Sessions } from "./session/sessions.ts";
import { createSignedNames } from "./session/signed-name.ts";

/**
 * The repository: everything that is stored about the virtual machines of one tenant, in one object store.
 *
 * What always holds: an object is never overwritten; packs are written before what refers to them, and a recovery point's
 * root last, so that a listed point is complete; every stored byte is authenticated and bound to its name; restoring needs
 * only the store and a passphrase; others may write, read and collect at the same time, without a lock: whoever writes has a session.
 */
export interface Repository {
  readonly repositoryId: string;
  readonly store: ObjectStore;
  readonly settings: RepositorySettings;
  /** What is put into `store` is locked so; undefined: not at all. */
  readonly lock: LockSettings | undefined;
  readonly secrets: RepositorySecrets;
  /** Keys were added, removed or rotated since it was opened: to be opened anew before new work begins. */
  haveKeysChanged(options?: CallOptions): Promise<boolean>;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly objects: RepositoryObjects;
  readonly sessions: Sessions;
  /** Seals a VM's metadata ahead of its point; returns the name that `NewPoint.metadata` takes. */
  putMetadata(
    session: Session,
    metadata: VmMetadata,
    options?: CallOptions,
  ): Promise<{ readonly metadataKey: string }>;
  /**
   * The commit, which ends the session. Idempotent for one session, job and fence: an attempt whose answer was lost is found, compared, and its
   * commit finished. Fails with `session.ended` where the session was fenced or has ended otherwise, `conflict` where an earlier attempt of the
   * session wrote another point, and with `object.not-found` or `object.corrupt` when a disk record is missing or not as it should be.
   */
  writePoint(
    session: Session,
    point: NewPoint,
    options?: CallOptions,
  ): Promise<{ readonly rootKey: string }>;
  /** Fails with `object.not-found`, `object.corrupt`. */
  readPoint(rootKey: string, options?: CallOptions): Promise<Point>;
  /** The same without the VM's metadata, which may be damaged while the disks are not. */
  readSummary(rootKey: string, options?: CallOptions): Promise<PointSummary>;
  /**
   * Every committed point that is not condemned, oldest id first within a VM, from the store alone; of several attempts at one point the one with
   * the highest fence. Roots that cannot be read are logged and given to `onUnreadable`, never listed.
   */
  listPoints(options?: ListPointsOptions): AsyncIterable<PointSummary>;
  readDiskRecord(recordKey: string, options?: CallOptions): Promise<DiskRecord>;
  writeDiskRecord(session: Session, record: DiskRecord, options?: CallOptions): Promise<string>;
}

export type ListPointsOptions = CallOptions & {
  readonly vmKey?: string;
  readonly onUnreadable?: (found: { readonly key: string; readonly failure: Failure }) => void;
  /** Hears of roots that are no points: their sessions are open, or ended without them. They are not read. */
  readonly onUncommitted?: (rootKey: string) => void;
};

export type NewPoint = {
  readonly pointId: string;
  /** Stable over the VM's life; part of the object's name. */
  readonly vmKey: string;
  readonly vmName: string;
  readonly providerId: string;
  readonly jobId: string;
  readonly fence: number;
  /** ISO 8601; for display only. */
  readonly takenAt: string;
  readonly mode: "full" | "incremental";
  readonly consistency: "application" | "crash" | "stopped";
  readonly warnings: readonly string[];
  readonly parent?: { readonly pointId: string; readonly rootKey: string } | undefined;
  /** Of a copy: the root that it was made from, in another repository. */
  readonly copiedFrom?: { readonly repositoryId: string; readonly rootKey: string };
  /** The metadata, or where `putMetadata` has put it. */
  readonly metadata: VmMetadata | { readonly metadataKey: string };
  readonly disks: readonly NewPointDisk[];
};

export type NewPointDisk = {
  readonly key: string;
  readonly recordKey: string;
  readonly mode: "full" | "incremental";
  readonly reason: string;
};

export type Point = PointSummary & { readonly metadata: VmMetadata };
export type { DiskOfPoint, PointSummary };

type Opening = {
  readonly store: ObjectStore;
  /** The passphrase; or the 24 words of a recovery key; or `aws:kms`, to be opened by `kms`. */
  readonly passphrase: string;
  readonly kms?: KeyService | undefined;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly logger?: Logger;
  /** Opens the same store for what its probe found when the repository was created, once that is authenticated. */
  readonly reopenStore?: (supports: ObjectStoreSupports) => Promise<ObjectStore>;
};

/** Fails with `repository.exists` if there is one, also one that lost its config. */
export async function createRepository(
  o: Opening & {
    readonly settings?: Partial<RepositorySettings>;
    /** Fails with `unsupported` where the store cannot lock. */
    readonly lock?: LockSettings | undefined;
    readonly passphraseCost?: PassphraseCost;
    /** Further keys to it, with their labels. */
    readonly keys?: readonly { readonly method: NewMethod; readonly label: string }[];
  },
): Promise<Repository> {
  const settings = parseSettings({ ...defaultSettings, ...o.settings });
  const store = withRetention(o.store, o.lock, o.clock);
  await refuseIfTaken(o.store);
  const secrets: RepositorySecrets = {
    repositoryId: Uint8Array.from(o.random(16)),
    identity: Uint8Array.from(o.random(32)),
    masters: new Map([[1, Uint8Array.from(o.random(32))]]),
    activeEpoch: 1,
  };
  const createdAt = new Date(o.clock.now()).toISOString();
  const { passphrase, passphraseCost: cost } = o;
  const first = {
    label: "first passphrase",
    method: { kind: "passphrase", passphrase, cost },
  } as const;
  const wrappings = await Promise.all(
    [first, ...(o.keys ?? [])].map((wanted) =>
      createWrapping({
        ...wanted,
        ...secrets,
        keyring: secrets,
        epoch: 1,
        createdAt,
        random: o.random,
      }),
    ),
  );
  const config = encodeConfig(
    {
      repositoryId: toHex(secrets.repositoryId),
      createdAt,
      features: [],
      settings,
      store: o.store.supports,
      ...(o.lock && { lock: o.lock }),
    },
    secrets,
  );
  // The config comes last: a repository without its key does not exist. Of two that race, one puts the config.
  for (const { name, bytes } of wrappings) await store.put(name, bytes);
  try {
    await store.put(configName, config);
  } catch (cause) {
    if (!isFailure(cause, "object.exists")) throw cause;
    const stored = await o.store.get(configName);
    if (Buffer.compare(stored, config) !== 0) throw taken(o.store, cause);
  }
  return openRepository(o);
}

/** Fails with `repository.not-found`, `repository.key-wrong`, `repository.format-unknown`, `object.corrupt`. */
export async function openRepository(o: Opening): Promise<Repository> {
  const configBytes = await getConfig(o.store);
  const config = decodeConfig(configBytes);
  const { secrets, findings, objects: keyObjects } = await openKeys(o, idOf(config));
  checkConfig(configBytes, secrets);
  for (const { object, reason } of findings)
    o.logger?.warn("key object ignored", { object, reason });
  const store = withRetention(await chooseStore(o, config.store), config.lock, o.clock);
  const objects = createObjects({ store, secrets, random: o.random });
  const diskRecords = createDiskRecords({ objects, secrets, settings: config.settings });
  const parts = { ...o, store, logger: o.logger ?? silentLogger, objects };
  const names = createSignedNames(secrets, o.random);
  const condemned = createCondemnedLists({ ...parts, names });
  const sessions = createSessions({ ...parts, names, condemned });
  const points = createPoints({ ...parts, diskRecords, sessions });
  const haveKeysChanged = async (options?: CallOptions): Promise<boolean> => {
    const now = await listKeyNames(o.store, options);
    return now.join() !== keyObjects.names.join();
  };
  return {
    repositoryId: config.repositoryId,
    haveKeysChanged,
    store,
    settings: config.settings,
    lock: config.lock,
    secrets,
    clock: o.clock,
    random: o.random,
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

/**
 * A store known to refuse taken keys needs no look before each put; one known to keep versions removes them all. Another is left as it
 * was opened, which is right everywhere: the repository may have been copied to another store since.
 */
async function chooseStore(o: Opening, supports: ObjectStoreSupports): Promise<ObjectStore> {
  const isPlain = !supports.conditionalPut && supports.versioned !== true;
  if (isPlain || o.reopenStore === undefined) return o.store;
  return await o.reopenStore(supports);
}

/** The keys of a repository, for who manages them; each call reads them anew. Failures: those of `openRepository` and of `keys/manage-keys.ts`. */
export type RepositoryKeys = {
  list(): Promise<KeyReport>;
  add(wanted: { readonly label: string; readonly method: NewMethod }): Promise<WrappingReport>;
  remove(id: string): Promise<KeyReport>;
  rotate(only?: readonly string[]): Promise<KeyReport>;
  /** With further keys than the one that opens. */
  check(others: readonly string[]): Promise<KeyCheck>;
};

export async function openRepositoryKeys(o: Opening): Promise<RepositoryKeys> {
  const configBytes = await getConfig(o.store);
  const config = decodeConfig(configBytes);
  const repositoryId = idOf(config);
  checkConfig(configBytes, (await openKeys(o, repositoryId)).secrets);
  const store = withRetention(await chooseStore(o, config.store), config.lock, o.clock);
  const changing = () => {
    const now = new Date(o.clock.now()).toISOString();
    return { access: o, repositoryId, store, random: o.random, now };
  };
  return {
    list: async () => describeKeys(await openKeys(o, repositoryId)),
    add: async (wanted) => await addWrapping({ ...changing(), ...wanted }),
    remove: async (id) => await removeWrapping({ ...changing(), id }),
    rotate: async (only) => await rotateKeys({ ...changing(), only }),
    check: async (others) => await checkKeys({ access: o, others, repositoryId }),
  };
}

const idOf = (config: Config): Uint8Array =>
  Uint8Array.from(Buffer.from(config.repositoryId, "hex"));

async function getConfig(store: ObjectStore): Promise<Uint8Array> {
  try {
    return await store.get(configName);
  } catch (cause) {
    if (!isFailure(cause, "object.not-found")) throw cause;
    const left = await findStored(store);
    if (left !== undefined)
      throw new Failure("object.corrupt", { message: lost(store, left), cause });
    throw new Failure("repository.not-found", {
      message: `there is no repository at ${store.url}`,
      cause,
    });
  }
}

async function refuseIfTaken(store: ObjectStore): Promise<void> {
  if ((await store.head(configName)) !== undefined) throw taken(store);
  const left = await findStored(store);
  if (left !== undefined) throw new Failure("repository.exists", { message: lost(store, left) });
}

/** Something that a backup has put. Keys alone are what a creation leaves that was cut off. */
async function findStored(store: ObjectStore): Promise<string | undefined> {
  for (const prefix of ["points/", "packs/"]) {
    for await (const { key } of store.list(prefix)) return key;
  }
  return undefined;
}

const lost = (store: ObjectStore, left: string): string =>
  `${store.url} has no config, but ${left} and perhaps more of a repository: bring the config back from a copy (it never changes), or from an ` +
  "older version with `holdfast repository recover`";

function taken(store: ObjectStore, cause?: unknown): Failure {
  return new Failure("repository.exists", {
    message: `there is a repository at ${store.url} already`,
    cause,
  });
}

function parseSettings(settings: RepositorySettings): RepositorySettings {
  const parsed = RepositorySettings.safeParse(settings);
  if (parsed.success) return parsed.data;
  throw new Failure("input.invalid", { message: `repository settings: ${parsed.error.message}` });
}
