import type { ObjectStore } from "@holdfast/shared/ports/object-store";
import { createByteReader } from "@holdfast/shared/repository/format/bytes";

/** Where an object keeps what its key is derived from: a pack its id, a sealed object its salt. */
const headerBytes = 16;
const firstSealedType = 5;
const packTypes: readonly number[] = [3, 4];
const epochType = 15;

export type SentBytes = {
  readonly packs: number;
  readonly objects: number;
  /** What was sent twice under one key and name of its own: nonce and key would be used for two plain texts. */
  readonly repeated: readonly string[];
};

/**
 * Looks at every byte that is sent to a store, whether it arrives or not: two different bodies sealed under one pack id, or under one salt, are
 * remembered. The keys are derived from these and nothing else, and all nonces in a body follow from its layout.
 */
export function watchSentBytes(): {
  readonly watch: (store: ObjectStore) => ObjectStore;
  readonly seen: () => SentBytes;
} {
  const bodies = new Map<string, Buffer>();
  const repeated: string[] = [];
  let packs = 0;
  let objects = 0;

  function look(key: string, bytes: Uint8Array): void {
    if (bytes.length < headerBytes + 32 || key === "config" || key.startsWith("keys/")) return;
    const reader = createByteReader(bytes, key);
    reader.take(10);
    const type = reader.u16();
    const epoch = reader.u32();
    const isPack = packTypes.includes(type);
    if (!isPack && (type < firstSealedType || type === epochType)) return;
    const unique = Buffer.from(reader.take(isPack ? 16 : 32)).toString("hex");
    const name = `${isPack ? "pack" : "salt"} ${epoch} ${unique}`;
    const known = bodies.get(name);
    if (known === undefined) {
      bodies.set(name, Buffer.from(bytes));
      if (isPack) packs += 1;
      else objects += 1;
    } else if (!known.equals(bytes)) repeated.push(`${name} in ${key}`);
  }

  return {
    watch: (store) => ({
      ...store,
      put: (key, bytes, options) => {
        look(key, bytes);
        return store.put(key, bytes, options);
      },
    }),
    seen: () => ({ packs, objects, repeated }),
  };
}
