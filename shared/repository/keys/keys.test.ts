import { describe, expect, test } from "vitest";
import { type FailureCode, isFailure } from "../../domain/failure.ts";
import { systemClock } from "../../ports/clock.ts";
import type { KeyService } from "../../ports/key-service.ts";
import type { ObjectStore } from "../../ports/object-store.ts";
import { systemRandom } from "../../ports/random.ts";
import { createMemoryObjectStore } from "../../storage/memory/memory-object-store.ts";
import { toHex } from "../format/bytes.ts";
import {
  createRepository,
  openRepository,
  openRepositoryKeys,
  type Repository,
  type RepositoryKeys,
} from "../repository.ts";
import { createEpoch } from "./epoch.ts";
import { newRecoveryKey } from "./recovery-key.ts";
import { createWrapping } from "./wrapping.ts";

const cost = { memoryKiB: 64, passes: 1 };
const parts = { clock: systemClock, random: systemRandom };
const arn = "arn:aws:kms:eu-central-1:123456789012:key/1";

/** Seals by xor with what it keeps for each key, and wants the same context again. */
function memoryKms(): KeyService {
  const sealed = new Map<string, { readonly bytes: Uint8Array; readonly context: string }>();
  return {
    encrypt: async ({ bytes, context }) => {
      const id = systemRandom(16);
      sealed.set(toHex(id), { bytes: Uint8Array.from(bytes), context: JSON.stringify(context) });
      return id;
    },
    decrypt: async ({ bytes, context }) => {
      const found = sealed.get(toHex(bytes));
      if (found === undefined || found.context !== JSON.stringify(context)) {
        throw new Error("InvalidCiphertextException");
      }
      return found.bytes;
    },
  };
}

function create(store: ObjectStore): Promise<Repository> {
  return createRepository({ store, passphrase: "first", passphraseCost: cost, ...parts });
}
const open = (store: ObjectStore, passphrase: string, kms?: KeyService): Promise<Repository> =>
  openRepository({ store, passphrase, kms, ...parts });
const manage = (
  store: ObjectStore,
  passphrase: string,
  kms?: KeyService,
): Promise<RepositoryKeys> => openRepositoryKeys({ store, passphrase, kms, ...parts });

async function failsWith(code: FailureCode, attempt: Promise<unknown>): Promise<void> {
  await expect(attempt).rejects.toSatisfy((error) => isFailure(error, code));
}

const passphraseOf = (passphrase: string) => ({
  label: passphrase,
  method: { kind: "passphrase" as const, passphrase, cost },
});

async function names(store: ObjectStore, prefix = "keys/"): Promise<readonly string[]> {
  const found: string[] = [];
  for await (const { key } of store.list(prefix)) found.push(key);
  return found;
}

/** Keeps a copy of all objects, to be put back. */
async function copyOf(store: ObjectStore): Promise<ReadonlyMap<string, Uint8Array>> {
  const all = new Map<string, Uint8Array>();
  for (const name of await names(store, "")) all.set(name, await store.get(name));
  return all;
}

const sealedBy = async (repository: Repository): Promise<{ name: string; epoch: number }> => {
  const name = `metadata/${toHex(systemRandom(16))}`;
  await repository.objects.put(name, "vm-metadata", Buffer.from("{}"));
  const bytes = Buffer.from(await repository.store.get(name));
  return { name, epoch: bytes.readUInt32LE(12) };
};
const readBy = (repository: Repository, name: string): Promise<Uint8Array> =>
  repository.objects.get(name, "vm-metadata");

describe("several keys", () => {
  test("a passphrase, a recovery key and a KMS key each open everything, before and after a rotation", async () => {
    const store = createMemoryObjectStore();
    const kms = memoryKms();
    const words = newRecoveryKey(systemRandom).words;
    await create(store);
    const old = await sealedBy(await open(store, "first"));
    const keys = await manage(store, "first", kms);
    await keys.add(passphraseOf("second"));
    await keys.add({ label: "paper", method: { kind: "recovery-key", words } });
    await keys.add({ label: "kms", method: { kind: "aws-kms", keyArn: arn, kms } });
    const { activeEpoch = 0 } = await (await manage(store, words)).rotate();
    expect(activeEpoch).toBeGreaterThan(1);
    const fresh = await sealedBy(await open(store, "first"));
    expect(fresh.epoch).toBe(activeEpoch);
    for (const text of [
      "first",
      "second",
      words,
      words.toUpperCase().replaceAll(" ", "\n"),
      "aws:kms",
    ]) {
      const repository = await open(store, text, kms);
      await readBy(repository, old.name);
      await readBy(repository, fresh.name);
      expect((await sealedBy(repository)).epoch).toBe(activeEpoch);
    }
    const { opened, report } = await (await manage(store, "aws:kms", kms)).check([
      "second",
      words,
      "no",
    ]);
    expect(opened.map(({ wrappings }) => wrappings.length)).toEqual([1, 1, 1, 0]);
    expect(report.wrappings.map(({ kind, isComplete }) => [kind, isComplete]).sort()).toEqual([
      ["aws-kms", true],
      ["passphrase", true],
      ["passphrase", true],
      ["recovery-key", true],
    ]);
    expect([report.findings, report.warnings]).toEqual([[], []]);
  });

  test("one key alone is warned of; a second wrapping for the same key is refused", async () => {
    const store = createMemoryObjectStore();
    const kms = memoryKms();
    await create(store);
    const keys = await manage(store, "first");
    expect((await keys.list()).warnings).toHaveLength(1);
    await failsWith("conflict", keys.add(passphraseOf("first")));
    const method = { kind: "aws-kms" as const, keyArn: arn, kms };
    await keys.add({ label: "", method });
    await failsWith("conflict", keys.add({ label: "", method }));
    expect((await keys.list()).warnings).toEqual([]);
    expect(await names(store)).toHaveLength(2);
  });

  test("a recovery key that was mistyped is told from a wrong one", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    const { words } = newRecoveryKey(systemRandom);
    await failsWith("repository.key-wrong", open(store, words));
    await failsWith("input.invalid", open(store, words.replace(/^\S+/, "holdfast")));
    const list = words.split(" ");
    const others = [...list.slice(1), list[0] ?? ""].join(" ");
    // One in 256 rotated lists has a right checksum.
    await expect(open(store, others)).rejects.toThrow(/checksum|opens none/);
    await failsWith("input.invalid", (await manage(store, "first")).add(passphraseOf(words)));
    await failsWith("input.invalid", (await manage(store, "first")).add(passphraseOf("aws:kms")));
  });

  test("the key that was given is not removed, and a removed one opens nothing", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    const keys = await manage(store, "first");
    const { id } = await keys.add(passphraseOf("second"));
    const [own = ""] = (await keys.list()).wrappings
      .filter((one) => one.isOpen)
      .map((one) => one.id);
    await failsWith("target.refused", keys.remove(own));
    for (const wrong of ["", "keys/", "0123456", "00000000", own.slice(0, 7)]) {
      await failsWith("not-found", keys.remove(wrong));
    }
    const report = await (await manage(store, "second")).remove(own.slice(0, 8));
    expect(report.wrappings.map((one) => one.id)).toEqual([id]);
    expect(report.warnings).toHaveLength(1);
    await failsWith("repository.key-wrong", open(store, "first"));
    await open(store, "second");
  });
});

describe("rotation", () => {
  test("a key that is left out reads what is older, and seals and reads nothing newer", async () => {
    const store = createMemoryObjectStore();
    const repository = await create(store);
    const old = await sealedBy(repository);
    const keys = await manage(store, "first");
    const second = await keys.add(passphraseOf("second"));
    const { warnings, wrappings } = await (await manage(store, "second")).rotate([second.id]);
    expect(warnings.join()).toContain("opens older data only");
    expect(wrappings.map(({ isComplete }) => isComplete).sort()).toEqual([false, true]);
    const fresh = await sealedBy(await open(store, "second"));
    const stale = await open(store, "first");
    await readBy(stale, old.name);
    await failsWith("repository.epoch-unknown", readBy(stale, fresh.name));
    await failsWith("repository.keys-unclear", sealedBy(stale));
    const left = await manage(store, "first");
    await failsWith("repository.keys-unclear", left.rotate());
    await failsWith("repository.keys-unclear", left.add(passphraseOf("third")));
    // A repository that was opened before does not know the new epoch; it is told to look again, not that data is damaged.
    expect(await repository.haveKeysChanged()).toBe(true);
    await failsWith("repository.epoch-unknown", readBy(repository, fresh.name));
    expect(await stale.haveKeysChanged()).toBe(false);
  });

  test("a removed wrapping that somebody puts back stays out of every later epoch", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    const { id } = await (await manage(store, "first")).add(passphraseOf("leaked"));
    const name = `keys/wrapping-${id}`;
    const bytes = await store.get(name);
    const keys = await manage(store, "first");
    await keys.remove(id);
    await keys.rotate();
    await store.put(name, bytes);
    const { activeEpoch } = await keys.rotate();
    const fresh = await sealedBy(await open(store, "first"));
    expect(fresh.epoch).toBe(activeEpoch);
    await failsWith("repository.epoch-unknown", readBy(await open(store, "leaked"), fresh.name));
  });

  test("two rotations at one moment lose nothing, seal nothing, and are joined by the next", async () => {
    const store = createMemoryObjectStore();
    const one = await create(store);
    const before = await copyOf(store);
    await (await manage(store, "first")).rotate();
    const byFirst = await sealedBy(await open(store, "first"));
    const other = createMemoryObjectStore();
    for (const [name, bytes] of before) await other.put(name, bytes);
    await (await manage(other, "first")).rotate();
    const bySecond = await sealedBy(await open(other, "first"));
    for (const [name, bytes] of await copyOf(other)) {
      if (!(await names(store, "")).includes(name)) await store.put(name, bytes);
    }
    const torn = await open(store, "first");
    await readBy(torn, byFirst.name);
    await readBy(torn, bySecond.name);
    await failsWith("repository.keys-unclear", sealedBy(torn));
    await (await manage(store, "first")).rotate();
    const joined = await open(store, "first");
    for (const { name } of [byFirst, bySecond, await sealedBy(joined)]) await readBy(joined, name);
    expect(one.repositoryId).toBe(joined.repositoryId);
  });

  test("either copy of an epoch's object is enough, and so is any later epoch", async () => {
    const store = createMemoryObjectStore();
    await create(store);
    const keys = await manage(store, "first");
    await keys.rotate();
    const middle = await sealedBy(await open(store, "first"));
    const [copy = "", second = ""] = await names(store, "keys/epoch-");
    const flip = async (name: string): Promise<void> => {
      const bytes = Uint8Array.from(await store.get(name));
      bytes[40] = (bytes[40] ?? 0) ^ 1;
      await store.remove([name]);
      await store.put(name, bytes);
    };
    await flip(copy);
    await readBy(await open(store, "first"), middle.name);
    expect((await keys.list()).findings.map(({ object }) => object)).toEqual([copy]);
    await keys.rotate();
    await flip(second);
    await readBy(await open(store, "first"), middle.name);
  });
});

describe("who may write to the store but has no key", () => {
  test("plants no epoch, no wrapping, and takes none to another repository", async () => {
    const store = createMemoryObjectStore();
    const repository = await create(store);
    const { repositoryId } = repository.secrets;
    const [wrapping] = (await (await manage(store, "first")).list()).wrappings;
    const keyring = {
      identity: systemRandom(32),
      masters: new Map([1, 2].map((epoch) => [epoch, systemRandom(32)] as const)),
    };
    const bytes = Buffer.from(await store.get(`keys/wrapping-${wrapping?.id}`));
    // The public key stands in the open: before the commitment, the seal of 84 + 16 + 4 bytes, MAC and checksum.
    const publicAt = bytes.length - 32 - 32 - (32 + 36 + 36 + 16) - 32 - 32;
    const publicKey = bytes.subarray(publicAt, publicAt + 32);
    const planted = createEpoch({
      repositoryId,
      keyring,
      epoch: 2,
      recipients: [{ id: wrapping?.id ?? "", publicKey }],
      createdAt: "",
      random: systemRandom,
    });
    const own = await createWrapping({
      repositoryId,
      keyring: { ...keyring, masters: new Map([[1, systemRandom(32)]]) },
      epoch: 1,
      label: "mine",
      createdAt: "",
      method: { kind: "passphrase", passphrase: "mine", cost },
      random: systemRandom,
    });
    await store.put(planted.name, planted.bytes);
    await store.put(own.name, own.bytes);
    await store.put("keys/hello", Buffer.from("hello"));
    const keys = await manage(store, "first");
    const { activeEpoch, findings, wrappings } = await keys.list();
    expect([activeEpoch, wrappings.length]).toEqual([1, 1]);
    const planting = [planted.name, own.name, "keys/hello"];
    expect(findings.map(({ object }) => object).sort()).toEqual(planting.sort());
    expect(findings.find(({ object }) => object === planted.name)?.reason).toContain(
      "without the keys",
    );
    const after = await keys.rotate();
    expect(after.wrappings.map(({ id }) => id)).toEqual([wrapping?.id]);
    // Its own passphrase opens its own wrapping, and with that nothing.
    await expect(open(store, "mine")).rejects.toThrow(/config does not authenticate/);
  });

  test("what a thief of an older key plants beside a newer epoch stops sealing, and seals nothing for him", async () => {
    const store = createMemoryObjectStore();
    const thief = (await create(store)).secrets;
    const keys = await manage(store, "first");
    const { activeEpoch = 0 } = await keys.rotate();
    const [wrapping] = (await keys.list()).wrappings;
    const bytes = Buffer.from(await store.get(`keys/wrapping-${wrapping?.id}`));
    const publicAt = bytes.length - 32 - 32 - (32 + 36 + 36 + 16) - 32 - 32;
    const publicKey = bytes.subarray(publicAt, publicAt + 32);
    const masters = new Map([...thief.masters, [activeEpoch + 1, systemRandom(32)]]);
    const planted = createEpoch({
      repositoryId: thief.repositoryId,
      keyring: { identity: thief.identity, masters },
      epoch: activeEpoch + 1,
      recipients: [{ id: wrapping?.id ?? "", publicKey }],
      createdAt: "",
      random: systemRandom,
    });
    await store.put(planted.name, planted.bytes);
    await failsWith("repository.keys-unclear", sealedBy(await open(store, "first")));
    const joined = await keys.rotate();
    expect(joined.activeEpoch).toBeGreaterThan(activeEpoch + 1);
    await sealedBy(await open(store, "first"));
  });
});
