import { lockedObjectsIn } from "@holdfast/shared/ports/object-lock";
import type { ObjectStore, Retention } from "@holdfast/shared/ports/object-store";
import { expect, type TestContext, test } from "vitest";

const hourMs = 60 * 60 * 1000;

/** What the port promises about Object Lock, and of stores that have none. What is locked stays locked: the store is thrown away. */
export function testObjectLocks(storeOf: () => ObjectStore, nowMs: () => number): void {
  const bytes = Uint8Array.of(1, 2, 3);
  const retention = (hours: number): Retention => ({
    mode: "compliance",
    untilMs: Math.ceil(nowMs() / 1000) * 1000 + hours * hourMs,
  });
  const iso = ({ untilMs }: Retention): string => new Date(untilMs).toISOString();
  const locksOf = (context: TestContext) => {
    const { locks, supports } = storeOf();
    expect(locks !== undefined).toBe(supports.objectLock === true);
    if (locks === undefined) return context.skip("this store has no Object Lock");
    return locks;
  };
  const failureOf = (work: Promise<void>): Promise<unknown> =>
    work.then(
      () => undefined,
      (error: unknown) => error,
    );

  test("retention where there is no Object Lock is refused, never dropped", async (context) => {
    const store = storeOf();
    context.skip(store.supports.objectLock === true, "this store has Object Lock");
    const put = store.put("locks/none", bytes, { retention: retention(1) });
    await expect(put).rejects.toMatchObject({ code: "unsupported" });
    expect(await store.head("locks/none")).toBeUndefined();
  });

  test("of a batch what is locked stays and is named, and the rest goes", async (context) => {
    const locks = locksOf(context);
    const store = storeOf();
    const until = retention(1);
    await store.put("locks/locked", bytes, { retention: until });
    await store.put("locks/free", bytes);
    await store.put("locks/held", bytes);
    await locks.hold("locks/held", true);
    const error = await failureOf(store.remove(["locks/locked", "locks/free", "locks/held"]));
    expect(error).toMatchObject({ code: "storage.locked" });
    expect([...lockedObjectsIn(error)].sort((a, b) => (a.key < b.key ? -1 : 1))).toEqual([
      { key: "locks/held", until: undefined, legalHold: true },
      { key: "locks/locked", until: iso(until), legalHold: false },
    ]);
    expect(String(error)).toContain(`locks/locked until ${iso(until)}`);
    expect(await store.head("locks/free")).toBeUndefined();
    expect(await store.get("locks/locked")).toEqual(bytes);
    expect(await store.get("locks/held")).toEqual(bytes);
    await locks.hold("locks/held", false);
    await store.remove(["locks/held"]);
    expect(await store.head("locks/held")).toBeUndefined();
  });

  test("retention is seen, can be extended, and never shortened or weakened", async (context) => {
    const locks = locksOf(context);
    const store = storeOf();
    const [first, later] = [retention(1), retention(2)];
    await store.put("locks/extended", bytes, { retention: first });
    expect(await locks.look("locks/extended")).toEqual({ retention: first, legalHold: false });
    await locks.extend("locks/extended", later);
    expect(await locks.look("locks/extended")).toEqual({ retention: later, legalHold: false });
    await locks.extend("locks/extended", later);
    for (const weaker of [first, { ...later, mode: "governance" as const }]) {
      const error = await failureOf(locks.extend("locks/extended", weaker));
      expect(error).toMatchObject({ code: "storage.refused" });
    }
    expect(await locks.look("locks/extended")).toEqual({ retention: later, legalHold: false });
  });

  test("what was never locked can be locked, and what does not exist is named", async (context) => {
    const locks = locksOf(context);
    const store = storeOf();
    await store.put("locks/late", bytes);
    expect(await locks.look("locks/late")).toEqual({ retention: undefined, legalHold: false });
    await locks.extend("locks/late", retention(1));
    expect(await failureOf(store.remove(["locks/late"]))).toMatchObject({ code: "storage.locked" });
    expect(await locks.look("locks/missing")).toBeUndefined();
    for (const work of [
      () => locks.extend("locks/missing", retention(1)),
      () => locks.hold("locks/missing", true),
    ]) {
      expect(await failureOf(work())).toMatchObject({ code: "object.not-found" });
    }
  });
}
