import { Failure } from "@holdfast/shared/domain/failure";
import type { CallOptions, ObjectHead, ObjectStore } from "@holdfast/shared/ports/object-store";
import type { Bucket } from "./bucket.ts";
import type { Counters } from "./counters.ts";
import type { FaultRates } from "./faults.ts";
import type { Process } from "./process.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Seeded } from "./seeded.ts";

/** What one process sees of the bucket: every call takes effect some time after it was made and is answered some time after that, or not. */
export type StoreView = {
  readonly bucket: Bucket;
  readonly process: Process;
  readonly scheduler: Scheduler;
  readonly faults: Seeded;
  readonly rates: () => FaultRates;
  readonly isOut: () => boolean;
  readonly conditionalPut: boolean;
  readonly counters: Counters;
};

const staleMs = 15_000;
const lateMsMax = 600_000;

type Outcome<T> = { readonly value: T } | { readonly failure: unknown };

export function createSimulatedStore(o: StoreView): ObjectStore {
  const { bucket, process, scheduler, faults, counters } = o;

  const hit = (rate: number, name: string): boolean => {
    if (rate <= 0 || !faults.chance(rate)) return false;
    counters.count(`fault: ${name}`);
    return true;
  };

  function travelMs(): number {
    if (hit(o.rates().slow, "slow")) return faults.between(10_000, 400_000);
    return faults.below(8) === 0 ? faults.between(20, 2000) : faults.between(1, 20);
  }

  const unreachable = (what: string): Failure =>
    new Failure("storage.unreachable", { message: `${what}: no answer` });

  /** `apply` runs once, at the moment of taking effect. `isChange`: a dead caller's call may not have been sent. */
  function call<T>(
    what: string,
    apply: () => T,
    options: CallOptions | undefined,
    isChange = false,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const signal = options?.signal;
      signal?.throwIfAborted();
      const stop = (): void => reject(signal?.reason);
      signal?.addEventListener("abort", stop, { once: true });
      const rates = o.rates();
      const name = `${process.name} ${what}`;

      function answer(outcome: Outcome<T>): void {
        scheduler.after(travelMs(), () => {
          if (signal?.aborted === true) return false;
          return process.deliver(what, () => {
            signal?.removeEventListener("abort", stop);
            if ("value" in outcome) {
              resolve(outcome.value);
            } else {
              const { failure } = outcome;
              scheduler.log(`${name}: ${failure instanceof Failure ? failure.code : "failed"}`);
              reject(failure);
            }
          });
        });
      }

      function take(): Outcome<T> {
        try {
          return { value: apply() };
        } catch (failure) {
          return { failure };
        }
      }

      const isFailedBefore = o.isOut() || hit(rates.failBefore, "fail before effect");
      const isRefused = !isFailedBefore && hit(rates.refused, "refused");
      const isLate = isChange && !isFailedBefore && hit(rates.late, "late effect");
      const isLost = !isFailedBefore && hit(rates.failAfter, "reply lost");
      scheduler.after(travelMs(), () => {
        if (isRefused) {
          const code = isChange && faults.chance(0.5) ? "storage.no-space" : "storage.refused";
          answer({ failure: new Failure(code, { message: `${what}: refused` }) });
        } else if (isFailedBefore) {
          answer({ failure: unreachable(what) });
        } else if (isLate) {
          scheduler.after(faults.below(lateMsMax), () => {
            scheduler.log(`${name} takes effect late`);
            take();
            return false;
          });
          answer({ failure: unreachable(what) });
        } else if (!process.isAlive() && isChange && faults.chance(0.5)) {
          scheduler.log(`${name} was never sent`);
        } else {
          if (isChange) scheduler.log(name);
          const outcome = take();
          answer(isLost ? { failure: unreachable(what) } : outcome);
        }
        return false;
      });
    });
  }

  const isFresh = (key: string): boolean => scheduler.now() - bucket.putAt(key) < staleMs;
  // The protocol rests on what the port promises: a put that resolved is listed. Where that is broken for its own names, nothing holds.
  const maySeemMissing = (key: string): boolean =>
    isFresh(key) && !/^(sessions|condemned|points)\//.test(key);

  function find(key: string): Uint8Array {
    const bytes = bucket.get(key);
    if (bytes === undefined || (isFresh(key) && hit(o.rates().staleRead, "stale read"))) {
      throw new Failure("object.not-found", { message: `${key} does not exist`, key });
    }
    return bytes;
  }

  /** As it arrives. */
  function copy(bytes: Uint8Array): Uint8Array {
    const copied = Uint8Array.from(bytes);
    if (copied.length > 0 && hit(o.rates().flip, "flipped bit")) {
      const at = faults.below(copied.length);
      copied[at] = (copied[at] ?? 0) ^ (1 << faults.below(8));
    }
    return copied;
  }

  function put(key: string, bytes: Uint8Array): void {
    if (bucket.has(key) && o.conditionalPut) {
      throw new Failure("object.exists", { message: `${key} exists`, key });
    }
    bucket.put(key, bytes);
    if (o.conditionalPut && hit(o.rates().existsAfter, "refused after it was stored")) {
      throw new Failure("object.exists", { message: `${key} exists`, key });
    }
  }

  async function* list(prefix: string, options?: CallOptions): AsyncGenerator<ObjectHead> {
    let after = "";
    for (;;) {
      const limit = faults.between(3, 60);
      const { keys, next } = await call(
        `list ${prefix}`,
        () => {
          const all = bucket.page(prefix, after, limit);
          const keys = all.filter(
            (key) => !(maySeemMissing(key) && hit(o.rates().staleList, "missing in a listing")),
          );
          return { keys, next: all.length < limit ? undefined : all.at(-1) };
        },
        options,
      );
      for (const key of keys) {
        const sizeBytes = bucket.get(key)?.length ?? 0;
        yield { key, sizeBytes };
        if (hit(o.rates().doubled, "doubled in a listing")) yield { key, sizeBytes };
      }
      if (next === undefined) return;
      after = next;
    }
  }

  /** Several objects go one by one, in any order. */
  async function remove(keys: readonly string[], options?: CallOptions): Promise<void> {
    const left = [...keys];
    for (let at = left.length - 1; at > 0; at -= 1) {
      const other = faults.below(at + 1);
      [left[at], left[other]] = [left[other] ?? "", left[at] ?? ""];
    }
    const isPartial = keys.length > 1 && hit(o.rates().partial, "removal stops half way");
    const parts = isPartial ? left.slice(0, faults.below(left.length)) : left;
    while (parts.length > 0) {
      const some = parts.splice(0, faults.between(1, parts.length));
      await call(
        `remove ${some.join(" ")}`,
        () => {
          for (const key of some) bucket.remove(key);
        },
        options,
        true,
      );
    }
    if (isPartial) throw unreachable("remove");
  }

  return {
    supports: { conditionalPut: o.conditionalPut },
    url: "simulated:",
    put: (key, bytes, options) => {
      // The bytes are the caller's again once it has an answer, also when they arrive later.
      const sent = Uint8Array.from(bytes);
      return call(`put ${key}`, () => put(key, sent), options, true);
    },
    get: (key, options) => call(`get ${key}`, () => copy(find(key)), options),
    getRange: (key, { offset, length }, options) =>
      call(
        `get ${key} ${offset}+${length}`,
        () => {
          const bytes = find(key);
          const isCut = hit(o.rates().cut, "short answer");
          if (isCut || offset + length > bytes.length) {
            throw new Failure("object.corrupt", {
              message: `${key} answered with too little`,
              key,
            });
          }
          return copy(bytes.subarray(offset, offset + length));
        },
        options,
      ),
    head: (key, options) =>
      call(
        `head ${key}`,
        () => {
          const bytes = bucket.get(key);
          if (bytes === undefined) return undefined;
          if (maySeemMissing(key) && hit(o.rates().staleRead, "stale read")) return undefined;
          return { key, sizeBytes: bytes.length };
        },
        options,
      ),
    list,
    remove,
  };
}
