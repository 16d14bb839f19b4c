import { Failure, isFailure } from "../../domain/failure.ts";
import type { KeyService } from "../../ports/key-service.ts";
import type { CallOptions, ObjectStore } from "../../ports/object-store.ts";
import { decodeEpoch, type Epoch, epochOfName, isVouchedFor, openRow, rowFor } from "./epoch.ts";
import { conflictingEpoch, isSameRepository, type Keyring } from "./keyring.ts";
import type { RepositorySecrets } from "./secrets.ts";
import { parseUnlock, type Unlock } from "./unlock.ts";
import { decodeWrapping, openWrapping, type Wrapping, wrappingId } from "./wrapping.ts";

/** What lies below `keys/`, decoded; nothing of it is authenticated yet. */
export type KeyObjects = {
  readonly wrappings: readonly Wrapping[];
  readonly epochs: readonly Epoch[];
  readonly findings: readonly KeyFinding[];
  /** All names, sorted: keys that changed have others. */
  readonly names: readonly string[];
};
/** An object below `keys/` that takes no part, and why. */
export type KeyFinding = { readonly object: string; readonly reason: string };

export type OpenedKeys = {
  readonly repositoryId: Uint8Array;
  readonly secrets: RepositorySecrets;
  readonly keyring: Keyring;
  /** The wrapping that was opened. */
  readonly wrapping: Wrapping;
  readonly objects: KeyObjects;
  /** Epochs that are vouched for, with those who take part in them. */
  readonly epochs: readonly Epoch[];
  /** Epochs that no other follows: one, unless two rotations met, or somebody with an older key made one. */
  readonly heads: readonly number[];
  readonly findings: readonly KeyFinding[];
};

export type KeyAccess = {
  readonly store: ObjectStore;
  /** The passphrase, or what may stand in its place: see `parseUnlock`. */
  readonly passphrase: string;
  readonly kms?: KeyService | undefined;
};

const keyFolder = "keys/";
/** A wrapping of 1024 epochs has 40 KB; an epoch of 256 wrappings with as many, 10 MB. */
const keyObjectBytesMax = 16 * 1024 * 1024;

/**
 * Opens with the first wrapping that the key fits and that takes part in the newest epoch; if there is none, with one that opens at least
 * the older ones. Fails with `repository.key-wrong`; with `object.corrupt` where the only wrapping that might fit is damaged.
 */
export async function openKeys(access: KeyAccess, repositoryId: Uint8Array): Promise<OpenedKeys> {
  const unlock = parseUnlock(access.passphrase, access.kms);
  const objects = await readKeyObjects(access.store);
  let second: OpenedKeys | undefined;
  let refusal: unknown;
  for (const wrapping of objects.wrappings) {
    try {
      const opened = await openBy(wrapping, { unlock, objects, repositoryId });
      if (opened === undefined) continue;
      if (opened.secrets.activeEpoch !== 0) return opened;
      second ??= opened;
    } catch (error) {
      // A key service that does not answer weighs more than a wrapping for another key: it may be the one that was asked for.
      if (refusal === undefined || !isFailure(error, "repository.key-wrong")) refusal = error;
    }
  }
  if (second !== undefined) return second;
  if (refusal !== undefined && !isFailure(refusal, "repository.key-wrong")) throw refusal;
  const damaged = objects.findings.find(({ object }) => wrappingId(object) !== undefined);
  if (damaged !== undefined) {
    throw new Failure("object.corrupt", {
      message: `no key wrapping of ${access.store.url} opens, and one is damaged: ${damaged.reason}`,
      key: damaged.object,
    });
  }
  if (objects.wrappings.length === 0) {
    throw new Failure("object.corrupt", {
      message: `${access.store.url} has no key wrapping left: bring its keys/ back from a copy; nothing opens without one of them`,
    });
  }
  throw new Failure("repository.key-wrong", {
    message: `the ${describe(unlock)} opens none of the key wrappings of ${access.store.url}`,
    cause: refusal,
  });
}

const describe = ({ kind }: Unlock): string =>
  kind === "aws-kms" ? "key of AWS KMS" : kind.replace("-", " ");

export async function readKeyObjects(
  store: ObjectStore,
  options?: CallOptions,
): Promise<KeyObjects> {
  const wrappings: Wrapping[] = [];
  const epochs: Epoch[] = [];
  const findings: KeyFinding[] = [];
  const names: string[] = [];
  for await (const { key: name, sizeBytes } of store.list(keyFolder, options)) {
    names.push(name);
    if (sizeBytes > keyObjectBytesMax) {
      findings.push({ object: name, reason: `${name} has ${sizeBytes} bytes` });
      continue;
    }
    try {
      if (wrappingId(name) !== undefined) {
        wrappings.push(decodeWrapping(await store.get(name, options), name));
      } else if (epochOfName(name) !== undefined) {
        epochs.push(decodeEpoch(await store.get(name, options), name));
      } else {
        findings.push({ object: name, reason: `${name} is no name of a key object` });
      }
    } catch (error) {
      if (isFailure(error, "object.not-found")) continue;
      if (!isFailure(error, "object.corrupt")) throw error;
      findings.push({ object: name, reason: error.message });
    }
  }
  return { wrappings, epochs, findings, names: names.sort() };
}

export async function listKeyNames(
  store: ObjectStore,
  options?: CallOptions,
): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const { key } of store.list(keyFolder, options)) names.push(key);
  return names.sort();
}

/** Undefined when the wrapping is for another kind of key. Fails with `repository.key-wrong`, `object.corrupt`, and as a key service does. */
export async function openBy(
  wrapping: Wrapping,
  o: {
    readonly unlock: Unlock;
    readonly objects: KeyObjects;
    readonly repositoryId: Uint8Array;
  },
): Promise<OpenedKeys | undefined> {
  const { objects, repositoryId } = o;
  const opened = await openWrapping(wrapping, o.unlock, repositoryId);
  if (opened === undefined) return undefined;
  const chain = followEpochs({ wrapping, ...opened, epochs: objects.epochs, repositoryId });
  const secrets = { repositoryId, ...chain.keyring, ...chooseEpoch(chain) };
  const findings = [...objects.findings, ...chain.findings];
  const { keyring, epochs, heads } = chain;
  return { repositoryId, secrets, keyring, wrapping, objects, epochs, heads, findings };
}

type Chain = {
  readonly keyring: Keyring;
  readonly epochs: readonly Epoch[];
  readonly heads: readonly number[];
  readonly findings: readonly KeyFinding[];
  /** Objects that are vouched for but contradict each other. */
  readonly conflict: KeyFinding | undefined;
};

/**
 * From what the wrapping holds to the newest epoch. An epoch counts when the masters of all that it follows vouch for it: who knows
 * none makes none, and who has stolen older ones makes one that follows only these, which is seen as a second head.
 */
function followEpochs(o: {
  readonly wrapping: Wrapping;
  readonly keyring: Keyring;
  readonly privateKey: Uint8Array;
  readonly epochs: readonly Epoch[];
  readonly repositoryId: Uint8Array;
}): Chain {
  const { wrapping, repositoryId } = o;
  const masters = new Map(o.keyring.masters);
  const keyring = { identity: o.keyring.identity, masters };
  const counted: Epoch[] = [];
  const findings: KeyFinding[] = [];
  let conflict: KeyFinding | undefined;
  const oldestFirst = o.epochs.toSorted((a, b) => a.ancestors.length - b.ancestors.length);
  const [own, others] = split(oldestFirst, (epoch) => rowFor(epoch, wrapping) !== undefined);
  for (const epoch of own) {
    const ring = tryRow(epoch, o, findings);
    if (ring === undefined) continue;
    const isOurs =
      isSameRepository(ring, o.keyring) && isVouchedFor(epoch, ring.masters, repositoryId) === true;
    const other = isOurs ? conflictingEpoch(ring, keyring) : undefined;
    if (!isOurs) {
      findings.push({ object: epoch.name, reason: `${epoch.name} was made without the keys` });
    } else if (other !== undefined) {
      conflict = {
        object: epoch.name,
        reason: `${epoch.name} has another key for epoch ${other} than the objects before it`,
      };
      findings.push(conflict);
    } else {
      for (const [number, master] of ring.masters) masters.set(number, master);
      counted.push(epoch);
    }
  }
  for (const epoch of others) {
    if (isVouchedFor(epoch, masters, repositoryId) === true) counted.push(epoch);
    else findings.push({ object: epoch.name, reason: `nothing known vouches for ${epoch.name}` });
  }
  const followed = new Set(o.wrapping.epochs.filter((epoch) => epoch !== wrapping.epoch));
  for (const { ancestors } of counted) for (const ancestor of ancestors) followed.add(ancestor);
  const existing = new Set([...masters.keys(), ...counted.map(({ epoch }) => epoch)]);
  const heads = [...existing].filter((epoch) => !followed.has(epoch)).sort((a, b) => a - b);
  return { keyring, epochs: counted, heads, findings, conflict };
}

function chooseEpoch(chain: Chain): Pick<RepositorySecrets, "activeEpoch" | "unclear"> {
  const [head, ...more] = chain.heads;
  if (chain.conflict !== undefined) return { activeEpoch: 0, unclear: chain.conflict.reason };
  const leftOutOf = chain.heads.find((epoch) => !chain.keyring.masters.has(epoch));
  if (leftOutOf !== undefined) {
    const unclear = `the key that was given takes no part in key epoch ${leftOutOf}: open with another one`;
    return { activeEpoch: 0, unclear };
  }
  if (head !== undefined && more.length === 0) return { activeEpoch: head };
  const unclear = `key epochs ${chain.heads.join(" and ")} both claim to be the newest: two rotations met, or somebody with an older key made one. \`holdfast repository keys rotate\` joins them`;
  return { activeEpoch: 0, unclear };
}

function tryRow(
  epoch: Epoch,
  o: {
    readonly wrapping: Wrapping;
    readonly privateKey: Uint8Array;
    readonly repositoryId: Uint8Array;
  },
  findings: KeyFinding[],
): Keyring | undefined {
  const row = rowFor(epoch, o.wrapping);
  if (row === undefined) return undefined;
  try {
    return openRow(epoch, row, o.privateKey, o.repositoryId);
  } catch (error) {
    if (!isFailure(error, "object.corrupt")) throw error;
    findings.push({ object: epoch.name, reason: error.message });
    return undefined;
  }
}

function split<Item>(
  items: readonly Item[],
  isFirst: (item: Item) => boolean,
): readonly [Item[], Item[]] {
  return [items.filter(isFirst), items.filter((item) => !isFirst(item))];
}
