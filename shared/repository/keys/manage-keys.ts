import { Failure, isFailure } from "../../domain/failure.ts";
import type { ObjectStore } from "../../ports/object-store.ts";
import type { RandomBytes } from "../../ports/random.ts";
import { createEpoch, type Recipient, recipientsMax, rowFor } from "./epoch.ts";
import {
  type KeyAccess,
  type KeyFinding,
  type OpenedKeys,
  openBy,
  openKeys,
  readKeyObjects,
} from "./open-keys.ts";
import { type NewMethod, parseUnlock, refuseOtherMeaning } from "./unlock.ts";
import { createWrapping, isGenuine, type Wrapping } from "./wrapping.ts";

/** What somebody may know of a repository's keys: never a secret. */
export type KeyReport = {
  /** Seals what is new; undefined while that is unclear. */
  readonly activeEpoch: number | undefined;
  readonly epochs: readonly number[];
  readonly wrappings: readonly WrappingReport[];
  /** Objects that take no part, and why. */
  readonly findings: readonly KeyFinding[];
  readonly warnings: readonly string[];
};

export type WrappingReport = {
  readonly id: string;
  readonly kind: "passphrase" | "recovery-key" | "aws-kms";
  readonly label: string;
  readonly createdAt: string;
  readonly keyArn?: string;
  readonly epochs: readonly number[];
  /** Takes part in the newest epoch: opens everything. */
  readonly isComplete: boolean;
  /** This one was opened. */
  readonly isOpen: boolean;
};

type Changing = {
  readonly access: KeyAccess;
  readonly repositoryId: Uint8Array;
  /** The repository's own, which locks what is put. */
  readonly store: ObjectStore;
  readonly random: RandomBytes;
  /** ISO 8601. */
  readonly now: string;
};

export function describeKeys(opened: OpenedKeys): KeyReport {
  const { objects, repositoryId, keyring, secrets } = opened;
  const [genuine, others] = [
    objects.wrappings.filter((one) => isGenuine(one, keyring.masters, repositoryId)),
    objects.wrappings.filter((one) => !isGenuine(one, keyring.masters, repositoryId)),
  ];
  const wrappings = genuine.map((wrapping) => describeWrapping(wrapping, opened));
  const findings = [
    ...opened.findings,
    ...others.map(({ name }) => ({ object: name, reason: `nothing known vouches for ${name}` })),
  ];
  const warnings: string[] = [];
  if (secrets.unclear !== undefined) warnings.push(`nothing new can be sealed: ${secrets.unclear}`);
  if (wrappings.filter(({ isComplete }) => isComplete).length < 2) {
    warnings.push(
      "only one key opens this repository: who loses it loses the data. Add another: holdfast repository keys recovery-key",
    );
  }
  const known = new Set([...keyring.masters.keys(), ...opened.heads]);
  return {
    activeEpoch: secrets.activeEpoch === 0 ? undefined : secrets.activeEpoch,
    epochs: [...known].sort((left, right) => left - right),
    wrappings,
    findings,
    warnings,
  };
}

/**
 * One more key to all that there is. Fails with `conflict` where that key has a wrapping already, or the keys were rotated
 * meanwhile; then nothing was added.
 */
export async function addWrapping(
  o: Changing & { readonly label: string; readonly method: NewMethod },
): Promise<WrappingReport> {
  if (o.method.kind === "passphrase") refuseOtherMeaning(o.method.passphrase);
  const opened = await openClearly(o);
  await refuseSecond(o, opened);
  const { repositoryId, keyring } = opened;
  const { name, bytes } = await createWrapping({
    repositoryId,
    keyring,
    epoch: opened.secrets.activeEpoch,
    label: o.label,
    createdAt: o.now,
    method: o.method,
    random: o.random,
  });
  await o.store.put(name, bytes);
  // A rotation looks for wrappings after its put, and this looks for epochs after its own: one of the two sees the other.
  const after = await openKeys(o.access, repositoryId);
  const added = describeKeys(after).wrappings.find(({ id }) => name.endsWith(id));
  if (added?.isComplete === true) return added;
  await o.store.remove([name]);
  throw new Failure("conflict", {
    message: "the keys were rotated while this key was added: nothing was added, do it again",
  });
}

/**
 * The key opens nothing from now on, for whoever has no copy of its object: who may have one is shut out of what is new by a rotation.
 * The wrapping that was opened stays: it has shown that it works. Fails with `target.refused`, `not-found`, `storage.locked`.
 */
export async function removeWrapping(o: Changing & { readonly id: string }): Promise<KeyReport> {
  const opened = await openClearly(o);
  const { name, id } = findWrapping(opened, o.id);
  if (id === opened.wrapping.id) {
    throw new Failure("target.refused", {
      message: `${id} is the key that was given; to remove it, open with another one, which shows that the other one works`,
    });
  }
  await o.store.remove([name]);
  return describeKeys(await openKeys(o.access, o.repositoryId));
}

/**
 * A new epoch, which seals all that is new. `only`: the wrappings that are to take part, which include the one that was opened; else all of
 * the newest epoch. Fails with `target.refused`, `not-found`, `repository.keys-unclear`.
 */
export async function rotateKeys(
  o: Changing & { readonly only?: readonly string[] | undefined },
): Promise<KeyReport> {
  const opened = await openKeys(o.access, o.repositoryId);
  // Two heads are joined by this; anything else that is unclear stays so.
  const isJoined =
    opened.heads.length > 1 && opened.heads.every((one) => opened.keyring.masters.has(one));
  if (!isJoined) refuseUnclear(opened);
  const recipients = chooseRecipients(opened, o.only);
  const { repositoryId, keyring, objects } = opened;
  const master = Uint8Array.from(o.random(32));
  const seen = [...keyring.masters.keys(), ...objects.epochs.map((one) => one.epoch)];
  // Two rotations at the same moment take different numbers, so that neither's key is lost.
  const [low = 0, high = 0] = o.random(2);
  const epoch = Math.max(...seen) + 1 + low + 256 * high;
  if (epoch > 0xffff_ffff) throw new Failure("unsupported", { message: "no key epoch is left" });
  const next = { ...keyring, masters: new Map([...keyring.masters, [epoch, master]]) };
  const parts = { repositoryId, keyring: next, epoch, recipients, createdAt: o.now };
  // Twice: of all key objects this one has no other that could stand in for it.
  for (let copy = 0; copy < 2; copy += 1) {
    const { name, bytes } = createEpoch({ ...parts, random: o.random });
    await o.store.put(name, bytes);
  }
  const after = await openKeys(o.access, repositoryId);
  if (after.keyring.masters.get(epoch) === undefined) {
    throw new Failure("internal", { message: `key epoch ${epoch} was put and does not open` });
  }
  refuseUnclear(after);
  const report = describeKeys(after);
  const wanted = new Set(recipients.map(({ id }) => id));
  const late = report.wrappings.filter((one) => !one.isComplete && !wanted.has(one.id));
  const left = late.map(
    ({ id, label }) => `${id} (${label}) takes no part in the new epoch: it opens older data only`,
  );
  return { ...report, warnings: [...report.warnings, ...left] };
}

export type KeyCheck = {
  readonly report: KeyReport;
  /** What each key that was given opens, in their order. */
  readonly opened: readonly { readonly wrappings: readonly string[] }[];
};

/** Opens every epoch with every key that is given. Fails with `repository.key-wrong` when the first opens nothing. */
export async function checkKeys(o: {
  readonly access: KeyAccess;
  readonly others: readonly string[];
  readonly repositoryId: Uint8Array;
}): Promise<KeyCheck> {
  const { access, repositoryId } = o;
  const report = describeKeys(await openKeys(access, repositoryId));
  const objects = await readKeyObjects(access.store);
  const opened: { readonly wrappings: string[] }[] = [];
  for (const text of [access.passphrase, ...o.others]) {
    const unlock = parseUnlock(text, access.kms);
    const wrappings: string[] = [];
    for (const wrapping of objects.wrappings) {
      try {
        const its = await openBy(wrapping, { unlock, objects, repositoryId });
        if (its !== undefined && its.secrets.activeEpoch !== 0) wrappings.push(wrapping.id);
      } catch (error) {
        if (!isFailure(error, "repository.key-wrong") && !isFailure(error, "object.corrupt")) {
          throw error;
        }
      }
    }
    opened.push({ wrappings });
  }
  return { report, opened };
}

async function openClearly(o: Changing): Promise<OpenedKeys> {
  const opened = await openKeys(o.access, o.repositoryId);
  refuseUnclear(opened);
  return opened;
}

function refuseUnclear({ secrets }: OpenedKeys): void {
  if (secrets.activeEpoch !== 0) return;
  const message = secrets.unclear ?? "it is unclear which key epoch is the newest";
  throw new Failure("repository.keys-unclear", { message });
}

async function refuseSecond(
  o: Changing & { readonly method: NewMethod },
  opened: OpenedKeys,
): Promise<void> {
  const { method } = o;
  if (method.kind === "aws-kms") {
    const same = describeKeys(opened).wrappings.find(({ keyArn }) => keyArn === method.keyArn);
    if (same === undefined) return;
    throw new Failure("conflict", { message: `${same.id} is for this KMS key already` });
  }
  const text = method.kind === "passphrase" ? method.passphrase : method.words;
  try {
    const { wrapping } = await openKeys({ ...o.access, passphrase: text }, o.repositoryId);
    const message = `${wrapping.id} is for this very key already: a second one would not be another way in`;
    throw new Failure("conflict", { message });
  } catch (error) {
    if (!isFailure(error, "repository.key-wrong") && !isFailure(error, "object.corrupt"))
      throw error;
  }
}

function chooseRecipients(
  opened: OpenedKeys,
  only: readonly string[] | undefined,
): readonly Recipient[] {
  const members = opened.objects.wrappings.filter(
    (wrapping) =>
      isGenuine(wrapping, opened.keyring.masters, opened.repositoryId) &&
      opened.heads.every((head) => isMember(wrapping, head, opened)),
  );
  const wanted = only?.map((id) => findWrapping(opened, id));
  const outside = wanted?.find((one) => !members.includes(one));
  if (outside !== undefined) {
    throw new Failure("target.refused", {
      message: `${outside.id} takes no part in the newest epoch: add its key again`,
    });
  }
  const chosen = wanted === undefined ? members : members.filter((one) => wanted.includes(one));
  if (!chosen.some(({ id }) => id === opened.wrapping.id)) {
    throw new Failure("target.refused", {
      message: `the key that was given, ${opened.wrapping.id}, must take part: it has shown that it works. Open with another one to leave it out`,
    });
  }
  if (chosen.length <= recipientsMax) return chosen;
  throw new Failure("unsupported", { message: `more than ${recipientsMax} key wrappings` });
}

/** By its id, or by its first eight digits or more. */
function findWrapping(opened: OpenedKeys, id: string): Wrapping {
  const found = /^[0-9a-f]{8,32}$/.test(id)
    ? opened.objects.wrappings.filter((one) => one.id.startsWith(id))
    : [];
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new Failure("not-found", {
    message: `${found.length === 0 ? "no" : "more than one"} key of the repository has the id ${JSON.stringify(id)}`,
  });
}

function isMember(wrapping: Wrapping, epoch: number, { epochs }: OpenedKeys): boolean {
  return (
    wrapping.epoch === epoch ||
    epochs.some((one) => one.epoch === epoch && rowFor(one, wrapping) !== undefined)
  );
}

function describeWrapping(wrapping: Wrapping, opened: OpenedKeys): WrappingReport {
  const { method, label, createdAt } = wrapping.description;
  const later = opened.epochs
    .filter((one) => rowFor(one, wrapping) !== undefined)
    .map(({ epoch }) => epoch);
  return {
    id: wrapping.id,
    kind: method.kind,
    label,
    createdAt,
    ...(method.kind === "aws-kms" ? { keyArn: method.keyArn } : {}),
    epochs: [...new Set([...wrapping.epochs, ...later])].sort((left, right) => left - right),
    isComplete: opened.heads.every((head) => isMember(wrapping, head, opened)),
    isOpen: wrapping.id === opened.wrapping.id,
  };
}
